"""IPAL: label distributions spread between neighbours."""

from numbers import Integral, Real

import numpy as np
from scipy import sparse as sp
from scipy.optimize import lsq_linear, nnls
from sklearn.preprocessing import normalize

from .._compat import Interval
from .._distributions import restrict
from ._classic import NeighborsClassifier


def ipal_weights(X, neighbors, data):
    """Find the non-negative weights with which neighbours best add up to each sample.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    neighbors : int ndarray of shape (n_samples, n_neighbors)
        Rows of `data`.
    data : ndarray of shape (n_rows, n_features)

    Returns
    -------
    ndarray of shape (n_samples, n_neighbors)
    """
    weights = np.zeros(neighbors.shape)
    for row, (x, neighbor) in enumerate(zip(X, neighbors)):
        if len(neighbor):
            weights[row] = _nnls(data[neighbor].T, x)
    return weights


def _nnls(A, b):
    try:
        return nnls(A, b, maxiter=100 * A.shape[1])[0]
    except RuntimeError:  # it can cycle between sets of neighbours that do equally well
        return lsq_linear(A, b, bounds=(0, np.inf)).x


def propagate(weights, neighbors, candidates, alpha=0.95, max_iter=100, tol=1e-6):
    """Spread label distributions from neighbours, restricted to the candidates in every step.

    Parameters
    ----------
    weights : ndarray of shape (n_samples, n_neighbors)
        Not negative; each row is scaled to sum 1.
    neighbors : int ndarray of shape (n_samples, n_neighbors)
    candidates : bool ndarray of shape (n_samples, n_classes)
    alpha : float, default=0.95
        Share that comes from the neighbours; the rest is uniform over the candidates.
    max_iter : int, default=100
    tol : float, default=1e-6
        Largest change of a probability at which to stop.

    Returns
    -------
    distributions : ndarray of shape (n_samples, n_classes)
    n_iter : int
    """
    n_samples, n_neighbors = neighbors.shape
    total = weights.sum(axis=1, keepdims=True)
    weights = weights / np.where(total > 0, total, 1)
    indptr = np.arange(n_samples + 1) * n_neighbors
    graph = sp.csr_matrix(
        (weights.ravel(), neighbors.ravel(), indptr), shape=(n_samples, n_samples)
    )
    initial = candidates / candidates.sum(axis=1, keepdims=True)
    distributions = initial
    for n_iter in range(1, max_iter + 1):
        last = distributions
        distributions = restrict(alpha * (graph @ last) + (1 - alpha) * initial, candidates)
        if np.abs(distributions - last).max() <= tol:
            return distributions, n_iter
    return distributions, max_iter


def correct_class_mass(distributions, candidates):
    """Scale the classes to the mass they have when every candidate is equally likely.

    Parameters
    ----------
    distributions : ndarray of shape (n_samples, n_classes)
    candidates : bool ndarray of shape (n_samples, n_classes)

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    mass = distributions.sum(axis=0)
    expected = (candidates / candidates.sum(axis=1, keepdims=True)).sum(axis=0)
    return restrict(distributions * expected / np.where(mass > 0, mass, 1), candidates)


def explained_by_class(X, weights, neighbors, data, labels, n_classes):
    """Return how much of each sample the neighbours of each class reconstruct.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    weights : ndarray of shape (n_samples, n_neighbors)
    neighbors : int ndarray of shape (n_samples, n_neighbors)
        Rows of `data`.
    data : ndarray of shape (n_rows, n_features)
    labels : int ndarray of shape (n_rows,)
        Class of each row of `data`.
    n_classes : int

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        ``|x|^2 - |x - x_c|^2`` with x_c the weighted sum of the neighbours of class c: largest
        where the error of the reconstruction is smallest.
    """
    explained = np.zeros((len(X), n_classes))
    for row, (x, weight, neighbor) in enumerate(zip(X, weights, neighbors)):
        parts = weight[:, None] * data[neighbor]
        label = labels[neighbor]
        for c in np.unique(label[weight > 0]):
            part = parts[label == c].sum(axis=0)
            explained[row, c] = part @ (2 * x - part)
    return explained


class IPALClassifier(NeighborsClassifier):
    """IPAL: labels spread between neighbours, whose classes then reconstruct new samples.

    Each sample is written as a sum of its neighbours with non-negative weights. With these weights
    label distributions are passed on from neighbour to neighbour, restricted to the candidates.
    A new sample gets the class whose neighbours alone reconstruct it best.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of neighbours; all other rows if there are fewer.
    alpha : float, default=0.95
        Share of a label distribution that comes from the neighbours; the rest stays uniform over
        the candidates.
    max_iter : int, default=100
        Steps in which labels spread, a fixed number as in the paper; fewer if they settle before.
    class_mass : bool, default=True
        Whether the classes are scaled to the mass they have when every candidate is equally likely,
        before each training sample takes its most probable class.
    unit_length : bool, default=True
        Whether samples are scaled to length 1 after `standardize`, as the authors do. Turn it off
        where the length tells classes apart, such as for two or three features.
    standardize : bool, default=True
        Whether features are scaled to mean 0 and variance 1, by the rows of `fit`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Purified labels of the training samples: the distributions in the end.
    transduction_ : ndarray of shape (n_samples,)
        Most probable purified label of each training sample.
    n_iter_ : int
        Number of steps in which labels spread.

    See Also
    --------
    PLKNeighborsClassifier : The neighbours vote for all of their candidates.

    Notes
    -----
    Rows in which every class is a candidate are no neighbours of others, and their purified labels
    are those predicted.

    A class's predicted probability is its share in what the classes explain of a sample, that is
    the squared length less the squared error. It is 0 for classes of no neighbour. Where no class
    explains anything, it is the share of neighbours.

    References
    ----------
    .. [1] M.-L. Zhang, F. Yu, "Solving the Partial Label Learning Problem: An Instance-Based
       Approach", IJCAI 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_npll.baselines import IPALClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::2, 1] = 1  # some sets hold a wrong class besides the true one
    >>> clf = IPALClassifier().fit(X, candidates)
    >>> clf.score(X, y) > 0.85
    True
    """

    _parameter_constraints = {
        **NeighborsClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "class_mass": ["boolean"],
        "unit_length": ["boolean"],
    }

    def __init__(
        self,
        n_neighbors: int = 10,
        *,
        alpha: float = 0.95,
        max_iter: int = 100,
        class_mass: bool = True,
        unit_length: bool = True,
        standardize: bool = True,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.max_iter = max_iter
        self.class_mass = class_mass
        self.unit_length = unit_length
        self.standardize = standardize

    def _scale(self, data):
        data = super()._scale(data)
        return normalize(data) if self.unit_length else data

    def _fit(self, data, candidates):
        _, neighbors = self._fit_neighbors(data)
        weights = ipal_weights(data, neighbors, data)
        distributions, self.n_iter_ = propagate(
            weights, neighbors, candidates, self.alpha, self.max_iter
        )
        if self.class_mass:
            distributions = correct_class_mass(distributions, candidates)
        self._data = data
        self._labels = distributions.argmax(axis=1)
        return distributions

    def _predict_distributions(self, data):
        n_classes = len(self.classes_)
        neighbors = self._neighbors.kneighbors(data, return_distance=False)
        weights = ipal_weights(data, neighbors, self._data)
        explained = explained_by_class(
            data, weights, neighbors, self._data, self._labels, n_classes
        ).clip(0)
        nothing = explained.max(axis=1) <= 0
        labels = self._labels[neighbors[nothing]]
        explained[nothing] = (labels[:, :, None] == np.arange(n_classes)).sum(axis=1)
        return explained / explained.sum(axis=1, keepdims=True)

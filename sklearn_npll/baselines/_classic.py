"""The classic partial-label learners, without networks: quick baselines on features."""

from numbers import Integral, Real

import numpy as np
from scipy import sparse as sp
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import lsq_linear, minimize, nnls
from scipy.spatial.distance import pdist
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._compat import Interval, StrOptions, TagsMixin, fit_context
from .._inputs import check_features, check_magnitude, check_problem
from .._scoring import ScoreMixin

LARGEST_FEATURE = 1e100  # squares of more, summed, might leave double precision

# -- rules -------------------------------------------------------------------------------------


def restrict(distributions, candidates):
    """Restrict distributions to the candidates.

    Parameters
    ----------
    distributions : ndarray of shape (n_samples, n_classes)
        Weights, none negative.
    candidates : bool ndarray of shape (n_samples, n_classes)

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Rows of sum 1; uniform over the candidates where these have no weight.
    """
    restricted = np.where(candidates, distributions, 0.0)
    mass = restricted.sum(axis=1, keepdims=True)
    restricted = np.where(mass > 0, restricted, candidates)
    return restricted / restricted.sum(axis=1, keepdims=True)


def project_simplex(points, support):
    """Project each row on the probability simplex over the classes of its support.

    Parameters
    ----------
    points : ndarray of shape (n_samples, n_classes)
    support : bool ndarray of shape (n_samples, n_classes)
        At least one class a row.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        The nearest distributions, 0 outside the support.
    """
    # A shift changes nothing but the rounding: the 1 is to be seen beside the points.
    points = points - np.where(support, points, -np.inf).max(axis=1, keepdims=True)
    descending = -np.sort(np.where(support, -points, np.inf), axis=1)
    inside = np.isfinite(descending)
    descending = np.where(inside, descending, 0.0)
    ranks = np.arange(1, points.shape[1] + 1)
    thresholds = (descending.cumsum(axis=1) - 1) / ranks
    n_positive = (inside & (descending > thresholds)).sum(axis=1, keepdims=True)
    threshold = np.take_along_axis(thresholds, n_positive - 1, axis=1)
    return np.where(support, np.maximum(points - threshold, 0), 0.0)


def pl_knn_votes(distances, neighbors, candidates):
    """Sum the candidates of neighbours, each weighted by 1 - distance / sum of distances.

    Parameters
    ----------
    distances : ndarray of shape (n_samples, n_neighbors)
    neighbors : int ndarray of shape (n_samples, n_neighbors)
        Rows of `candidates`.
    candidates : bool ndarray of shape (n_rows, n_classes)

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    total = distances.sum(axis=1, keepdims=True)
    weights = np.ones(distances.shape)
    if distances.shape[1] > 1:  # the weight of a single neighbour would be zero
        np.divide(distances, total, out=weights, where=total > 0)
        weights = np.where(total > 0, 1 - weights, 1.0)
    votes = np.zeros((len(distances), candidates.shape[1]))
    for weight, neighbor in zip(weights.T, neighbors.T):
        votes += weight[:, None] * candidates[neighbor]
    return votes


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


def clpl_objective(coef, X, candidates, C):
    """Value and gradient of the convex loss of CLPL.

    Parameters
    ----------
    coef : ndarray of shape (n_classes * (n_features + 1),)
        Coefficients of each class, its intercept last.
    X : ndarray of shape (n_samples, n_features)
    candidates : bool ndarray of shape (n_samples, n_classes)
    C : float
        Weight of the loss.

    Returns
    -------
    value : float
        ``mean_i [psi(mean_S g) + sum_{not S} psi(-g)] + |w|^2 / (2 C n)`` with the squared hinge
        ``psi(u) = max(0, 1 - u)^2``; intercepts are not penalised.
    gradient : ndarray of shape (n_classes * (n_features + 1),)
    """
    n_samples = len(X)
    coef = coef.reshape(candidates.shape[1], -1)
    weights, intercepts = coef[:, :-1], coef[:, -1]
    scores = X @ weights.T + intercepts
    share = candidates / candidates.sum(axis=1, keepdims=True)
    lack = np.maximum(1 - (share * scores).sum(axis=1, keepdims=True), 0)
    excess = np.where(candidates, 0, np.maximum(1 + scores, 0))
    penalty = 1 / (C * n_samples)
    value = ((lack**2).sum() + (excess**2).sum()) / n_samples + penalty / 2 * (weights**2).sum()
    slope = 2 * (excess - lack * share) / n_samples
    gradient = np.column_stack([slope.T @ X + penalty * weights, slope.sum(axis=0)])
    return value, gradient.ravel()


def pl_svm_margin(scores, candidates):
    """Margin between the best candidate and the best other class.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
    candidates : bool ndarray of shape (n_samples, n_classes)

    Returns
    -------
    margin : ndarray of shape (n_samples,)
    candidate : int ndarray of shape (n_samples,)
        The candidate of the highest score.
    other : int ndarray of shape (n_samples,)
        The class of the highest score among the others.
    """
    inside = np.where(candidates, scores, -np.inf)
    outside = np.where(candidates, -np.inf, scores)
    candidate, other = inside.argmax(axis=1), outside.argmax(axis=1)
    return inside.max(axis=1) - outside.max(axis=1), candidate, other


def pl_svm_step(coef, X, candidates, alpha, step):
    """Take one Pegasos step on a batch.

    Parameters
    ----------
    coef : ndarray of shape (n_classes, n_features)
    X : ndarray of shape (n_samples, n_features)
        The batch.
    candidates : bool ndarray of shape (n_samples, n_classes)
    alpha : float
        Strength of the penalty.
    step : int
        Number of the step, from 1.

    Returns
    -------
    ndarray of shape (n_classes, n_features)
    """
    margin, candidate, other = pl_svm_margin(X @ coef.T, candidates)
    rows = np.flatnonzero(margin < 1)
    direction = np.zeros((len(X), len(coef)))
    direction[rows, candidate[rows]] = 1
    direction[rows, other[rows]] = -1
    coef = (1 - 1 / step) * coef + direction.T @ X / (alpha * step * len(X))
    return coef * min(1, 1 / (np.sqrt(alpha) * max(np.linalg.norm(coef), 1e-300)))


def sure_assign(outputs, candidates, confidence_weight):
    """Find the distributions over the candidates that best suit the outputs of the model.

    Parameters
    ----------
    outputs : ndarray of shape (n_samples, n_classes)
    candidates : bool ndarray of shape (n_samples, n_classes)
    confidence_weight : float
        Reward of the largest probability.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        The p that maximise ``confidence_weight * max(p) - |p - outputs|^2``.
    """
    # With the class j of the largest probability given, the objective is the distance to
    # outputs + weight / 2 * e_j, so p is a projection. And the best j is the candidate of the
    # largest output: exchanging p_j with that of a larger output would not lose anything.
    best = np.where(candidates, outputs, -np.inf).argmax(axis=1)
    rewarded = np.array(outputs, dtype=float)
    rewarded[np.arange(len(outputs)), best] += confidence_weight / 2
    return project_simplex(rewarded, candidates)


# -- estimators --------------------------------------------------------------------------------


class _ClassicPartialLabelClassifier(TagsMixin, ScoreMixin, ClassifierMixin, BaseEstimator):
    """What the classic learners share: input, scaling, disambiguation, prediction and score.

    A subclass defines ``_fit(data, candidates)``, which learns and returns the label distributions
    of its rows, and ``_predict_distributions(data)``.
    """

    _parameter_constraints = {"standardize": ["boolean"]}

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn from candidate labels.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Features. A `PartialLabels` brings its own samples and candidates; `y` is then ignored,
            so that the true labels a search passes for scoring never train.
        y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Candidates: an indicator matrix, dense or CSR, in which a row of ones means unlabelled,
            with the classes 0 to n_classes - 1; or one label a row, with -1 for unlabelled. Beside
            exactly one other number, -1 is no missing label but the negative class.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X or y are malformed, X holds images or values beyond 1e100, or there are fewer than
            two classes or samples.
        """
        problem = check_problem(X, y)
        data = self._check_features(problem.data, reset=True)
        self.classes_ = problem.classes
        self._scaler = StandardScaler().fit(data) if self.standardize else None
        data = self._scale(data)
        labelled = ~problem.candidates.all(axis=1)
        distributions = np.empty(problem.candidates.shape)
        distributions[labelled] = self._fit(data[labelled], problem.candidates[labelled])
        if not labelled.all():
            distributions[~labelled] = self._predict_distributions(data[~labelled])
        self.label_distributions_ = distributions
        self.transduction_ = self.classes_[distributions.argmax(axis=1)]
        return self

    def predict_proba(self, X):
        """Predict class probabilities, which are not calibrated.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self._predict_distributions(self._scale(self._check_features(X, reset=False)))

    def predict(self, X):
        """Predict the most probable class.

        Parameters
        ----------
        X : PartialLabels or array-like of shape (n_samples, n_features)
            Samples as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Names of classes.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def _check_features(self, X, reset):
        data = check_features(self, X, reset, np.float64)
        check_magnitude(data, LARGEST_FEATURE)
        return data

    def _scale(self, data):
        if self._scaler is not None:
            data = self._scaler.transform(data)
            check_magnitude(data, LARGEST_FEATURE, "standardised X")
        return data

    def _tag_values(self):
        return {"input_tags.allow_nan": False}


class _NeighborsClassifier(_ClassicPartialLabelClassifier):
    """What the learners that look at neighbours share."""

    _parameter_constraints = {
        **_ClassicPartialLabelClassifier._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    }

    def _fit_neighbors(self, data):
        """Remember the rows and find the neighbours of each among the others."""
        self._neighbors = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(data))).fit(data)
        n_neighbors = min(self.n_neighbors, len(data) - 1)
        if not n_neighbors:  # scikit-learn refuses to look for none
            return np.zeros((len(data), 0)), np.zeros((len(data), 0), dtype=int)
        return self._neighbors.kneighbors(n_neighbors=n_neighbors)


class PLKNeighborsClassifier(_NeighborsClassifier):
    """PL-kNN: the neighbours vote for all of their candidates.

    The vote of a neighbour counts 1 less its share in the sum of the neighbours' distances. It
    is the simplest partial-label learner, and a strong one on good embeddings.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of neighbours; all rows if there are fewer.
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
        Purified labels of the training samples: the votes of a row's neighbours, itself not
        among them, restricted to its candidates.
    transduction_ : ndarray of shape (n_samples,)
        Most probable purified label of each training sample.

    See Also
    --------
    IPALClassifier : Disambiguates the candidates of the neighbours before they vote.

    Notes
    -----
    Rows in which every class is a candidate are no neighbours of others, and their purified labels
    are those predicted.

    On the data sets Lost and MSRCv2, ten splits give 39 % and 45 %, where later papers report 34 %
    and 43 %. Figures like theirs come out if the nearest neighbour of test samples is skipped too,
    as is right for training samples only.

    References
    ----------
    .. [1] E. Hüllermeier, J. Beringer, "Learning from Ambiguously Labeled Examples", Intelligent
       Data Analysis 10(5), 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_npll.baselines import PLKNeighborsClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::2, 1] = 1  # some sets hold a wrong class besides the true one
    >>> clf = PLKNeighborsClassifier().fit(X, candidates)
    >>> clf.score(X, y) > 0.85
    True
    """

    _parameter_constraints = {**_NeighborsClassifier._parameter_constraints}

    def __init__(self, n_neighbors=10, *, standardize=True):
        self.n_neighbors = n_neighbors
        self.standardize = standardize

    def _fit(self, data, candidates):
        self._candidates = candidates
        return restrict(pl_knn_votes(*self._fit_neighbors(data), candidates), candidates)

    def _predict_distributions(self, data):
        votes = pl_knn_votes(*self._neighbors.kneighbors(data), self._candidates)
        return votes / votes.sum(axis=1, keepdims=True)


class IPALClassifier(_NeighborsClassifier):
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
        Most steps in which labels spread.
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
        **_NeighborsClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "class_mass": ["boolean"],
        "unit_length": ["boolean"],
    }

    def __init__(
        self,
        n_neighbors=10,
        *,
        alpha=0.95,
        max_iter=100,
        class_mass=True,
        unit_length=True,
        standardize=True,
    ):
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


class _LinearClassifier(_ClassicPartialLabelClassifier):
    """What the learners with one linear score a class share."""

    def _predict_distributions(self, data):
        return softmax(data @ self.coef_.T + self.intercept_, axis=1)


class CLPLClassifier(_LinearClassifier):
    """CLPL: a convex loss that asks the candidates for a high mean score, all others for low ones.

    The classes have linear scores g. The loss of a sample is the squared hinge of the mean of g
    over the candidates plus that of -g of every other class, which is convex: no start and no
    disambiguation can go wrong.

    Parameters
    ----------
    C : float, default=0.1
        Weight of the summed losses beside half the squared norm of the coefficients.
    max_iter : int, default=1000
        Most iterations of L-BFGS.
    tol : float, default=1e-5
        Largest component of the gradient, of the objective divided by C and the number of labelled
        rows, at which to stop.
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
    coef_ : ndarray of shape (n_classes, n_features)
        Coefficients of the (standardised) features.
    intercept_ : ndarray of shape (n_classes,)
        Intercepts, which are not penalised.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Purified labels of the training samples: the softmax of the scores over the candidates.
    transduction_ : ndarray of shape (n_samples,)
        Most probable purified label of each training sample.
    n_iter_ : int
        Number of iterations run.

    See Also
    --------
    PLSVMClassifier : Asks the best candidate for a higher score than any other class.

    Notes
    -----
    Rows in which every class is a candidate are left out, and their purified labels are those
    predicted. Predicted probabilities are the softmax of the scores.

    References
    ----------
    .. [1] T. Cour, B. Sapp, B. Taskar, "Learning from Partial Labels", JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_npll.baselines import CLPLClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::2, 1] = 1  # some sets hold a wrong class besides the true one
    >>> clf = CLPLClassifier().fit(X, candidates)
    >>> clf.score(X, y) > 0.8
    True
    """

    _parameter_constraints = {
        **_LinearClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, C=0.1, *, max_iter=1000, tol=1e-5, standardize=True):
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.standardize = standardize

    def _fit(self, data, candidates):
        n_classes, n_features = candidates.shape[1], data.shape[1]
        result = minimize(
            clpl_objective,
            np.zeros(n_classes * (n_features + 1)),
            args=(data, candidates, self.C),
            method="L-BFGS-B",
            jac=True,
            options={"maxiter": self.max_iter, "gtol": self.tol},
        )
        coef = result.x.reshape(n_classes, -1)
        self.coef_, self.intercept_ = coef[:, :-1], coef[:, -1]
        self.n_iter_ = result.nit
        return restrict(self._predict_distributions(data), candidates)


class PLSVMClassifier(_LinearClassifier):
    """PL-SVM: the best candidate must win by a margin over the best other class.

    The classes have linear scores. The loss of a sample is ``max(0, 1 - margin)`` with the margin
    between the highest score of a candidate and the highest of any other class. Pegasos takes
    steps of size ``1 / (alpha * t)`` on batches and keeps the coefficients in a ball; their mean
    over the steps of the second half is returned.

    Parameters
    ----------
    alpha : float, default=0.01
        Strength of the penalty, half the squared norm of coefficients and intercepts.
    max_iter : int, default=100
        Passes over the labelled rows.
    batch_size : int, default=32
        Rows of a step.
    standardize : bool, default=True
        Whether features are scaled to mean 0 and variance 1, by the rows of `fit`.
    random_state : int, RandomState instance or None, default=None
        Seed of the start and of the order of the rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Names of the classes.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X has string column names.
    coef_ : ndarray of shape (n_classes, n_features)
        Coefficients of the (standardised) features.
    intercept_ : ndarray of shape (n_classes,)
        Intercepts, which are penalised as well.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Purified labels of the training samples: the softmax of the scores over the candidates.
    transduction_ : ndarray of shape (n_samples,)
        Most probable purified label of each training sample.
    n_iter_ : int
        Number of passes.

    See Also
    --------
    CLPLClassifier : A convex loss on all candidates.

    Notes
    -----
    Rows in which every class is a candidate are left out, and their purified labels are those
    predicted. Predicted probabilities are the softmax of the scores.

    The loss is not convex, as the best candidate depends on the coefficients, so results differ
    between seeds.

    References
    ----------
    .. [1] N. Nguyen, R. Caruana, "Classification with Partial Labels", KDD 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_npll.baselines import PLSVMClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::2, 1] = 1  # some sets hold a wrong class besides the true one
    >>> clf = PLSVMClassifier(random_state=0).fit(X, candidates)
    >>> clf.score(X, y) > 0.8
    True
    """

    _parameter_constraints = {
        **_LinearClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self, alpha=0.01, *, max_iter=100, batch_size=32, standardize=True, random_state=None
    ):
        self.alpha = alpha
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.standardize = standardize
        self.random_state = random_state

    def _fit(self, data, candidates):
        rng = check_random_state(self.random_state)
        rows = np.column_stack([data, np.ones(len(data))])
        # From zero, the first candidate of every row would be the best.
        coef = rng.standard_normal((candidates.shape[1], rows.shape[1]))
        mean = np.zeros(coef.shape)
        n_batches = -(-len(data) // self.batch_size)
        n_steps = self.max_iter * n_batches
        step = 0
        for _ in range(self.max_iter):
            for batch in np.array_split(rng.permutation(len(data)), n_batches):
                step += 1
                coef = pl_svm_step(coef, rows[batch], candidates[batch], self.alpha, step)
                if step > n_steps // 2:
                    mean += (coef - mean) / (step - n_steps // 2)
        self.coef_, self.intercept_ = mean[:, :-1], mean[:, -1]
        self.n_iter_ = self.max_iter
        return restrict(self._predict_distributions(data), candidates)


class SUREClassifier(_ClassicPartialLabelClassifier):
    """SURE: kernel ridge regression on labels that it makes more confident itself.

    In turns, a regression is fitted to the label distributions of the samples, and each sample
    takes the distribution over its candidates that is near the regression's output and rewarded
    for its largest probability.

    Parameters
    ----------
    confidence_weight : float, default=0.3
        Reward of the largest probability; lambda in the paper.
    beta : float, default=0.05
        Strength of the penalty of the regression.
    gamma : float or "mean_distance", default="mean_distance"
        Factor of the squared distance in the Gaussian kernel; "mean_distance" is half the inverse
        square of the mean distance between labelled rows.
    max_iter : int, default=100
        Most turns.
    tol : float, default=1e-3
        Largest change of a probability at which to stop.
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
        Number of turns.

    Notes
    -----
    Rows in which every class is a candidate are left out, and their purified labels are those
    predicted. Predicted probabilities are the distributions nearest to the outputs.

    Memory grows with the square of the number of rows and time with its cube: meant for up to some
    ten thousand.

    References
    ----------
    .. [1] L. Feng, B. An, "Partial Label Learning with Self-Guided Retraining", AAAI 2019,
       arXiv:1902.03045.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_npll.baselines import SUREClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::2, 1] = 1  # some sets hold a wrong class besides the true one
    >>> clf = SUREClassifier().fit(X, candidates)
    >>> clf.score(X, y) > 0.85
    True
    """

    _parameter_constraints = {
        **_ClassicPartialLabelClassifier._parameter_constraints,
        "confidence_weight": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "gamma": [Interval(Real, 0, None, closed="neither"), StrOptions({"mean_distance"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        confidence_weight=0.3,
        *,
        beta=0.05,
        gamma="mean_distance",
        max_iter=100,
        tol=1e-3,
        standardize=True,
    ):
        self.confidence_weight = confidence_weight
        self.beta = beta
        self.gamma = gamma
        self.max_iter = max_iter
        self.tol = tol
        self.standardize = standardize

    def _fit(self, data, candidates):
        self._data = data
        self._gamma = self.gamma
        if self.gamma == "mean_distance":
            mean_distance = pdist(data).mean() if len(data) > 1 else 0.0
            self._gamma = 0.5 / mean_distance**2 if mean_distance > 0 else 1.0
        kernel = rbf_kernel(data, gamma=self._gamma)
        # The free intercept centres the regression, so one factorisation serves all turns.
        centred = kernel - kernel.mean(axis=0)
        centred -= centred.mean(axis=1, keepdims=True)
        centred.flat[:: len(data) + 1] += self.beta
        factor = cho_factor(centred, overwrite_a=True)
        distributions = candidates / candidates.sum(axis=1, keepdims=True)
        for n_iter in range(1, self.max_iter + 1):
            last = distributions
            self._dual_coef = cho_solve(factor, last - last.mean(axis=0))
            outputs = kernel @ self._dual_coef
            self._intercept = (last - outputs).mean(axis=0)
            distributions = sure_assign(
                outputs + self._intercept, candidates, self.confidence_weight
            )
            self.n_iter_ = n_iter
            if np.abs(distributions - last).max() <= self.tol:
                break
        return distributions

    def _predict_distributions(self, data):
        kernel = rbf_kernel(data, self._data, gamma=self._gamma)
        outputs = kernel @ self._dual_coef + self._intercept
        return project_simplex(outputs, np.ones(outputs.shape, dtype=bool))

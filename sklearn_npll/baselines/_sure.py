"""SURE: kernel ridge regression on labels that it makes more confident itself."""

from numbers import Integral, Real

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from .._compat import Interval, StrOptions
from .._distributions import project_simplex
from ._classic import ClassicPartialLabelClassifier


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


class SUREClassifier(ClassicPartialLabelClassifier):
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
        Largest change of a probability at which to stop. A `ConvergenceWarning` tells if `max_iter`
        came first.
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
        **ClassicPartialLabelClassifier._parameter_constraints,
        "confidence_weight": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "gamma": [Interval(Real, 0, None, closed="neither"), StrOptions({"mean_distance"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        confidence_weight: float = 0.3,
        *,
        beta: float = 0.05,
        gamma: str | float = "mean_distance",
        max_iter: int = 100,
        tol: float = 1e-3,
        standardize: bool = True,
    ) -> None:
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
        else:
            self._warn_of_limit()
        return distributions

    def _predict_distributions(self, data):
        kernel = rbf_kernel(data, self._data, gamma=self._gamma)
        outputs = kernel @ self._dual_coef + self._intercept
        return project_simplex(outputs, np.ones(outputs.shape, dtype=bool))

"""CLPL: a convex loss of the mean score of the candidates."""

from numbers import Integral, Real

import numpy as np
from scipy.optimize import minimize

from .._compat import Interval
from .._distributions import restrict
from ._classic import LinearClassifier


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


class CLPLClassifier(LinearClassifier):
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
        rows, at which to stop. A `ConvergenceWarning` tells if `max_iter` came first.
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
    .. [1] T. Cour, B. Sapp, B. Taskar,
       "Learning from Partial Labels", JMLR 12, 2011.

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
        **LinearClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self, C: float = 0.1, *, max_iter: int = 1000, tol: float = 1e-5, standardize: bool = True
    ) -> None:
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
            options={
                "maxiter": self.max_iter,
                "maxfun": np.inf,
                "gtol": self.tol,
                "ftol": 64 * np.finfo(float).eps,
            },
        )
        if result.status == 1:  # the limit
            self._warn_of_limit()
        coef = result.x.reshape(n_classes, -1)
        self.coef_, self.intercept_ = coef[:, :-1], coef[:, -1]
        self.n_iter_ = result.nit
        return restrict(self._predict_distributions(data), candidates)

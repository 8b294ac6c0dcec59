"""PL-SVM: a margin between the best candidate and the best other class."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state

from .._compat import Interval
from .._distributions import restrict
from .._typing import Seed
from ._classic import LinearClassifier


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


class PLSVMClassifier(LinearClassifier):
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
        Passes over the labelled rows, a fixed number: no criterion ends them.
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
    .. [1] N. Nguyen, R. Caruana,
       "Classification with Partial Labels", KDD 2008.

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
        **LinearClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        max_iter: int = 100,
        batch_size: int = 32,
        standardize: bool = True,
        random_state: Seed = None,
    ) -> None:
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

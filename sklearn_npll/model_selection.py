"""Scorers for model selection with few or no true labels.

Without labels: :func:`covering_rate_scorer` and :func:`approximated_accuracy_scorer` compare
predictions with the annotator's candidates. They measure agreement with the annotator, which can
be complete while the true accuracy is poor, and they rise with the size of the sets. With a few
labels: :func:`make_labeled_scorer`, which is to be preferred.
"""

import inspect
import warnings

import numpy as np
from scipy import sparse as sp
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, make_scorer
from sklearn.pipeline import Pipeline

from ._messages import did_you_mean
from ._partial_labels import PartialLabels, _take
from .metrics import approximated_accuracy, covering_rate

__all__ = ["approximated_accuracy_scorer", "covering_rate_scorer", "make_labeled_scorer"]


def covering_rate_scorer(estimator, X, y=None):
    """Score a fitted estimator by the share of its predictions that are candidates.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier, or a pipeline that ends in one.
    X : PartialLabels or array-like
        Samples with their candidates; or samples, for a pipeline whose annotator finds the
        candidates or together with candidates as y.
    y : PartialLabels or array-like of shape (n_samples, n_classes), default=None
        Candidates, the columns in the order of ``estimator.classes_``. True labels of shape
        (n_samples,) are ignored.

    Returns
    -------
    rate : float
        The covering rate, in [0, 1].

    Raises
    ------
    ValueError
        If there are no candidates to compare with.

    See Also
    --------
    sklearn_npll.metrics.covering_rate : The metric and its caveat.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.model_selection import covering_rate_scorer
    >>> labels = PartialLabels.from_sets([["cat"], ["cat", "dog"], ["dog"]], ["cat", "dog", "fox"])
    >>> always_cat = DummyClassifier().fit(labels, ["cat", "cat", "dog"])
    >>> covering_rate_scorer(always_cat, labels)
    0.6666666666666666
    """
    estimator, X, labels = _with_candidates(estimator, X, y)
    return covering_rate(estimator.predict(X), labels)


def approximated_accuracy_scorer(estimator, X, y=None):
    """Score a fitted estimator by the confidence of its predictions among the candidates.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier with ``predict_proba``, or a pipeline that ends in one.
    X : PartialLabels or array-like
        Samples with their candidates; or samples, for a pipeline whose annotator finds the
        candidates or together with candidates as y.
    y : PartialLabels or array-like of shape (n_samples, n_classes), default=None
        Candidates, the columns in the order of ``estimator.classes_``. True labels of shape
        (n_samples,) are ignored.

    Returns
    -------
    accuracy : float
        The approximated accuracy, in [0, 1].

    Raises
    ------
    ValueError
        If there are no candidates to compare with.

    See Also
    --------
    sklearn_npll.metrics.approximated_accuracy : The metric and its caveat.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn_npll import PartialLabels
    >>> from sklearn_npll.model_selection import approximated_accuracy_scorer
    >>> labels = PartialLabels.from_sets([["cat"], ["cat", "dog"], ["dog"]], ["cat", "dog", "fox"])
    >>> always_cat = DummyClassifier().fit(labels, ["cat", "cat", "dog"])
    >>> round(approximated_accuracy_scorer(always_cat, labels), 3)
    0.556
    """
    estimator, X, labels = _with_candidates(estimator, X, y)
    columns = {name: column for column, name in enumerate(labels.classes.tolist())}
    for name in np.asarray(estimator.classes_).tolist():
        if name not in columns:
            raise ValueError(
                f"The estimator predicts class {name!r}, which the candidates do not have."
                f"{did_you_mean(name, columns)}"
            )
    proba = np.zeros(labels.shape)
    proba[:, [columns[name] for name in np.asarray(estimator.classes_).tolist()]] = (
        estimator.predict_proba(X)
    )
    return approximated_accuracy(proba, labels)


def make_labeled_scorer(score, **kwargs):
    """Make a scorer that ignores the rows whose label is -1.

    scikit-learn's own scorers count -1 as a class.

    Parameters
    ----------
    score : str or callable
        A scorer, by name or as ``scorer(estimator, X, y)``, or a metric ``metric(y_true, y_pred)``
        whose first parameter is called ``y_true``.
    **kwargs : dict
        For a metric, passed on to :func:`sklearn.metrics.make_scorer`.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` returns the score over the rows of y that are not -1; NaN, with
        a warning, if there is none.

    Raises
    ------
    TypeError
        If there are keyword arguments but ``score`` is a scorer.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn_npll.model_selection import make_labeled_scorer
    >>> always_1 = DummyClassifier(strategy="constant", constant=1).fit([[0], [0]], [0, 1])
    >>> scorer = make_labeled_scorer("accuracy")
    >>> scorer(always_1, [[0], [0], [0], [0]], [1, -1, 0, -1])
    0.5
    """
    if callable(score) and "y_true" in list(inspect.signature(score).parameters)[:1]:
        return _LabeledScorer(make_scorer(score, **kwargs))
    if kwargs:
        raise TypeError(f"{score!r} is a scorer, which takes no arguments; pass a metric instead.")
    return _LabeledScorer(get_scorer(score) if isinstance(score, str) else score)


class _LabeledScorer:
    """A scorer over the labelled rows; a class because a closure could not be pickled."""

    def __init__(self, scorer):
        self.scorer = scorer

    def __repr__(self):
        return f"make_labeled_scorer({self.scorer!r})"

    def __call__(self, estimator, X, y):
        y = np.asarray(y)
        # -1 among names is a string or, in an object array, still a number.
        rows = np.flatnonzero([label not in (-1, "-1") for label in y.tolist()])
        if not len(rows):
            warnings.warn(
                "No row of y is labelled, so the score is NaN.",
                UndefinedMetricWarning,
                stacklevel=2,
            )
            return float("nan")
        return self.scorer(estimator, _take(X, rows), np.array(y[rows].tolist()))


def _with_candidates(estimator, X, y):
    """The final estimator, its input and the candidates to compare its predictions with."""
    if isinstance(y, PartialLabels):
        return estimator, X, y
    if sp.issparse(y) or np.ndim(y) == 2:
        return estimator, X, PartialLabels.from_candidates(y, classes=estimator.classes_)
    if isinstance(X, PartialLabels):
        return estimator, X, X
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        X = estimator[:-1].transform(X)
        if isinstance(X, PartialLabels):
            return estimator[-1], X, X
    raise ValueError(
        "There are no candidates to compare predictions with: X must be a PartialLabels, the"
        " estimator a pipeline with an annotator, or y the candidates of shape (n_samples,"
        " n_classes)."
    )

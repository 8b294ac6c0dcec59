"""Scorers for model selection with few or no true labels, and candidate rules chosen by labels.

Without labels: :func:`covering_rate_scorer` and :func:`approximated_accuracy_scorer` compare
predictions with the annotator's candidates. They measure agreement with the annotator, which can
be complete while the true accuracy is poor, and they rise with the size of the sets. With a few
labels: :func:`make_labeled_scorer`, which is to be preferred.
"""

import inspect
import numbers
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse as sp
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, make_scorer

from ._evidence import spread_columns
from ._inputs import with_candidates
from ._messages import did_you_mean
from ._partial_labels import PartialLabels
from ._rows import take
from ._rules import TOLERANCE, candidates_from_scores, check_rule
from ._typing import Estimator, MatrixLike, Samples
from .metrics import approximated_accuracy, covering_rate

__all__ = [
    "approximated_accuracy_scorer",
    "choose_rule_value",
    "covering_rate_scorer",
    "make_labeled_scorer",
]


def covering_rate_scorer(estimator: Estimator, X: Samples, y: MatrixLike | None = None) -> float:
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
    estimator, X, labels = with_candidates(estimator, X, y)
    return covering_rate(estimator.predict(X), labels)


def approximated_accuracy_scorer(
    estimator: Estimator, X: Samples, y: MatrixLike | None = None
) -> float:
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
    estimator, X, labels = with_candidates(estimator, X, y)
    names = labels.classes.tolist()
    for name in np.asarray(estimator.classes_).tolist():
        if name not in names:
            raise ValueError(
                f"The estimator predicts class {name!r}, which the candidates do not have."
                f"{did_you_mean(name, names)}"
            )
    proba = np.asarray(estimator.predict_proba(X), dtype=float)
    return approximated_accuracy(spread_columns(proba, estimator.classes_, labels.classes), labels)


def make_labeled_scorer(score: str | Callable[..., float], **kwargs: Any) -> Callable[..., float]:
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
        If `score` is neither a name nor callable, or a scorer beside keyword arguments.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn_npll.model_selection import make_labeled_scorer
    >>> always_1 = DummyClassifier(strategy="constant", constant=1).fit([[0], [0]], [0, 1])
    >>> scorer = make_labeled_scorer("accuracy")
    >>> scorer(always_1, [[0], [0], [0], [0]], [1, -1, 0, -1])
    0.5
    """
    if not (callable(score) or isinstance(score, str)):
        raise TypeError(f"score is {score!r}; give a scorer, its name, or a metric.")
    if callable(score) and "y_true" in list(inspect.signature(score).parameters)[:1]:
        return _LabeledScorer(make_scorer(score, **kwargs))
    if kwargs:
        raise TypeError(f"{score!r} is a scorer, which takes no arguments; pass a metric instead.")
    return _LabeledScorer(get_scorer(score) if isinstance(score, str) else score)


def choose_rule_value(
    scores: MatrixLike,
    y: ArrayLike,
    rule: str,
    *,
    coverage: float = 0.9,
    classes: ArrayLike | None = None,
) -> float:
    """Choose the argument of a candidate rule, for the smallest sets of a given coverage.

    Parameters
    ----------
    scores : PartialLabels or array-like of shape (n_samples, n_classes)
        Samples with scores, or the scores alone, such as an annotator's ``predict_proba``.
    y : array-like of shape (n_samples,)
        True class of each sample; -1 where it is unlabelled.
    rule : {"topk", "threshold", "ratio", "cumulative"}
        The rule.
    coverage : float in (0, 1], default=0.9
        Least share of the labelled samples whose label is to be a candidate.
    classes : array-like of shape (n_classes,), default=None
        Names of the columns, such as an annotator's ``classes_``; 0 to n_classes - 1 by default. A
        `PartialLabels` has its own.

    Returns
    -------
    value : int or float
        The `rule_value` of an annotator, or the ``value`` of
        :meth:`~sklearn_npll.PartialLabels.from_scores`; an int for "topk".

    Raises
    ------
    ValueError
        If no sample is labelled, a label is no class, the rule is unknown, there are no scores or
        only sparse ones, or no value reaches the coverage.

    See Also
    --------
    sklearn_npll.annotators.ConformalPartialAnnotator : Guarantees its coverage of new samples.

    Notes
    -----
    The value suits these labels, so the coverage of new samples is a little lower, and how much is
    not known. A `ConformalPartialAnnotator` allows for that.

    Examples
    --------
    >>> from sklearn_npll.model_selection import choose_rule_value
    >>> scores = [[0.75, 0.25, 0.0], [0.5, 0.375, 0.125], [0.25, 0.25, 0.5], [0.625, 0.125, 0.25]]
    >>> y = ["cat", "dog", "fox", -1]
    >>> classes = ["cat", "dog", "fox"]
    >>> choose_rule_value(scores, y, "threshold", coverage=1.0, classes=classes)
    0.375
    >>> choose_rule_value(scores, y, "topk", coverage=0.6, classes=classes)
    1
    """
    check_rule(rule, _RULES)
    if not isinstance(coverage, numbers.Real) or not 0 < coverage <= 1:
        raise ValueError(f"coverage is {coverage!r}; it must be a number in (0, 1].")
    if isinstance(scores, PartialLabels):
        if classes is not None:
            raise ValueError("classes name the columns of an array; PartialLabels have their own.")
        labels = scores
    else:
        labels = PartialLabels.from_scores(scores, "topk", 1, classes=classes)
    codes = labels.encode_labels(y)
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        raise ValueError("No sample in y is labelled; choosing a value takes at least one.")
    scores, codes = labels[rows].scores, codes[rows]
    if scores is None:
        raise ValueError("These PartialLabels have no scores, which rules are applied to.")
    if sp.issparse(scores):
        raise ValueError(
            "These scores are sparse, so they are not all that the rule was or will be applied to;"
            " pass those of the labelled samples in full, such as an annotator's predict_proba."
        )
    limits = np.sort(_limits(scores, codes, rule))
    # Sets grow with k and with the sum, and shrink with the threshold and the ratio.
    limits = limits if rule in ("topk", "cumulative") else limits[::-1]
    value = limits[int(np.ceil(coverage * len(rows) - 1e-9)) - 1].item()
    covered = candidates_from_scores(scores, rule, value)[np.arange(len(rows)), codes]
    if covered.mean() < coverage - 1e-9:
        raise ValueError(
            f"No value of rule {rule!r} has a coverage of {coverage}, because the labels of too"
            " many samples have a score of about 0; use rule 'topk' or 'threshold'."
        )
    return value


_RULES = ("topk", "threshold", "ratio", "cumulative")


def _limits(scores, codes, rule):
    """The last argument of the rule, row by row, with which the given class is a candidate."""
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = (order == codes[:, None]).argmax(axis=1)
    if rule == "topk":
        return rank + 1
    if rule == "cumulative":
        ordered = np.take_along_axis(scores, order, axis=1)
        before = (np.cumsum(ordered, axis=1) - ordered)[np.arange(len(scores)), rank]
        return np.minimum(before + 2 * TOLERANCE, 1)  # the sum before it must be passed
    limits = scores[np.arange(len(scores)), codes]
    if rule == "ratio":
        highest = scores.max(axis=1)
        limits = np.divide(limits, highest, out=np.ones_like(highest), where=highest > 0)
    else:
        limits = np.where(rank == 0, 1, limits)  # the most probable class is always a candidate
    return np.maximum(limits, TOLERANCE)  # the rules take no 0


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
        return self.scorer(estimator, take(X, rows), np.array(y[rows].tolist()))

"""Metrics of candidate sets, of predictions without true labels and of noise detection.

Wherever candidates are asked for, a :class:`~sklearn_npll.PartialLabels` or a dense or sparse
indicator matrix will do. Where true labels are asked for, -1 stands for an unlabelled row, which
is left out.
"""

import warnings
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.utils import assert_all_finite

from ._evidence import as_dense
from ._messages import name_rows
from ._partial_labels import PartialLabels, encode_labels
from ._typing import Array, MatrixLike

__all__ = [
    "ambiguity_score",
    "approximated_accuracy",
    "coverage_score",
    "covering_rate",
    "noise_detection_auc",
    "noise_detection_f1",
]


def coverage_score(
    y_true: ArrayLike, candidates: MatrixLike, *, classes: ArrayLike | None = None
) -> float:
    """Share of samples whose true class is a candidate.

    One minus the coverage is the noise rate eta.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes; -1 where unlabelled.
    candidates : PartialLabels or array-like or sparse matrix of shape (n_samples, n_classes)
        The candidates.
    classes : array-like of shape (n_classes,), default=None
        Names of the columns of a candidate matrix; 0 to n_classes - 1 by default.

    Returns
    -------
    coverage : float
        The share, in [0, 1]; NaN, with a warning, if no row is labelled.

    Raises
    ------
    ValueError
        If y_true has the wrong length or contains an unknown class.

    Examples
    --------
    >>> from sklearn_npll.metrics import coverage_score
    >>> coverage_score([0, 2, -1, 1], [[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0]])
    0.6666666666666666
    """
    return _as_labels(candidates, classes).coverage(y_true)


def ambiguity_score(
    candidates: MatrixLike,
    y_true: ArrayLike | None = None,
    *,
    classes: ArrayLike | None = None,
    per_class: bool = False,
) -> float | Array:
    """Share of the wrong classes that are candidates: the ambiguity q.

    0 when each set has one class, 1 when all classes are always candidates. Unlike the mean set
    size it can be compared between different numbers of classes.

    Parameters
    ----------
    candidates : PartialLabels or array-like or sparse matrix of shape (n_samples, n_classes)
        The candidates.
    y_true : array-like of shape (n_samples,), default=None
        True classes; -1 where unlabelled. If None, one candidate of each row is counted as true.
    classes : array-like of shape (n_classes,), default=None
        Names of the columns of a candidate matrix; 0 to n_classes - 1 by default. For a
        `PartialLabels` the order of the shares, by default its own.
    per_class : bool, default=False
        Whether to return the share for each class, over the rows of which it is not the true
        class. Needs y_true.

    Returns
    -------
    ambiguity : float or ndarray of shape (n_classes,)
        The share, in [0, 1]. NaN for a class that is the true one of every row, and, with a
        warning, if there is no labelled row or only one class.

    Raises
    ------
    ValueError
        If per_class is asked for without y_true, or y_true is wrong.

    Examples
    --------
    >>> from sklearn_npll.metrics import ambiguity_score
    >>> candidates = [[1, 0, 1], [1, 1, 0], [1, 0, 0]]
    >>> ambiguity_score(candidates, [0, 0, 0])
    0.3333333333333333
    >>> ambiguity_score(candidates, [0, 1, 2], per_class=True)
    array([1. , 0. , 0.5])
    """
    if per_class and y_true is None:
        raise ValueError("per_class=True needs y_true to know which candidates are wrong.")
    labels = _as_labels(candidates, classes)
    n_classes = labels.shape[1]
    if n_classes == 1:
        return _undefined("There is only one class and no wrong one, so the metric is NaN.")
    if y_true is None:
        return _mean((labels.set_sizes - 1) / (n_classes - 1), "row")
    codes = labels.encode_labels(y_true)
    rows = np.flatnonzero(codes >= 0)
    labels, codes = labels[rows], codes[rows]
    if not len(labels):
        return _undefined("There is no labelled row, so the metric is NaN.")
    is_true = np.bincount(codes, minlength=n_classes)
    contained = labels.contains(labels.classes[codes])
    wrong_candidates = np.bincount(labels.tocsr().indices, minlength=n_classes) - np.bincount(
        codes[contained], minlength=n_classes
    )
    if per_class:
        with np.errstate(invalid="ignore"):
            return wrong_candidates / (len(labels) - is_true)
    return float(wrong_candidates.sum() / (len(labels) * (n_classes - 1)))


def covering_rate(
    y_pred: ArrayLike, candidates: MatrixLike, *, classes: ArrayLike | None = None
) -> float:
    """Share of predictions that are candidates: accuracy where true labels are missing.

    It measures agreement with the annotator rather than the truth: a learner that copies every
    mistake of the annotator reaches 1. Compare it at equal mean set sizes only, and prefer a
    small labelled validation set.

    Parameters
    ----------
    y_pred : array-like of shape (n_samples,) or (n_samples, n_classes)
        Predicted classes, or their probabilities, the columns in the order of `classes`.
    candidates : PartialLabels or array-like or sparse matrix of shape (n_samples, n_classes)
        The candidates. Rows in which all classes are candidates carry no label and are left out.
    classes : array-like of shape (n_classes,), default=None
        Names of the columns, of candidates and probabilities alike; by default 0 to n_classes - 1,
        or those of a `PartialLabels`. A classifier's are sorted, so if those may not be, pass its
        ``classes_``.

    Returns
    -------
    rate : float
        The share, in [0, 1]; NaN, with a warning, if no row carries a label.

    Raises
    ------
    ValueError
        If the predictions have the wrong shape or contain an unknown class, or the probabilities
        are negative.

    See Also
    --------
    approximated_accuracy : Weighs each prediction by its confidence.
    sklearn_npll.model_selection.covering_rate_scorer : The scorer.

    References
    ----------
    .. [1] W. Wang, D.-D. Wu, J. Wang, G. Niu, M.-L. Zhang, M. Sugiyama, "Realistic Evaluation of
       Deep Partial-Label Learning Algorithms", ICLR 2025.

    Examples
    --------
    >>> from sklearn_npll.metrics import covering_rate
    >>> covering_rate([0, 0, 2], [[1, 0, 1], [0, 1, 0], [1, 1, 1]])
    0.5
    """
    labels = _as_labels(candidates, classes)
    y_pred = np.asarray(as_dense(y_pred))
    if y_pred.ndim == 2:
        y_pred = labels.classes[_check_proba(y_pred, labels).argmax(axis=1)]
    encode_labels(y_pred, labels.classes, len(labels), "y_pred")  # errors call it so
    return _mean(labels.contains(y_pred)[_informative(labels)], "row with a label")


def approximated_accuracy(
    proba: ArrayLike, candidates: MatrixLike, *, classes: ArrayLike | None = None
) -> float:
    """Mean confidence of the prediction among the candidates; 0 where it is not a candidate.

    With f the probabilities, S the candidates and c the class of the largest probability, the
    confidence is ``f[c] / sum(f[S])`` if c is in S. The caveat of :func:`covering_rate` applies.

    Parameters
    ----------
    proba : array-like of shape (n_samples, n_classes)
        Predicted probabilities, the columns in the order of `classes`.
    candidates : PartialLabels or array-like or sparse matrix of shape (n_samples, n_classes)
        The candidates. Rows in which all classes are candidates carry no label and are left out.
    classes : array-like of shape (n_classes,), default=None
        Names of the columns, of candidates and probabilities alike; by default 0 to n_classes - 1,
        or those of a `PartialLabels`. A classifier's are sorted, so if those may not be, pass its
        ``classes_``.

    Returns
    -------
    accuracy : float
        The mean, in [0, 1]; NaN, with a warning, if no row carries a label.

    Raises
    ------
    ValueError
        If the probabilities have the wrong shape or are negative.

    References
    ----------
    .. [1] W. Wang, D.-D. Wu, J. Wang, G. Niu, M.-L. Zhang, M. Sugiyama, "Realistic Evaluation of
       Deep Partial-Label Learning Algorithms", ICLR 2025.

    Examples
    --------
    >>> from sklearn_npll.metrics import approximated_accuracy
    >>> round(approximated_accuracy([[0.6, 0.2, 0.2], [0.2, 0.5, 0.3]], [[1, 1, 0], [1, 0, 0]]), 3)
    0.375
    """
    labels = _as_labels(candidates, classes)
    checked = _check_proba(proba, labels)
    restricted = np.asarray(labels.tocsr().multiply(checked).sum(axis=1)).ravel()
    confidence = np.zeros(len(labels))
    covered = labels.contains(labels.classes[checked.argmax(axis=1)]) & (restricted > 0)
    confidence[covered] = checked.max(axis=1)[covered] / restricted[covered]
    return _mean(confidence[_informative(labels)], "row with a label")


def noise_detection_auc(
    y_true: ArrayLike,
    candidates: MatrixLike,
    clean_probability: ArrayLike,
    *,
    classes: ArrayLike | None = None,
) -> float:
    """Area under the ROC curve of telling valid candidate sets from noisy ones.

    A set is valid if the true class is in it.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes; -1 where unlabelled.
    candidates : PartialLabels or array-like or sparse matrix of shape (n_samples, n_classes)
        The candidates. Rows in which all classes are candidates cannot be wrong and are left out.
    clean_probability : array-like of shape (n_samples,)
        Estimated probability that the set is valid, such as ``clean_probability_`` of a
        :class:`~sklearn_npll.CoRegClassifier`.
    classes : array-like of shape (n_classes,), default=None
        Names of the columns of a candidate matrix; 0 to n_classes - 1 by default.

    Returns
    -------
    auc : float
        The area; 0.5 is chance. NaN, with a warning, if all sets are valid or all are noisy.

    Raises
    ------
    ValueError
        If y_true or clean_probability is wrong.

    Examples
    --------
    >>> from sklearn_npll.metrics import noise_detection_auc
    >>> candidates = [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]
    >>> noise_detection_auc([0, 1, 0, 0], candidates, [0.9, 0.6, 0.7, 0.1])
    0.75
    """
    valid, clean_probability = _division(y_true, candidates, clean_probability, classes)
    if valid.all() or not valid.any():
        kind = "valid" if valid.any() else "noisy"
        return _undefined(f"All {len(valid)} candidate sets are {kind}, so the AUC is NaN.")
    return float(roc_auc_score(valid, clean_probability))


def noise_detection_f1(
    y_true: ArrayLike,
    candidates: MatrixLike,
    clean_probability: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    threshold: float = 0.5,
    positive: str = "noisy",
) -> float:
    """F1 score of telling valid candidate sets from noisy ones.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes; -1 where unlabelled.
    candidates : PartialLabels or array-like or sparse matrix of shape (n_samples, n_classes)
        The candidates. Rows in which all classes are candidates cannot be wrong and are left out.
    clean_probability : array-like of shape (n_samples,)
        Estimated probability that the set is valid, such as ``clean_probability_`` of a
        :class:`~sklearn_npll.CoRegClassifier`.
    classes : array-like of shape (n_classes,), default=None
        Names of the columns of a candidate matrix; 0 to n_classes - 1 by default.
    threshold : float, default=0.5
        A set is detected as valid if its clean probability is larger.
    positive : {"noisy", "clean"}, default="noisy"
        What is to be detected: noisy sets, or valid ones (the F1 of the clean selection, which
        papers on learning with label noise report).

    Returns
    -------
    f1 : float
        The score, in [0, 1]; 0 if nothing is detected rightly. NaN, with a warning, if no set can
        be judged.

    Raises
    ------
    ValueError
        If y_true, clean_probability or positive is wrong.

    Examples
    --------
    >>> from sklearn_npll.metrics import noise_detection_f1
    >>> candidates = [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]
    >>> noise_detection_f1([0, 1, 0, 0], candidates, [0.9, 0.6, 0.7, 0.1])
    0.6666666666666666
    >>> noise_detection_f1([0, 1, 0, 0], candidates, [0.9, 0.6, 0.7, 0.1], positive="clean")
    0.8
    """
    if positive not in ("noisy", "clean"):
        raise ValueError(f"positive is {positive!r}; it must be 'noisy' or 'clean'.")
    if not (isinstance(threshold, Real) and threshold == threshold):
        raise ValueError(f"threshold is {threshold!r}; it must be a number, such as 0.5.")
    valid, probability = _division(y_true, candidates, clean_probability, classes)
    if not len(valid):
        return _undefined("No candidate set can be judged, so the F1 score is NaN.")
    detected = probability > threshold
    return float(f1_score(valid, detected, pos_label=positive == "clean", zero_division=0.0))


def _as_labels(candidates, classes):
    if isinstance(candidates, PartialLabels):
        return candidates if classes is None else candidates.sort_classes(classes)
    return PartialLabels.from_candidates(candidates, classes=classes)


def _informative(labels):
    return labels.set_sizes < labels.shape[1]


def _division(y_true, candidates, clean_probability, classes):
    """Validity and clean probability of the candidate sets that can be judged."""
    labels = _as_labels(candidates, classes)
    clean_probability = np.asarray(clean_probability, dtype=float)
    if clean_probability.shape != (len(labels),):
        raise ValueError(
            f"clean_probability has shape {clean_probability.shape}; expected one value for each"
            f" of {len(labels)} samples."
        )
    assert_all_finite(clean_probability, input_name="clean_probability")
    judged = (labels.encode_labels(y_true) >= 0) & _informative(labels)
    return labels.contains(y_true)[judged], clean_probability[judged]


def _check_proba(proba, labels):
    proba = np.asarray(as_dense(proba), dtype=float)
    if proba.shape != labels.shape:
        raise ValueError(
            f"The probabilities have shape {proba.shape} but the candidates {labels.shape}; reorder"
            " and complete the columns to follow the candidates' classes."
        )
    assert_all_finite(proba, input_name="the probabilities")
    negative = (proba < 0).any(axis=1)
    if negative.any():
        raise ValueError(
            f"The probabilities are negative in {name_rows(negative)}; apply softmax to scores."
        )
    return proba


def _mean(values, what):
    if not len(values):
        return _undefined(f"There is no {what}, so the metric is NaN.")
    return float(np.mean(values))


def _undefined(message):
    warnings.warn(message, UndefinedMetricWarning, stacklevel=3)
    return float("nan")

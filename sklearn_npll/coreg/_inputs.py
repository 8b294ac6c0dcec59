"""What X and y may be, brought to one form."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse as sp
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from .._messages import did_you_mean
from .._partial_labels import PartialLabels


@dataclass
class Problem:
    """Samples and candidates, checked.

    Parameters
    ----------
    data : features or images
    classes : ndarray of shape (n_classes,)
    candidates : bool ndarray of shape (n_samples, n_classes)
    known : bool ndarray of shape (n_samples,)
        Rows whose label a human vouched for.
    scores : ndarray of shape (n_samples, n_classes) or None
    """

    data: object
    classes: np.ndarray
    candidates: np.ndarray
    known: np.ndarray
    scores: np.ndarray | None = None


def check_problem(X, y):
    """Bring what `CoRegClassifier.fit` accepts to one form.

    Parameters
    ----------
    X : PartialLabels, features or images
    y : PartialLabels, array-like of shape (n_samples, n_classes) or (n_samples,), or None

    Returns
    -------
    Problem

    Raises
    ------
    ValueError
        If y is missing, soft or ragged, or there are fewer than two classes or samples.
    """
    if isinstance(X, PartialLabels):
        problem = _from_partial_labels(X.data, X)
    elif y is None:
        raise ValueError(
            "requires y to be passed, but the target y is None: give candidates (n_samples, "
            "n_classes), labels (n_samples,), or a PartialLabels as X"
        )
    elif isinstance(y, PartialLabels):
        check_consistent_length(X, y)
        problem = _from_partial_labels(X, y)
    else:
        y = y if sp.issparse(y) else _as_array(y)
        check_consistent_length(X, y)
        if y.ndim == 2 and y.shape[1] > 1:
            problem = _from_partial_labels(X, _from_indicator(y))
        else:
            problem = _from_labels(X, column_or_1d(y, warn=True))
    if len(problem.classes) < 2:
        raise ValueError(
            "CoRegClassifier needs at least 2 classes; the data has one class: "
            f"{problem.classes[0]!r}"
        )
    if len(problem.candidates) < 2:
        raise ValueError(
            f"CoRegClassifier needs at least 2 samples; got n_samples = {len(problem.candidates)}"
        )
    if problem.candidates.all():
        raise ValueError(
            "every class is a candidate of every row, so there is nothing to learn from"
        )
    return problem


def _from_partial_labels(data, labels):
    known = np.zeros(len(labels), dtype=bool) if labels.known is None else labels.known
    return Problem(data, labels.classes, labels.toarray(), known, labels.scores)


def _as_array(y):
    try:
        array = np.asarray(y)
        if array.dtype == object and len(array) and np.ndim(array[0]):
            raise ValueError("ragged")
    except ValueError:
        raise ValueError(
            "y is a list of sets of different sizes; make it an indicator matrix with "
            "sklearn.preprocessing.MultiLabelBinarizer, or use PartialLabels.from_sets"
        ) from None
    return array


def _from_indicator(y):
    values = np.asarray(y.data if sp.issparse(y) else y)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("Input y contains NaN or infinity.")
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            "y has values besides 0 and 1: a matrix of scores must be turned into candidates with "
            "PartialLabels.from_scores(y, rule=...)"
        )
    return PartialLabels.from_candidates(y)


def _from_labels(X, y):
    check_classification_targets(y)
    classes = np.unique(y)
    unlabelled = np.zeros(len(y), dtype=bool)
    # beside one other label, -1 is the negative class of a binary problem
    if y.dtype.kind in "if" and -1 in classes and len(classes) > 2:
        unlabelled = y == -1
        classes = classes[classes != -1]
    candidates = (y[:, None] == classes) | unlabelled[:, None]
    return Problem(X, classes, candidates, np.zeros(len(y), dtype=bool))


def encode_target(y, classes, n_samples, name):
    """Return class indices (n_samples,) of labels.

    Raises
    ------
    ValueError
        If the length differs or a label is not among the classes.
    """
    y = np.asarray(y)
    if y.shape != (n_samples,):
        raise ValueError(f"{name}: y must have shape ({n_samples},); got {y.shape}")
    index = {c: i for i, c in enumerate(classes.tolist())}
    for row, label in enumerate(y.tolist()):
        if label not in index:
            raise ValueError(
                f"{name}: row {row} has the unknown class {label!r}.{did_you_mean(label, classes)}"
            )
    return np.array([index[label] for label in y.tolist()])

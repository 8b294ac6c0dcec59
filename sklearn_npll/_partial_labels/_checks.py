"""What the parts of partial labels must be."""

import reprlib
from numbers import Number

import numpy as np
from scipy import sparse as sp

from .._messages import name_classes, name_rows

# From this many classes on, candidates are stored as CSR: a few indices a row instead of C bytes.
SPARSE_FROM_CLASSES = 64
_CLASSES = "classes must be a list of names or numbers, one for each column"


def check_class_names(classes):
    """Return the names of classes as an array.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)

    Returns
    -------
    ndarray of shape (n_classes,)
        Strings or numbers.

    Raises
    ------
    ValueError
        If they are no list of strings or of whole numbers, one is given twice, or is -1.
    """
    given = classes
    if not isinstance(classes, np.ndarray) or classes.dtype == object:
        classes = _from_objects(np.asarray(classes, dtype=object))
    if classes.ndim != 1 or not len(classes) or classes.dtype.kind not in "Uiufb":
        raise ValueError(f"{_CLASSES}; got {reprlib.repr(given)}.")
    if classes.dtype.kind == "f" and (wrong := classes % 1 != 0).any():
        raise ValueError(
            f"class {classes[wrong].tolist()[0]!r} is no whole number, and scikit-learn takes such"
            " labels for the values of a regression; name classes by strings or whole numbers."
        )
    names, counts = np.unique(classes, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"class {names[counts > 1].tolist()[0]!r} is given more than once.")
    if -1 in classes.tolist() or "-1" in classes.tolist():
        raise ValueError("-1 cannot be a class; it stands for an unlabelled row.")
    return classes


def _from_objects(classes):
    """Strings or numbers of an array of objects; NumPy would make strings of a mixture."""
    names = classes.tolist() if classes.ndim == 1 else []
    for name in names:
        if isinstance(name, bytes) or not isinstance(name, (str, Number, np.generic)):
            raise ValueError(f"{_CLASSES}; got {name!r} among them.")
    if len({isinstance(name, str) for name in names}) > 1:
        raise ValueError(
            f"classes mix names and numbers: {name_classes(names)}. Make all of them strings, or"
            " all numbers."
        )
    return np.array(names) if names else classes


def default_classes(classes, candidates):
    return np.arange(candidates.shape[1]) if classes is None else classes


def as_matrix(candidates):
    try:
        matrix = np.asarray(candidates)
    except ValueError:  # a ragged list
        matrix = np.empty(0)
    if matrix.ndim != 2:
        raise ValueError(
            "candidates must be a matrix of shape (n_samples, n_classes) of zeros and ones. For a"
            " list of sets of class names use PartialLabels.from_sets (or scikit-learn's"
            " MultiLabelBinarizer)."
        )
    return matrix


def _check_candidates(candidates, shape):
    """Validated candidates: dense for few classes, CSR for many; bool in both cases."""
    if sp.issparse(candidates):
        candidates = sp.csr_array(candidates, copy=True)  # cleaned below, in place
    else:
        candidates = as_matrix(candidates)
    check_shape(candidates, "candidates", shape)
    if candidates.dtype != bool:
        values = candidates.data if sp.issparse(candidates) else candidates
        wrong = (values != 0) & (values != 1)
        if wrong.any():
            if sp.issparse(candidates):
                position = np.argmax(wrong)
                row = np.searchsorted(candidates.indptr, position, side="right") - 1
                value = values[position]
            else:
                row, column = np.argwhere(wrong)[0]
                value = values[row, column]
            value = value.item() if isinstance(value, np.generic) else value
            raise ValueError(
                f"candidates has the value {value!r} in row {row}; each must be 0 or 1. For"
                " probabilities use PartialLabels.from_scores, which applies a candidate rule."
            )
    sparse = shape[1] >= SPARSE_FROM_CLASSES
    if sp.issparse(candidates):
        candidates = candidates.astype(bool, copy=False)
        candidates.sum_duplicates()
        candidates.eliminate_zeros()
        candidates = candidates if sparse else candidates.toarray()
    else:
        candidates = candidates.astype(bool, copy=False)
        candidates = sp.csr_array(candidates) if sparse else candidates
    empty = row_sizes(candidates) == 0
    if empty.any():
        raise ValueError(
            f"{name_rows(empty)} of candidates have no candidate class. Every sample needs at least"
            " one; if nothing is known of its label, make all classes candidates."
        )
    return candidates


def _check_scores(scores, shape):
    """Validated scores of float32: a CSR array without zeros if they are sparse, else dense."""
    if not sp.issparse(scores):
        scores = np.asarray(scores, dtype=np.float32)
        check_shape(scores, "scores", shape)
        # not entry by entry, which would take a second matrix
        wrong = ~(np.isfinite(scores.min(axis=1)) & np.isfinite(scores.max(axis=1)))
    else:
        scores = sp.csr_array(scores, dtype=np.float32, copy=True)  # cleaned below, in place
        check_shape(scores, "scores", shape)
        scores.sum_duplicates()
        scores.eliminate_zeros()
        rows = np.repeat(np.arange(shape[0]), np.diff(scores.indptr))
        wrong = np.bincount(rows[~np.isfinite(scores.data)], minlength=shape[0]) > 0
        negative = np.flatnonzero(scores.data < 0)
        if len(negative):
            raise ValueError(
                f"scores has the value {scores.data[negative[0]]:.3g} in row {rows[negative[0]]}."
                " Sparse scores must not be negative, as classes that are not stored have the score"
                " 0; use probabilities."
            )
    if wrong.any():
        raise ValueError(f"scores contain NaN or infinity in {name_rows(wrong)}.")
    return scores


def _check_votes(votes, shape):
    """Validated votes of the smallest integer type."""
    n_samples, n_classes = shape
    votes = np.asarray(votes)
    check_shape(votes, "votes", (n_samples, votes.shape[-1] if votes.ndim else 0))
    if votes.size and votes.dtype.kind not in "iu":
        raise ValueError(
            f"votes have dtype {votes.dtype}; a vote is a whole number, the index of a class, or -1"
            " for a prompt that abstained."
        )
    if votes.size and not -1 <= votes.min() <= votes.max() < n_classes:
        raise ValueError(
            f"votes go from {votes.min()} to {votes.max()}; a vote is the index of a class, 0 to"
            f" {n_classes - 1}, or -1."
        )
    return votes.astype(np.min_scalar_type(-n_classes), copy=False)


def _check_known(known, candidates):
    """Validated mask of rows, which have one candidate each."""
    known = np.asarray(known)
    check_shape(known, "known", candidates.shape[:1])
    known = np.array(known.tolist()) if known.dtype == object else known
    if known.dtype.kind not in "biuf" or not np.isin(known, [0, 1]).all():
        raise ValueError(
            "known must be a mask, with True or False for each row; got"
            f" {reprlib.repr(known.tolist())}."
        )
    known = known.astype(bool)
    wrong = known & (row_sizes(candidates) != 1)
    if wrong.any():
        raise ValueError(f"{name_rows(wrong)} known by a human must have exactly one candidate.")
    return known


def check_parts(shape, candidates, scores=None, votes=None, known=None):
    """Return candidates, scores, votes and known rows as they are stored.

    Parameters
    ----------
    shape : tuple of int (n_samples, n_classes)
    candidates, scores, votes, known
        As in `PartialLabels`.

    Returns
    -------
    candidates, scores, votes, known

    Raises
    ------
    ValueError
        If a row has no candidate, a shape is wrong, or a value out of range.
    """
    candidates = _check_candidates(candidates, shape)
    return (
        candidates,
        None if scores is None else _check_scores(scores, shape),
        None if votes is None else _check_votes(votes, shape),
        None if known is None else _check_known(known, candidates),
    )


def check_shape(array, name, shape):
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}.")


def row_sizes(candidates):
    """Number of candidates in each row of a dense or clean CSR matrix."""
    return np.diff(candidates.indptr) if sp.issparse(candidates) else candidates.sum(axis=1)

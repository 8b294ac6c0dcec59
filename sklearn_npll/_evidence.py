"""What the annotator left besides candidates: probabilities, or the votes of its prompts."""

from functools import partial

import numpy as np
from scipy import sparse as sp

from ._messages import name_rows

HARDLY = 0.1  # times an equal share, of a class that is hardly ever preferred


def count_votes(votes, n_classes, weights=None):
    """Count the votes of each class.

    Parameters
    ----------
    votes : int array-like of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained.
    n_classes : int
    weights : ndarray of shape (n_prompts,), default=None
        What a vote of each prompt counts; 1 by default.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Integers, or floats if there are weights.
    """
    votes = np.asarray(votes)
    rows, prompts = np.nonzero(votes >= 0)
    cells = rows * n_classes + votes[rows, prompts]
    weights = None if weights is None else weights[prompts]
    counts = np.bincount(cells, weights, minlength=len(votes) * n_classes)
    return counts.reshape(len(votes), n_classes)


def majority_vote(votes, n_classes, weights=None):
    """Return the share of each class in the votes.

    Parameters
    ----------
    votes : int array-like of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained.
    n_classes : int
    weights : ndarray of shape (n_prompts,), default=None
        What a vote of each prompt counts; 1 by default.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Rows of sum 1; uniform where every prompt abstained.
    """
    counts = count_votes(votes, n_classes, weights)
    counts[~counts.any(axis=1)] = 1
    return counts / counts.sum(axis=1, keepdims=True)


def pair_agreement(votes):
    """Return how far the prompts agree about each sample.

    Parameters
    ----------
    votes : int ndarray of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained.

    Returns
    -------
    ndarray of float of shape (n_samples,)
        Share of the pairs of prompts that voted for the same class; NaN with fewer than two votes.

    Examples
    --------
    >>> pair_agreement(np.array([[0, 0, 2], [1, 1, -1], [1, -1, -1]]))
    array([0.33333333, 1.        ,        nan])
    """
    equal, pairs = np.zeros(len(votes)), np.zeros(len(votes))
    for lag in range(1, votes.shape[1]):
        first, second = votes[:, lag:], votes[:, :-lag]
        voted = (first >= 0) & (second >= 0)
        pairs += voted.sum(axis=1)
        equal += (voted & (first == second)).sum(axis=1)
    return np.divide(equal, pairs, out=np.full(len(votes), np.nan), where=pairs > 0)


def as_dense(matrix):
    """Return a matrix as an array, which it may be already; None stays None."""
    return matrix.toarray() if sp.issparse(matrix) else matrix


def spread_columns(values, names, classes):
    """Return columns that have names in the order of classes, with zeros for the other classes.

    Parameters
    ----------
    values : ndarray of shape (n, n_names)
    names : array-like of shape (n_names,)
        All of them are classes.
    classes : ndarray of shape (n_classes,)

    Returns
    -------
    ndarray of shape (n, n_classes)

    Examples
    --------
    >>> spread_columns(np.array([[0.9, 0.1]]), ["fox", "cat"], np.array(["cat", "dog", "fox"]))
    array([[0.1, 0. , 0.9]])
    """
    columns = {name: column for column, name in enumerate(classes.tolist())}
    wide = np.zeros((len(values), len(classes)), values.dtype)
    wide[:, [columns[name] for name in np.asarray(names).tolist()]] = values
    return wide


def largest_columns(matrix):
    """Return the column of the largest entry of each row, the first of equal ones.

    Parameters
    ----------
    matrix : ndarray or csr_array of shape (n, C)
        No entry negative, if it is sparse.

    Returns
    -------
    int ndarray of shape (n,)
    """
    if not sp.issparse(matrix):
        return matrix.argmax(axis=1)
    # SciPy's own loops over rows
    sizes = np.diff(matrix.indptr)
    rows = np.flatnonzero(sizes)
    largest = np.zeros(len(sizes), dtype=matrix.dtype)
    if len(rows):
        largest[rows] = np.maximum.reduceat(matrix.data, matrix.indptr[rows])
    row = np.repeat(np.arange(len(sizes)), sizes)
    found = np.flatnonzero((matrix.data == largest[row]) & (matrix.data > 0))
    columns = np.full(len(sizes), matrix.shape[1])
    np.minimum.at(columns, row[found], matrix.indices[found])
    return np.where(columns < matrix.shape[1], columns, 0)


def check_shares(scores, rows=True):
    """Raise a ValueError unless scores can be scaled to probabilities.

    Parameters
    ----------
    scores : ndarray or csr_array of shape (n_samples, n_classes)
    rows : bool ndarray of shape (n_samples,), default=True
        The rows that count; all by default.
    """
    wrong = rows & ((_by_row(scores.min) < 0) | ~(_by_row(scores.max) > 0))
    if wrong.any():
        raise ValueError(
            f"scores must be probabilities, but in {name_rows(wrong)} they are negative or all zero"
        )


def are_probabilities(scores, rows=True):
    """Tell whether rows of scores are non-negative and sum to 1, as well as half precision can.

    Parameters
    ----------
    scores : ndarray or csr_array of shape (n_samples, n_classes)
    rows : bool ndarray of shape (n_samples,), default=True
        The rows that count; all by default.

    Returns
    -------
    bool
    """
    wrong = (_by_row(scores.min) < 0) | (np.abs(_by_row(scores.sum) - 1) >= 1e-2)
    return not (rows & wrong).any()


def prefers_some(scores):
    """Tell which rows of scores, dense or sparse, are not the same for all classes."""
    return _by_row(scores.max) > _by_row(scores.min)


def _by_row(reduce):
    """Results (n,) of a method of a dense or sparse matrix, without a matrix of the same size."""
    return np.ravel(as_dense(reduce(axis=1)))


def annotator_shares(scores, votes, n_classes):
    """Return the annotator's probabilities, or else the shares of the classes in its votes.

    Parameters
    ----------
    scores : array-like or csr_array of shape (n_samples, n_classes), or None
        Not negative, and not all zero in a row.
    votes : int array-like of shape (n_samples, n_prompts) or None
        Indices of classes; -1 where a prompt abstained.
    n_classes : int

    Returns
    -------
    ndarray of shape (n_samples, n_classes) or None
        Rows of sum 1; None where there are neither.
    """
    if scores is not None:
        scores = as_dense(scores)
        check_shares(scores)
        scores = np.asarray(scores, dtype=np.float64)
        return scores / scores.sum(axis=1, keepdims=True)
    return None if votes is None else majority_vote(votes, n_classes)


def preferred_classes(labels):
    """Return the class that the annotator prefers for each sample, and how much.

    Parameters
    ----------
    labels : PartialLabels
        With scores or votes; or else each candidate counts the same.

    Returns
    -------
    codes : int ndarray of shape (n_samples,)
        Indices of the classes with the largest share; the first of equal ones.
    confidence : ndarray of float of shape (n_samples,)
        Their shares; NaN where scores are negative or all zero, and so no shares.
    """
    shares = labels.scores
    if shares is None:
        shares = annotator_shares(None, labels.votes, len(labels.classes))
    if shares is None:
        shares = labels.tocsr().astype(np.float64)
    largest = _by_row(shares.max)
    sums = _by_row(partial(shares.sum, dtype=np.float64))
    are_shares = (_by_row(shares.min) >= 0) & (largest > 0)
    confidence = np.divide(largest, sums, out=np.full(len(sums), np.nan), where=are_shares)
    return largest_columns(shares), confidence


def rare_classes(preferred):
    """Return the classes with less than a tenth of an equal share, rarest first.

    Parameters
    ----------
    preferred : ndarray of shape (n_classes,)
        How often each class is preferred.

    Returns
    -------
    int ndarray

    Examples
    --------
    >>> rare_classes(np.array([0.6, 0.01, 0.39, 0.0]))
    array([3, 1])
    """
    order = np.argsort(preferred, kind="stable")
    return order[preferred[order] < HARDLY / len(preferred)]

"""What the annotator left besides candidates: probabilities, or the votes of its prompts."""

import numpy as np

from ._messages import name_rows


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


def check_shares(scores):
    """Raise a ValueError unless rows of scores can be scaled to probabilities."""
    wrong = (scores < 0).any(axis=1) | ~(scores > 0).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"scores must be probabilities, but in {name_rows(wrong)} they are negative or all zero"
        )


def are_probabilities(scores):
    """Tell whether rows of scores are non-negative and sum to 1, as well as half precision can."""
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < 1e-2).all())


def annotator_shares(scores, votes, n_classes):
    """Return the annotator's probabilities, or else the shares of the classes in its votes.

    Parameters
    ----------
    scores : array-like of shape (n_samples, n_classes) or None
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
        check_shares(scores)
        scores = np.asarray(scores, dtype=np.float64)
        return scores / scores.sum(axis=1, keepdims=True)
    return None if votes is None else majority_vote(votes, n_classes)

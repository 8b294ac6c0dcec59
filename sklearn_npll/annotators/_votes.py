"""Combining templates: how much each counts, and from their votes to scores."""

import numpy as np

from .._evidence import majority_vote
from .._vote_models import dawid_skene, dawid_skene_posterior, label_model

# Aggregations that weigh the templates themselves.
VOTE_MODELS = {"dawid_skene": dawid_skene, "label_model": label_model}


def check_weights(weights, n_voters, name, voters):
    """Check what each voter counts.

    Parameters
    ----------
    weights : array-like of shape (n_voters,), "agreement" or None
        As given by the user.
    n_voters : int
    name, voters : str
        What the weights, and those that have them, are called in an error.

    Returns
    -------
    ndarray of float64 of shape (n_voters,), "agreement" or None

    Raises
    ------
    ValueError
        If they are not one number for each voter, or negative, or all zero.

    Examples
    --------
    >>> check_weights([1, 3], 2, "weights", "annotators")
    array([1., 3.])
    """
    if weights is None or isinstance(weights, str):
        return weights
    try:
        weights = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers; got {weights!r}.") from None
    if weights.shape != (n_voters,):
        raise ValueError(
            f"{name} has shape {weights.shape}; it must hold a number for each of {n_voters}"
            f" {voters}."
        )
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        k = wrong.argmax()
        raise ValueError(
            f"{name}[{k}] is {weights[k]}; a weight must be a finite number that is not negative."
        )
    if not weights.any():
        raise ValueError(f"{name} are all 0; at least one must count.")
    return weights


def aggregate(votes, means, aggregation, weights=None):
    """Turn the answers of the templates into scores.

    Parameters
    ----------
    votes : ndarray of int of shape (n_samples, n_templates)
        Index of the class each template chose; -1 for an image that could not be read.
    means : ndarray of float32 of shape (n_samples, n_classes)
        Mean probabilities over templates.
    aggregation : {"mean", "vote", "dawid_skene", "label_model"}
        The way.
    weights : ndarray of float of shape (n_templates,), default=None
        What a vote of each template counts, for "vote".

    Returns
    -------
    ndarray of float32 of shape (n_samples, n_classes)
        Rows of sum 1; uniform for an image that could not be read.
    """
    if aggregation == "mean":
        return means
    n_classes = means.shape[1]
    if aggregation == "vote":
        return majority_vote(votes, n_classes, weights).astype(np.float32)
    scores = np.full(means.shape, 1 / n_classes, dtype=np.float32)
    seen = (votes >= 0).any(axis=1)
    if seen.any():
        confusion, prior, _ = VOTE_MODELS[aggregation](votes[seen], n_classes)
        scores[seen] = dawid_skene_posterior(votes[seen], confusion, prior)
    return scores

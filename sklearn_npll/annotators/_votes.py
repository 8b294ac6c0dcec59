"""Combining templates: how much each counts, and from their votes to scores."""

import numpy as np

from .._evidence import count_votes, majority_vote
from .._vote_models import dawid_skene, dawid_skene_posterior, label_model

# Aggregations that weigh the templates themselves.
VOTE_MODELS = {"dawid_skene": dawid_skene, "label_model": label_model}


def check_template_weights(weights, n_templates):
    """Return weights of templates as shares.

    Parameters
    ----------
    weights : array-like of shape (n_templates,), "agreement" or None
        As given by the user.
    n_templates : int
        Number of templates.

    Returns
    -------
    ndarray of float of shape (n_templates,), "agreement" or None
        Shares of sum 1, if there are numbers.

    Raises
    ------
    ValueError
        If they are not one number for each template, or negative, or all zero.

    Examples
    --------
    >>> check_template_weights([1, 3], 2)
    array([0.25, 0.75])
    """
    if weights is None or isinstance(weights, str):
        return weights
    try:
        weights = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"template_weights must be numbers; got {weights!r}.") from None
    if weights.shape != (n_templates,):
        raise ValueError(
            f"template_weights has shape {weights.shape}; it must hold a number for each of"
            f" {n_templates} templates."
        )
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        template = wrong.argmax()
        raise ValueError(
            f"template_weights[{template}] is {weights[template]}; a weight must be a finite number"
            " that is not negative."
        )
    if not weights.any():
        raise ValueError("template_weights are all zero; at least one template must count.")
    return weights / weights.sum()


def agreement_weights(votes, n_classes):
    """Weigh templates by how often they choose the class that another one chooses.

    Parameters
    ----------
    votes : ndarray of int of shape (n_samples, n_templates)
        Index of the class each template chose; -1 where it abstained.
    n_classes : int
        Number of classes.

    Returns
    -------
    ndarray of float of shape (n_templates,)
        Mean share of the other templates that made the same choice, scaled to sum 1. Equal weights
        if no two templates ever agree.

    Examples
    --------
    >>> import numpy as np
    >>> agreement_weights(np.array([[0, 0, 1], [2, 2, 2]]), 3)
    array([0.375, 0.375, 0.25 ])
    """
    counts = count_votes(votes, n_classes)
    others = np.take_along_axis(counts, votes.clip(0).astype(np.intp), axis=1) - 1
    agreement = np.where(votes >= 0, others, 0).sum(axis=0)
    if not agreement.any():
        return np.full(len(agreement), 1 / len(agreement))
    return agreement / agreement.sum()


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

"""Weights of voters by how well they agree, without labels."""

import numpy as np

from .._evidence import majority_vote


def vote_weights(accuracies, n_classes):
    """Weigh independent voters by the log-odds of their accuracy.

    With these weights the most probable class has the most votes, if a voter is as accurate in
    every class and errs evenly among the others [1]_.

    Parameters
    ----------
    accuracies : array-like of shape (n_voters,)
        In (0, 1).
    n_classes : int

    Returns
    -------
    ndarray of shape (n_voters,)
        ``log((n_classes - 1) * a / (1 - a))``; 0 for a voter no better than chance.

    References
    ----------
    .. [1] S. Nitzan, J. Paroush, "Optimal Decision Rules in Uncertain Dichotomous Choice
       Situations", International Economic Review 23(2), 1982.

    Examples
    --------
    >>> vote_weights([0.8, 0.5, 0.2], n_classes=2).round(3)
    array([1.386, 0.   , 0.   ])
    """
    accuracies = np.asarray(accuracies, dtype=np.float64)
    return np.maximum(np.log((n_classes - 1) * accuracies / (1 - accuracies)), 0)


def one_coin_posterior(votes, weights, n_classes):
    """Return the probabilities of the classes given the votes of weighted voters.

    Parameters
    ----------
    votes : int ndarray of shape (n_samples, n_voters)
        Indices of classes; -1 where a voter abstained.
    weights : array-like of shape (n_voters,)
        Log-odds, as `vote_weights` returns them.
    n_classes : int

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        The softmax of the sum of the weights of those who voted for a class.

    Examples
    --------
    >>> one_coin_posterior(np.array([[0, 1]]), np.log([4, 2]), n_classes=3).round(3)
    array([[0.571, 0.286, 0.143]])
    """
    logits = np.zeros((len(votes), n_classes))
    for voted, weight in zip(votes.T, weights):
        rows = np.flatnonzero(voted >= 0)
        logits[rows, voted[rows]] += weight
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    return proba / proba.sum(axis=1, keepdims=True)


def one_coin_accuracies(votes, n_classes, max_iter=100, tol=1e-6):
    """Estimate how often each voter is right, from the votes alone, by EM.

    The model of Dawid and Skene with one parameter a voter, its accuracy in every class, and
    equally frequent classes. It begins with the vote shares. One right and one wrong vote are added
    to each voter's, so that no accuracy is 0 or 1.

    Parameters
    ----------
    votes : int ndarray of shape (n_samples, n_voters)
        Indices of classes; -1 where a voter abstained.
    n_classes : int
    max_iter : int, default=100
    tol : float, default=1e-6
        Largest change of an accuracy at which to stop.

    Returns
    -------
    ndarray of shape (n_voters,)

    Examples
    --------
    >>> votes = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 0], [2, 2, 0]])
    >>> one_coin_accuracies(votes, n_classes=3).round(2)
    array([0.85, 0.85, 0.29])
    """
    posterior = majority_vote(votes, n_classes)
    accuracies = np.full(votes.shape[1], np.inf)
    for _ in range(max_iter):
        right = np.where(votes >= 0, np.take_along_axis(posterior, votes.clip(0), axis=1), 0)
        last, accuracies = accuracies, (right.sum(axis=0) + 1) / ((votes >= 0).sum(axis=0) + 2)
        if np.abs(accuracies - last).max() < tol:
            break
        posterior = one_coin_posterior(votes, vote_weights(accuracies, n_classes), n_classes)
    return accuracies


def agreement_weights(votes, n_classes):
    """Weigh voters by how well each agrees with all of them.

    Parameters
    ----------
    votes : int ndarray of shape (n_samples, n_voters)
        Indices of classes; -1 where a voter abstained.
    n_classes : int

    Returns
    -------
    ndarray of shape (n_voters,)
        `vote_weights` of `one_coin_accuracies`, scaled to a sum of 1; equal if all are 0.

    Examples
    --------
    >>> votes = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 0], [2, 2, 0]])
    >>> agreement_weights(votes, n_classes=3).round(2)
    array([0.5, 0.5, 0. ])
    """
    weights = vote_weights(one_coin_accuracies(votes, n_classes), n_classes)
    return weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights))

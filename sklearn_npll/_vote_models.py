"""Models of prompts as witnesses: from votes to the true classes and the prompts' confusions."""

import warnings

import numpy as np
from scipy import sparse as sp
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from ._evidence import majority_vote

_RARE = 1e-10  # probability of a vote that was never seen


def dawid_skene(votes, n_classes, max_iter=100, tol=1e-5):
    """Estimate true classes and the confusion matrix of each prompt from votes, by EM.

    Parameters
    ----------
    votes : int array-like of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained. At least one vote.
    n_classes : int
    max_iter : int, default=100
    tol : float, default=1e-5
        Gain in the mean log-likelihood of a row's votes at which to stop; a `ConvergenceWarning`
        tells if `max_iter` came first.

    Returns
    -------
    confusion : ndarray of shape (n_prompts, n_classes, n_classes)
        Probability of the votes (last axis) of each prompt given the true class.
    prior : ndarray of shape (n_classes,)
        Shares of the classes; 0 for those without votes.
    n_iter : int
    """
    votes = np.asarray(votes)
    n_prompts = votes.shape[1]
    votes = votes[(votes >= 0).any(axis=1)]  # other rows tell nothing
    indicator = _indicator(votes, n_classes)
    posterior = majority_vote(votes, n_classes)
    last = -np.inf
    for n_iter in range(1, max_iter + 1):
        prior = posterior.mean(axis=0)
        counts = (indicator.T @ posterior).reshape(n_prompts, n_classes, n_classes)
        # A vote never seen is next to impossible, not impossible: all classes could have one.
        confusion = np.maximum(counts.transpose(0, 2, 1), _RARE)
        confusion /= confusion.sum(axis=2, keepdims=True)
        posterior, log_likelihood = _posterior(indicator, confusion, prior)
        converged = log_likelihood - last < tol
        if converged or n_iter == max_iter:
            if not converged:
                _warn_of_limit("DawidSkeneClassifier", max_iter, tol)
            return confusion, prior, n_iter
        last = log_likelihood


def dawid_skene_posterior(votes, confusion, prior):
    """Return the probabilities of the classes given votes.

    Parameters
    ----------
    votes : int array-like of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained.
    confusion : ndarray of shape (n_prompts, n_classes, n_classes)
        Probability of the votes (last axis) of each prompt given the true class.
    prior : ndarray of shape (n_classes,)

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        The prior where every prompt abstained.
    """
    return _posterior(_indicator(np.asarray(votes), len(prior)), confusion, prior)[0]


def label_model(votes, n_classes, prior=None, max_iter=500, tol=1e-5):
    """Estimate the confusion matrix of each prompt from how often pairs of prompts agree.

    With the probabilities `mu` of the votes given the class and the shares `P` of the classes,
    prompts that err independently vote for a pair of classes with probability ``mu P mu^T``. The
    tables are fitted by least squares to the observed shares of such pairs, and to those of single
    votes.

    Parameters
    ----------
    votes : int array-like of shape (n_samples, n_prompts)
        Indices of classes; -1 where a prompt abstained. At least one vote.
    n_classes : int
    prior : array-like of shape (n_classes,), default=None
        Shares of the classes, of sum 1; by default their shares in the votes.
    max_iter : int, default=500
    tol : float, default=1e-5
        Relative fall in the squared error at which to stop; a `ConvergenceWarning` tells if
        `max_iter` came first.

    Returns
    -------
    confusion : ndarray of shape (n_prompts, n_classes, n_classes)
        Probability of the votes (last axis) of each prompt given the true class.
    prior : ndarray of shape (n_classes,)
    n_iter : int
    """
    votes = np.asarray(votes)
    n_prompts = votes.shape[1]
    votes = votes[(votes >= 0).any(axis=1)]
    posterior = majority_vote(votes, n_classes)
    prior = posterior.mean(axis=0) if prior is None else np.asarray(prior, dtype=np.float64)
    indicator = _indicator(votes, n_classes)
    moments = pair_moments(indicator, n_prompts)
    # From the tables that the vote shares imply, smoothed, since softmax has no zeros.
    start = (indicator.T @ posterior).reshape(n_prompts, n_classes, n_classes)
    start = np.log(start + 0.01 * len(votes) / n_classes**2)

    def error(logits):
        mu = softmax(logits.reshape(start.shape), axis=1)
        value, gradient = moment_error(mu, prior, *moments)
        return value, (mu * (gradient - (mu * gradient).sum(axis=1, keepdims=True))).ravel()

    options = {"maxiter": max_iter, "maxfun": np.inf, "ftol": tol, "gtol": 0}
    best = minimize(error, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    if best.status == 1:  # the limit
        _warn_of_limit("LabelModelClassifier", max_iter, tol)
    confusion = softmax(best.x.reshape(start.shape), axis=1).transpose(0, 2, 1)
    return np.maximum(confusion, _RARE), prior, best.nit


def pair_moments(indicator, n_prompts):
    """Return how often votes occur, alone and in pairs, among rows where nobody abstained.

    Parameters
    ----------
    indicator : csr_matrix of shape (n_samples, n_prompts * n_classes)
        One-hot votes.
    n_prompts : int

    Returns
    -------
    pairs : csr_matrix of shape (n_prompts * n_classes, n_prompts * n_classes)
        Share of each pair of votes of two prompts; nothing for a prompt and itself.
    observed : bool ndarray of shape (n_prompts, n_prompts)
        The pairs of different prompts that voted on the same row.
    single : ndarray of shape (n_prompts, n_classes)
        Share of each class in the votes of each prompt; zeros if it always abstained.
    """
    n_classes = indicator.shape[1] // n_prompts
    counts = (indicator.T @ indicator).tocoo()
    first, second = counts.row // n_classes, counts.col // n_classes
    cells = np.bincount(first * n_prompts + second, counts.data, n_prompts**2)
    together = cells.reshape(n_prompts, n_prompts)
    single = np.asarray(indicator.sum(axis=0)).reshape(n_prompts, n_classes)
    single = single / np.maximum(np.diagonal(together), 1)[:, None]
    other = first != second
    shares = counts.data[other] / together[first[other], second[other]]
    pairs = sp.csr_matrix((shares, (counts.row[other], counts.col[other])), counts.shape)
    return pairs, (together > 0) & ~np.eye(n_prompts, dtype=bool), single


def moment_error(mu, prior, pairs, observed, single):
    """Return the squared error of predicted moments, and its gradient.

    The predicted pairs ``mu P mu^T`` are never formed: only their products are needed.

    Parameters
    ----------
    mu : ndarray of shape (n_prompts, n_classes, n_classes)
        Probability of the votes (middle axis) of each prompt given the class (last axis).
    prior : ndarray of shape (n_classes,)
    pairs, observed, single
        As `pair_moments` returns them.

    Returns
    -------
    error : float
    gradient : ndarray of the shape of `mu`
    """
    joint = mu * prior
    met = (pairs @ joint.reshape(-1, len(prior))).reshape(mu.shape)
    inner = mu.transpose(0, 2, 1) @ mu
    others = np.tensordot(observed.astype(np.float64), inner, axes=1)
    others *= prior[:, None] * prior
    gap = joint.sum(axis=2) - single
    error = (pairs.data**2).sum() - 2 * (mu * met).sum() + (inner * others).sum() + (gap**2).sum()
    return float(error), 4 * (mu @ others - met) + 2 * gap[:, :, None] * prior


def _indicator(votes, n_classes):
    """One-hot votes (n_samples, n_prompts * n_classes); abstentions are rows of zeros."""
    n_samples, n_prompts = votes.shape
    rows, prompts = np.nonzero(votes >= 0)
    columns = prompts * n_classes + votes[rows, prompts]
    return sp.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(n_samples, n_prompts * n_classes)
    )


def _posterior(indicator, confusion, prior):
    """Posterior and mean log-likelihood of one-hot votes."""
    with np.errstate(divide="ignore"):
        log_joint = np.log(prior) + indicator @ _votes_first(np.log(confusion))
    highest = log_joint.max(axis=1, keepdims=True)
    joint = np.exp(log_joint - highest)
    evidence = joint.sum(axis=1, keepdims=True)
    return joint / evidence, float(np.mean(highest + np.log(evidence)))


def _votes_first(confusion):
    """Matrix (n_prompts * n_classes, n_classes) with the votes in its rows."""
    return confusion.transpose(0, 2, 1).reshape(-1, confusion.shape[1])


def _warn_of_limit(name, max_iter, tol):
    """Warn that `max_iter` ended an estimate, not `tol`, and name the estimator that has both."""
    warnings.warn(
        f"the model of the votes stopped at max_iter={max_iter} before it met tol={tol}; raise "
        f"max_iter or tol of {name}",
        ConvergenceWarning,
        stacklevel=3,
    )

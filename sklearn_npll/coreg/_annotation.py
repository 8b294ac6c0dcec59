"""What Co-Reg takes from the annotator: soft labels, and the shares of the classes in them."""

import warnings

import numpy as np
import torch
from scipy.sparse import issparse

from .._evidence import annotator_shares, are_probabilities, as_dense, check_shares
from .._neural._sparse_rows import row_blocks

# Share of the classes that must effectively be named for the classes to be taken as balanced.
BALANCED = 0.8
# Power of an annotator's unequal shares in the prior: 1 repeats its bias, 0 makes them equal.
SHARES_POWER = 0.25


def candidate_shares(candidates):
    """Return the mean of the candidate sets (n, C) with equal weight in each; all-ones rows no."""
    if issparse(candidates):
        sizes, n_classes = np.diff(candidates.indptr), candidates.shape[1]
        weights = np.where(sizes < n_classes, 1 / sizes, 0)
        shares = np.bincount(candidates.indices, np.repeat(weights, sizes), n_classes)
        return shares / np.count_nonzero(weights)
    labelled = candidates[~candidates.all(1)]
    return (labelled / labelled.sum(1, keepdims=True)).mean(0)


def effective_classes(shares):
    """Return the exponential of the entropy of class shares (C,): C if they are equal."""
    shares = shares[shares > 0]
    return np.exp(-(shares * np.log(shares)).sum())


def soft_labels(problem, rows=slice(None)):
    """Return the annotator's scores, or else the shares of its votes, as soft labels of rows.

    Parameters
    ----------
    problem : Problem
        With scores or votes.
    rows : slice or int ndarray of shape (m,)

    Returns
    -------
    ndarray of float32 of shape (m, n_classes)
        Rows of sum 1, those of known rows with their label; 0 where no class is preferred to
        another.
    """
    guessed = ~problem.known[rows]
    labels = as_dense(problem.candidates[rows]).astype(np.float32)
    scores, votes = (
        None if part is None else part[rows][guessed] for part in (problem.scores, problem.votes)
    )
    labels[guessed] = annotator_shares(scores, votes, labels.shape[1])
    labels[np.ptp(labels, axis=1) < 1e-6] = 0
    return labels


class SoftLabels:
    """The `soft_labels` of a problem with too many rows and classes to make all of them at once.

    Parameters
    ----------
    problem : Problem
    device : torch.device

    Attributes
    ----------
    shares : ndarray of shape (n_classes,) or None
        Mean of the rows that are not 0; None if all are.
    """

    def __init__(self, problem, device):
        self.problem = problem
        self.device = device
        self.shape = problem.candidates.shape
        total, count = 0.0, 0
        for rows in row_blocks(self):
            labels = soft_labels(problem, rows)
            total = total + labels.sum(0, dtype=np.float64)
            count += np.count_nonzero(labels.any(1))
        self.shares = total / count if count else None

    def __getitem__(self, rows):
        """Return the soft labels of rows, a slice or an int Tensor (m,), as a Tensor (m, C)."""
        rows = rows.cpu().numpy() if torch.is_tensor(rows) else rows
        labels = soft_labels(self.problem, rows)
        return torch.from_numpy(labels).to(self.device)

    def content_to_hash(self):
        """Return what tells them from others, for a hash."""
        return [self.problem.scores, self.problem.votes, self.problem.known]


def annotator_labels(problem, strict, device):
    """Return the soft labels of all rows, if there are any.

    Parameters
    ----------
    problem : Problem
    strict : bool
        Whether scores that do not sum to 1 are scaled, and negative ones an error. Otherwise they
        are left alone, with a warning.
    device : torch.device

    Returns
    -------
    labels : Tensor or SoftLabels of shape (n_samples, n_classes), or None
        `SoftLabels` if the candidates are sparse. None if no class is preferred anywhere.
    shares : ndarray of shape (n_classes,) or None
        Mean of the rows that are not 0.
    """
    scores, guessed = problem.scores, ~problem.known
    if scores is None and problem.votes is None:
        return None, None
    if scores is not None:
        if not strict and not are_probabilities(scores, guessed):
            warnings.warn(
                "The scores are no probabilities (rows of sum 1), so only the candidates are "
                "learnt from. Give probabilities, or say so with warm_up_target='candidates' and a "
                "prior",
                UserWarning,
                stacklevel=5,  # the caller of fit
            )
            return None, None
        check_shares(scores, guessed)
    if issparse(problem.candidates):
        labels = SoftLabels(problem, device)
        return (None if labels.shares is None else labels), labels.shares
    labels = soft_labels(problem)
    if not labels.any():
        return None, None
    return torch.from_numpy(labels).to(device), labels[labels.any(1)].mean(0)


def resolve_prior(prior, shares, candidates):
    """Return the class shares that a value of the parameter `prior` stands for.

    Parameters
    ----------
    prior : str, array-like of shape (n_classes,) or None
    shares : ndarray of shape (n_classes,) or None
        See `annotator_labels`.
    candidates : bool ndarray or csr_array of shape (n_samples, n_classes)

    Returns
    -------
    ndarray of float32 of shape (n_classes,), "estimated" or None
    """
    n_classes = candidates.shape[1]
    if isinstance(prior, str):
        if prior == "estimated":
            return prior
        of_sets = prior == "candidates" or shares is None
        if of_sets:
            shares = candidate_shares(candidates)
        if prior == "adaptive" and effective_classes(shares) < BALANCED * n_classes:
            # what the annotator prefers repeats its bias; wrong classes of the sets even theirs out
            prior = shares if of_sets else shares**SHARES_POWER
        else:
            prior = np.ones(n_classes) if prior in ("adaptive", "uniform") else shares
    elif prior is None:
        return None
    prior = np.asarray(prior, dtype=np.float32)
    if prior.shape != (n_classes,) or not (np.all(prior >= 0) and 0 < prior.sum() < np.inf):
        raise ValueError(
            f"prior must be {n_classes} non-negative class shares, one a class; got {prior!r}"
        )
    return prior / prior.sum()

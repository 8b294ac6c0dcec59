"""Pure functions behind the detectors. Shapes: ``n`` rows, ``C`` classes; ``S`` is a candidate set.

Everything is written for candidate sets; a single label is a set of one.
"""

import numpy as np

from ..coreg._division import fit_loss_mixture

EPS = 1e-8


def candidate_mass(proba, candidates):
    """Return the probability that the truth is a candidate: the sum over the set.

    Parameters
    ----------
    proba : ndarray of shape (n, C)
    candidates : bool ndarray of shape (n, C)

    Returns
    -------
    ndarray of shape (n,)
        At most 1, whatever the rounding.
    """
    return np.minimum(np.where(candidates, proba, 0.0).sum(axis=1), 1.0)


def best_candidate(proba, candidates):
    """Return the index of the most probable candidate of each row, the first of equal ones.

    Parameters
    ----------
    proba : ndarray of shape (n, C)
    candidates : bool ndarray of shape (n, C)

    Returns
    -------
    int ndarray of shape (n,)
    """
    return np.where(candidates, proba, -np.inf).argmax(axis=1)


def has_opinion(proba):
    """Tell in which rows some class is more probable than another, by more than rounding.

    Parameters
    ----------
    proba : ndarray of shape (n, C)

    Returns
    -------
    bool ndarray of shape (n,)
    """
    return proba.max(axis=1) > proba.min(axis=1) * (1 + 1e-6)


def label_match(proba, candidates):
    """Tell in which rows the most probable class of all is a candidate.

    Parameters
    ----------
    proba : ndarray of shape (n, C)
    candidates : bool ndarray of shape (n, C)

    Returns
    -------
    bool ndarray of shape (n,)
        The first of several most probable classes counts, but False where all are equal.
    """
    return candidates[np.arange(len(proba)), proba.argmax(axis=1)] & has_opinion(proba)


def candidate_loss(proba, candidates):
    """Return ``-log sum_S p``, finite as the sum is clipped from below at 1e-8.

    Parameters
    ----------
    proba : ndarray of shape (n, C)
    candidates : bool ndarray of shape (n, C)

    Returns
    -------
    ndarray of shape (n,)
    """
    return -np.log(np.maximum(candidate_mass(proba, candidates), EPS))


def consistency(proba, candidates):
    """Return ``sum_S p / max p``, at most 1: how near the labels are to the favourite class.

    It is 0 where all classes are equally probable, and none the favourite.

    Parameters
    ----------
    proba : ndarray of shape (n, C)
    candidates : bool ndarray of shape (n, C)

    Returns
    -------
    ndarray of shape (n,)
    """
    ratio = np.minimum(candidate_mass(proba, candidates) / proba.max(axis=1), 1.0)
    return np.where(has_opinion(proba), ratio, 0.0)


def neighbor_votes(neighbors, shares):
    """Average the labels of neighbours.

    Parameters
    ----------
    neighbors : int ndarray of shape (n, n_neighbors)
        Rows of `shares`.
    shares : ndarray of shape (n_rows, C)
        Labels as distributions.

    Returns
    -------
    ndarray of shape (n, C)
        Rows of sum 1.
    """
    votes = np.zeros((len(neighbors), shares.shape[1]))
    for neighbor in neighbors.T:
        votes += shares[neighbor]
    return votes / neighbors.shape[1]


class LossMixture:
    """Mixture of two Gaussians on losses scaled to [0, 1]; the lower one is of the clean rows.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Initial assignment of the losses.
    """

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, loss):
        """Fit to losses of shape (n,); nothing is fitted if they are fewer than two or equal."""
        self.mixture_ = None
        if len(loss) < 2 or np.ptp(loss) < EPS:
            return self
        self.low_, self.range_ = loss.min(), np.ptp(loss)
        self.mixture_ = fit_loss_mixture(self._scale(loss), self.random_state)
        return self

    def clean_probability(self, loss):
        """Return the posterior of the lower Gaussian, 1 for all if nothing was fitted."""
        if self.mixture_ is None or not len(loss):
            return np.ones(len(loss))
        posterior = self.mixture_.predict_proba(self._scale(loss)[:, None])
        return posterior[:, self.mixture_.means_[:, 0].argmin()]

    def _scale(self, loss):
        # losses of new rows can lie outside those fitted to
        return np.clip((loss - self.low_) / self.range_, 0, 1)


def add_best(mask, score, codes, min_per_class):
    """Add rows of the highest scores until each class has a number of rows, or has no more.

    Parameters
    ----------
    mask : bool ndarray of shape (n,)
        Selected rows.
    score : ndarray of shape (n,)
        The first of equal scores is added first.
    codes : int ndarray of shape (n,)
        Class of each row; -1 for rows that may not be added.
    min_per_class : int

    Returns
    -------
    bool ndarray of shape (n,)
    """
    mask = mask.copy()
    for code in np.unique(codes[codes >= 0]):
        rows = np.flatnonzero((codes == code) & ~mask)
        lacking = max(min_per_class - np.count_nonzero(mask & (codes == code)), 0)
        mask[rows[np.argsort(-score[rows], kind="stable")[:lacking]]] = True
    return mask

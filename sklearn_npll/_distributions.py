"""Label distributions: restricted to candidates, or the nearest to any points."""

import numpy as np


def restrict(distributions, candidates):
    """Restrict distributions to the candidates.

    Parameters
    ----------
    distributions : ndarray of shape (n_samples, n_classes)
        Weights, none negative.
    candidates : bool ndarray of shape (n_samples, n_classes)

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Rows of sum 1; uniform over the candidates where these have no weight.
    """
    restricted = np.where(candidates, distributions, 0.0)
    mass = restricted.sum(axis=1, keepdims=True)
    restricted = np.where(mass > 0, restricted, candidates)
    return restricted / restricted.sum(axis=1, keepdims=True)


def project_simplex(points, support):
    """Project each row on the probability simplex over the classes of its support.

    Parameters
    ----------
    points : ndarray of shape (n_samples, n_classes)
    support : bool ndarray of shape (n_samples, n_classes)
        At least one class a row.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        The nearest distributions, 0 outside the support.
    """
    # A shift changes nothing but the rounding: the 1 is to be seen beside the points.
    points = points - np.where(support, points, -np.inf).max(axis=1, keepdims=True)
    descending = -np.sort(np.where(support, -points, np.inf), axis=1)
    inside = np.isfinite(descending)
    descending = np.where(inside, descending, 0.0)
    ranks = np.arange(1, points.shape[1] + 1)
    thresholds = (descending.cumsum(axis=1) - 1) / ranks
    n_positive = (inside & (descending > thresholds)).sum(axis=1, keepdims=True)
    threshold = np.take_along_axis(thresholds, n_positive - 1, axis=1)
    return np.where(support, np.maximum(points - threshold, 0), 0.0)

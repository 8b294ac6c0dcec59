"""Label distributions, against values worked out by hand and what makes them the nearest."""

import numpy as np
from numpy.testing import assert_allclose

from sklearn_npll._distributions import project_simplex, restrict


def test_restrict():
    sets = np.array([[1, 1, 0], [0, 1, 1]], dtype=bool)
    assert_allclose(
        restrict(np.array([[0.2, 0.6, 0.2], [1, 0, 0]]), sets), [[0.25, 0.75, 0], [0, 0.5, 0.5]]
    )


def test_project_simplex():
    points = np.array([[0.5, 0.9, 5], [0.5, 0.9, 5], [-3, 2, 0], [-1, -2, -4]])
    support = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 0, 1]], dtype=bool)
    assert_allclose(
        project_simplex(points, support), [[0.3, 0.7, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]
    )


def test_projection_is_the_nearest_distribution():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 4))
    support = rng.random((20, 4)) < 0.5
    support[~support.any(axis=1)] = True
    projected = project_simplex(points, support)
    assert_allclose(projected.sum(axis=1), 1)
    distance = (np.where(support, points - projected, 0) ** 2).sum(axis=1)
    for _ in range(50):
        other = restrict(rng.exponential(size=(20, 4)), support)
        assert (distance <= (np.where(support, points - other, 0) ** 2).sum(axis=1) + 1e-12).all()

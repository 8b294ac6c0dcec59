"""Weights of templates and aggregation of their votes, against hand-computed values."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_npll._evidence import count_votes, majority_vote
from sklearn_npll._vote_models import dawid_skene, dawid_skene_posterior, label_model
from sklearn_npll.annotators._votes import aggregate, check_weights

VOTES = np.array([[0, 0, 1], [2, 2, 2], [-1, -1, -1], [0, 1, 1]], dtype=np.int8)
MEANS = np.full((4, 3), 1 / 3, dtype=np.float32)


def test_weighted_votes_by_hand():
    weights = np.array([0.5, 0.3, 0.2])
    counts = [[0.8, 0.2, 0], [0, 0, 1], [0, 0, 0], [0.5, 0.5, 0]]
    assert_allclose(count_votes(VOTES, 3, weights), counts)
    counts[2] = [1 / 3] * 3
    assert_allclose(majority_vote(VOTES, 3, weights), counts)
    assert_allclose(aggregate(VOTES, MEANS, "vote", weights), counts, rtol=1e-6)
    # Where only templates without weight voted, nothing is known.
    assert_allclose(majority_vote([[0, -1]], 2, np.array([0.0, 1.0])), [[0.5, 0.5]])


def test_check_weights():
    assert check_weights(None, 3, "w", "voters") is None
    assert check_weights("agreement", 3, "w", "voters") == "agreement"
    assert_array_equal(check_weights([2, 0, 6], 3, "w", "voters"), [2.0, 0.0, 6.0])
    with pytest.raises(ValueError, match=r"w has shape \(2,\); .* each of 3 voters"):
        check_weights([1, 2], 3, "w", "voters")
    for wrong in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"w\[1\] is {wrong}"):
            check_weights([1, wrong, 1], 3, "w", "voters")
    for wrong in (["a", "b"], [1, [2, 3]]):
        with pytest.raises(ValueError, match="w must be numbers; got"):
            check_weights(wrong, 2, "w", "voters")
    with pytest.raises(ValueError, match="w are all 0"):
        check_weights([0, 0], 2, "w", "voters")


@pytest.mark.parametrize("aggregation", ["mean", "vote", "dawid_skene", "label_model"])
def test_aggregations(aggregation):
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=200)
    votes = np.where(rng.random((200, 5)) < 0.7, y[:, None], rng.integers(3, size=(200, 5)))
    votes[::10] = -1
    means = rng.dirichlet(np.ones(3), size=200).astype(np.float32)
    scores = aggregate(votes.astype(np.int8), means, aggregation)
    assert scores.dtype == np.float32
    seen = (votes >= 0).all(axis=1)
    if aggregation == "mean":
        assert scores is means
        return
    assert_allclose(scores[~seen], 1 / 3, rtol=1e-6)
    if aggregation == "vote":
        expected = majority_vote(votes[seen], 3)
    else:
        model = {"dawid_skene": dawid_skene, "label_model": label_model}[aggregation]
        expected = dawid_skene_posterior(votes[seen], *model(votes[seen], 3)[:2])
        assert scores[seen].max(axis=1).mean() > majority_vote(votes, 3).max(axis=1).mean()
    assert_allclose(scores[seen], expected, atol=1e-6)
    assert np.mean(scores[seen].argmax(axis=1) == y[seen]) > 0.85


@pytest.mark.parametrize("aggregation", ["vote", "dawid_skene", "label_model"])
def test_aggregations_without_any_vote(aggregation):
    assert_allclose(aggregate(np.full((4, 2), -1), MEANS, aggregation), MEANS)


def test_aggregate_leaves_its_input():
    votes, means = VOTES.copy(), MEANS.copy()
    for aggregation in ("vote", "dawid_skene", "label_model"):
        aggregate(votes, means, aggregation)
    assert_array_equal(votes, VOTES)
    assert_array_equal(means, MEANS)

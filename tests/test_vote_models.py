"""The label model against hand-computed moments and planted confusion matrices."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import check_grad
from sklearn.exceptions import ConvergenceWarning

from sklearn_npll._evidence import majority_vote
from sklearn_npll._vote_models import (
    _indicator,
    dawid_skene,
    dawid_skene_posterior,
    label_model,
    moment_error,
    pair_moments,
)


def draw_votes(confusion, prior, n_samples, abstain=0.0, seed=0):
    """Votes of prompts that err independently, and the true classes."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(prior), p=prior, size=n_samples)
    draws = rng.random((n_samples, len(confusion), 1))
    votes = (draws > confusion[:, y].transpose(1, 0, 2).cumsum(axis=2)).sum(axis=2)
    votes[rng.random(votes.shape) < abstain] = -1
    return votes, y


def test_pair_moments_by_hand():
    votes = np.array([[0, 0, -1], [0, 1, -1], [1, 1, 0], [1, -1, 1]])
    pairs, observed, single = pair_moments(_indicator(votes, 2), 3)
    pairs = pairs.toarray().reshape(3, 2, 3, 2)
    third, half = 1 / 3, 1 / 2
    assert_allclose(pairs[0, :, 1], [[third, third], [0, third]])  # rows 0 to 2
    assert_allclose(pairs[0, :, 2], [[0, 0], [half, half]])  # rows 2 and 3
    assert_allclose(pairs[1, :, 2], [[0, 0], [1, 0]])  # row 2
    assert_allclose(pairs[2, :, 0], pairs[0, :, 2].T)
    for prompt in range(3):
        assert_array_equal(pairs[prompt, :, prompt], 0)
    assert_array_equal(observed, ~np.eye(3, dtype=bool))
    assert_allclose(single, [[half, half], [third, 2 / 3], [half, half]])
    apart = pair_moments(_indicator(np.array([[0, -1], [-1, 1]]), 2), 2)
    assert not apart[1].any() and apart[0].nnz == 0


def loop_error(mu, prior, pairs, observed, single):
    """The squared error of all moments, one prompt after the other."""
    pairs = pairs.toarray().reshape(len(mu), len(prior), len(mu), len(prior))
    error = 0.0
    for s in range(len(mu)):
        error += ((mu[s] @ prior - single[s]) ** 2).sum()
        for t in range(len(mu)):
            if observed[s, t]:
                error += ((mu[s] @ np.diag(prior) @ mu[t].T - pairs[s, :, t]) ** 2).sum()
    return error


def test_moment_error_and_its_gradient():
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, 3, size=(20, 4))
    votes[:10, 3] = votes[10:, 2] = -1  # these two never meet
    moments = pair_moments(_indicator(votes, 3), 4)
    assert not moments[1][2, 3]
    prior, mu = np.array([0.5, 0.3, 0.2]), rng.random((4, 3, 3))
    assert_allclose(moment_error(mu, prior, *moments)[0], loop_error(mu, prior, *moments))

    def part(index):
        return lambda x: np.ravel(moment_error(x.reshape(mu.shape), prior, *moments)[index])

    wrong = check_grad(lambda x: part(0)(x)[0], part(1), mu.ravel())
    assert wrong < 1e-5


def test_moments_of_the_truth_have_no_error():
    confusion = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.3, 0.7]]])
    prior = np.array([0.7, 0.3])
    mu = confusion.transpose(0, 2, 1)
    # All four pairs of votes, as often as they should be.
    joint = np.einsum("ay,y,by->ab", mu[0], prior, mu[1])
    counts = np.rint(joint * 1e6).astype(int)
    votes = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], counts.ravel(), axis=0)
    moments = pair_moments(_indicator(votes, 2), 2)
    error, gradient = moment_error(mu, prior, *moments)
    assert error < 1e-10
    assert np.abs(gradient).max() < 1e-5


@pytest.mark.parametrize("abstain", [0.0, 0.3])
def test_recovers_planted_prompts(abstain):
    confusion = np.array(
        [
            [[0.9, 0.1], [0.2, 0.8]],
            [[0.6, 0.4], [0.3, 0.7]],
            [[0.8, 0.2], [0.4, 0.6]],
            [[0.3, 0.7], [0.9, 0.1]],  # mostly the wrong class
            [[0.7, 0.3], [0.1, 0.9]],
        ]
    )
    prior = np.array([0.4, 0.6])
    votes, y = draw_votes(confusion, prior, 40000, abstain)
    found, used, n_iter = label_model(votes, 2, prior)
    assert_array_equal(used, prior)
    assert_allclose(found, confusion, atol=0.03)
    assert_allclose(found.sum(axis=2), 1)
    assert 1 < n_iter < 200
    accuracy = np.mean(dawid_skene_posterior(votes, found, prior).argmax(axis=1) == y)
    optimum = np.mean(dawid_skene_posterior(votes, confusion, prior).argmax(axis=1) == y)
    assert accuracy > optimum - 0.005


def test_recovers_three_classes_and_does_without_their_shares():
    rng = np.random.default_rng(1)
    confusion = 0.6 * np.eye(3) + 0.4 * rng.dirichlet(np.ones(3), size=(6, 3))
    prior = np.array([0.5, 0.3, 0.2])
    votes, y = draw_votes(confusion, prior, 40000)
    assert_allclose(label_model(votes, 3, prior)[0], confusion, atol=0.05)
    found, used, _ = label_model(votes, 3)
    assert_allclose(used, prior, atol=0.1)
    accuracy = np.mean(dawid_skene_posterior(votes, found, used).argmax(axis=1) == y)
    assert accuracy > np.mean(majority_vote(votes, 3).argmax(axis=1) == y) + 0.005


def test_label_model_at_its_limits():
    votes = draw_votes(np.full((3, 2, 2), 0.5) + 0.4 * np.eye(2) - 0.2, [0.5, 0.5], 100)[0]
    silent = np.concatenate([np.full((7, 3), -1), votes])
    for first, second in zip(label_model(silent, 2), label_model(votes, 2)):
        assert_array_equal(first, second)
    confusion, prior, _ = label_model(votes, 4)  # nobody votes for two of the classes
    assert_array_equal(prior[2:], 0)
    assert np.isfinite(dawid_skene_posterior(votes, confusion, prior)).all()
    for few in (votes[:1], votes[:, :1], np.array([[0, -1, 1]])):
        confusion, prior, _ = label_model(few, 2)
        posterior = dawid_skene_posterior(few, confusion, prior)
        assert_allclose(posterior.sum(axis=1), 1)
        assert confusion.shape == (few.shape[1], 2, 2)


def test_label_model_stops_when_told():
    votes = draw_votes(0.5 * np.eye(3) + np.full((4, 3, 3), 1 / 6), np.ones(3) / 3, 500)[0]
    with pytest.warns(ConvergenceWarning, match="max_iter=2 .*of LabelModelClassifier"):
        assert label_model(votes, 3, max_iter=2)[2] == 2
    assert label_model(votes, 3, tol=0.1)[2] < label_model(votes, 3, tol=1e-12)[2]


def test_label_model_of_many_classes_does_not_stop_at_small_gradients():
    confusion = 0.5 * np.eye(100) + 0.5 / 100
    votes = draw_votes(np.tile(confusion, (3, 1, 1)), np.ones(100) / 100, 1000)[0]
    assert label_model(votes, 100)[2] > 10


@pytest.mark.parametrize("n_classes, n_prompts, n", [(2, 5, 500), (5, 8, 300), (10, 7, 2000)])
@pytest.mark.parametrize("estimate", [dawid_skene, label_model])
def test_defaults_reach_their_tolerance(estimate, n_classes, n_prompts, n):
    rng = np.random.default_rng(0)
    shared = 3 * rng.normal(size=(n, n_classes))  # the prompts err together
    shared[np.arange(n), rng.integers(n_classes, size=n)] += 4
    votes = (shared + rng.normal(size=(n_prompts, n, n_classes))).argmax(axis=2).T
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        assert 1 < estimate(votes, n_classes)[2] < 400

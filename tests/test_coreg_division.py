"""The division and the purified targets against values worked out by hand and plain loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm

from sklearn_npll._neural._contrastive import KeyQueue
from sklearn_npll.coreg._division import (
    align_distribution,
    annotator_evidence,
    clean_probability,
    clean_probability_by_class,
    division_loss,
    min_max_scale,
    partial_target,
    rescale_candidates,
    sharpen,
    update_prototypes,
    weigh_by_evidence,
)

close = torch.testing.assert_close


def test_align_distribution():
    proba = torch.tensor([[0.6, 0.4], [0.8, 0.2]])
    # 0.6 * 0.5 / 0.75 : 0.4 * 0.5 / 0.25 = 0.4 : 0.8, and 0.8 * 2/3 : 0.2 * 2 = 8/15 : 6/15
    aligned = align_distribution(proba, torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5]))
    close(aligned, torch.tensor([[1 / 3, 2 / 3], [4 / 7, 3 / 7]]))


def test_alignment_to_the_own_mean_changes_nothing():
    proba = torch.rand(5, 3).softmax(1)
    close(align_distribution(proba, proba.mean(0), proba.mean(0)), proba)


def test_alignment_survives_classes_that_nothing_predicts_or_the_prior_excludes():
    proba = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    aligned = align_distribution(proba, proba.mean(0), torch.full((3,), 1 / 3))
    close(aligned.sum(1), torch.ones(2))
    # 0.5 / 0.75 : 0.5 / 0.25
    close(aligned[1], torch.tensor([0.25, 0.75, 0.0]))
    aligned = align_distribution(proba, proba.mean(0), torch.tensor([0.0, 0.5, 0.5]))
    # nothing is left of the first row, so it stays
    close(aligned, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def test_rounds_of_alignment_end_at_the_prior():
    proba = torch.rand(50, 3).softmax(1)
    prior = torch.tensor([0.5, 0.3, 0.2])
    once = align_distribution(proba, proba.mean(0), prior)
    twice = align_distribution(proba, proba.mean(0), prior, rounds=2)
    close(twice, align_distribution(once, once.mean(0), prior))
    balanced = align_distribution(proba, proba.mean(0), prior, rounds=50)
    close(balanced.mean(0), prior)
    # it only multiplies classes by factors, so the odds of two rows keep their ratio
    odds = [p[:, 0] / p[:, 1] for p in (proba, balanced)]
    close(odds[1] / odds[0], torch.full((50,), (odds[1] / odds[0])[0].item()))


def test_rescale_candidates():
    proba = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    candidates = torch.tensor([[0, 1, 1], [1, 1, 1]]).bool()
    close(rescale_candidates(proba, candidates), torch.tensor([[0.0, 0.75, 0.25], [0.2, 0.2, 0.6]]))


def test_annotator_evidence():
    scores, mean = torch.tensor([[0.6, 0.4], [0.8, 0.2]]), torch.tensor([0.7, 0.3])
    prior = torch.tensor([0.5, 0.5])
    # 0.6 / 0.7 : 0.4 / 0.3 = 9 : 14, and 0.8 / 0.7 : 0.2 / 0.3 = 12 : 7
    close(annotator_evidence(scores, mean, prior, 1), torch.tensor([[9 / 14, 1], [1, 7 / 12]]))
    close(annotator_evidence(scores, mean, prior, 2), torch.tensor([[9 / 14, 1], [1, 7 / 12]]) ** 2)
    for prior in (None, "estimated"):
        close(annotator_evidence(scores, mean, prior, 1), torch.tensor([[1, 2 / 3], [1, 1 / 4]]))


def test_evidence_of_an_annotator_without_an_opinion_or_quite_sure():
    evidence = annotator_evidence(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), None, None, 1)
    close(evidence, torch.tensor([[1.0, 1.0], [1.0, 1e-6]]))
    proba = torch.tensor([[0.3, 0.7], [0.0, 1.0]])
    close(weigh_by_evidence(proba, evidence), proba)
    mean, prior = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    close(annotator_evidence(torch.zeros(1, 2), mean, prior, 1), torch.ones(1, 2))
    nothing = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    close(weigh_by_evidence(1 - nothing, nothing), 1 - nothing)


def test_weigh_by_evidence():
    joint = weigh_by_evidence(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 1.0, 0.5]]))
    close(joint, torch.tensor([[1 / 4, 1 / 2, 1 / 4]]))


def test_rescaling_without_candidate_mass_is_uniform_over_the_candidates():
    """Dividing by 0: no NaN."""
    proba = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    candidates = torch.tensor([[0, 1, 1], [0, 0, 1]]).bool()
    close(rescale_candidates(proba, candidates), torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]))


def test_division_loss():
    proba = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0]])
    candidates = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 0]]).bool()
    loss = division_loss(proba, candidates)
    # the largest candidate's, not the sum; log 0 is clipped at 1e-8
    close(loss, torch.tensor([-math.log(0.3), -math.log(0.6), 8 * math.log(10)]))


def test_min_max_scale():
    close(min_max_scale(torch.tensor([3.0, 1.0, 2.0])), torch.tensor([1.0, 0.0, 0.5]))
    close(min_max_scale(torch.full((3,), 2.0)), torch.zeros(3))


def test_clean_probability_is_the_posterior_of_the_low_component():
    rng = np.random.default_rng(0)
    loss = np.concatenate([rng.normal(0.2, 0.1, 2000), rng.normal(0.7, 0.15, 1000)])
    probability, means = clean_probability(loss, 0)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(means, [0.2, 0.7], atol=0.02)
    # Bayes' rule with the true densities, where both components reach
    between = (loss > 0.1) & (loss < 0.8)
    low = 2 / 3 * norm.pdf(loss[between], 0.2, 0.1)
    high = 1 / 3 * norm.pdf(loss[between], 0.7, 0.15)
    np.testing.assert_allclose(probability[between], low / (low + high), atol=0.08)
    # whichever component the mixture happens to list first
    for seed in range(1, 5):
        np.testing.assert_allclose(clean_probability(loss, seed)[0], probability, atol=0.02)


def test_clean_probability_is_seeded():
    loss = np.random.default_rng(0).random(50)
    np.testing.assert_array_equal(clean_probability(loss, 3)[0], clean_probability(loss, 3)[0])


@pytest.mark.parametrize("loss", [[], [0.5], [0.5, 0.5, 0.5]])
def test_losses_that_do_not_differ_are_all_clean(loss):
    probability, means = clean_probability(np.array(loss), 0)
    np.testing.assert_array_equal(probability, np.ones(len(loss)))
    assert np.isnan(means).all()


@pytest.mark.parametrize("loss", [[0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [0.0, 1e-7, 1.0]])
def test_few_different_losses(loss, recwarn):
    probability, means = clean_probability(np.array(loss), 0)
    assert probability[0] > 0.9
    assert probability[-1] < 0.1
    assert means[0] < means[1]
    assert not recwarn


def test_sharpen():
    proba = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.5, 0.0]])
    # T = 0.5 squares: 0.36 : 0.09 : 0.01
    expected = torch.tensor([[36 / 46, 9 / 46, 1 / 46], [0.5, 0.5, 0.0]])
    close(sharpen(proba, 0.5), expected)
    close(sharpen(proba, 1.0), proba)


@pytest.mark.parametrize("temperature", [1e-3, 0.01, 0.1])
def test_sharpening_at_low_temperatures_does_not_underflow(temperature):
    close(sharpen(torch.full((1, 100), 0.01), temperature), torch.full((1, 100), 0.01))
    proba = torch.tensor([[0.02] * 40 + [0.2]])
    close(sharpen(proba, temperature)[0, -1], torch.tensor(1.0), atol=1e-4, rtol=0)


def test_partial_target():
    clean = torch.tensor([0.75, 1.0, 0.0])
    rescaled = torch.tensor([[1.0, 0.0]] * 3)
    own = torch.tensor([[0.2, 0.8]] * 3)
    # 0.75 * 1 + 0.25 * 0.2
    expected = torch.tensor([[0.8, 0.2], [1.0, 0.0], [0.2, 0.8]])
    close(partial_target(clean, rescaled, own), expected)


def test_update_prototypes_by_hand():
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    projection = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.6, 0.8]])
    label = torch.tensor([0, 0, 1])
    updated = update_prototypes(prototypes, projection, label, 0.9)
    # class 0: (1, 0) -> (0.9, 0.1) -> (0.81, 0.19); class 1: 0.1 * (0.6, 0.8); class 2 unseen
    norm = math.hypot(0.81, 0.19)
    close(updated, torch.tensor([[0.81 / norm, 0.19 / norm], [0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("momentum", [0.999, 0.5, 0.0])
def test_update_prototypes_against_a_loop(momentum):
    n_classes, n, p = 5, 60, 16
    prototypes = F.normalize(torch.randn(n_classes, p), dim=1)
    prototypes[3] = 0
    projection = F.normalize(torch.randn(n, p), dim=1)
    label = torch.randint(4, (n,))  # class 4 does not occur
    expected = prototypes.clone()
    for z, c in zip(projection, label):
        expected[c] = momentum * expected[c] + (1 - momentum) * z
    expected = F.normalize(expected, dim=1)
    before = prototypes.clone()
    close(update_prototypes(prototypes, projection, label, momentum), expected)
    close(prototypes, before)


def test_no_rows_leave_the_prototypes():
    prototypes = F.normalize(torch.randn(3, 4), dim=1)
    updated = update_prototypes(prototypes, torch.zeros(0, 4), torch.zeros(0, dtype=int), 0.999)
    close(updated, prototypes)


def batch(first, n):
    """Keys that say which they are, odd ones in the partial split."""
    index = torch.arange(first, first + n)
    return torch.stack([index, -index], 1).float(), index, index % 2 == 1


def test_queue_that_is_not_full_contributes_only_what_it_holds():
    """It starts empty: neither zero keys nor random masks are contrasted with."""
    queue = KeyQueue(5, 2, torch.device("cpu"))
    key, label, in_partial = queue.entries(*batch(0, 2))
    assert label.tolist() == [0, 1]
    queue.push(*batch(0, 2))
    key, label, in_partial = queue.entries(*batch(2, 2))
    assert label.tolist() == [2, 3, 0, 1]
    assert key.tolist() == [[2, -2], [3, -3], [0, 0], [1, -1]]
    assert in_partial.tolist() == [False, True, False, True]


def test_queue_keeps_the_last_keys():
    queue = KeyQueue(5, 2, torch.device("cpu"))
    none = [t[:0] for t in batch(0, 1)]
    seen = 0
    for n in (2, 2, 3, 1, 5, 4):
        queue.push(*batch(seen, n))
        seen += n
        key, label, in_partial = queue.entries(*none)
        assert sorted(label.tolist()) == list(range(max(0, seen - 5), seen))
        assert key[:, 0].tolist() == label.tolist()
        assert in_partial.tolist() == (label % 2 == 1).tolist()


def test_queue_of_a_batch_larger_than_itself_keeps_the_end():
    queue = KeyQueue(3, 2, torch.device("cpu"))
    queue.push(*batch(0, 1))
    queue.push(*batch(1, 7))
    assert sorted(queue.entries(*(t[:0] for t in batch(0, 1)))[1].tolist()) == [5, 6, 7]


def test_queue_of_size_0():
    queue = KeyQueue(0, 2, torch.device("cpu"))
    queue.push(*batch(0, 3))
    assert queue.entries(*batch(3, 2))[1].tolist() == [3, 4]


def test_entries_do_not_change_with_the_queue():
    """The backward pass needs them as they were."""
    queue = KeyQueue(2, 2, torch.device("cpu"))
    queue.push(*batch(1, 2))
    key, _, _ = queue.entries(*batch(3, 2))
    before = key.clone()
    queue.push(*batch(5, 2))
    close(key, before)


def test_a_hard_class_is_judged_by_its_own_losses():
    rng = np.random.default_rng(0)
    easy, hard = (m + 0.02 * rng.normal(size=(2, 40)) for m in (0.1, 0.6))
    hard[1] += 0.3  # half of the hard class is wrong
    easy[1] += 0.3
    few = np.array([0.1, 0.9])
    loss = np.concatenate([easy.ravel(), hard.ravel(), few])
    label = np.repeat([0, 1, 2], [80, 80, 2])
    together, means = clean_probability(loss, 0)
    apart, same_means = clean_probability_by_class(loss, 0, label)
    right = np.concatenate([np.repeat([1, 0, 1, 0], 40), [1, 0]]) > 0
    np.testing.assert_array_equal(apart > 0.5, right)
    assert (together[80:120] < 0.5).all()  # the right ones of the hard class, put away with it
    np.testing.assert_array_equal(apart[160:], together[160:])
    np.testing.assert_array_equal(means, same_means)

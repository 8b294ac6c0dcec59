"""The losses of Co-Reg against values worked out by hand and against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from sklearn_npll.coreg._losses import (
    candidate_nll,
    contrastive_group,
    contrastive_loss,
    contrastive_masks,
    kl_divergence,
    negative_entropy,
    prototype_logits,
    score_cross_entropy,
    soft_cross_entropy,
    squared_error,
    warm_up_loss,
)

# softmax of the logarithm of a distribution is that distribution
LOGITS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]).log()


def test_candidate_nll():
    candidates = torch.tensor([[1, 0, 1], [0, 1, 0]]).bool()
    # candidate mass 0.7 + 0.1 and 0.25
    expected = -(math.log(0.8) + math.log(0.25)) / 2
    assert candidate_nll(LOGITS, candidates).item() == pytest.approx(expected)


def test_rows_of_all_candidates_are_left_out_of_the_mean():
    candidates = torch.tensor([[1, 0, 1], [1, 1, 1]]).bool()
    assert candidate_nll(LOGITS, candidates).item() == pytest.approx(-math.log(0.8))
    logits = LOGITS.clone().requires_grad_()
    candidate_nll(logits, candidates).backward()
    assert logits.grad[0].abs().sum() > 0
    assert not logits.grad[1].any()


def test_nothing_but_unlabelled_rows_costs_nothing():
    logits = LOGITS.clone().requires_grad_()
    loss = candidate_nll(logits, torch.ones(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_negative_entropy():
    expected = (
        0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)
        + 0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)
    ) / 2  # fmt: skip
    assert negative_entropy(LOGITS).item() == pytest.approx(expected)
    # its minimum is the uniform prediction
    assert negative_entropy(torch.zeros(1, 4)).item() == pytest.approx(-math.log(4))


def test_warm_up_loss_adds_both_terms():
    # Eq. 3 for one row: -log(0.5 + 0.25) + sum f log f
    expected = -math.log(0.75) + 0.5 * math.log(0.5) + 0.5 * math.log(0.25)
    loss = warm_up_loss(LOGITS[1:], torch.tensor([[True, False, True]]))
    assert loss.item() == pytest.approx(expected)


def test_score_cross_entropy():
    scores = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    logits = torch.cat([LOGITS[:1], LOGITS[1:2], LOGITS[1:2]])
    # of probabilities 0.5, 0.25, 0.25; the first row carries no label
    expected = (0.5 * math.log(2) + 0.5 * math.log(4) + math.log(2)) / 2
    assert score_cross_entropy(logits, scores).item() == pytest.approx(expected)
    assert score_cross_entropy(logits[:1], scores[:1]).item() == 0


@pytest.mark.parametrize("gap", [200.0, 1e6])
def test_saturated_predictions_stay_finite(gap):
    """Log 0 and 0 log 0: softmax underflows, the losses and their gradients must not."""
    logits = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[False, True, False]])
    loss = warm_up_loss(logits, candidates)
    loss.backward()
    # -log of an underflowing probability is the gap itself, and the entropy vanishes
    assert loss.item() == pytest.approx(gap)
    assert logits.grad.isfinite().all()
    # ... and the candidate is pulled up
    assert logits.grad[0, 1].item() == pytest.approx(-1)

    for loss in (soft_cross_entropy, kl_divergence):
        logits.grad = None
        value = loss(logits, torch.tensor([[0.0, 1.0, 0.0]]))
        value.backward()
        assert value.item() == pytest.approx(gap)
        assert logits.grad.isfinite().all()


def test_soft_cross_entropy():
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    expected = -(0.5 * math.log(0.7) + 0.5 * math.log(0.2) + math.log(0.25)) / 2
    assert soft_cross_entropy(LOGITS, target).item() == pytest.approx(expected)


def test_squared_error_paper_is_c_times_the_release():
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    # (0.3^2 + 0.2^2 + 0.1^2 + 0.5^2 + 0.25^2 + 0.25^2) / 2 rows
    expected = (0.09 + 0.04 + 0.01 + 0.25 + 0.0625 + 0.0625) / 2
    assert squared_error(LOGITS, target, "sum").item() == pytest.approx(expected)
    assert squared_error(LOGITS, target, "mean").item() == pytest.approx(expected / 3)


def test_kl_divergence():
    target = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25]])
    # the second row is predicted exactly; 0 log 0 counts nothing
    expected = (0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.2)) / 2
    assert kl_divergence(LOGITS, target).item() == pytest.approx(expected)


def test_prototype_logits():
    z = torch.tensor([[0.6, 0.8]])
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    expected = torch.tensor([[0.6 / 0.3, 0.8 / 0.3, 0.0]])
    torch.testing.assert_close(prototype_logits(z, prototypes, 0.3), expected)


LABEL = torch.tensor([0, 1, 0])
IN_PARTIAL = torch.tensor([True, True, False])
ENTRY_LABEL = torch.tensor([0, 1, 0, 0, 1, 2])  # three own keys, three of the queue
ENTRY_IN_PARTIAL = torch.tensor([True, True, False, True, False, True])
MASKS = {
    "noise_tolerant": (
        # row 0 takes itself and the trusted 0 of the queue; row 2 lies in U: itself only
        [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]],
        # ignored: same label with either side in U
        [[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]],
    ),
    "supcon": (
        [[1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0], [1, 0, 1, 1, 0, 0]],
        [[1] * 6] * 3,
    ),
    "moco": ([[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]], [[1] * 6] * 3),
}


def pairs(label, partial, entry_label, entry_partial, mode, n_classes=3):
    """Spread the masks of groups over the entries, of which the first are the queries' own keys."""
    group = contrastive_group(entry_label, entry_partial)
    positive, counted = contrastive_masks(label, partial, n_classes, mode)
    own = torch.eye(len(label), len(entry_label), dtype=torch.bool)
    return positive[group].T | own, counted[group].T | own


def loss_of(query, entries, entry_label, entry_partial, mode, temperature, n_classes=3):
    """Return the loss of queries whose own keys are the first entries."""
    n = len(query)
    group = contrastive_group(entry_label, entry_partial)
    masks = contrastive_masks(entry_label[:n], entry_partial[:n], n_classes, mode)
    return contrastive_loss(query, entries, group, torch.arange(n), *masks, temperature)


@pytest.mark.parametrize("mode", MASKS)
def test_contrastive_masks(mode):
    masks = pairs(LABEL, IN_PARTIAL, ENTRY_LABEL, ENTRY_IN_PARTIAL, mode)
    for mask, expected in zip(masks, MASKS[mode]):
        assert mask.tolist() == torch.tensor(expected).bool().tolist()


@pytest.mark.parametrize("mode", MASKS)
def test_contrastive_masks_against_a_loop(mode):
    n, m, n_classes = 20, 50, 4
    entry_label, entry_partial = torch.randint(n_classes, (m,)), torch.rand(m) < 0.6
    label, partial = entry_label[:n], entry_partial[:n]
    positive, counted = pairs(label, partial, entry_label, entry_partial, mode, n_classes)
    for i in range(n):
        for j in range(m):
            same, both = bool(label[i] == entry_label[j]), bool(partial[i] & entry_partial[j])
            attracts = i == j or (
                same and {"noise_tolerant": both, "supcon": True, "moco": False}[mode]
            )
            ignored = mode == "noise_tolerant" and same and not both and i != j
            assert positive[i, j] == attracts
            assert counted[i, j] != ignored


def test_contrastive_loss_by_hand():
    query = torch.tensor([[1.0, 0.0]])
    entries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    own, group = torch.tensor([0]), torch.tensor([1, 1, 2, 0])
    positive = torch.tensor([[False], [True], [False]])
    counted = torch.tensor([[False], [True], [True]])  # group 0, the last entry, is ignored
    # similarities / 0.5: 2, 0, -2; two positives of mean 1
    expected = math.log(math.exp(2) + 1 + math.exp(-2)) - (2 + 0) / 2
    loss = contrastive_loss(query, entries, group, own, positive, counted, 0.5)
    assert loss.item() == pytest.approx(expected)


def test_own_key_attracts_from_an_ignored_group():
    query = torch.tensor([[1.0, 0.0]])
    entries = torch.tensor([[0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    own, group = torch.tensor([1]), torch.tensor([1, 1, 2])
    positive = torch.zeros(3, 1, dtype=torch.bool)
    counted = torch.tensor([[False], [False], [True]])
    # of group 1 only the own key counts: similarities / 0.5 are 1.2 and -2
    expected = math.log(math.exp(1.2) + math.exp(-2)) - 1.2
    loss = contrastive_loss(query, entries, group, own, positive, counted, 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 1000])
@pytest.mark.parametrize("m", [6, 40])  # nothing but own keys, or a queue as well
@pytest.mark.parametrize("temperature", [1e-4, 0.005, 0.07, 1.0])
@pytest.mark.parametrize("mode", MASKS)
def test_contrastive_loss_against_a_loop(mode, temperature, m, n_classes):
    n = 6
    query = F.normalize(torch.randn(n, 8, dtype=torch.float64), dim=1).requires_grad_()
    entries = F.normalize(torch.randn(m, 8, dtype=torch.float64), dim=1)
    entries[m // 2 :] = F.normalize(-query.detach().sum(0), dim=0)  # far from all
    entry_label = torch.randint(n_classes - 2, n_classes, (m,))
    entry_partial = torch.rand(m) < 0.5
    rows = []
    for i in range(n):
        attracting, counted = [], []
        for j in range(m):
            similarity = query[i] @ entries[j] / temperature
            same = entry_label[i] == entry_label[j]
            both = entry_partial[i] & entry_partial[j]
            if i == j or (same and {"noise_tolerant": both, "supcon": True}.get(mode, False)):
                attracting.append(similarity)
            if i == j or mode != "noise_tolerant" or both or not same:
                counted.append(similarity)
        rows.append(torch.stack(counted).logsumexp(0) - torch.stack(attracting).mean())
    expected = torch.stack(rows).mean()
    (gradient,) = torch.autograd.grad(expected, query)

    single = query.detach().float().requires_grad_()
    loss = loss_of(
        single, entries.float(), entry_label, entry_partial, mode, temperature, n_classes
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    torch.testing.assert_close(single.grad, gradient.float(), rtol=1e-3, atol=1e-4 / temperature)


@pytest.mark.parametrize("temperature", [0.005, 0.07])
def test_ignored_entries_get_no_gradient(temperature):
    entries = F.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    query = F.normalize(torch.randn(2, 4), dim=1)
    own, group = torch.tensor([0, 1]), torch.tensor([0, 1, 2])
    positive = torch.eye(3, 2, dtype=torch.bool)
    contrastive_loss(query, entries, group, own, positive, positive, temperature).backward()
    assert entries.grad.isfinite().all()
    assert not entries.grad[2].any()

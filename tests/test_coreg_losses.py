"""The losses of Co-Reg against values worked out by hand and against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from sklearn_npll.coreg._losses import (
    candidate_nll,
    contrastive_loss,
    contrastive_masks,
    kl_divergence,
    negative_entropy,
    prototype_logits,
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


@pytest.mark.parametrize("mode", MASKS)
def test_contrastive_masks(mode):
    masks = contrastive_masks(LABEL, IN_PARTIAL, ENTRY_LABEL, ENTRY_IN_PARTIAL, mode)
    for mask, expected in zip(masks, MASKS[mode]):
        assert mask.tolist() == torch.tensor(expected).bool().tolist()


@pytest.mark.parametrize("mode", MASKS)
def test_contrastive_masks_against_a_loop(mode):
    n, m, n_classes = 20, 50, 4
    entry_label, entry_partial = torch.randint(n_classes, (m,)), torch.rand(m) < 0.6
    label, partial = entry_label[:n], entry_partial[:n]
    positive, counted = contrastive_masks(label, partial, entry_label, entry_partial, mode)
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
    positive = torch.tensor([[True, True, False, False]])
    counted = torch.tensor([[True, True, True, False]])  # the last is ignored
    # similarities / 0.5: 2, 0, -2; two positives of mean 1
    expected = math.log(math.exp(2) + 1 + math.exp(-2)) - (2 + 0) / 2
    assert contrastive_loss(query, entries, positive, counted, 0.5).item() == pytest.approx(
        expected
    )


def test_contrastive_loss_against_a_loop():
    n, m = 6, 15
    query = F.normalize(torch.randn(n, 8), dim=1)
    entries = F.normalize(torch.randn(m, 8), dim=1)
    entry_label, entry_partial = torch.randint(3, (m,)), torch.rand(m) < 0.5
    masks = contrastive_masks(
        entry_label[:n], entry_partial[:n], entry_label, entry_partial, "noise_tolerant"
    )
    expected = []
    for i in range(n):
        exp = [math.exp(float(query[i] @ entries[j]) / 0.07) for j in range(m)]
        denominator = sum(exp[j] for j in range(m) if masks[1][i, j])
        terms = [-math.log(exp[j] / denominator) for j in range(m) if masks[0][i, j]]
        expected.append(sum(terms) / len(terms))
    loss = contrastive_loss(query, entries, *masks, 0.07)
    assert loss.item() == pytest.approx(sum(expected) / n, rel=1e-5)


def test_ignored_entries_get_no_gradient():
    query = F.normalize(torch.randn(2, 4), dim=1)
    entries = torch.randn(3, 4, requires_grad=True)
    positive = torch.tensor([[True, False, False], [False, True, False]])
    contrastive_loss(query, entries, positive, positive | False, 0.07).backward()
    assert entries.grad.isfinite().all()
    assert not entries.grad[2].any()

"""The equations of DeFT against values worked out by hand."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_npll.detection._deft_losses import (
    best_margin,
    complement_weights,
    dual_prompt_loss,
    prompt_margin,
    select_clean,
    similarity_loss,
    target_weights,
)

LN3 = float(np.log(3))  # its sigmoid is 3/4
ALL = torch.ones(2, dtype=torch.bool)


def sets(rows):
    return torch.tensor(rows, dtype=torch.bool)


def generator():
    return torch.Generator().manual_seed(0)


def test_margin_holds_the_positive_side_constant():
    positive = torch.tensor([[2.0, 0.0]], requires_grad=True)
    negative = torch.tensor([[2.0 - LN3, LN3]], requires_grad=True)
    yes = prompt_margin(positive, negative).sigmoid()
    assert_allclose(yes.detach(), [[0.75, 0.25]], rtol=1e-6)
    yes.sum().backward()
    assert positive.grad is None
    assert_allclose(negative.grad, [[-0.75 * 0.25] * 2], rtol=1e-6)


def test_which_sets_are_clean():
    margin = torch.tensor([[1.0, 2.0, -1.0]]).repeat(6, 1)
    rows = sets([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
    assert_array_equal(best_margin(margin, rows), [1, 2, -1, 1, 2, 2])
    assert select_clean(margin, rows, "threshold").tolist() == [1, 1, 0, 1, 1, 1]
    assert select_clean(margin, rows, "threshold_argmax").tolist() == [0, 1, 0, 0, 1, 1]
    # sigmoid(1) = 0.73, sigmoid(2) = 0.88
    assert select_clean(margin, rows, "threshold", 0.8).tolist() == [0, 1, 0, 0, 1, 1]
    # the largest of negative margins is no "yes", and 0 is not above 1/2
    assert select_clean(margin - 2, rows, "threshold_argmax").tolist() == [0] * 6
    # both probabilities are 1 in single precision, and only one is the larger
    sure = torch.tensor([[90.0, 91.0, 0.0]])
    assert not select_clean(sure, sets([[1, 0, 0]]), "threshold_argmax")


def test_complements():
    rows = sets([[1, 0, 0, 0], [0, 1, 1, 0]])
    assert_allclose(
        complement_weights(rows, "all"), [[0, 1 / 3, 1 / 3, 1 / 3], [0.5, 0, 0, 0.5]], rtol=1e-6
    )
    draws = torch.stack([complement_weights(rows, "random", g) for g in [generator()] * 600])
    assert_array_equal(draws.sum(2), torch.ones(600, 2))
    assert_allclose(draws.mean(0), complement_weights(rows, "all"), atol=0.06)
    again = complement_weights(rows, "random", generator())
    assert_array_equal(again, draws[0])


def test_targets():
    positive = torch.tensor([[0.0, LN3, 5.0]]).repeat(4, 1).requires_grad_()
    rows = sets([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]])
    selected = sets([1, 0, 1, 0])
    expected = [[1, 0, 0], [0, 0, 1], [0.25, 0.75, 0], [0, 0, 1]]
    weights = target_weights(positive, rows, selected)
    assert_allclose(weights, expected, rtol=1e-6)
    assert not weights.requires_grad
    weights = target_weights(positive, rows, selected, relabel=False)
    assert_allclose(weights, [expected[0], [0] * 3, expected[2], [0] * 3], rtol=1e-6)


def test_dual_prompt_loss():
    margin = torch.tensor([[LN3, -LN3], [-LN3, LN3]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    complement = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    # first row: p_yes 3/4 of the target and p_no 3/4 of the other; second row: 1/4 and 1/4
    expected = -(2 * np.log(0.75) + 2 * np.log(0.25)) / 2
    assert dual_prompt_loss(margin, target, complement).item() == pytest.approx(expected)
    # probabilities below 1e-5 cost no more than that
    wrong = dual_prompt_loss(torch.tensor([[-50.0, 50.0]]), target[:1], complement[:1])
    assert wrong.item() == pytest.approx(-2 * np.log(1e-5), rel=1e-6)


def test_similarity_loss():
    positive = torch.tensor([[0.0, LN3], [LN3, 0.0]], requires_grad=True)  # shares 1/4 and 3/4
    labels = sets([[1, 0], [1, 0]])
    expected = -(np.log(0.25) + np.log(0.75)) / 2
    assert similarity_loss(positive, labels, ALL).item() == pytest.approx(expected)
    assert similarity_loss(positive, labels, sets([0, 1])).item() == pytest.approx(-np.log(0.75))
    none = similarity_loss(positive, labels, ~ALL)
    none.backward()
    assert none.item() == 0
    assert not positive.grad.any()
    three = torch.tensor([[0.0, 0.0, LN3]])  # shares 1/5, 1/5 and 3/5
    loss = similarity_loss(three, sets([[1, 0, 1]]), ALL[:1])
    assert loss.item() == pytest.approx(-np.log(0.8), rel=1e-6)

"""The options of Co-Reg: their rules by hand, and their memory."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coreg_epochs import close

from sklearn_npll.coreg import _options as rules
from sklearn_npll.coreg._losses import soft_cross_entropy, squared_error
from sklearn_npll.coreg._memory import OptionMemory

# -- rules -------------------------------------------------------------------------------------


def test_elr_regulariser():
    proba = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    target = torch.tensor([[0.4, 0.0], [0.0, 0.0]])
    # <t, p> is 0.3 and 0
    expected = (math.log(0.7) + math.log(1.0)) / 2
    assert rules.elr_regulariser(proba.log(), target).item() == pytest.approx(expected)


def test_elr_regulariser_is_bounded_and_pulls_to_the_target():
    logits = torch.tensor([[50.0, 0.0]], requires_grad=True)
    assert rules.elr_regulariser(logits, torch.eye(2)[:1]).item() == pytest.approx(math.log(1e-4))
    logits = torch.zeros(1, 2, requires_grad=True)
    rules.elr_regulariser(logits, torch.tensor([[0.6, 0.2]])).backward()
    # descending raises class 0: d log(1 - t.p) / dz_0 = -p_0 (t_0 - t.p) / (1 - t.p)
    assert logits.grad[0, 0].item() == pytest.approx(-0.5 * (0.6 - 0.4) / 0.6)


def test_moving_average():
    new = torch.tensor([1.0, 0.0], requires_grad=True)
    average = rules.moving_average(torch.tensor([0.5, 0.5]), new, 0.7)
    close(average, torch.tensor([0.65, 0.35]))
    assert not average.requires_grad


def test_class_thresholds():
    thresholds = rules.class_thresholds(torch.tensor([0.4, 0.5, 0.1]), 0.95)
    close(thresholds, torch.tensor([0.76, 0.95, 0.19]))


def test_pseudo_label_weights():
    proba = torch.tensor([[0.7, 0.3], [0.7, 0.3], [0.4, 0.6], [0.4, 0.6]])
    disagree = torch.tensor([True, False, True, False])
    thresholds = torch.tensor([0.8, 0.6])
    weights = rules.pseudo_label_weights(proba, thresholds, disagree, 0.9)
    close(weights, torch.tensor([0.0, 0.0, 1.8, 0.2]))  # 0.6 is enough for class 1
    close(rules.pseudo_label_weights(proba, thresholds * 0, disagree, 0.5), torch.ones(4))


def test_weights_of_the_squared_error():
    logits = torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log()
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    weight = torch.tensor([2.0, 0.0])
    assert squared_error(logits, target, "sum", weight).item() == pytest.approx(2 * 0.5 / 2)
    # a row of weight 0 still counts as a row, in distinction from one that is not there
    assert squared_error(logits, target, "mean", weight).item() == pytest.approx(2 * 0.25 / 2)
    plain = squared_error(logits, target, "mean")
    assert squared_error(logits, target, "mean", torch.ones(2)).item() == plain.item()


def test_class_clusters():
    candidates = torch.eye(5).bool()
    # 0 is predicted as 1 and 1 as itself; 2 as 3 and 3 as 2; 4 is confused with none
    proba = torch.tensor(
        [
            [0.3, 0.7, 0.0, 0.0, 0.0],
            [0.0, 1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.2, 0.8, 0.0],
            [0.0, 0.1, 0.8, 0.1, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    assert rules.class_clusters(candidates, proba).tolist() == [0, 0, 1, 1, 2]


def test_class_clusters_hang_together_and_weigh_sets_by_their_share():
    candidates = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).bool()
    proba = torch.tensor(
        [[0.2, 0.0, 0.0, 0.8], [0.4, 0.0, 0.6, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )
    # class 0 has row 0 with weight 1/2 and row 1 with 1: it is predicted as 2 with 0.4 and as 3
    # with 0.8 / 3; class 1 has row 0 alone, so its nearest is 3, and that of 3 is 1
    assert rules.class_clusters(candidates, proba).tolist() == [0, 1, 0, 1]
    # rows of all classes say nothing
    more = torch.cat([candidates, torch.ones(9, 4).bool()])
    biased = torch.cat([proba, torch.tensor([[0.5, 0.5, 0.0, 0.0]] * 9)])
    assert rules.class_clusters(more, biased).tolist() == [0, 1, 0, 1]


def test_update_candidates():
    cluster = torch.tensor([0, 0, 1, 1])
    candidates = torch.tensor([[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 1], [0, 1, 0, 0]]).bool()
    proba = torch.tensor(
        [[0.6, 0.4, 0.0, 0.0], [0.4, 0.3, 0.3, 0.0], [0.1, 0.1, 0.4, 0.4], [0.0, 0.1, 0.9, 0.0]]
    )
    mean = torch.tensor(
        [[0.4, 0.3, 0.2, 0.1], [0.5, 0.3, 0.2, 0.0], [0.3, 0.2, 0.1, 0.4], [0.7, 0.1, 0.1, 0.1]]
    )
    updated = rules.update_candidates(candidates, proba, mean, cluster, 0.5, 0.25)
    assert updated.int().tolist() == [
        [1, 1, 0, 0],  # confident of 0: its cluster enters, and 2 is below the floor
        [0, 0, 1, 0],  # not confident, and the only one stays
        [1, 0, 0, 1],  # 1 is below the floor
        [0, 1, 0, 0],  # confident of 2, of whose cluster nothing stays; the first of the best
    ]


def test_doubly_robust_correction():
    logits = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    label, pseudo = torch.eye(2)[[1, 1]], torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    correction = rules.doubly_robust_correction(logits, label, pseudo)
    assert correction.item() == pytest.approx((-math.log(0.2) + math.log(0.8)) / 2)
    expected = soft_cross_entropy(logits, label) - soft_cross_entropy(logits, pseudo)
    assert correction.item() == pytest.approx(expected.item())


def test_blend_by_popularity():
    linear = torch.tensor([[0.6, 0.4], [0.2, 0.8]])
    semantic = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    blended = rules.blend_by_popularity(linear, semantic, torch.tensor([0.25, 0.75]), 0.6)
    # 0.2 for class 0, which is a third as popular, and 0.6 for class 1
    close(blended, torch.tensor([[0.48, 0.52], [0.38, 0.62]]))


def test_balanced_labels():
    """With two classes and equal shares, half the rows lie above the threshold."""
    p = torch.tensor([0.9, 0.8, 0.7, 0.6])
    proba = torch.stack([p, 1 - p], 1)
    assert rules.balanced_labels(proba, None).tolist() == [0, 0, 0, 0]
    assert rules.balanced_labels(proba, torch.tensor([0.5, 0.5])).tolist() == [0, 0, 1, 1]
    assert rules.balanced_labels(proba, torch.tensor([3.0, 1.0])).tolist() == [0, 0, 0, 1]
    assert rules.balanced_labels(proba, torch.tensor([1.0, 0.0])).tolist() == [0, 0, 0, 0]
    assert rules.balanced_labels(proba, torch.tensor([0.0, 1.0])).tolist() == [1, 1, 1, 1]


def test_balanced_labels_have_the_shares():
    # logits of this size make predictions as certain as those of a network at its end
    proba = (8 * torch.randn(500, 6) + torch.tensor([0.0, 0.0, 5.0, 5.0, 5.0, 9.0])).softmax(1)
    proba[0] = torch.eye(6)[0]
    prior = torch.tensor([0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
    label = rules.balanced_labels(proba, 2 * prior)
    close(label.bincount(minlength=6) / 500, prior, atol=0.02, rtol=0)
    assert (proba.argmax(1).bincount(minlength=6) / 500 - prior).abs().max() > 0.15
    assert label[0] == 0


def test_confident_target_mixes_the_losses():
    target = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    label, logits = torch.tensor([0, 1]), torch.randn(2, 3)
    mixed = rules.confident_target(target, label, 0.25)
    close(mixed[0], torch.tensor([0.625, 0.225, 0.15]))
    hard = soft_cross_entropy(logits, torch.eye(3)[label])
    expected = 0.75 * soft_cross_entropy(logits, target) + 0.25 * hard
    close(soft_cross_entropy(logits, mixed), expected)
    by_row = rules.confident_target(target, label, torch.tensor([[0.25], [0.0]]))
    close(by_row, torch.stack([mixed[0], target[1]]))


# -- memory ------------------------------------------------------------------------------------


def memory_of(**options):
    return OptionMemory(SimpleNamespace(**{**rules.OPTIONS_OFF, **options}))


def data_of(candidates, known=None):
    candidates = torch.tensor(candidates).bool()
    known = torch.zeros(len(candidates)).bool() if known is None else torch.tensor(known).bool()

    class Data(SimpleNamespace):
        def __len__(self):
            return len(candidates)

    return Data(candidates=candidates, known=known)


def test_early_targets_are_of_the_rows():
    memory, data = memory_of(elr_weight=1.0), data_of(np.eye(2)[[0, 1, 0]])
    own, none = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.zeros(0, 2)
    memory.note_predictions(data, torch.tensor([2, 0]), own, none, none)
    memory.note_predictions(data, torch.tensor([2]), torch.tensor([[0.0, 1.0]]), none, none)
    expected = torch.tensor([[0.15, 0.15], [0.0, 0.0], [0.21, 0.3]])
    close(memory.columns(torch.arange(3)), {"early_target": expected})


@pytest.mark.parametrize("threshold, weights", [(0.7, [0.2, 0.0]), (None, [0.2, 1.8])])
def test_weights_are_of_the_unlabelled_rows(threshold, weights):
    memory = memory_of(pseudo_label_threshold=threshold, disagreement_weight=0.9)
    data = data_of(np.eye(2)[[0, 1, 0, 1]])
    own = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.6, 0.4]])
    peer = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    memory.note_predictions(data, torch.tensor([3, 0, 1]), own, peer, (own[1:] + peer) / 2)
    (column,) = memory.columns(torch.tensor([3, 0, 1, 2])).values()
    close(column[:, 0], torch.tensor([1.0, *weights, 1.0]))
    # a row that has come into the partial split
    memory.note_predictions(data, torch.tensor([0]), own[:1], own[:0], own[:0])
    assert memory.columns(torch.tensor([0]))["weight"].tolist() == [[1.0]]


def test_class_status_moves_the_thresholds():
    memory, data = memory_of(pseudo_label_threshold="class"), data_of(np.eye(2)[[0, 1]])
    proba = torch.tensor([[0.99, 0.01], [0.13, 0.87]])
    # status 0.9 * 0.5 + 0.1 * (0.56, 0.44): thresholds 0.98 and 0.98 * 0.494 / 0.506 = 0.957
    memory.note_predictions(data, torch.arange(2), proba, proba, proba)
    close(memory.state["class_status"], torch.tensor([0.506, 0.494]))
    assert memory.state["weight"].tolist() == [[1.0], [0.0]]
    for _ in range(20):
        easy = torch.tensor([[0.999, 0.001]])
        memory.note_predictions(data, torch.tensor([0]), easy, easy, easy)
    memory.note_predictions(data, torch.arange(2), proba, proba, proba)
    assert memory.state["weight"].tolist() == [[1.0], [1.0]]


def test_sets_change_of_doubted_rows_alone():
    memory = memory_of(candidate_update="cluster")
    # doubted, trusted, known, without a label
    sets = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]]
    data = data_of(sets, known=[0, 0, 1, 0])
    assert memory.candidates(data) is data.candidates
    proba = torch.tensor([[0.1, 0.8, 0.1]] * 4)
    memory.update_candidates(data, proba, torch.tensor([True, False, True, True]))
    # 0 and 1 are confused; the mean of 0 is below a third
    assert memory.candidates(data).int().tolist() == [[0, 1, 0], *sets[1:]]
    assert data.candidates.int().tolist() == sets
    memory.update_candidates(data, proba.flip(1), torch.tensor([True] * 4))
    close(memory.state["mean_proba"], 0.7 * proba + 0.3 * proba.flip(1))


def test_nothing_is_remembered_without_options():
    memory, data = memory_of(), data_of(np.eye(2)[[0, 1]])
    memory.note_predictions(data, torch.arange(2), torch.eye(2), torch.eye(2), torch.eye(2))
    assert memory.state == {}
    assert memory.columns(torch.arange(2)) == {}

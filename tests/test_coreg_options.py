"""The options of Co-Reg: their rules by hand, their memory, and what they do to a training."""

import math
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.baselines import DivideMixClassifier
from sklearn_npll.coreg import _dividing_net, _division, _memory, _net
from sklearn_npll.coreg import _options as rules
from sklearn_npll.coreg._division import Division
from sklearn_npll.coreg._losses import soft_cross_entropy, squared_error
from sklearn_npll.coreg._memory import OptionMemory
from sklearn_npll.coreg._net import CoRegNet

close = torch.testing.assert_close

X, T = make_blobs(60, centers=3, cluster_std=3.0, random_state=0)
Y = np.eye(3, dtype=int)[T]
Y[::3, 0] = 1  # a wrong class besides the true one
Y[::4] = np.roll(Y[::4], 1, axis=1)  # the true class missing, mostly
KNOWN = np.arange(60) % 6 == 1
Y[KNOWN] = np.eye(3, dtype=int)[T[KNOWN]]
LABELS = PartialLabels(X, np.arange(3), Y, known=KNOWN)

LEVEL = np.arange(24) % 2
IMAGES = np.random.default_rng(0).integers(0, 200, size=(24, 8, 8, 3), dtype=np.uint8)
IMAGES += (LEVEL * 50).astype(np.uint8)[:, None, None, None]
IMAGE_LABELS = PartialLabels(
    IMAGES, [0, 1], np.eye(2)[np.where(np.arange(24) % 5, LEVEL, 1 - LEVEL)], known=LEVEL * 0 < 0
)
IMAGE_LABELS.known[[1, 2, 3]] = True

# A value of each option that is on.
OPTIONS = {
    "alignment_rounds": 5,
    "neighbor_weight": 0.5,
    "division": "class",
    "elr_weight": 1.0,
    "pseudo_label_threshold": "class",
    "disagreement_weight": 0.9,
    "candidate_update": "cluster",
    "doubly_robust": True,
    "prototype_blend": 0.8,
    "confidence_weight": 0.5,
}
EACH = [pytest.param({name: value}, id=name) for name, value in OPTIONS.items()]


def classifier(**params):
    small = {
        "max_epochs": 5,
        "warm_up": 1,
        "contrastive_start": 1,
        "batch_size": 16,
        "queue_size": 64,
        "lr": 0.05,
        "random_state": 0,
    }
    return CoRegClassifier(**{**small, **params})


def image_classifier(**params):
    return classifier(**{"max_epochs": 3, "contrastive_start": 0, "batch_size": 8, **params})


def assert_same_fit(a, b, samples=X):
    drop = [[{k: v for k, v in r.items() if k != "seconds"} for r in c.history_] for c in (a, b)]
    assert drop[0] == drop[1]
    for name in ("label_distributions_", "clean_probability_"):
        assert_array_equal(getattr(a, name), getattr(b, name))
    assert_array_equal(a.predict_proba(samples), b.predict_proba(samples))


class Interrupt(Callback):
    """Counts epochs, and interrupts the training in the middle of one."""

    epochs = []  # of all instances, as the estimator trains with a copy

    def __init__(self, at=None):
        self.at = at

    def get_params(self, deep=True):
        return {}  # one that does not interrupt makes the same training

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.at:
            raise KeyboardInterrupt

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append(len(net.history))


def assert_resumes(clf, labels, folder, samples):
    """An interrupted fit goes on where it was, with the same result as without interruption."""
    whole = clone(clf).fit(labels)
    clf = clone(clf).set_params(checkpoint_dir=folder, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(callbacks=[Interrupt(clf.max_epochs)]).fit(labels)
    Interrupt.epochs.clear()
    clf.set_params(callbacks=[Interrupt()]).fit(labels)
    assert Interrupt.epochs == [clf.max_epochs]
    assert_same_fit(clf, whole, samples)


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


# -- a step ------------------------------------------------------------------------------------


def spy(monkeypatch, owner, name):
    original, calls = getattr(owner, name), []

    def wrapper(*args, **kwargs):
        calls.append((args, original(*args, **kwargs)))
        return calls[-1][1]

    monkeypatch.setattr(owner, name, wrapper)
    return calls


def test_regulariser_is_of_the_mixed_partial_rows(monkeypatch):
    mixes = spy(monkeypatch, _net, "mix_up")
    terms = spy(monkeypatch, _net, "elr_regulariser")
    descents = spy(monkeypatch, CoRegNet, "descend")
    params = {"elr_weight": 2.0, "max_epochs": 2, "n_mixed_views": 1, "prototype_weight": 0.0}
    losses = spy(monkeypatch, CoRegNet, "_self_training_loss")
    classifier(**params).fit(X, Y)
    assert len(terms) == len(mixes) == len(losses) > 1
    for (mix, (_, other, share)), ((logits, target), term), (step, _) in zip(mixes, terms, losses):
        table, (_, _, mixed, n, _) = mix[1], step
        assert len(logits) == len(target) == n < len(table)
        both = share * table + (1 - share) * other
        close(mixed, both[:, :3])
        close(target, both[:n, 3:])
        assert term < 0
    steps = [args[1] for args, _ in descents][-len(terms) :]
    for total, (_, term), (_, loss) in zip(steps, terms, losses):
        close(total, loss + 2 * term)


def test_weights_are_mixed_as_the_targets_are(monkeypatch):
    mixes = spy(monkeypatch, _net, "mix_up")
    errors = spy(monkeypatch, _net, "squared_error")
    params = {"pseudo_label_threshold": 0.45, "disagreement_weight": 0.8, "prototype_weight": 0.0}
    classifier(max_epochs=3, **params).fit(X, Y)
    seen = set()
    for ((_, table, _), (_, other, share)), ((_, _, _, weight), _) in zip(
        mixes, errors, strict=True
    ):
        assert table.shape[1] == 4
        close(weight, (share * table + (1 - share) * other)[-len(weight) :, 3])
        seen |= set(table[:, 3].tolist())
    assert {round(value, 6) for value in seen} == {0.0, 0.4, 1.6, 1.0}


def test_known_rows_keep_their_label_beside_hardened_predictions(monkeypatch):
    calls = spy(monkeypatch, _net, "confident_target")
    classifier(confidence_weight=0.8, max_epochs=3, use_unlabelled=False).fit(LABELS)
    weights = torch.cat([args[2][:, 0] for args, _ in calls])
    for (target, _, weight), mixed in calls:
        kept = weight[:, 0] == 0
        close(mixed[kept], target[kept])
    # none in the first step; then 0.8 times a ramp of 16 epochs
    assert calls[0][0][2].max() == 0
    assert 0 < weights.max() < 0.8 * 2 / 16
    assert set((weights == 0).tolist()) == {True, False}


@pytest.mark.parametrize("prior", ["uniform", "estimated", None])
def test_hardened_predictions_have_the_shares_of_the_prior(monkeypatch, prior):
    calls = spy(monkeypatch, _dividing_net, "balanced_labels")
    classifier(confidence_weight=0.8, max_epochs=3, prior=prior).fit(X, Y)
    assert len(calls) == 4  # two networks, two epochs
    for (proba, given), label in calls:
        if prior is None:
            assert given is None
            assert label.tolist() == proba.argmax(1).tolist()
            continue
        assert given.sum().item() == pytest.approx(1)
        close(label.bincount(minlength=3) / 60, given, atol=5.5 / 60, rtol=0)


def test_doubly_robust_loss(monkeypatch):
    """Known rows have pseudo-labels like all, and their labels in the correction."""
    targets = spy(monkeypatch, CoRegNet, "_targets")
    corrections = spy(monkeypatch, _net, "doubly_robust_correction")
    terms = spy(monkeypatch, CoRegNet, "_doubly_robust_term")
    clf = classifier(doubly_robust=True, max_epochs=4, temperature=1.0).fit(LABELS)
    known = torch.from_numpy(KNOWN)
    (net, _, _, _, rows, n_partial, _), (target, _) = targets[0]
    in_batch = known[rows[:n_partial]]
    assert in_batch.any()
    assert (target[:n_partial][in_batch] < 1).all()  # not their label, which is certain
    for ((logits, label, pseudo), _), (args, _) in zip(corrections, terms, strict=True):
        rows = args[4]
        assert known[rows].all()
        assert label.argmax(1).tolist() == T[rows].tolist()
        assert ((pseudo > 0) & (pseudo < 1)).all()
        assert not pseudo.requires_grad
        assert logits.requires_grad
    # a share t / T of it in epoch t
    shares = [(term / correction).item() for (_, correction), (_, term) in zip(corrections, terms)]
    assert sorted({round(share, 4) for share in shares}) == [0.5, 0.75, 1.0]
    counts = [row["gradient_samples"] for row in clf.history_]
    steps = len(terms) // 3
    plain = classifier(max_epochs=2, temperature=1.0).fit(LABELS)
    # ten known rows a step, on top of the same batches of the first epoch
    assert counts[1] == plain.history_[1]["gradient_samples"] + 10 * steps
    assert (clf.clean_probability_[KNOWN] == 1).all()
    assert_array_equal(clf.transduction_[KNOWN], T[KNOWN])


def test_doubly_robust_with_a_single_known_row():
    known = np.arange(60) == 1
    clf = classifier(doubly_robust=True).fit(PartialLabels(X, np.arange(3), Y, known=known))
    assert np.isfinite(clf.predict_proba(X)).all()


def test_prototypes_speak_from_their_start_on(monkeypatch):
    calls = spy(monkeypatch, _net, "blend_by_popularity")
    divisions = spy(monkeypatch, CoRegNet, "divide")
    params = {"prototype_blend": 0.7, "max_epochs": 4, "warm_up": 1}
    classifier(contrastive_start=2, **params).fit(X, Y)
    popularities = [division.popularity for _, division in divisions]
    for (linear, semantic, popularity, amount), _ in calls:
        assert linear.shape == semantic.shape
        close(semantic.sum(1), torch.ones(len(semantic)))
        # of the last epoch, as the others come before the prototypes
        assert any(torch.equal(popularity, p) for p in popularities[-2:])
        assert amount == 0.7
    assert calls
    n_calls = len(calls)
    classifier(contrastive_start=3, **params).fit(X, Y)
    assert len(calls) == n_calls


def test_popularity():
    proba = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.8, 0.2, 0.0], [0.5, 0.3, 0.2]])
    close(Division(proba, None, None, None).popularity, torch.tensor([0.75, 0.25, 0.0]))


def test_divisions_judge_the_updated_sets(monkeypatch):
    updates = spy(monkeypatch, _memory, "update_candidates")
    losses = spy(monkeypatch, _dividing_net, "division_loss")
    classifier(candidate_update="cluster", max_epochs=5).fit(X, Y)
    first, later = losses[0][0][1], [args[1] for args, _ in losses[2:]]
    assert torch.equal(first, torch.from_numpy(Y).bool())
    assert any(not torch.equal(sets, first) for sets in later)
    # each network has its own: the sets that it judges are those that it changed before
    assert updates[2][0][0].data_ptr() == later[0].data_ptr()


# -- trainings ---------------------------------------------------------------------------------


PEERS = {"images": {}, "peers": {"co_labelling": "peer"}}


@pytest.fixture(scope="module")
def plain_fits():
    return {
        "robust": classifier().fit(LABELS),
        "paper": classifier(variant="paper").fit(LABELS),
        **{name: image_classifier(**p).fit(IMAGE_LABELS) for name, p in PEERS.items()},
    }


def test_off_is_what_other_methods_get():
    defaults = CoRegClassifier().get_params()
    assert {name: defaults[name] for name in OPTIONS} == rules.OPTIONS_OFF
    assert DivideMixClassifier._fixed.items() >= rules.OPTIONS_OFF.items()


def test_no_rule_is_called_by_default(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("an option that is off is at work")

    names = {name for name in vars(rules) if callable(getattr(rules, name))}
    for module in (_net, _dividing_net, _memory):
        for name in names & set(vars(module)):
            monkeypatch.setattr(module, name, forbidden)
    states = spy(monkeypatch, CoRegNet, "method_state")
    classifier(warm_start=True).fit(LABELS)
    assert states[-1][1]["memory"] == [{}, {}]
    with pytest.raises(AssertionError, match="at work"):
        classifier(elr_weight=1.0).fit(LABELS)


@pytest.mark.parametrize("variant", ["robust", "paper"])
@pytest.mark.parametrize("options", EACH)
def test_option_changes_the_training(plain_fits, options, variant):
    clf = classifier(variant=variant, **options).fit(LABELS)
    assert not np.array_equal(clf.predict_proba(X), plain_fits[variant].predict_proba(X))


@pytest.mark.parametrize("options", EACH)
def test_option_changes_the_training_on_images(plain_fits, options, monkeypatch):
    monkeypatch.setattr(_division, "MIN_ROWS", 5)  # of 24
    # of the default's network and average none sees what another predicts
    name = "peers" if "disagreement_weight" in options else "images"
    clf = image_classifier(**{**PEERS[name], **options}).fit(IMAGE_LABELS)
    proba = clf.predict_proba(IMAGES)
    assert np.isfinite(proba).all()
    assert not np.array_equal(proba, plain_fits[name].predict_proba(IMAGES))


REMEMBERED = ["elr_weight", "pseudo_label_threshold", "candidate_update"]


@pytest.mark.parametrize("names", [list(OPTIONS), *([name] for name in REMEMBERED)])
def test_resuming_equals_not_stopping(tmp_path, monkeypatch, names):
    monkeypatch.setattr(_memory, "CLASS_THRESHOLD", 0.8)  # where the status tells
    clf = classifier(**{name: OPTIONS[name] for name in names})
    assert_resumes(clf, LABELS, tmp_path, X)


def test_resuming_on_images(tmp_path):
    clf = image_classifier(variant="paper", **OPTIONS)
    assert_resumes(clf, IMAGE_LABELS, tmp_path, IMAGES)


def test_warm_start_goes_on_with_what_is_remembered():
    whole = classifier(**OPTIONS, warm_start=True).fit(LABELS)
    state = whole.training_state_["method"]["memory"]
    names = {"early_target", "weight", "class_status", "candidates", "mean_proba"}
    assert [set(part) for part in state] == [names, names]
    more = pickle.loads(pickle.dumps(whole)).set_params(max_epochs=6).fit(LABELS)
    assert more.n_iter_ == 6
    after = more.training_state_["method"]["memory"]
    assert not np.array_equal(after[0]["early_target"], state[0]["early_target"])
    # more rows than before: what is remembered of rows would not fit
    rows = np.r_[np.arange(60), np.arange(40)]
    other = PartialLabels(X[rows], np.arange(3), Y[rows], known=KNOWN[rows])
    more.set_params(max_epochs=7).fit(other)
    assert more.label_distributions_.shape == (100, 3)
    assert len(more.training_state_["method"]["memory"][0]["early_target"]) == 100


def test_seed_pickle_and_clone():
    legacy = np.random.get_state  # noqa: NPY002
    python, numpy, torchs = random.getstate(), legacy()[1].copy(), torch.get_rng_state()
    clf = classifier(**OPTIONS).fit(LABELS)
    assert random.getstate() == python
    assert_array_equal(legacy()[1], numpy)
    assert torch.equal(torch.get_rng_state(), torchs)
    assert_same_fit(clone(clf).fit(LABELS), clf)
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.get_params() == clf.get_params()
    assert clf.net_.memory_ is None


def test_all_options_in_mixed_precision_and_without_mixup():
    for params in ({"precision": "bf16"}, {"mixup_alpha": None}):
        clf = classifier(**OPTIONS, max_epochs=3, n_mixed_views=2, **params).fit(LABELS)
        assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize("n_samples", [2, 3, 5])
def test_few_samples(n_samples):
    known = np.arange(n_samples) == 0
    labels = PartialLabels(X[:n_samples], np.arange(5), np.eye(5)[:n_samples], known=known)
    clf = classifier(**OPTIONS, contrastive_start=0).fit(labels)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_rows_without_a_label_stay_so():
    Y_some = np.where((np.arange(60) % 7 == 2)[:, None], 1, Y)
    clf = classifier(candidate_update="cluster").fit(X, Y_some)
    assert (clf.clean_probability_[np.arange(60) % 7 == 2] == 0).all()


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value",
    [
        ("alignment_rounds", 0),
        ("neighbor_weight", 1.5),
        ("neighbors", 0),
        ("neighbors", "near"),
        ("division", "classes"),
        ("elr_weight", -0.1),
        ("pseudo_label_threshold", "classes"),
        ("pseudo_label_threshold", 0.0),
        ("pseudo_label_threshold", 1),
        ("disagreement_weight", 0.4),
        ("disagreement_weight", 1.1),
        ("candidate_update", "clusters"),
        ("candidate_update", True),
        ("doubly_robust", "yes"),
        ("prototype_blend", 1.5),
        ("confidence_weight", -0.5),
    ],
)
def test_bad_values(name, value):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter"):
        classifier(**{name: value}).fit(X, Y)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"alignment_rounds": 2, "prior": None}, "needs a prior to align to"),
        ({"doubly_robust": True}, "rows whose label is known, and there are none"),
        ({"disagreement_weight": 0.9, "co_labelling": "own"}, "needs co_labelling='peer'"),
        ({"prototype_blend": 0.5, "prototype_weight": 0}, "with prototype_weight=0"),
        (
            {"candidate_update": "cluster", "division": CoRegClassifier()},
            "candidate_update='cluster' needs division='mixture'",
        ),
    ],
)
def test_options_that_cannot_work(params, message):
    with pytest.raises(ValueError, match=message):
        classifier(**params).fit(X, Y)


@parametrize_with_checks(
    [
        CoRegClassifier(
            max_epochs=6,
            warm_up=4,
            contrastive_start=1,
            batch_size=32,
            lr=0.05,
            **{name: value for name, value in OPTIONS.items() if name != "doubly_robust"},
        )
    ]
)
def test_common_checks(estimator, check):
    check(estimator)

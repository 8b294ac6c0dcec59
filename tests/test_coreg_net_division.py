"""An epoch of Co-Reg: who divides the samples, and which targets come of it."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coreg_epochs import (
    CANDIDATES,
    KNOWN,
    PROBA,
    close,
    column,
    feature_views,
    linear_net,
    make_data,
    make_net,
    run,
    spy,
)

from sklearn_npll._neural._net import TrainingData
from sklearn_npll.coreg import _dividing_net
from sklearn_npll.coreg._division import Division
from sklearn_npll.coreg._net import CoRegNet

# -- division ----------------------------------------------------------------------------------


def divided(monkeypatch, probas, *, prior=None, candidates=CANDIDATES, known=KNOWN, **params):
    """Divide with given predictions, one epoch each; return divisions and mixtures' inputs."""
    net, losses = make_net(**params), []
    data = TrainingData(
        feature_views(np.zeros((len(candidates), 4))), candidates, known, prior=prior
    )

    def posterior(loss, seed):
        losses.append(loss)
        return np.linspace(0.1, 0.9, len(loss), dtype=np.float32), np.zeros(2)

    monkeypatch.setattr(_dividing_net, "clean_probability", posterior)
    divisions = []
    for proba in probas:
        net.history.new_epoch()
        monkeypatch.setattr(net, "predict_views", lambda k, view, n, p=proba: p.clone())
        divisions.append(net.divide(0, data))
    return divisions, losses


def test_known_rows_are_clean_and_rows_of_all_candidates_are_not(monkeypatch):
    (division,), (loss,) = divided(monkeypatch, [PROBA])
    # rows 0-2 are judged: -log of 0.8, 0.3, 0.4, scaled to [0, 1]
    scaled = math.log(0.8 / 0.4) / math.log(0.8 / 0.3)
    np.testing.assert_allclose(loss, [0, 1, scaled], rtol=1e-5)
    assert division.clean.tolist() == pytest.approx([0.1, 0.5, 0.9, 0.0, 1.0])
    close(division.proba, PROBA)
    close(division.rescaled[1], torch.tensor([0.25, 0.0, 0.75]))
    close(division.rescaled[4], torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("window", [1, 2, 5])
def test_division_losses_are_averaged_over_the_window(monkeypatch, window):
    # scaled losses of rows 0 and 1 are (0, 1), (1, 0), (0, 1), ... and that of row 2 is 0
    candidates = torch.eye(3).bool()
    probas = [
        torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.1, 0.1, 0.8]]),
        torch.tensor([[0.2, 0.1, 0.7], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]),
    ] * 4
    _, losses = divided(
        monkeypatch,
        probas[:7],
        candidates=candidates,
        known=torch.zeros(3, dtype=torch.bool),
        loss_window=window,
    )
    first = {
        1: [0, 1, 0, 1, 0, 1, 0],
        2: [0, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 1 / 2],
        5: [0, 1 / 2, 1 / 3, 2 / 4, 2 / 5, 3 / 5, 2 / 5],
    }[window]
    np.testing.assert_allclose([loss[0] for loss in losses], first, atol=1e-6)
    np.testing.assert_allclose([loss[2] for loss in losses], 0, atol=1e-6)


def test_predictions_of_probability_0_do_not_reach_the_mixture(monkeypatch):
    candidates = torch.eye(3).bool()
    proba = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.1, 0.1, 0.8]])
    (division,), (loss,) = divided(
        monkeypatch, [proba], candidates=candidates, known=torch.zeros(3, dtype=torch.bool)
    )
    assert np.isfinite(loss).all()
    assert division.rescaled.isfinite().all()


def test_nothing_to_judge(monkeypatch):
    candidates = torch.tensor([[1, 1, 1], [0, 1, 0]]).bool()
    net = make_net()
    net.history.new_epoch()
    data = TrainingData(feature_views(np.zeros((2, 4))), candidates, torch.tensor([False, True]))
    assert net.divide(0, data).clean.tolist() == [0, 1]


@pytest.mark.parametrize(
    "prior, weights",
    [
        (None, [1, 1]),
        # the mean prediction is (0.6, 0.4)
        (torch.tensor([0.5, 0.5]), [0.5 / 0.6, 0.5 / 0.4]),
        (torch.tensor([0.9, 0.1]), [0.9 / 0.6, 0.1 / 0.4]),
        # restricted to the candidates the rows are (0.8, 0.2) and (0, 1)
        ("estimated", [0.4 / 0.6, 0.6 / 0.4]),
    ],
)
def test_prior(monkeypatch, prior, weights):
    proba = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    candidates = torch.tensor([[1, 1], [0, 1]]).bool()
    (division,), _ = divided(
        monkeypatch,
        [proba],
        prior=prior,
        candidates=candidates,
        known=torch.zeros(2, dtype=torch.bool),
        n_classes=2,
    )
    expected = proba * torch.tensor(weights)
    close(division.proba, expected / expected.sum(1, keepdim=True))


def test_alignment_uses_the_running_mean(monkeypatch):
    candidates, known = torch.tensor([[1, 0], [0, 1]]).bool(), torch.zeros(2, dtype=torch.bool)
    probas = [torch.tensor([[0.9, 0.1], [0.7, 0.3]]), torch.tensor([[0.6, 0.4], [0.2, 0.8]])]
    arguments = {"prior": torch.tensor([0.5, 0.5]), "candidates": candidates, "known": known}
    (_, second), _ = divided(monkeypatch, probas, n_classes=2, **arguments)
    # means (0.8, 0.2) and (0.4, 0.6), together (0.6, 0.4)
    a, b = 0.6 / 0.6, 0.4 / 0.4
    close(second.proba[0], torch.tensor([a / (a + b), b / (a + b)]))
    (_, second), _ = divided(monkeypatch, probas, n_classes=2, loss_window=1, **arguments)
    a, b = 0.6 / 0.4, 0.4 / 0.6
    close(second.proba[0], torch.tensor([a / (a + b), b / (a + b)]))


def test_purified_labels():
    division = Division(
        proba=torch.tensor([[0.2, 0.8], [0.2, 0.8], [0.2, 0.8]]),
        rescaled=torch.tensor([[1.0, 0.0]] * 3),
        clean=torch.tensor([0.75, 0.5, 1.0]),
        means=None,
    )
    # 0.75 * 1 + 0.25 * 0.2; at the threshold the candidates are dropped
    expected = torch.tensor([[0.8, 0.2], [0.2, 0.8], [1.0, 0.0]])
    close(division.purified(0.5), expected)


def test_both_networks_divide_before_either_trains(monkeypatch):
    events = []
    divide, train = CoRegNet.divide, CoRegNet._train_network
    monkeypatch.setattr(
        CoRegNet,
        "divide",
        lambda self, k, data: events.append(("divide", k)) or divide(self, k, data),
    )
    monkeypatch.setattr(
        CoRegNet,
        "_train_network",
        lambda self, k, *rest: events.append(("train", k)) or train(self, k, *rest),
    )
    run(make_net(warm_up=0), make_data(), 1)
    assert events == [("divide", 0), ("divide", 1), ("train", 0), ("train", 1)]


@pytest.mark.parametrize("co_labelling, dividers", [("peer", [1, 0]), ("own", [0, 1])])
def test_whose_division_trains(monkeypatch, co_labelling, dividers):
    made = []
    divide = CoRegNet.divide
    monkeypatch.setattr(
        CoRegNet, "divide", lambda self, k, data: made.append(divide(self, k, data)) or made[-1]
    )
    calls = spy(monkeypatch, CoRegNet, "_train_network")
    run(make_net(warm_up=0, co_labelling=co_labelling), make_data(), 1)
    assert [args[1] for args in calls] == [0, 1]
    assert [[d is args[3] for d in made].index(True) for args in calls] == dividers


def test_evidence_weighs_the_candidates_of_a_division():
    data, divisions = make_data(), []
    for evidence in (torch.tensor([[1.0, 0.5, 0.25]]).repeat(len(data), 1), None):
        net, data.evidence = make_net(), evidence
        net.history.new_epoch()
        divisions.append(net.divide(0, data))
    weighed, plain = divisions
    close(weighed.proba, plain.proba)
    close(weighed.clean, plain.clean)
    expected = plain.rescaled * torch.tensor([1.0, 0.5, 0.25])
    close(weighed.rescaled, expected / expected.sum(1, keepdim=True))


# -- targets -----------------------------------------------------------------------------------


class FixedViews:
    """Weak views that are the logits of the networks to be."""

    def __init__(self, *logits):
        self.logits = torch.tensor(logits)  # (views, n, 2)

    def weak(self, rows):
        n = self.logits.shape[1]
        assert rows.tolist() == list(range(n)) * len(self.logits)
        return self.logits.flatten(0, 1)


def test_the_average_divides_and_labels_and_the_other_network_trains(monkeypatch):
    divided, trained = spy(monkeypatch, CoRegNet, "divide"), spy(monkeypatch, CoRegNet, "descend")
    net, data = make_net(co_labelling="average"), make_data()
    before = [copy.deepcopy(network) for network in net.module_.networks]
    run(net, data, 3)
    assert [args[1] for args in divided] == [0]
    # 4 and then 2 steps of 32 and 16 rows are what one network takes
    assert net.n_averaged_ == len(trained)
    alone = run(make_net(co_labelling="own"), data, 2)
    assert sum(column(net, "gradient_samples")[:2]) == sum(column(alone, "gradient_samples")) / 2
    for network, was in zip(net.module_.networks, before):
        assert not torch.allclose(network.classifier.weight, was.classifier.weight)
    # the average holds nothing that was trained itself
    assert all(p.grad is None for p in net.module_.networks[0].parameters())
    final = net.final_labels(data)
    close(final["clean_probability_"], net.clean_[0])


def test_the_average_follows_the_weights_and_the_statistics():
    net, data = make_net(co_labelling="average", average_momentum=0.75), make_data()
    seen, step = [], net.optimizer_.step

    def noted():
        step()
        seen.append(copy.deepcopy(net.module_.networks[1].state_dict()))

    net.optimizer_.step = noted
    run(net, data, 3)
    expected = seen[0]
    for t, state in enumerate(seen[1:], start=1):
        m = min(0.75, t / (t + 1))
        expected = {
            name: m * value + (1 - m) * state[name] if value.is_floating_point() else state[name]
            for name, value in expected.items()
        }
    close(dict(net.module_.networks[0].state_dict()), expected)


@pytest.mark.parametrize("co_labelling", ["peer", "own"])
def test_targets(co_labelling):
    net = linear_net(co_labelling=co_labelling)
    # log-odds of class 0: log 4 and log 9 in the partial row, log 2 and log 3 in the other
    views = FixedViews(
        [[math.log(4), 0.0], [math.log(2), 0.0]], [[math.log(9), 0.0], [math.log(3), 0.0]]
    )
    division = Division(
        proba=None,
        rescaled=torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
        clean=torch.tensor([0.6, 0.1]),
        means=None,
    )
    target, projection = net._targets(
        0, SimpleNamespace(views=views), division, torch.tensor([0, 1]), 1, True
    )
    # partial row: 0.6 q + 0.4 of the own mean (4/5 + 9/10) / 2, though class 0 is no candidate
    partial = 0.4 * 0.85
    # the other: own mean of 2/3 and 3/4, the peer's (squared odds) of 4/5 and 9/10
    own, peer = (2 / 3 + 3 / 4) / 2, (4 / 5 + 9 / 10) / 2
    unlabelled = (own + peer) / 2 if co_labelling == "peer" else own
    for row, p in zip(target, (partial, unlabelled)):
        sharp = p**2 / (p**2 + (1 - p) ** 2)
        close(row, torch.tensor([sharp, 1 - sharp]))
    assert not target.requires_grad
    # the projection is of the first weak view of the partial row, for the prototypes
    expected = net.module_.networks[0].project(torch.tensor([[math.log(4), 0.0]]))
    close(projection, expected)
    assert not projection.requires_grad


@pytest.mark.parametrize("n_weak_views", [1, 3])
def test_number_of_weak_views(n_weak_views):
    net = linear_net(n_weak_views=n_weak_views, temperature=1.0)
    views = FixedViews(*[[[math.log(odds), 0.0]] for odds in (1, 3, 9)[:n_weak_views]])
    division = Division(None, torch.tensor([[0.0, 1.0]]), torch.tensor([0.0]), None)
    data = SimpleNamespace(views=views)
    target, projection = net._targets(0, data, division, torch.tensor([0]), 1, False)
    share = {1: 1 / 2, 3: (1 / 2 + 3 / 4 + 9 / 10) / 3}[n_weak_views]
    close(target, torch.tensor([[share, 1 - share]]))
    assert projection is None


def test_targets_by_the_average():
    """The average predicts, with the odds that the trained network has the square of."""
    net = linear_net(co_labelling="average", temperature=1.0)
    views = FixedViews([[math.log(4), 0.0], [math.log(2), 0.0]])
    division = Division(None, torch.tensor([[0.0, 1.0]] * 2), torch.tensor([0.6, 0.1]), None)
    rows = torch.tensor([0, 1])
    net.method.n_weak_views = 1
    target, _ = net._targets(1, SimpleNamespace(views=views), division, rows, 1, False)
    close(target, torch.tensor([[0.4 * 4 / 5, 1 - 0.4 * 4 / 5], [2 / 3, 1 / 3]]))

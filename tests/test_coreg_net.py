"""An epoch of Co-Reg, step by step: schedules, division, targets, losses, switches, state."""

import copy
import math
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback
from torch import nn

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural._net import (
    TrainingData,
    cosine_factor,
    endless_batches,
    even_chunks,
    mix_up,
    progress_line,
)
from sklearn_npll._neural._networks import NetworkEnsemble
from sklearn_npll._neural._views import FeatureViews, ImageViews
from sklearn_npll.coreg import _dividing_net, _net
from sklearn_npll.coreg._division import Division
from sklearn_npll.coreg._net import CoRegNet, by_split

close = torch.testing.assert_close
N_CLASSES = 3
# two epochs of each phase: warm-up 0-1, self-training 2-3, all losses from 4 on
SHORT = {
    "max_epochs": 6,
    "warm_up": 2,
    "n_mixed_views": 2,
    "unlabelled_sampling": "equal",
    "contrastive": "noise_tolerant",
    "contrastive_start": 2,
    "batch_size": 16,
    "queue_size": 40,
    "projection_dim": 8,
    "lr": 0.05,
    "temperature": 0.5,
    "co_labelling": "peer",
    "mixup_alpha": 4.0,
}


def small(n_features, n_classes):
    return nn.Sequential(
        nn.Linear(n_features, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, n_classes)
    )


def make_net(*, module=small, shape=(4,), n_classes=N_CLASSES, seed=0, callbacks=None, **params):
    params = {**SHORT, **params}
    method = SimpleNamespace(**CoRegClassifier(**params).get_params(deep=False))
    torch.manual_seed(0)
    mean = torch.zeros(shape[0], *[1] * (len(shape) - 1))
    return CoRegNet(
        NetworkEnsemble,
        method=method,
        seed=seed,
        module__module=module,
        module__shape=shape,
        module__n_classes=n_classes,
        module__mean=mean,
        module__scale=mean + 1,
        module__projection_dim=method.projection_dim,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__weight_decay=method.weight_decay,
        lr=method.lr,
        batch_size=method.batch_size,
        max_epochs=method.max_epochs,
        train_split=None,
        callbacks=callbacks,
        device="cpu",
        verbose=0,
    ).initialize()


def feature_views(X):
    return FeatureViews(
        X,
        weak_noise=0.05,
        strong_noise=0.15,
        dropout=0.1,
        weak_transform=None,
        strong_transform=None,
        device="cpu",
    )


def make_data(n=60, prior="uniform"):
    """Blobs; a third of the sets holds a wrong class too, a fifth misses the truth."""
    X, y = make_blobs(n, 4, centers=N_CLASSES, cluster_std=2.0, random_state=0)
    candidates = np.eye(N_CLASSES, dtype=bool)[y]
    candidates[::3] |= np.roll(candidates[::3], 1, axis=1)
    candidates[::5] = np.roll(candidates[::5], 1, axis=1)
    if isinstance(prior, str) and prior == "uniform":
        prior = torch.full((N_CLASSES,), 1 / N_CLASSES)
    return TrainingData(
        feature_views(X), torch.from_numpy(candidates), torch.zeros(n, dtype=torch.bool), prior
    )


def run(net, data, epochs):
    net.fit_loop(data, epochs=epochs)
    return net


def column(net, name):
    return [row[name] for row in net.history]


def fix_clean(monkeypatch, clean):
    """Let every division find these clean probabilities."""
    divide = CoRegNet.divide

    def fixed(self, k, data):
        division = divide(self, k, data)
        division.clean = clean.clone()
        return division

    monkeypatch.setattr(CoRegNet, "divide", fixed)


def spy(monkeypatch, owner, name):
    """Record the arguments of each call."""
    original, calls = getattr(owner, name), []

    def wrapper(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)
    return calls


# -- schedules and batches ---------------------------------------------------------------------


def test_views_are_put_together_by_split():
    first, second = torch.arange(4), torch.arange(10, 14)
    assert by_split([first, second], 3).tolist() == [0, 1, 2, 10, 11, 12, 3, 13]
    assert by_split([first], 3) is first


def test_cosine_factor():
    assert cosine_factor(0, 7) == 1
    assert cosine_factor(5, 10) == pytest.approx(0.001 + 0.999 / 2)
    assert cosine_factor(2, 8) == pytest.approx(0.001 + 0.999 * (1 + math.sqrt(0.5)) / 2)
    assert cosine_factor(10, 10) == pytest.approx(0.001)


@pytest.mark.parametrize("max_epochs", [1, 4])
def test_learning_rate_spans_max_epochs_whatever_it_is(max_epochs):
    seen = []

    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(net.optimizer_.param_groups[0]["lr"])

    net = make_net(max_epochs=max_epochs, lr=0.1, callbacks=[Watch()])
    run(net, make_data(), max_epochs)
    shares = [1, 0.001 + 0.999 * (1 + math.sqrt(0.5)) / 2, 0.5005, 0.001 + 0.999 * 0.1464466][
        :max_epochs
    ]
    assert column(net, "lr") == pytest.approx([0.1 * share for share in shares])
    assert set(seen) == set(column(net, "lr"))


def test_even_chunks():
    chunks = even_chunks(torch.arange(7), 3)
    assert [c.tolist() for c in chunks] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [len(c) for c in even_chunks(torch.arange(257), 256)] == [129, 128]
    assert [len(c) for c in even_chunks(torch.arange(1), 256)] == [1]


@pytest.mark.parametrize("n", range(2, 12))
def test_no_chunk_has_a_single_row(n):
    """Batch normalisation fails on one."""
    for size in (2, 3, 4):
        chunks = even_chunks(torch.arange(n), size)
        assert torch.cat(chunks).tolist() == list(range(n))
        assert min(map(len, chunks)) >= 2
        assert max(map(len, chunks)) <= max(size, 3)


def test_endless_batches_are_passes_in_new_orders():
    batches = list(islice(endless_batches(torch.arange(10, 20), 4), 9))
    passes = [torch.cat(batches[i : i + 3]).tolist() for i in (0, 3, 6)]
    assert all(sorted(p) == list(range(10, 20)) for p in passes)
    assert passes[0] != passes[1] != passes[2]


def test_mix_up():
    inputs, target = torch.eye(30), torch.arange(30)
    shares = []
    for _ in range(50):
        mixed, other, share = mix_up(inputs, target, 4.0)
        # row i holds `share` of itself and the rest of the row whose target is returned
        expected = share * torch.eye(30) + (1 - share) * torch.eye(30)[other]
        close(mixed, expected)
        assert sorted(other.tolist()) == list(range(30))
        shares.append(share)
    assert min(shares) >= 0.5
    # max(b, 1 - b) of Beta(4, 4) has mean 1/2 + C(8, 4) / 2^9 = 0.637
    assert np.mean(shares) == pytest.approx(0.5 + 70 / 512, abs=0.05)


def test_phases(monkeypatch):
    net = make_net()
    fix_clean(monkeypatch, (torch.arange(60) < 32).float())
    run(net, make_data(), 5)
    assert column(net, "phase") == ["warm_up"] * 2 + ["co_regularisation"] * 3
    assert column(net, "epoch") == [1, 2, 3, 4, 5]
    used = {
        name: [value is not None for value in column(net, f"loss_{name}")]
        for name in ("warm_up", "partial", "prototype", "contrastive")
    }
    assert used == {
        "warm_up": [True, True, False, False, False],
        "partial": [False, False, True, True, True],
        "prototype": [False] * 4 + [True],
        "contrastive": [False] * 4 + [True],
    }


def test_only_the_last_batch_is_kept_in_the_history():
    net = run(make_net(), make_data(), 5)
    assert all(len(row["batches"]) == 1 for row in net.history)


def test_warm_up_takes_batches_of_twice_the_size(monkeypatch):
    calls = spy(monkeypatch, CoRegNet, "descend")
    run(make_net(), make_data(), 1)
    # 60 rows in chunks of at most 32, for two networks
    assert [len(args[2]) for args in calls] == [30] * 4
    for k in (0, 2):
        assert sorted(calls[k][2].tolist() + calls[k + 1][2].tolist()) == list(range(60))


def test_warm_up_on_scores_takes_batches_of_the_size_itself(monkeypatch):
    calls = spy(monkeypatch, CoRegNet, "descend")
    data = make_data()
    data.scores = data.candidates / data.candidates.sum(1, keepdim=True)
    run(make_net(), data, 1)
    assert [len(args[2]) for args in calls] == [15] * 8


def test_unlabelled_squared_error_is_ramped_up_over_16_epochs(monkeypatch):
    calls = spy(monkeypatch, CoRegNet, "_train_step")
    net = make_net(max_epochs=21, warm_up=1, contrastive_start=100)
    fix_clean(monkeypatch, (torch.arange(60) < 32).float())
    run(net, make_data(), 19)
    ramps = [args[6] for args in calls if args[1] == 0]
    # two steps an epoch: 0, 1/32, 2/32, ... 1
    expected = [min(i / 32, 1.0) for i in range(2 * 18)]
    assert ramps == pytest.approx(expected)
    assert [args[6] for args in calls if args[1] == 1] == pytest.approx(expected)


# -- division ----------------------------------------------------------------------------------

PROBA = torch.tensor(
    [[0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4], [0.5, 0.3, 0.2]]
)
CANDIDATES = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]]).bool()
KNOWN = torch.tensor([0, 0, 0, 0, 1]).bool()


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


# -- targets -----------------------------------------------------------------------------------


class FixedViews:
    """Weak views that are the logits of the networks to be."""

    def __init__(self, *logits):
        self.logits = torch.tensor(logits)  # (views, n, 2)

    def weak(self, rows):
        n = self.logits.shape[1]
        assert rows.tolist() == list(range(n)) * len(self.logits)
        return self.logits.flatten(0, 1)


def linear_net(**params):
    """Networks of which the first returns its input and the second twice its input."""
    net = make_net(
        module=lambda n_features, n_classes: nn.Sequential(
            nn.Identity(), nn.Linear(n_features, n_classes, bias=False)
        ),
        shape=(2,),
        n_classes=2,
        **params,
    )
    for k in (0, 1):
        net.module_.networks[k].classifier.weight.data = (k + 1.0) * torch.eye(2)
    return net


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


# -- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # 0.5^2 + 0.5^2 of the second row: its sum, or its mean over classes times the ramp
    "unlabelled_loss, error, factor",
    [("paper", 0.5, 1.0), ("release", 0.25, 0.125)],
)
def test_self_training_loss(unlabelled_loss, error, factor):
    net = make_net(unlabelled_loss=unlabelled_loss, unlabelled_weight=3.0)
    net.terms_ = {}
    logits = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = net._self_training_loss(logits, target, 1, ramp=0.125)
    assert loss.item() == pytest.approx(-math.log(0.8) + 3 * factor * error)
    assert net.terms_["partial"][0].item() == pytest.approx(-math.log(0.8))
    assert net.terms_["unlabelled"][0].item() == pytest.approx(error)


def test_self_training_loss_without_unlabelled_rows():
    net = make_net()
    net.terms_ = {}
    loss = net._self_training_loss(torch.zeros(2, 2), torch.eye(2), 2, ramp=1.0)
    assert loss.item() == pytest.approx(math.log(2))
    assert "unlabelled" not in net.terms_


@pytest.mark.parametrize("n_mixed_views", [2, 1])
@pytest.mark.parametrize("mixup_alpha", [4.0, None])
def test_order_and_mixing_of_a_step(monkeypatch, mixup_alpha, n_mixed_views):
    """The strong views of the partial rows, then those of the rest, mixed with one factor."""
    net = make_net(mixup_alpha=mixup_alpha, n_mixed_views=n_mixed_views)
    net.history.new_epoch()
    net.terms_ = {}
    made = []

    def strong(rows):
        made.append(torch.randn(len(rows), 4))
        return made[-1]

    views = SimpleNamespace(weak=lambda rows: torch.randn(len(rows), 4), strong=strong)
    division = Division(
        None, torch.eye(3)[torch.arange(6) % 3], torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]), None
    )
    targets = spy(monkeypatch, CoRegNet, "_self_training_loss")
    embedded = spy(monkeypatch, net.module_.networks[0], "embed")
    mixes = []
    original = _net.mix_up
    monkeypatch.setattr(
        _net, "mix_up", lambda *args: mixes.append((args, original(*args))) or mixes[-1][1]
    )
    rows_p, rows_u = torch.tensor([0, 1, 2]), torch.tensor([3, 4])
    data = SimpleNamespace(views=views)
    net._train_step(0, data, division, rows_p, rows_u, 1.0, False)
    assert len(made) == n_mixed_views
    inputs = torch.cat([view[:3] for view in made] + [view[3:] for view in made])
    _, logits, target, n_partial, _ = targets[0]
    assert len(logits) == 5 * n_mixed_views
    assert n_partial == 3 * n_mixed_views
    if mixup_alpha is None:
        assert not mixes
        close(embedded[1][0], inputs)
        close(target[:3].argmax(1), torch.tensor([0, 1, 2]))
    else:
        ((given, given_target, alpha), (mixed, other, share)) = mixes[0]
        assert alpha == 4.0
        close(given, inputs)
        close(embedded[1][0], mixed)
        close(target, share * given_target + (1 - share) * other)
        target = given_target
    for part in target[:n_partial].split(3):  # the views of a row share its target
        close(part, target[:3])
    for part in target[n_partial:].split(2):
        close(part, target[-2:])


def test_prototype_loss():
    net = make_net(unlabelled_loss="paper", projection_dim=2)
    net.prototypes_ = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # z.o / 0.3 with log-odds log 3 and 0: s = (3/4, 1/4) and (1/2, 1/2)
    z = torch.tensor([[0.3 * math.log(3), 0.0], [0.0, 0.0]])
    target = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert net._prototype_loss(z, target, 1).item() == pytest.approx(kl + 0.25 + 0.25)
    assert net._prototype_loss(z[:1], target[:1], 1).item() == pytest.approx(kl)
    net.method.unlabelled_loss = "release"
    assert net._prototype_loss(z, target, 1).item() == pytest.approx(kl + 0.25)


def regularisation(net, *, share=0.75):
    """Call the prototype and contrastive part for four rows, of which two are partial."""
    net.history.new_epoch()
    net.terms_ = {}
    data = make_data()
    net.prepare_prototypes(data)
    net.prepare_keys(0, data)
    network = net.module_.networks[0].train()
    target = torch.eye(3)[[0, 1, 1, 2]]
    targets = torch.cat([target[:2]] * 2 + [target[2:]] * 2)
    first, second, mixed = torch.randn(4, 4), torch.randn(4, 4), torch.randn(8, 4)
    projection = nn.functional.normalize(torch.randn(2, net.method.projection_dim), dim=1)
    loss = net._prototype_and_contrastive_loss(
        0, None, torch.arange(4), 2, target, projection, first, second,
        mixed=(network.embed(mixed), targets, targets.flip(0), 4, share),
    )  # fmt: skip
    return loss, SimpleNamespace(**locals())


def test_prototypes_are_aligned_on_the_mixed_views(monkeypatch):
    net = make_net(contrastive="none", prototype_weight=0.2)
    calls = []

    def loss_of(z, target, n_partial):
        calls.append((z, target, n_partial))
        return torch.tensor([1.0, 10.0])[len(calls) - 1]

    monkeypatch.setattr(net, "_prototype_loss", loss_of)
    loss, given = regularisation(net, share=0.75)
    # 0.75 of the loss to the own targets, 0.25 of that to the other's
    assert net.terms_["prototype"][0].item() == pytest.approx(0.75 * 1 + 0.25 * 10)
    assert loss.item() == pytest.approx(0.2 * 3.25)
    close(calls[0][1], given.targets)
    close(calls[1][1], given.targets.flip(0))
    for z, _, n_partial in calls:
        assert z.shape == (8, 8)
        assert n_partial == 4
    # class 0 and 1 by their one partial row each, class 2 by none: o = z after normalising
    close(net.prototypes_, torch.cat([given.projection, torch.zeros(1, 8)]))


def test_prototypes_on_the_strong_view(monkeypatch):
    net = make_net(contrastive="none", prototype_views="strong")
    calls = spy(monkeypatch, net, "_prototype_loss")
    _, given = regularisation(net)
    assert len(calls) == 1
    close(calls[0][1], given.target)
    assert calls[0][0].shape == (4, 8)
    assert calls[0][2] == 2


@pytest.mark.parametrize("mode", ["noise_tolerant", "supcon", "moco"])
def test_contrastive_part(monkeypatch, mode):
    net = make_net(contrastive=mode, prototype_weight=0, contrastive_weight=0.5)
    masks = spy(monkeypatch, _net, "contrastive_masks")
    losses = spy(monkeypatch, _net, "contrastive_loss")
    loss, given = regularisation(net)
    assert "prototype" not in net.terms_
    assert loss.item() == pytest.approx(0.5 * net.terms_["contrastive"][0].item())
    assert masks[0][-1] == mode
    assert masks[0][0].tolist() == [0, 1, 1, 2]
    assert masks[0][1].tolist() == [True, True, False, False]
    query, entries, *_, temperature = losses[0]
    assert temperature == 0.07
    assert query.requires_grad
    assert not entries.requires_grad
    # the queue was empty: only the own keys, from the key encoder on the second view
    encoder = net.key_encoders_[0]
    close(entries, encoder.project(encoder.embed(given.second)))
    close(query, given.network.project(given.network.embed(given.first)))
    queue = net.queues_[0]
    assert queue.n_seen == 4
    close(queue.key[:4], entries)
    assert queue.label[:4].tolist() == [0, 1, 1, 2]
    assert queue.in_partial[:4].tolist() == [True, True, False, False]


def test_queue_holds_unit_keys_and_nothing_else():
    net = run(make_net(queue_size=500), make_data(), 5)
    for queue in net.queues_:
        assert len(queue.key) == 60  # no more than there are samples
        filled = min(queue.n_seen, 60)
        assert filled > 0
        close(queue.key[:filled].norm(dim=1), torch.ones(filled))
        assert not queue.key[filled:].any()
    assert net.queues_[0] is not net.queues_[1]
    seen = net.prototypes_.norm(dim=1)
    close(seen[seen > 0], torch.ones(int((seen > 0).sum())))


@pytest.mark.parametrize("reset_keys", [False, True])
def test_key_encoder(monkeypatch, reset_keys):
    net = make_net(reset_keys=reset_keys, key_momentum=0.75)
    data = make_data()
    run(net, data, 4)
    assert net.key_encoders_ == [None, None]
    trace = {"key": [], "query": []}
    original = CoRegNet._train_step

    def step(self, k, *args):
        if k == 0:
            trace["query"].append(self.module_.networks[0].projector[0].weight.detach().clone())
            trace["key"].append(self.key_encoders_[0].projector[0].weight.clone())
        original(self, k, *args)

    monkeypatch.setattr(CoRegNet, "_train_step", step)
    run(net, data, 1)
    steps = len(trace["key"])
    close(trace["key"][0], trace["query"][0])  # a copy at the start
    # then a moving average of what the query became
    expected = trace["key"][0]
    for query in [*trace["query"][1:], net.module_.networks[0].projector[0].weight.detach()]:
        expected = 0.75 * expected + 0.25 * query
    close(net.key_encoders_[0].projector[0].weight, expected)
    run(net, data, 1)
    if reset_keys:
        expected = trace["query"][steps]
    close(trace["key"][steps], expected)
    assert not any(p.requires_grad for p in net.key_encoders_[0].parameters())


def count_forwards(net, k):
    """Count rows through the backbone and through the projection head of network k."""
    counts = {"backbone": [], "projector": []}
    for name, rows in counts.items():
        getattr(net.module_.networks[k], name).register_forward_hook(
            lambda module, inputs, output, rows=rows: rows.append(len(output))
        )
    return counts


def test_no_contrastive_forward_pass_before_its_start(monkeypatch):
    net = make_net(warm_up=1, contrastive_start=2)
    fix_clean(monkeypatch, (torch.arange(60) < 32).float())
    data = make_data()
    run(net, data, 1)
    counts = count_forwards(net, 0)
    run(net, data, 2)
    # an epoch: the division; two steps with the weak views of 16 + 14 rows and the mixed strong
    # views; and twice the weak views of the unlabelled 14 for the other network
    assert counts["backbone"] == ([60] + [60, 60] * 2 + [28] * 2) * 2
    assert counts["projector"] == []
    assert net.key_encoders_ == [None, None]
    assert net.queues_ == [None, None]
    assert net.prototypes_ is None
    for rows in counts.values():
        rows.clear()
    run(net, data, 1)
    # two more each step, the query and (hooks are copied) the key; projected are the weak partial
    # rows, the query, the mixed views and the key
    assert counts["backbone"] == [60] + [60, 60, 30, 30] * 2 + [28] * 2
    assert counts["projector"] == [16, 30, 60, 30] * 2
    assert all(column(net, f"loss_{name}")[-1] > 0 for name in ("prototype", "contrastive"))


@pytest.mark.parametrize(
    "switches, backbone, projector",
    [
        ({"contrastive": "none"}, [60, 60], [16, 60]),
        ({"contrastive": "none", "prototype_views": "strong"}, [60, 60, 30], [16, 30]),
        ({"prototype_weight": 0}, [60, 60, 30, 30], [16, 30, 30]),
        ({"prototype_views": "strong"}, [60, 60, 30, 30], [16, 30, 30]),
        ({"prototype_weight": 0, "contrastive": "none"}, [60, 60], []),
        (
            {"prototype_weight": 0, "contrastive": "none", "prototype_views": "strong"},
            [60, 60],
            [],
        ),
    ],
)
def test_switched_off_losses_cost_nothing(monkeypatch, switches, backbone, projector):
    net = make_net(warm_up=0, contrastive_start=0, **switches)
    fix_clean(monkeypatch, (torch.arange(60) < 32).float())
    counts = count_forwards(net, 0)
    run(net, make_data(), 1)
    assert counts["backbone"] == [60] + backbone * 2 + [28] * 2
    assert counts["projector"] == projector * 2
    used = {
        name: column(net, f"loss_{name}")[0] is not None for name in ("prototype", "contrastive")
    }
    assert used["prototype"] == (switches.get("prototype_weight") != 0)
    assert used["contrastive"] == (switches.get("contrastive") != "none")
    assert (net.key_encoders_[0] is None) == (switches.get("contrastive") == "none")


# -- what a step may touch ---------------------------------------------------------------------


def snapshot(net, k):
    """Parameters, running statistics and momentum of network k."""
    network = net.module_.networks[k]
    momentum = [net.optimizer_.state[p].get("momentum_buffer") for p in network.parameters()]
    return copy.deepcopy((network.state_dict(), momentum))


@pytest.mark.parametrize("k", [0, 1])
def test_training_one_network_leaves_the_other(monkeypatch, k):
    """Neither weight decay, momentum nor running statistics may move it."""
    net = make_net(weight_decay=0.1)
    data = make_data()
    run(net, data, 5)
    division = net.divide(0, data)
    other, own = snapshot(net, 1 - k), snapshot(net, k)
    assert all(m is not None for m in other[1])
    net._train_network(k, data, division)
    net._warm_up(k, data)
    close(snapshot(net, 1 - k), other)
    assert not torch.equal(snapshot(net, k)[0]["classifier.weight"], own[0]["classifier.weight"])


def test_projection_head_rests_until_it_is_used():
    """No weight decay on it, which would shrink it through a long warm-up."""
    net = make_net(weight_decay=0.1)
    before = copy.deepcopy([n.projector.state_dict() for n in net.module_.networks])
    run(net, make_data(), 4)
    close([n.projector.state_dict() for n in net.module_.networks], before)


def test_modes(monkeypatch):
    """Division in evaluation mode; training and key encoder in training mode; the peer not."""
    seen = []
    net = make_net(warm_up=0, contrastive_start=0)
    original_step, original_predict = CoRegNet._targets, CoRegNet.predict_views

    def targets(self, k, *args):
        a, b = self.module_.networks[k], self.module_.networks[1 - k]
        seen.append(("step", a.training, b.training, self.key_encoders_[k].training))
        return original_step(self, k, *args)

    def predict(self, k, *args):
        proba = original_predict(self, k, *args)
        seen.append(("predict", self.module_.networks[k].training))
        return proba

    monkeypatch.setattr(CoRegNet, "_targets", targets)
    monkeypatch.setattr(CoRegNet, "predict_views", predict)
    run(net, make_data(), 2)
    assert set(seen) == {("step", True, False, True), ("predict", False)}


def test_a_division_leaves_the_running_statistics():
    net, data = make_net(), make_data()
    run(net, data, 1)
    before = copy.deepcopy(net.module_.state_dict())
    net.divide(0, data)
    close(net.module_.state_dict(), before)


# -- empty and tiny splits ---------------------------------------------------------------------


@pytest.mark.parametrize("n_partial", [0, 1])
def test_empty_partial_split_warms_up(monkeypatch, n_partial):
    net = make_net(warm_up=0, contrastive_start=0, use_unlabelled=n_partial == 0)
    fix_clean(monkeypatch, (torch.arange(60) < n_partial).float())
    run(net, make_data(), 2)
    assert all(math.isfinite(value) for value in column(net, "loss_warm_up"))
    assert column(net, "loss_partial") == [None, None]
    assert column(net, "partial_size") == [n_partial] * 2
    assert column(net, "partial_clean_probability") == [1.0 if n_partial else None] * 2


@pytest.mark.parametrize("n_weak_views", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_empty_unlabelled_split_and_few_rows(monkeypatch, n, n_weak_views):
    net = make_net(warm_up=0, contrastive_start=0, batch_size=2, n_weak_views=n_weak_views)
    fix_clean(monkeypatch, torch.ones(n))
    run(net, make_data(n), 2)
    assert column(net, "loss_unlabelled") == [None, None]
    for name in ("partial", "prototype", "contrastive"):
        assert all(math.isfinite(value) for value in column(net, f"loss_{name}"))


@pytest.mark.parametrize("n_unlabelled", [1, 57])
def test_lopsided_splits(monkeypatch, n_unlabelled):
    net = make_net(warm_up=0, contrastive_start=0)
    fix_clean(monkeypatch, (torch.arange(60) >= n_unlabelled).float())
    run(net, make_data(), 2)
    for name in ("partial", "unlabelled", "prototype", "contrastive"):
        assert all(math.isfinite(value) for value in column(net, f"loss_{name}"))


def test_one_epoch_is_one_pass_over_the_partial_split(monkeypatch):
    net = make_net(warm_up=0)
    fix_clean(monkeypatch, (torch.arange(60) < 40).float())
    calls = spy(monkeypatch, CoRegNet, "_train_step")
    run(net, make_data(), 1)
    first = [args for args in calls if args[1] == 0]
    assert sorted(torch.cat([args[4] for args in first]).tolist()) == list(range(40))
    # 40 rows make three batches of at most 16, with 20 others to go round
    assert [len(args[4]) for args in first] == [14, 13, 13]
    unlabelled = torch.cat([args[5] for args in first])
    assert set(unlabelled.tolist()) == set(range(40, 60))


@pytest.mark.parametrize(
    ("n_partial", "sampling", "sizes"),
    [
        (40, "once", [7, 7, 6]),  # 20 others in three steps
        (20, "once", [10, 10]),  # no more than the ten of the first partial batch
        (40, "equal", [10, 10, 10]),  # even chunks of at most 14
    ],
)
def test_unlabelled_rows_of_a_step(monkeypatch, n_partial, sampling, sizes):
    net = make_net(warm_up=0, unlabelled_sampling=sampling)
    fix_clean(monkeypatch, (torch.arange(60) < n_partial).float())
    calls = spy(monkeypatch, CoRegNet, "_train_step")
    run(net, make_data(), 1)
    drawn = [args[5] for args in calls if args[1] == 0]
    assert [len(rows) for rows in drawn] == sizes
    if (n_partial, sampling) == (40, "once"):
        assert sorted(torch.cat(drawn).tolist()) == list(range(40, 60))


def test_use_unlabelled_off(monkeypatch):
    net = make_net(warm_up=0, contrastive_start=0, use_unlabelled=False)
    fix_clean(monkeypatch, (torch.arange(60) < 40).float())
    calls = spy(monkeypatch, CoRegNet, "_train_step")
    run(net, make_data(), 1)
    assert all(len(args[5]) == 0 for args in calls)
    assert column(net, "loss_unlabelled") == [None]
    assert all(q.in_partial[: q.n_seen].all() for q in net.queues_)


def test_saturated_networks_stay_finite():
    """Predictions of exactly 0 and 1 in every step of an epoch."""
    net, data = make_net(warm_up=0, contrastive_start=0), make_data()
    for network in net.module_.networks:
        network.classifier.weight.data *= 1e4
    run(net, data, 2)
    assert all(p.isfinite().all() for p in net.module_.parameters())
    purified, clean = net.final_labels(data).values()
    close(purified.sum(1), torch.ones(60))
    assert clean.isfinite().all()


# -- precision ---------------------------------------------------------------------------------


def test_mixed_precision_covers_forward_passes_only(monkeypatch):
    """Views are made and losses computed in float32; only the networks run in bfloat16."""
    dtypes = {"views": set(), "losses": set(), "network": set()}
    one = torch.ones(1, 1)
    net = make_net(warm_up=1, contrastive_start=0, precision="bf16")
    data = make_data()
    for name in ("weak", "strong"):
        original = getattr(data.views, name)

        def view(rows, original=original):
            dtypes["views"].add((one @ one).dtype)
            return original(rows)

        setattr(data.views, name, view)
    for name in ("contrastive_loss", "kl_divergence", "squared_error", "warm_up_loss"):
        original = getattr(_net, name)

        def loss(first, *args, original=original):
            dtypes["losses"] |= {(one @ one).dtype, first.dtype}
            return original(first, *args)

        monkeypatch.setattr(_net, name, loss)
    for network in net.module_.networks:
        network.backbone[0].register_forward_hook(
            lambda module, inputs, output: dtypes["network"].add(output.dtype)
        )
    run(net, data, 3)
    assert dtypes == {
        "views": {torch.float32},
        "losses": {torch.float32},
        "network": {torch.bfloat16},
    }
    assert net.queues_[0].key.dtype == net.prototypes_.dtype == torch.float32
    # rounded to bfloat16 they would be off by up to 0.004
    norms = net.queues_[0].key[:20].norm(dim=1)
    close(norms, torch.ones(20), atol=1e-5, rtol=0)


def test_images_in_mixed_precision():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    views = ImageViews(
        images, flip=True, cutout=4, operations=True, weak_transform=None, strong_transform=None,
        device="cpu",
    )  # fmt: skip
    data = TrainingData(
        views, torch.eye(3).bool()[torch.arange(24) % 3], torch.zeros(24, dtype=torch.bool)
    )
    net = make_net(
        module="resnet8", shape=(3, 8, 8), warm_up=1, contrastive_start=0, precision="bf16"
    )
    run(net, data, 2)
    for name in ("partial", "prototype", "contrastive"):
        assert math.isfinite(column(net, f"loss_{name}")[-1])


# -- prediction and records --------------------------------------------------------------------


def test_predict_views():
    net, data = make_net(batch_size=2), make_data(600)  # more rows than a batch of predictions
    run(net, data, 1)
    x = data.views.plain(torch.arange(600))
    module = net.module_.eval()
    with torch.no_grad():
        a, b = (network(x) for network in module.networks)
    close(net.predict_views(0, data.views.plain, 600), a.softmax(1))
    together = net.predict_views(None, data.views.plain, 600)
    close(together, (a + b).softmax(1))
    # an inference tensor could not be changed in place or saved for a backward pass
    together[0] = 0


def test_evaluation():
    net, data = linear_net(), make_data()
    # the first says class 0, 0, 1, and with twice the weight so do both
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    net.module_.networks[1].classifier.weight.data = torch.tensor([[1.0, 0.0], [1.5, 0.0]])
    # second network: class 1 by 1 and 0.5, and a tie in the last row
    data.eval_views, data.eval_labels = feature_views(logits), np.array([0, 0, 0])
    net.history.new_epoch()
    net._record_evaluation(data)
    # sums 4 : 3, 2 : 1.5, 0 : 1
    assert net.history[-1]["eval_accuracy"] == pytest.approx(2 / 3)
    assert net.history[-1]["eval_accuracy_single"] == pytest.approx(2 / 3)
    net.module_.networks[1].classifier.weight.data *= 10
    net._record_evaluation(data)
    # 12 : 15, 6 : 7.5, 0 : 1
    assert net.history[-1]["eval_accuracy"] == 0
    assert net.history[-1]["eval_accuracy_single"] == pytest.approx(2 / 3)


def test_record_of_a_division():
    net = make_net()
    data = TrainingData(None, CANDIDATES, KNOWN)
    rescaled = PROBA * CANDIDATES / (PROBA * CANDIDATES).sum(1, keepdim=True)
    clean = [torch.tensor([0.9, 0.8, 0.2, 0.0, 1.0]), torch.tensor([0.7, 0.3, 0.1, 0.0, 1.0])]
    means = [np.array([0.1, 0.7]), np.array([0.3, 0.9])]
    divisions = [Division(PROBA, rescaled, c, m) for c, m in zip(clean, means)]
    net.clean_ = clean
    for _ in range(2):
        net.history.new_epoch()
        net._record_division(data, divisions)
    first, row = net.history
    assert first["label_change_rate"] is None
    assert row["label_change_rate"] == 0
    assert row["partial_size"] == (3 + 2) / 2
    assert row["partial_share"] == 2.5 / 5
    assert row["partial_clean_probability"] == pytest.approx((0.9 + 0.8 + 1 + 0.7 + 1) / 5)
    assert row["mixture_means"] == pytest.approx([0.2, 0.8])
    # predictions 0, 1, 1, (2), 0: two of the four labelled rows are candidates, with 1 and 1/2
    assert row["covering_rate"] == pytest.approx(2 / 4)
    assert row["approximated_accuracy"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    net.labels_[2] = 0
    net._record_division(data, divisions)
    assert net.history[-1]["label_change_rate"] == pytest.approx(1 / 5)


def test_progress_line(capsys):
    row = {
        "epoch": 7,
        "phase": "co_regularisation",
        "loss_warm_up": None,
        "loss_partial": 0.51234,
        "partial_share": 0.725,
        "lr": 0.01,
        "seconds": 1.26,
    }
    expected = "epoch   7/100  co_regularisation   loss  0.5123  partial  72.5%  lr 0.01000  1.3 s"
    assert progress_line(row, 100) == expected
    net, data = make_net(), make_data()
    run(net, data, 1)
    assert capsys.readouterr().out == ""
    net.verbose = 1
    run(net, data, 1)
    assert capsys.readouterr().out.startswith("epoch 2/6  warm_up ")


def test_final_labels_of_known_and_unlabelled_rows():
    data = make_data()
    data.known[:4] = True
    data.candidates[:4] = torch.tensor([0, 0, 1])  # single candidates
    data.candidates[4:8] = True
    net = run(make_net(), data, 5)
    purified, clean = net.final_labels(data).values()
    assert (clean[:4] == 1).all()
    assert (clean[4:8] == 0).all()
    close(purified[:4], torch.tensor([[0.0, 0.0, 1.0]] * 4))
    close(purified.sum(1), torch.ones(60))


def test_final_labels_after_a_warm_up_depend_on_the_state_alone():
    net, data = make_net(), make_data()
    run(net, data, 2)
    state = copy.deepcopy(net.training_state())
    purified, clean = net.final_labels(data).values()
    other = make_net()
    other.load_training_state(state, data)
    torch.rand(5)  # as a resumed fit may have drawn another number of times
    close(tuple(other.final_labels(data).values()), (purified, clean))


def test_interrupting_callback_stops_after_the_epoch():
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    net = make_net(callbacks=[Stop()])
    run(net, make_data(), 1)
    assert net.stopped_
    assert "loss_warm_up" in net.history[0]


# -- seed and state ----------------------------------------------------------------------------


def test_an_epoch_depends_only_on_the_state_and_the_seed():
    data = make_data()
    first = run(make_net(), data, 5)
    second = make_net()
    for _ in range(5):
        torch.rand(7)
        np.random.rand(7)  # noqa: NPY002
        run(second, data, 1)
    close(second.module_.state_dict(), first.module_.state_dict(), atol=0, rtol=0)
    other = run(make_net(seed=1), data, 5)
    weight = "networks.0.classifier.weight"
    assert not torch.equal(other.module_.state_dict()[weight], first.module_.state_dict()[weight])


def test_targets_by_the_average():
    """The average predicts, with the odds that the trained network has the square of."""
    net = linear_net(co_labelling="average", temperature=1.0)
    views = FixedViews([[math.log(4), 0.0], [math.log(2), 0.0]])
    division = Division(None, torch.tensor([[0.0, 1.0]] * 2), torch.tensor([0.6, 0.1]), None)
    rows = torch.tensor([0, 1])
    net.method.n_weak_views = 1
    target, _ = net._targets(1, SimpleNamespace(views=views), division, rows, 1, False)
    close(target, torch.tensor([[0.4 * 4 / 5, 1 - 0.4 * 4 / 5], [2 / 3, 1 / 3]]))


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


def test_the_networks_see_different_batches():
    """Two copies of one network must not stay the same."""
    net = make_net(module=small(4, 3))
    a, b = (n.classifier.weight for n in net.module_.networks)
    close(a, b)
    run(net, make_data(), 1)
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("done", [1, 3, 5])
@pytest.mark.parametrize(
    "switches",
    [{}, {"contrastive": "none"}, {"reset_keys": True}, {"co_labelling": "average"}],
)
def test_resuming_equals_not_stopping(done, switches):
    data = make_data()
    whole = run(make_net(max_epochs=7, **switches), data, done)
    state = copy.deepcopy(whole.training_state())
    given = copy.deepcopy(state)
    run(whole, data, 7 - done)
    # a net whose own start is another: nothing of it may remain
    resumed = make_net(max_epochs=7, **switches)
    for p in resumed.module_.parameters():
        p.data += 1
    resumed.load_training_state(state, data)
    assert resumed.epoch_ == done - 1
    run(resumed, data, 7 - done)

    ours, theirs = resumed.training_state(), whole.training_state()
    for row in [*ours["history"], *theirs["history"]]:
        row.pop("seconds")
    history = ours.pop("history")
    assert history == theirs.pop("history")
    assert [row["epoch"] for row in history] == list(range(1, 8))
    close(ours, theirs, atol=0, rtol=0)
    close(resumed.final_labels(data), whole.final_labels(data), atol=0, rtol=0)
    # the state that was loaded can be loaded again
    for part in (state, given):
        part.pop("history")
    close(state, given, atol=0, rtol=0)


def test_state_holds_the_last_parts():
    net, data = make_net(), make_data()
    run(net, data, 5)
    whole = net.training_state()
    state = whole["method"]
    assert [q["n_seen"] for q in state["queues"]] == [q.n_seen for q in net.queues_]
    close(state["prototypes"], net.prototypes_)
    assert set(state["keys"][0]) == set(net.module_.networks[0].state_dict())
    assert [len(losses) for losses in state["losses"]] == [3, 3]
    assert [len(means) for means in state["mean_proba"]] == [3, 3]
    other = make_net(loss_window=2)
    other.load_training_state(whole, data)
    assert [len(losses) for losses in other.losses_] == [2, 2]
    close(other.losses_[0][-1], net.losses_[0][-1])

"""An epoch of Co-Reg: the losses of a step, and what a step may touch."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coreg_epochs import close, column, fix_clean, make_data, make_net, run, spy
from torch import nn

from sklearn_npll import CoRegClassifier
from sklearn_npll.coreg import _net
from sklearn_npll.coreg._division import Division
from sklearn_npll.coreg._net import CoRegNet

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


def test_no_weight_is_no_contrastive_loss():
    params = {"max_epochs": 2, "warm_up": 1, "contrastive_start": 0, "random_state": 0}
    y = np.arange(40) % 2
    off = CoRegClassifier(**params, contrastive="none").fit(np.eye(40), y)
    weightless = CoRegClassifier(**params, contrastive="supcon", contrastive_weight=0)
    weightless.fit(np.eye(40), y)
    rows = [clf.history_[-1]["gradient_samples"] for clf in (off, weightless)]
    assert rows[0] == rows[1]


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

"""An epoch of Co-Reg: schedules and batches, empty and tiny splits, precision."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from coreg_epochs import close, column, fix_clean, make_data, make_net, run, spy
from skorch.callbacks import Callback

from sklearn_npll._neural._net import (
    TrainingData,
    cosine_factor,
    endless_batches,
    even_chunks,
    mix_up,
)
from sklearn_npll._neural._views import ImageViews
from sklearn_npll.coreg import _net
from sklearn_npll.coreg._net import CoRegNet, by_split

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
        (57, "once", [1, 1, 1, 0]),  # each once, where there are fewer than steps
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

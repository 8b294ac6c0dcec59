"""After an epoch of Co-Reg: predictions, records, seed and state."""

import copy

import numpy as np
import pytest
import torch
from coreg_epochs import (
    CANDIDATES,
    KNOWN,
    PROBA,
    close,
    feature_views,
    linear_net,
    make_data,
    make_net,
    run,
    small,
)
from skorch.callbacks import Callback

from sklearn_npll._neural._net import TrainingData, progress_line
from sklearn_npll.coreg._division import Division

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

"""What test_accelerate.py runs in each of several processes: ``python two_processes.py FOLDER``.

Each process leaves what it found in a file of the folder.
"""

import contextlib
import copy
import io
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback
from torch import nn

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural import _base
from sklearn_npll._neural._processes import join_processes
from sklearn_npll.baselines import DivideMixClassifier, PRODENClassifier

RANK = int(os.environ.get("RANK", 0))
X, T = make_blobs(60, centers=3, random_state=0)
Y = np.eye(3, dtype=int)[T]
Y[::3, 0] = 1
Y[::10] = np.roll(Y[::10], 1, axis=1)
LEVEL = np.arange(21) % 2  # an odd number of rows
IMAGES = np.random.default_rng(0).integers(0, 60, size=(21, 8, 8, 3), dtype=np.uint8)
IMAGES += (LEVEL * 190).astype(np.uint8)[:, None, None, None]

SHORT = {"max_epochs": 4, "batch_size": 32, "random_state": 0}
FEATURES = CoRegClassifier(
    **SHORT, warm_up=1, contrastive="noise_tolerant", contrastive_start=1, queue_size=32
)
FITS = {
    "features": (FEATURES, X, Y),
    "images": (CoRegClassifier(**SHORT, warm_up=1), IMAGES, LEVEL),
    "PRODEN": (PRODENClassifier(**SHORT), X, Y),
    "DivideMix": (DivideMixClassifier(**SHORT, warm_up=1), X, Y),
}


def outcome(clf, X):
    return {
        "proba": clf.predict_proba(X),
        "labels": clf.label_distributions_,
        "weights": {k: v.clone() for k, v in clf.net_.module_.state_dict().items()},
        "history": clf.history_,
    }


def together(clf, **params):
    return clone(clf).set_params(accelerator="auto", **params)


def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


class Net(nn.Sequential):
    """A batch normalisation between two linear layers."""

    def __init__(self, n_features=2, n_classes=3):
        super().__init__(
            nn.Linear(n_features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, n_classes)
        )


class At(Callback):
    """Calls a function with the net after an epoch, or in the middle of it."""

    def __init__(self, epoch, function, hook="on_epoch_end"):
        self.epoch, self.function, self.hook = epoch, function, hook

    def on_epoch_end(self, net, **kwargs):
        if self.hook == "on_epoch_end" and len(net.history) == self.epoch:
            self.function(net)

    def on_batch_end(self, net, **kwargs):
        if self.hook == "on_batch_end" and len(net.history) == self.epoch:
            self.function(net)

    def get_params(self, deep=True):
        return {}  # what it calls belongs to no training


def interrupt(net):
    raise KeyboardInterrupt


def stop_main(net):
    if RANK == 0:
        raise KeyboardInterrupt


class UnseededDetector(BaseEstimator):
    """Scores that are different in every process."""

    def fit(self, X, y=None):
        self.clean_score_ = np.random.default_rng(RANK).random(len(X))
        self.clean_mask_ = self.clean_score_ > 0.5
        return self


# -- parts -------------------------------------------------------------------------------------


def rows(processes, n, training=True, dtype=torch.float64):
    """A loss that compares rows, computed by all processes and by this one alone."""
    torch.manual_seed(0)
    network = Net(3, 5).to(dtype).train(training)
    x = torch.randn(n, 3, dtype=dtype) + 7
    alone = copy.deepcopy(network)
    state = torch.get_rng_state()
    found = {}
    for name, net, apply in (
        ("together", network, processes.map_rows),
        ("alone", alone, lambda function, x: function(x)),
    ):
        y = apply(net, x)
        (y.exp() @ y.T).square().mean().backward()
        processes.average_gradients(net.parameters())
        found[name] = {
            "output": y.detach(),
            **{f"gradient of {k}": p.grad for k, p in net.named_parameters()},
            **net.state_dict(),
        }
    found["generator untouched"] = torch.equal(state, torch.get_rng_state())
    found["buffers are leaves"] = not any(b.requires_grad for b in network.buffers())
    return found


def parts(processes):
    torch.manual_seed(0)
    dropped = processes.map_rows(nn.Dropout(), torch.ones(64, 8))

    def fail():
        raise OSError("disk full")

    tensor = torch.arange(6.0).view(2, 3).T + RANK  # not contiguous
    processes.broadcast([tensor])
    return {
        "processes": processes,
        "rows": {n: rows(processes, n) for n in (1024, 7, 2)},
        "evaluation": rows(processes, 7, training=False),
        "single precision": rows(processes, 7, dtype=torch.float32),
        "one row": processes.map_rows(nn.Linear(3, 2), torch.ones(1, 3)).shape,
        "dropout": dropped,
        "from main": processes.from_main({"rank": RANK}),
        "on main": processes.on_main(lambda: RANK),
        "failure": error_of(processes.on_main, fail),
        "broadcast": tensor,
    }


# -- fits --------------------------------------------------------------------------------------


def fits():
    fitted = {name: together(clf).fit(X, y) for name, (clf, X, y) in FITS.items()}
    return {
        name: {**outcome(clf, FITS[name][1]), "pickle": pickle.dumps(clf)}
        for name, clf in fitted.items()
    }


def refusals():
    clf = together(FEATURES)
    other = X + (RANK == 1)
    return {
        "X": error_of(clone(clf).fit, other, Y),
        "rows": error_of(clone(clf).fit, X[: 60 - RANK], Y[: 60 - RANK]),
        "labels": error_of(clone(clf).fit, X, np.roll(Y, RANK, axis=1)),
        "parameter": error_of(together(clf, max_epochs=4 + RANK).fit, X, Y),
        "eval_set": error_of(clone(clf).fit, X, Y, eval_set=(other, T)),
        "network": error_of(together(clf, module=Net(2, 3) if RANK else "mlp").fit, X, Y),
        "state": error_of(together(clf, callbacks=[At(2, drift, "on_batch_end")]).fit, X, Y),
    }


def drift(net):
    if RANK == 1:
        with torch.no_grad():
            net.networks_[0].classifier.bias += 1


def unlike_processes():
    """What may differ between the processes, and is made the same."""
    torch.manual_seed(RANK)
    own_module = together(FEATURES, module=Net())
    return {
        "module": outcome(own_module.fit(X, Y), X),
        "no seed": outcome(together(FEATURES, random_state=None).fit(X, Y), X),
        "detector": outcome(together(FEATURES, division=UnseededDetector()).fit(X, Y), X),
        "stopped": outcome(together(FEATURES, callbacks=[At(2, stop_main)]).fit(X, Y), X),
    }


def resumed(folder):
    """A fit that is interrupted in the middle of its third epoch, and another that goes on."""
    saved, save = [], _base.save_checkpoint

    def record(state, path):
        saved.append(len(state["history"]))
        save(state, path)

    _base.save_checkpoint = record
    seen = folder if RANK == 0 else folder / "of another host"
    clf = together(FEATURES, checkpoint_every=1, checkpoint_dir=seen)
    printed = io.StringIO()
    with contextlib.suppress(KeyboardInterrupt), contextlib.redirect_stdout(printed):
        broken = clone(clf).set_params(callbacks=[At(3, interrupt, "on_batch_end")], verbose=1)
        broken.fit(X, Y)
    first = list(saved)
    clf.set_params(callbacks=[At(0, None)]).fit(X, Y)
    _base.save_checkpoint = save
    return {
        "printed": printed.getvalue(),
        "saved": (first, saved[len(first) :]),
        "outcome": outcome(clf, X),
        "files": sorted(path.name for path in Path(seen).glob("*.pt")),
    }


def main(folder):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    before = torch.get_rng_state()
    processes, _ = join_processes("auto", "auto", "fp32")
    found = {
        "fits": fits(),
        "generator untouched": torch.equal(before, torch.get_rng_state()),
        "parts": parts(processes),
        "refusals": refusals(),
        "unlike": unlike_processes(),
        "resumed": resumed(folder / "states"),
        "wrong device": error_of(join_processes, "auto", "meta", "fp32"),
    }
    (folder / f"{RANK}.pkl").write_bytes(pickle.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

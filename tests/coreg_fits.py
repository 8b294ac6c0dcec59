"""Small data, quick trainings and a saboteur, for the tests of CoRegClassifier."""

import os
import signal
from functools import cache

import numpy as np
import pytest
import torch
from fakes import NAMES
from numpy.testing import assert_array_equal
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback, GradientNormClipping

from sklearn_npll import CoRegClassifier, PartialLabels

X, T = make_blobs(60, centers=3, random_state=0)
Y = np.eye(3, dtype=int)[T]
Y[::3, 0] = 1  # a wrong class besides the true one
Y[::10] = np.roll(Y[::10], 1, axis=1)  # the true class missing
LABELS = PartialLabels(X, NAMES, Y)

# Two grey levels, small enough to train on in no time.
LEVEL = np.arange(20) % 2
GREY = np.random.default_rng(0).integers(0, 60, size=(20, 8, 8), dtype=np.uint8)
GREY += (LEVEL * 190).astype(np.uint8)[:, None, None]
COLOUR = np.stack([GREY, GREY[:, ::-1], GREY[:, :, ::-1]], axis=3)


def classifier(**params):
    """Small, and with the contrastive loss from the second epoch after the warm-up."""
    small = {
        "max_epochs": 5,
        "warm_up": 2,
        "contrastive": "noise_tolerant",
        "contrastive_start": 1,
        "batch_size": 16,
        "queue_size": 64,
        "random_state": 0,
    }
    return CoRegClassifier(**{**small, **params})


def images_classifier(**params):
    return classifier(**{"max_epochs": 3, "warm_up": 1, "batch_size": 8, **params})


def assert_same_fit(a, b, X=X):
    """Bit for bit, but for the seconds."""
    for history in (a.history_, b.history_):
        assert all(row["seconds"] >= 0 for row in history)
    drop = [[{k: v for k, v in r.items() if k != "seconds"} for r in c.history_] for c in (a, b)]
    assert drop[0] == drop[1]
    ours, theirs = a.net_.module_.state_dict(), b.net_.module_.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name in ("label_distributions_", "clean_probability_", "transduction_"):
        assert_array_equal(getattr(a, name), getattr(b, name))
    assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def same_probabilities(a, b, X=X):
    return np.array_equal(a.predict_proba(X), b.predict_proba(X))


@pytest.fixture(scope="module")
@cache  # once for all modules; nothing changes it
def fitted():
    return classifier().fit(X, Y)


@pytest.fixture(scope="module")
@cache  # once for all modules; nothing changes it
def fitted_on_images():
    return images_classifier().fit(COLOUR, LEVEL)


class Saboteur(Callback):
    """Counts epochs, and does something in the middle of one of them."""

    epochs = []  # of all instances, as the estimator trains with a copy
    armed = True

    def __init__(self, at=None, error=None, kill=False):
        self.at = at
        self.error = error
        self.kill = kill

    def get_params(self, deep=True):
        return {}  # a harmless one makes the same training

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append(len(net.history))

    def on_grad_computed(self, net, **kwargs):
        if len(net.history) == self.at:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise self.error


def resumable(folder, callback, **params):
    return classifier(
        max_epochs=7,
        checkpoint_dir=folder,
        checkpoint_every=2,
        callbacks=[callback, GradientNormClipping(1.0)],
        **params,
    )


def train_until_killed(folder):
    torch.set_num_threads(1)
    resumable(folder, Saboteur(at=6, kill=True)).fit(X, Y, eval_set=(X, T))


def weights(value):
    return {
        "0.weight": torch.full((3, 2), value),
        "0.bias": torch.zeros(3),
    }

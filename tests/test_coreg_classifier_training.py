"""Trainings of CoRegClassifier: seeds, early stopping, callbacks, progress, devices."""

import random
import signal

import coreg_fits
import joblib
import numpy as np
import pytest
import torch
from coreg_fits import (
    COLOUR,
    LABELS,
    LEVEL,
    Saboteur,
    T,
    X,
    Y,
    assert_same_fit,
    classifier,
    images_classifier,
    same_probabilities,
)
from fakes import NAMES
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, GradientNormClipping

# Fixtures, which pytest finds by their names here.
fitted = coreg_fits.fitted


# Random numbers


def global_state():
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return kind, keys.tolist(), rest, torch.get_rng_state().tolist(), random.getstate()


def test_same_seed_same_fit(fitted):
    torch.manual_seed(5)
    assert_same_fit(classifier().fit(X, Y), fitted)
    assert_same_fit(
        classifier(random_state=np.random.RandomState(3)).fit(X, Y),
        classifier(random_state=np.random.RandomState(3)).fit(X, Y),
    )
    assert not same_probabilities(classifier(random_state=1).fit(X, Y), fitted)


def test_seed_none_differs_but_follows_numpy():
    np.random.seed(0)  # noqa: NPY002
    first, second = (classifier(random_state=None).fit(X, Y) for _ in range(2))
    np.random.seed(0)  # noqa: NPY002
    third = classifier(random_state=None).fit(X, Y)
    assert not same_probabilities(first, second)
    assert_same_fit(first, third)


def test_global_generators_are_left_alone(tmp_path):
    before = global_state()
    clf = classifier(checkpoint_dir=tmp_path, warm_start=True).fit(X, Y, eval_set=(X, T))
    clf.predict(X)
    clf.to_module()
    images_classifier(max_epochs=2).fit(COLOUR, LEVEL)
    with pytest.raises(RuntimeError, match="sabotage"):
        classifier(callbacks=[Saboteur(at=3, error=RuntimeError("sabotage"))]).fit(X, Y)
    assert global_state() == before


def test_fits_in_threads_do_not_share_random_numbers(fitted):
    threads = joblib.Parallel(n_jobs=2, backend="threading")
    fits = threads(joblib.delayed(classifier().fit)(X, Y) for _ in range(2))
    for clf in fits:
        assert_same_fit(clf, fitted)


# Early stopping, callbacks, progress


@pytest.mark.parametrize(
    ("score", "key"),
    [
        ("covering_rate", "covering_rate"),
        ("approximated_accuracy", "approximated_accuracy"),
        ("accuracy", "eval_accuracy"),
    ],
)
def test_early_stopping(score, key):
    clf = classifier(early_stopping=score, patience=2, max_epochs=60).fit(X, Y, eval_set=(X, T))
    scores = [row[key] for row in clf.history_ if row["phase"] != "warm_up"]
    assert clf.n_iter_ < 60
    assert int(np.argmax(scores)) == len(scores) - 3
    assert scores[-1] <= max(scores)


def test_early_stopping_from_a_warm_start_on():
    clf = classifier(warm_start=True, max_epochs=4).fit(X, Y)
    clf.set_params(max_epochs=8, early_stopping="accuracy", patience=3)
    clf.fit(X, Y, eval_set=(X, T))
    assert [row.get("eval_accuracy") is None for row in clf.history_] == [True] * 4 + [False] * 4


def test_eval_set():
    clf = classifier().fit(X, NAMES[T], eval_set=(X[:30], NAMES[T[:30]]))
    ensemble, single = clf.predict(X[:30]), clf.set_params(deploy="single").predict(X[:30])
    last = clf.history_[-1]
    assert last["eval_accuracy"] == pytest.approx(np.mean(ensemble == NAMES[T[:30]]))
    assert last["eval_accuracy_single"] == pytest.approx(np.mean(single == NAMES[T[:30]]))
    assert all("eval_accuracy" in row for row in clf.history_)
    assert_array_equal(
        clf.fit(X, NAMES[T], eval_set=(LABELS[:30], NAMES[T[:30]])).history_[-1]["eval_accuracy"],
        last["eval_accuracy"],
    )


@pytest.mark.parametrize(
    ("eval_set", "message"),
    [
        ((X, np.where(np.arange(60) == 7, "bea", NAMES[T])), "row 7 .*'bea'. Did you mean 'bee'"),
        ((X, NAMES[T[:9]]), "9 labels for 60 samples"),
        ((COLOUR, LEVEL), "fitted on features but X holds images"),
        ((np.ones((60, 5)), NAMES[T]), "expecting 2 features"),
        ([X, NAMES[T]], "tuple"),
        (X, "tuple"),
    ],
)
def test_bad_eval_set(eval_set, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(X, NAMES[T], eval_set=eval_set)
    with pytest.raises(ValueError, match="needs fit.*eval_set"):
        classifier(early_stopping="accuracy").fit(X, T)


def test_skorch_callbacks(fitted, tmp_path):
    stopping = EarlyStopping(monitor="eval_accuracy", patience=2, lower_is_better=False)
    clf = classifier(max_epochs=40, callbacks=[stopping]).fit(X, Y, eval_set=(X, T))
    accuracy = [row["eval_accuracy"] for row in clf.history_]
    assert len(accuracy) < 40
    assert max(accuracy[-2:]) <= max(accuracy[:-2])
    assert_same_fit(clone(clf).fit(X, Y, eval_set=(X, T)), clf)
    clipped = classifier(callbacks=[("clip", GradientNormClipping(1e-3))]).fit(X, Y)
    assert not same_probabilities(clipped, fitted)
    saving = Checkpoint(monitor=None, dirname=tmp_path)
    assert same_probabilities(classifier(callbacks=[saving]).fit(X, Y), fitted)
    assert (tmp_path / "params.pt").exists()


def test_callbacks_are_copied_and_told_everything(fitted):
    class Listener(Callback):
        heard = []

        def notify(self, name):
            self.last = name
            self.heard.append(name)

        def on_train_begin(self, net, **kwargs):
            self.notify("train_begin")

        def on_epoch_begin(self, net, **kwargs):
            self.notify("epoch_begin")

        def on_batch_end(self, net, **kwargs):
            if self.last != "batch":
                self.notify("batch")

        def on_epoch_end(self, net, **kwargs):
            self.notify("epoch_end")
            net.history.record("mine", len(net.history))

        def on_train_end(self, net, **kwargs):
            self.notify("train_end")

    listener = Listener()
    clf = classifier(callbacks=[listener]).fit(X, Y)
    assert Listener.heard == [
        "train_begin",
        *["epoch_begin", "batch", "epoch_end"] * 5,
        "train_end",
    ]
    assert [row["mine"] for row in clf.history_] == [1, 2, 3, 4, 5]
    assert not hasattr(listener, "last")
    assert same_probabilities(clf, fitted)


def test_interrupt_by_the_user_goes_through():
    # a background process may have been started with the signal ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class ControlC(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 3:
                signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            classifier(callbacks=[ControlC()]).fit(X, Y)
    finally:
        signal.signal(signal.SIGINT, before)


def test_verbose(fitted, capsys):
    classifier().fit(X, Y)
    assert capsys.readouterr().out == ""
    assert_same_fit(classifier(verbose=1).fit(X, Y), fitted)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 120
    for epoch, (line, row) in enumerate(zip(lines, fitted.history_), start=1):
        assert line.startswith(f"epoch {epoch}/5  {row['phase']}")
        assert f"lr {row['lr']:.5f}" in line
    assert f"loss {fitted.history_[0]['loss_warm_up']:7.4f}" in lines[0]
    last = fitted.history_[-1]
    assert f"loss {last['loss_partial']:7.4f}  partial {last['partial_share']:6.1%}" in lines[-1]
    assert "eval" not in lines[-1]
    classifier(max_epochs=12, verbose=1).fit(X, Y, eval_set=(X, T))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch  1/12")
    assert all(" eval " in line for line in lines)


# Divergence and devices


class NaNFrom:
    """A view that returns NaN from the given call on."""

    def __init__(self, call):
        self.call = call

    def __call__(self, batch):
        self.call -= 1
        return batch * np.nan if self.call < 0 else batch


@pytest.mark.parametrize("params", [{"lr": 1e6}, {"strong_transform": NaNFrom(12)}])
def test_a_diverged_training_says_so(params):
    with pytest.raises(ValueError, match="training has diverged; lower `lr`"):
        classifier(**params).fit(X, Y)


def test_batch_size_auto(fitted):
    # a sixteenth of the rows, but not below 8
    assert_same_fit(classifier(batch_size="auto").fit(X, Y), classifier(batch_size=8).fit(X, Y))
    many, y = make_blobs(480, centers=3, random_state=0)
    params = {"max_epochs": 3}
    assert_same_fit(
        classifier(batch_size="auto", **params).fit(many, y),
        classifier(batch_size=30, **params).fit(many, y),
    )
    pixels = np.zeros((480, 4, 4), dtype=np.uint8)  # a 32nd of images
    clf = classifier(batch_size="auto", max_epochs=1).fit(pixels, y)
    assert clf.history_[0]["gradient_samples"] == 480
    assert clf.net_.batch_size == 15


@pytest.mark.parametrize(
    "device, message",
    [
        ("meta", "no working 'meta'"),
        ("cdua", r"Unknown device 'cdua'. Did you mean 'cuda'\?"),
        ("cuda:99", "no working 'cuda'"),
    ],
)
def test_bad_device(device, message):
    with pytest.raises(ValueError, match=message):
        classifier(device=device).fit(X, Y)

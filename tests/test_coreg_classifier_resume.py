"""Trainings of CoRegClassifier that are interrupted or continued: checkpoints and warm starts."""

import copy
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from coreg_fits import (
    COLOUR,
    LEVEL,
    Saboteur,
    T,
    X,
    Y,
    assert_same_fit,
    classifier,
    images_classifier,
    resumable,
    weights,
)
from fakes import NAMES
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn

from sklearn_npll import PartialLabels
from sklearn_npll._neural._checkpoint import fingerprint
from sklearn_npll._neural._net import cosine_factor

# Interruption


@pytest.fixture
def epochs():
    Saboteur.epochs.clear()
    return Saboteur.epochs


@pytest.fixture(scope="module")
def uninterrupted():
    clipping = [Saboteur(), GradientNormClipping(1.0)]
    return classifier(max_epochs=7, callbacks=clipping).fit(X, Y, eval_set=(X, T))


@pytest.mark.parametrize("at", [1, 2, 4, 6, 7])
def test_resume_after_an_interrupt(tmp_path, epochs, uninterrupted, at):
    clf = resumable(tmp_path, Saboteur(at, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y, eval_set=(X, T))
    with pytest.raises(NotFittedError):
        clf.predict(X)
    assert epochs == [*range(1, at + 1)]
    epochs.clear()
    clf = resumable(tmp_path, Saboteur(), verbose=0).fit(X, Y, eval_set=(X, T))
    assert epochs == [*range((at - 1) // 2 * 2 + 1, 8)]
    assert_same_fit(clf, uninterrupted)
    epochs.clear()
    assert_same_fit(resumable(tmp_path, Saboteur()).fit(X, Y, eval_set=(X, T)), uninterrupted)
    assert epochs == []


def test_interrupted_refit_does_not_predict():
    clf = classifier().fit(X, T)
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(callbacks=[Saboteur(3, KeyboardInterrupt())]).fit(X, NAMES[T])
    with pytest.raises(NotFittedError):
        clf.predict(X)


def test_resume_on_images(tmp_path, epochs):
    params = {"max_epochs": 4, "checkpoint_every": 1, "strong_operations": True}
    expected = images_classifier(**params).fit(COLOUR, LEVEL)
    params["checkpoint_dir"] = tmp_path
    with pytest.raises(KeyboardInterrupt):
        images_classifier(callbacks=[Saboteur(4, KeyboardInterrupt())], **params).fit(COLOUR, LEVEL)
    epochs.clear()
    resumed = images_classifier(callbacks=[Saboteur()], **params).fit(COLOUR, LEVEL)
    assert epochs == [4]
    assert_same_fit(resumed, expected, COLOUR)


def test_resume_after_a_kill(tmp_path, epochs, uninterrupted):
    here = Path(__file__).parent
    code = f"import coreg_fits; coreg_fits.train_until_killed({str(tmp_path)!r})"
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    process = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    clf = resumable(tmp_path, Saboteur()).fit(X, Y, eval_set=(X, T))
    assert epochs == [5, 6, 7]
    assert_same_fit(clf, uninterrupted)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.02},
        {"max_epochs": 8},
        {"random_state": 1},
        {"callbacks": []},
        {"callbacks": [Saboteur(), GradientNormClipping(2.0)]},
        {"prior": [1, 2, 3]},
        {"weak_transform": nn.Identity()},
        {"module": nn.Sequential(nn.Linear(2, 3))},
        {"X": X + 1e-3},
        {"X": X[::-1]},
        {"y": np.roll(Y, 1, axis=1)},
        {"y": PartialLabels(None, range(3), np.eye(3)[T], known=np.ones(60, bool))},
        {"y": PartialLabels(None, range(3), np.eye(3)[T])},
        {"eval_set": None},
        {"eval_set": (X, T[::-1])},
    ],
    ids=lambda change: "".join(change),
)
def test_no_resume_of_another_training(tmp_path, epochs, change):
    first = resumable(tmp_path, Saboteur(4, KeyboardInterrupt()), prior=None)
    with pytest.raises(KeyboardInterrupt):
        first.fit(X, Y, eval_set=(X, T))
    change = dict(change)
    samples, y = change.pop("X", X), change.pop("y", Y)
    eval_set = change.pop("eval_set", (X, T))
    callback = Saboteur(1, KeyboardInterrupt())
    change.setdefault("callbacks", [callback, GradientNormClipping(1.0)])
    other = clone(first).set_params(**change)
    fresh = clone(other).set_params(checkpoint_dir=None)
    if callback not in change["callbacks"]:
        other.fit(samples, y, eval_set=eval_set)
        assert_same_fit(other, fresh.fit(samples, y, eval_set=eval_set))
        return
    epochs.clear()
    with pytest.raises(KeyboardInterrupt):
        other.fit(samples, y, eval_set=eval_set)
    assert epochs == [1]


def test_no_resume_with_other_known_rows(tmp_path, epochs):
    clf = resumable(tmp_path, Saboteur(4, KeyboardInterrupt()))
    for known, first_epoch in ((None, 1), (None, 3), (np.arange(60) < 20, 1)):
        epochs.clear()
        with pytest.raises(KeyboardInterrupt):
            clf.fit(PartialLabels(X, NAMES, np.eye(3)[T], known=known))
        assert epochs[0] == first_epoch


def test_no_resume_with_other_scores(tmp_path, epochs):
    clf = resumable(tmp_path, Saboteur(4, KeyboardInterrupt()), prior="annotator")
    scores = np.random.default_rng(0).dirichlet(np.ones(3), size=60)
    for given, first_epoch in ((scores, 1), (scores, 3), (scores[:, ::-1], 1)):
        epochs.clear()
        with pytest.raises(KeyboardInterrupt):
            clf.fit(PartialLabels(X, NAMES, Y, scores=given))
        assert epochs[0] == first_epoch


def test_resume_with_parameters_that_do_not_matter(tmp_path, epochs, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        resumable(tmp_path, Saboteur(4, KeyboardInterrupt())).fit(X, Y, eval_set=(X, T))
    epochs.clear()
    clf = resumable(tmp_path, Saboteur(), deploy="single", warm_start=True)
    clf.set_params(checkpoint_every=1).fit(X, Y, eval_set=(X, T))
    assert epochs[0] == 3
    assert_same_fit(clf.set_params(deploy="ensemble"), uninterrupted)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1, None])
def test_damaged_checkpoint_is_passed_over(tmp_path, epochs, uninterrupted, keep):
    with pytest.raises(KeyboardInterrupt):
        resumable(tmp_path, Saboteur(4, KeyboardInterrupt())).fit(X, Y, eval_set=(X, T))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    keep = int(len(content) * keep) if isinstance(keep, float) else keep
    path.write_bytes(b"no checkpoint" if keep is None else content[:keep])
    epochs.clear()
    with pytest.warns(UserWarning, match="cannot be read, so the training starts from the beginn"):
        clf = resumable(tmp_path, Saboteur()).fit(X, Y, eval_set=(X, T))
    assert epochs[0] == 1
    assert_same_fit(clf, uninterrupted)
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]


def test_resume_with_what_callbacks_recorded(tmp_path, epochs):
    class Recorder(Saboteur):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("a_scalar", np.float64(0.5))
            net.history.record("an_array", np.arange(2))

    with pytest.raises(KeyboardInterrupt):
        resumable(tmp_path, Recorder(6, KeyboardInterrupt())).fit(X, Y)
    epochs.clear()
    clf = resumable(tmp_path, Recorder()).fit(X, Y)
    assert epochs[0] == 5
    assert [row["a_scalar"] for row in clf.history_] == [0.5] * 7


def test_checkpoint_after_early_stopping(tmp_path, epochs):
    clf = resumable(tmp_path, Saboteur(), early_stopping="covering_rate", patience=1)
    clf.set_params(max_epochs=40).fit(X, Y)
    assert clf.n_iter_ < 40
    epochs.clear()
    again = clone(clf).fit(X, Y)
    assert epochs == []
    assert_same_fit(again, clf)


def test_checkpoints_need_a_seed(tmp_path):
    with pytest.raises(ValueError, match="checkpoint_dir needs a random_state"):
        classifier(checkpoint_dir=tmp_path, random_state=None).fit(X, Y)
    with pytest.raises(ValueError, match="can be pickled"):
        classifier(checkpoint_dir=tmp_path, weak_transform=lambda batch: batch).fit(X, Y)


def test_fingerprint_is_of_the_content(tmp_path):
    module = nn.Sequential(nn.Linear(2, 3))
    assert fingerprint(module) == fingerprint(copy.deepcopy(module))
    state = module.state_dict()
    assert fingerprint({"init": state}) == fingerprint({"init": copy.deepcopy(state)})
    changed = copy.deepcopy(module)
    with torch.no_grad():
        changed[0].bias[0] += 1
    assert fingerprint(module) != fingerprint(changed)
    halves = torch.ones(3, dtype=torch.bfloat16)
    assert fingerprint(halves) == fingerprint(halves.clone()) != fingerprint(halves.float())
    np.save(tmp_path / "x.npy", COLOUR)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert fingerprint(mapped) == fingerprint(COLOUR) != fingerprint(COLOUR[::-1])
    assert fingerprint(GradientNormClipping(1)) != fingerprint(GradientNormClipping(2))


def test_init_from_a_file_is_known_by_its_content(tmp_path, epochs):
    path = tmp_path / "weights.pt"
    torch.save(weights(0.1), path)
    module = nn.Sequential(nn.Linear(2, 3))
    clf = resumable(tmp_path / "states", Saboteur(4, KeyboardInterrupt()))
    clf.set_params(module=module, init=path)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    torch.save(weights(0.2), path)
    epochs.clear()
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    assert epochs[0] == 1
    clf.set_params(init=weights(0.1))
    epochs.clear()
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    assert epochs[0] == 3


# Warm start


def test_warm_start_after_a_stop_equals_the_whole(epochs, uninterrupted):
    class Stop(Saboteur):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 4:
                raise KeyboardInterrupt

    clf = classifier(max_epochs=7, warm_start=True, callbacks=[Stop(), GradientNormClipping(1.0)])
    clf.fit(X, Y, eval_set=(X, T))
    assert clf.n_iter_ == 4
    assert clf.predict(X).shape == (60,)
    clf = pickle.loads(pickle.dumps(clf.set_params(callbacks=None)))
    clf.set_params(callbacks=[Saboteur(), GradientNormClipping(1.0)]).fit(X, Y, eval_set=(X, T))
    assert epochs == [*range(1, 8)]
    assert_same_fit(clf, uninterrupted)


def test_warm_start_with_more_epochs():
    clf = classifier(warm_start=True, max_epochs=4).fit(X, Y)
    first = clf.history_
    clf.set_params(max_epochs=8, lr=0.02, momentum=0.5).fit(X, Y)
    assert clf.history_[:4] == first
    assert clf.n_iter_ == 8
    for epoch, row in enumerate(clf.history_[4:], start=4):
        assert row["lr"] == pytest.approx(0.02 * cosine_factor(epoch, 8))
    assert clf.history_[4]["label_change_rate"] is not None
    with pytest.warns(UserWarning, match="nothing to do: 8 epochs are done"):
        clf.fit(X, Y)
    assert clf.n_iter_ == 8
    assert clf.set_params(warm_start=False, max_epochs=3).fit(X, Y).n_iter_ == 3
    assert not hasattr(clf, "training_state_")


def test_warm_start_with_settings_of_now():
    clf = classifier(warm_start=True, max_epochs=4).fit(X, Y)
    clf.set_params(max_epochs=6, contrastive="none", queue_size=8)
    assert clf.fit(X, Y).history_[-1]["loss_contrastive"] is None
    momenta = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            momenta.append(net.optimizer_.param_groups[0]["momentum"])

        def __deepcopy__(self, memo):
            return self

    clf.set_params(max_epochs=7, momentum=0.25, callbacks=[Watch()]).fit(X, Y)
    assert momenta == [0.25]


def test_warm_start_on_other_data():
    clf = classifier(warm_start=True).fit(X, Y)
    clf.set_params(max_epochs=7).fit(X[:40] + 1, Y[:40])
    assert clf.n_iter_ == 7
    assert clf.history_[5]["label_change_rate"] is None  # nothing is known of these rows
    assert clf.label_distributions_.shape == (40, 3)
    clf.set_params(max_epochs=8)
    with pytest.raises(ValueError, match=r"warm_start=True needs the classes .*\[0, 1, 2\]"):
        clf.fit(X, NAMES[T])
    with pytest.raises(ValueError, match="not that of the last fit"):
        clf.fit(np.c_[X, X], Y)
    with pytest.raises(ValueError, match="not that of the last fit"):
        clf.set_params(projection_dim=5).fit(X, Y)


def test_warm_start_has_checkpoints_of_its_own(tmp_path, epochs):
    def continued(callback):
        clf = classifier(warm_start=True, max_epochs=4).fit(X, Y)
        clf.set_params(max_epochs=7, checkpoint_dir=tmp_path, checkpoint_every=1)
        epochs.clear()
        return clf.set_params(callbacks=[callback])

    expected = continued(Saboteur()).set_params(checkpoint_dir=None).fit(X, Y)
    with pytest.raises(KeyboardInterrupt):
        continued(Saboteur(6, KeyboardInterrupt())).fit(X, Y)
    resumed = continued(Saboteur()).fit(X, Y)
    assert epochs == [6, 7]
    assert_same_fit(resumed, expected)
    # a fit from the beginning with these parameters is another training
    from_scratch = clone(resumed)
    epochs.clear()
    from_scratch.fit(X, Y)
    assert epochs == [*range(1, 8)]

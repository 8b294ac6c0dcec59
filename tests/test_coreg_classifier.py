"""CoRegClassifier as an estimator: what it takes, remembers, resumes and hands on."""

import copy
import inspect
import io
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from fakes import ColourVLM
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, GradientNormClipping
from torch import nn

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll._inputs import Problem
from sklearn_npll._neural import _samples
from sklearn_npll._neural._checkpoint import fingerprint
from sklearn_npll._neural._net import cosine_factor
from sklearn_npll._neural._samples import input_statistics
from sklearn_npll.coreg._annotation import annotator_labels, effective_classes, resolve_prior
from sklearn_npll.detection import NeighborVoteDetector
from sklearn_npll.model_selection import (
    approximated_accuracy_scorer,
    covering_rate_scorer,
    make_labeled_scorer,
)

NAMES = np.array(["ant", "bee", "cat"])
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
def fitted():
    return classifier().fit(X, Y)


@pytest.fixture(scope="module")
def fitted_on_images():
    return images_classifier().fit(COLOUR, LEVEL)


# What X and y may be


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (X, Y),
        (X, Y.astype(bool)),
        (X, Y.tolist()),
        (X, sp.csr_array(Y)),
        (X, sp.csr_matrix(Y)),
        (X, pd.DataFrame(Y, columns=NAMES)),
        (X, PartialLabels.from_candidates(Y)),
        (PartialLabels(X, [0, 1, 2], Y), None),
        (X.tolist(), Y),
        (torch.tensor(X), torch.tensor(Y)),
        (np.asfortranarray(X), Y),
    ],
    ids=lambda value: type(value).__name__,
)
def test_same_candidates_same_fit(fitted, X, y):
    clf = classifier().fit(X, y)
    assert_same_fit(clf, fitted)
    assert_array_equal(clf.classes_, [0, 1, 2])
    assert clf.n_features_in_ == 2
    assert clf.label_distributions_.shape == (60, 3)
    assert_allclose(clf.label_distributions_.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(clf.transduction_, clf.label_distributions_.argmax(axis=1))
    assert ((clf.clean_probability_ >= 0) & (clf.clean_probability_ <= 1)).all()
    assert clf.n_iter_ == len(clf.history_) == 5
    assert [row["phase"] for row in clf.history_] == ["warm_up"] * 2 + ["co_regularisation"] * 3


def test_read_only_data_without_a_warning(fitted, recwarn):
    frozen = [X.astype(np.float32), Y.astype(bool)]
    for array in frozen:
        array.setflags(write=False)
    assert_same_fit(classifier().fit(*frozen), fitted)
    assert not [w.message for w in recwarn]


def test_fit_leaves_its_input_alone():
    before = X.copy(), Y.copy()
    inputs = X.copy(), Y.copy()
    classifier(strong_transform=nn.Identity()).fit(*inputs)
    assert_array_equal(inputs[0], before[0])
    assert_array_equal(inputs[1], before[1])


def test_data_frame():
    frame = pd.DataFrame(X, columns=["height", "width"])
    clf = classifier(max_epochs=1).fit(frame, T)
    assert clf.feature_names_in_.tolist() == ["height", "width"]
    assert clf.predict(frame).shape == (60,)
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame[["width", "height"]])


@pytest.mark.parametrize(
    "y",
    [
        np.where(np.arange(60) % 4, T, -1),
        pd.Series(np.where(np.arange(60) % 4, T, -1)),
        np.where(np.arange(60) % 4, T, -1).astype(float),
        pd.Series(np.where(np.arange(60) % 4, T, -1), dtype="Int64"),
    ],
    ids=["int", "Series", "float", "Int64"],
)
def test_minus_one_is_unlabelled(y):
    clf = classifier().fit(X, y)
    assert_array_equal(clf.classes_, [0, 1, 2])
    candidates = Y * 0 + 1
    labelled = np.arange(60) % 4 != 0
    candidates[labelled] = np.eye(3)[T[labelled]]
    assert_same_fit(clf, classifier().fit(X, candidates))
    assert (clf.clean_probability_[~labelled] == 0).all()


def test_names_and_minus_one():
    y = [*NAMES[T[:45]], *[-1] * 15]
    clf = classifier().fit(X, y)
    assert clf.classes_.tolist() == NAMES.tolist()
    assert set(clf.predict(X)) <= set(NAMES)
    as_objects = classifier().fit(X, pd.Series(y, dtype=object))
    assert_same_fit(clf, as_objects)
    expected = accuracy_score(y[:45], clf.predict(X)[:45])
    assert clf.score(X, y) == clf.score(X, pd.Series(y, dtype=object)) == expected
    assert as_objects.fit(X, pd.Series(NAMES[T], dtype="category")).classes_.tolist() == [*NAMES]


def test_minus_one_beside_one_other_number_is_a_class():
    y = np.where(T == 0, -1, 1)
    clf = classifier().fit(X, y)
    assert clf.classes_.tolist() == [-1, 1]
    assert set(clf.predict(X)) <= {-1, 1}
    assert clf.score(X, y) == accuracy_score(y, clf.predict(X))
    with pytest.raises(ValueError, match="one class: 'ant'"):
        clf.fit(X, ["ant"] * 30 + [-1] * 30)


def test_partial_labels_bring_names_and_known_rows():
    known = np.arange(60) % 10 == 1
    candidates = np.where(known[:, None], np.eye(3, dtype=int)[T], Y)
    clf = classifier().fit(PartialLabels(X, NAMES, candidates, known=known))
    assert clf.classes_.tolist() == NAMES.tolist()
    assert (clf.clean_probability_[known] == 1).all()
    assert_array_equal(clf.transduction_[known], NAMES[T[known]])


def test_true_labels_beside_partial_labels_do_not_train():
    with_y = classifier().fit(LABELS, NAMES[(T + 1) % 3])
    assert_same_fit(with_y, classifier().fit(LABELS))
    assert_same_fit(with_y, classifier().fit(X, LABELS))


@pytest.mark.parametrize("n_samples", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [2, "auto"])
def test_few_samples(n_samples, batch_size):
    y = np.arange(n_samples)
    clf = classifier(batch_size=batch_size, contrastive_start=0).fit(X[:n_samples], y)
    assert clf.predict(X[:n_samples]).shape == (n_samples,)
    assert np.isfinite(clf.predict_proba(X[:n_samples])).all()
    assert clf.score(X[:n_samples], y) >= 0


@pytest.mark.parametrize(
    "features",
    [
        X[:, :1],
        np.ones((60, 2)),
        np.c_[X, np.full(60, 1e6)],
        np.repeat(X[:3], 20, axis=0),
        X.astype(str),
        (X * 10).astype(int),
    ],
    ids=["one feature", "constant", "one constant", "duplicates", "numbers as text", "int"],
)
def test_odd_features(features):
    clf = classifier().fit(features, Y)
    assert np.isfinite(clf.predict_proba(features)).all()
    assert clf.predict_proba(features[:1]).shape == (1, 3)


def test_features_far_from_zero_are_standardised():
    # float32 sums over this many rows would be off by more than the deviation
    rng = np.random.default_rng(0)
    far = (1000 + rng.normal(size=(200_000, 2))).astype(np.float32)
    mean, scale, shape = input_statistics(far)
    assert_allclose(mean, far.mean(axis=0, dtype=float), rtol=1e-7)
    assert_allclose(scale, far.std(axis=0, dtype=float), rtol=1e-6)
    assert shape == (2,)


def test_image_statistics_are_of_the_channels():
    mean, scale, shape = input_statistics(COLOUR)
    channels = COLOUR.astype(float) / 255
    assert_allclose(mean.ravel(), channels.mean(axis=(0, 1, 2)), rtol=1e-6)
    assert_allclose(scale.ravel(), channels.std(axis=(0, 1, 2)), rtol=1e-6)
    assert mean.shape == (3, 1, 1)
    assert shape == (3, 8, 8)


# Errors


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (Y / 2, r"value 0\.5 in row 0.*PartialLabels\.from_scores"),
        (sp.csr_array(Y / 2), r"value 0\.5 in row 0.*PartialLabels\.from_scores"),
        ([[0], [0, 1]] * 30, "MultiLabelBinarizer"),
        ([{0}, {0, 1}] * 30, "MultiLabelBinarizer"),
        (pd.Series([("ant",), ("ant", "bee")] * 30), "MultiLabelBinarizer"),
        ([["ant", "bee"], ["ant", "cat"]] * 30, "MultiLabelBinarizer"),
        (np.where((np.arange(60) % 50 == 3)[:, None], 0, Y), "rows 3, 53 .*no candidate class"),
        (sp.csr_array(np.where((np.arange(60) == 3)[:, None], 0, Y)), "row 3 .*no candidate"),
        (np.where((np.arange(60) == 4)[:, None], np.nan, Y), "nan in row 4"),
        (np.where(np.arange(60) == 4, np.nan, T), "contains NaN: row 4"),
        (np.where(np.arange(60) == 4, np.inf, T), "contains infinity"),
        (pd.Series([*NAMES[T[:59]], None]), "contains NaN: row 59"),
        (pd.Series([*T[:59], pd.NA], dtype="Int64"), "contains NaN: row 59"),
        (np.ones((60, 3)), "every class is a candidate of every row"),
        (np.full(60, -1), "every row of y is -1"),
        (np.full(60, 7), "one class: 7"),
        (sp.csr_array(np.ones((60, 1))), "one class: 0"),
        (X[:, 0], "Unknown label type: continuous"),
        (T[:50], r"inconsistent numbers of samples: \[60, 50\]"),
        (Y[:50], r"inconsistent numbers of samples: \[60, 50\]"),
        (sp.csr_array(Y[:50]), r"inconsistent numbers of samples: \[60, 50\]"),
        (LABELS[:50], r"inconsistent numbers of samples: \[60, 50\]"),
        (np.ones((60, 2, 2)), "dim 3"),
    ],
)
def test_bad_y(y, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(X, y)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.where(np.isin(np.arange(60), [4, 9])[:, None], np.nan, X), "contains NaN: rows 4, 9"),
        (sp.csr_array(X), "[Ss]parse"),
        (X[:, 0], "1D array"),
        (["nowhere.png"] * 60, r"Image 0 \('nowhere.png'\)"),
        (PartialLabels(None, NAMES, Y), "data is None"),
    ],
)
def test_bad_x(samples, message):
    with pytest.raises((ValueError, TypeError), match=message):
        classifier().fit(samples, Y)


@pytest.mark.parametrize("empty", [np.empty((0, 2)), np.empty((0, 8, 8, 3), np.uint8), []])
def test_no_rows(fitted, fitted_on_images, empty):
    clf = fitted if np.ndim(empty) == 2 else fitted_on_images
    with pytest.raises(ValueError, match="0 sample"):
        clf.predict(empty)
    with pytest.raises(ValueError, match="n_samples = 0"):
        clone(clf).fit(empty, [])


def test_one_row_is_too_few():
    with pytest.raises(ValueError, match="n_samples = 1"):
        classifier().fit(X[:1], [[1, 0]])


def test_other_samples_than_fitted_on(fitted, fitted_on_images):
    with pytest.raises(ValueError, match="fitted on features but X holds images"):
        fitted.predict(COLOUR)
    with pytest.raises(ValueError, match="fitted on images but X holds features"):
        fitted_on_images.predict(X)
    with pytest.raises(ValueError, match="expecting 2 features"):
        fitted.predict(np.ones((4, 3)))
    with pytest.raises(ValueError, match="data is None"):
        fitted.predict(PartialLabels(None, NAMES, Y))


def test_refit_on_other_samples():
    clf = classifier(max_epochs=1).fit(pd.DataFrame(X, columns=["a", "b"]), T)
    clf.fit(COLOUR, LEVEL)
    assert not hasattr(clf, "n_features_in_")
    assert not hasattr(clf, "feature_names_in_")
    assert clf.predict(COLOUR).shape == (20,)
    assert clf.fit(X, T).predict(X).shape == (60,)


# Images


def test_kinds_of_images(fitted_on_images, tmp_path):
    pictures = [Image.fromarray(image) for image in COLOUR]
    paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    encoded = []
    for picture, path in zip(pictures, paths):
        picture.save(path)
        encoded.append(path.read_bytes())

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(pictures)

        def __getitem__(self, row):
            return pictures[row], int(LEVEL[row])

    kinds = {
        "pictures": pictures,
        "paths": paths,
        "names": [str(path) for path in paths],
        "series": pd.Series([str(path) for path in paths]),
        "bytes": encoded,
        "dataset": Pictures(),
        "float": COLOUR / 255,
        "tensor": torch.tensor(COLOUR).permute(0, 3, 1, 2),
    }
    expected = fitted_on_images.predict_proba(COLOUR)
    for kind, samples in kinds.items():
        assert_array_equal(fitted_on_images.predict_proba(samples), expected, err_msg=kind)
        held = PartialLabels(samples, ["dark", "light"], np.eye(2)[LEVEL])
        assert_array_equal(fitted_on_images.predict_proba(held), expected, err_msg=kind)
    for kind in ("paths", "dataset", "float"):
        clf = images_classifier().fit(kinds[kind], LEVEL)
        assert_same_fit(clf, fitted_on_images, COLOUR)
    held = PartialLabels(kinds["bytes"], ["dark", "light"], np.eye(2)[LEVEL])
    clf = images_classifier().fit(held)
    assert_same_fit(clf.set_params(), images_classifier().fit(COLOUR, held), COLOUR)
    assert clf.score(held) > 0.5


def test_grey_images():
    learned = images_classifier(max_epochs=12, warm_up=4).fit(GREY, LEVEL)
    assert learned.score(GREY, LEVEL) > 0.8
    clf = images_classifier().fit(GREY, LEVEL)
    pictures = [Image.fromarray(image) for image in GREY]
    assert_array_equal(clf.predict_proba(pictures), clf.predict_proba(GREY))
    assert_same_fit(clf, images_classifier().fit(GREY[..., None], LEVEL), GREY)
    bool_images = images_classifier().fit(GREY > 127, LEVEL)
    assert bool_images.predict_proba(GREY > 127).shape == (20, 2)


@pytest.mark.parametrize(
    ("size", "sizes", "expected"),
    [
        (None, [(8, 6)] * 20, (6, 8)),
        (None, [(8, 6)] * 19 + [(6, 8)], (64, 64)),
        (None, [(65, 6)] * 20, (64, 64)),
        ((4, 5), [(8, 6)] * 19 + [(65, 8)], (4, 5)),
        ([4, 5], [(8, 6)] * 20, (4, 5)),
    ],
)
def test_image_size(size, sizes, expected, monkeypatch):
    stored = []
    monkeypatch.setattr(CoRegClassifier, "_train", lambda self, data, *_: stored.append(data))
    pictures = [Image.fromarray(image).resize(wh) for image, wh in zip(COLOUR, sizes)]
    images_classifier(image_size=size).fit(pictures, LEVEL)
    if len(set(sizes)) == 1:
        arrays = np.array([np.asarray(picture) for picture in pictures])
        images_classifier(image_size=size).fit(arrays, LEVEL)
        assert_array_equal(stored[0], stored[1])
    assert stored[0].shape == (20, *expected, 3)


@pytest.mark.parametrize("size", [(4,), (4, 0), (4, 4.5), (4, 4, 3)])
def test_bad_image_size(size):
    with pytest.raises(ValueError, match="image_size must be"):
        images_classifier(image_size=size).fit(COLOUR, LEVEL)


def test_memory_map_stays_on_disk(fitted_on_images, tmp_path, monkeypatch):
    path = tmp_path / "images.npy"
    np.save(path, COLOUR)
    mapped = np.load(path, mmap_mode="r")
    stores = []

    class Views(_samples.ImageViews):
        def __init__(self, images, **options):
            stores.append(images)
            super().__init__(images, **options)

    monkeypatch.setattr(_samples, "ImageViews", Views)
    clf = images_classifier().fit(mapped, LEVEL, eval_set=(mapped[:4], LEVEL[:4]))
    clf.predict(mapped)
    assert len(stores) == 3
    assert all(np.shares_memory(images, mapped) for images in stores)
    assert same_probabilities(clf, fitted_on_images, COLOUR)


# Scores


def test_score(fitted):
    proba, y_pred = fitted.predict_proba(X), fitted.predict(X)
    assert fitted.score(X, T) == np.mean(y_pred == T)
    assert fitted.score(X, T.tolist()) == np.mean(y_pred == T)
    assert fitted.score(X, np.where(np.arange(60) < 15, T, -1)) == np.mean((y_pred == T)[:15])
    rate = Y[np.arange(60), y_pred].mean()
    assert 0 < rate < 1
    for y in (Y, Y.tolist(), sp.csr_array(Y), PartialLabels.from_candidates(Y)):
        assert fitted.score(X, y) == pytest.approx(rate)
    confidence = np.where(Y[np.arange(60), y_pred], proba.max(axis=1) / (proba * Y).sum(axis=1), 0)
    held = PartialLabels(X, [0, 1, 2], Y)
    assert fitted.score(held) == pytest.approx(confidence.mean())
    assert fitted.score(held, T) == np.mean(y_pred == T)
    weights = np.arange(60)
    weighted = np.average(y_pred == T, weights=weights)
    assert fitted.score(X, T, weights) == pytest.approx(weighted)
    few = np.average((y_pred == T)[15:], weights=weights[15:])
    assert fitted.score(X, np.where(weights >= 15, T, -1), weights) == pytest.approx(few)
    for y in (None, Y, held):
        with pytest.raises(ValueError, match="sample_weight needs true labels"):
            fitted.score(held, y, weights)
    with pytest.raises(ValueError, match="score needs y"):
        fitted.score(X)
    with pytest.raises(ValueError, match="every label in y is -1"):
        fitted.score(X, np.full(60, -1))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[10, 60\]"):
        fitted.score(X, T[:10])
    with pytest.raises(ValueError, match=r"shape \(60, 4\)"):
        fitted.score(X, np.ones((60, 4)))


def test_score_against_candidates_in_another_order():
    clf = classifier().fit(LABELS)
    turned = PartialLabels(X, NAMES[::-1], Y[:, ::-1])
    assert clf.score(X, turned) == clf.score(X, LABELS) != 1
    assert clf.score(turned) == pytest.approx(clf.score(LABELS))


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


# Interruption


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


@pytest.fixture
def epochs():
    Saboteur.epochs.clear()
    return Saboteur.epochs


def resumable(folder, callback, **params):
    return classifier(
        max_epochs=7,
        checkpoint_dir=folder,
        checkpoint_every=2,
        callbacks=[callback, GradientNormClipping(1.0)],
        **params,
    )


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


def train_until_killed(folder):
    torch.set_num_threads(1)
    resumable(folder, Saboteur(at=6, kill=True)).fit(X, Y, eval_set=(X, T))


def test_resume_after_a_kill(tmp_path, epochs, uninterrupted):
    here = Path(__file__).parent
    code = f"import test_coreg_classifier as t; t.train_until_killed({str(tmp_path)!r})"
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    process = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    clf = resumable(tmp_path, Saboteur()).fit(X, Y, eval_set=(X, T))
    assert epochs == [5, 6, 7]
    assert_same_fit(clf, uninterrupted)


def weights(value):
    return {
        "0.weight": torch.full((3, 2), value),
        "0.bias": torch.zeros(3),
    }


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


# Inside scikit-learn


def coloured(n=24):
    """Images of one colour each, and their names."""
    y = np.arange(n) % 3
    images = np.full((n, 8, 8, 3), 40, np.uint8)
    images[np.arange(n), :, :, y] = 220
    return images, np.array(["red", "green", "blue"])[y]


def pipeline(**params):
    annotator = VLMPartialAnnotator(
        ["red", "green", "blue"], templates=["a {} thing.", "a pale {} thing."], vlm=ColourVLM()
    )
    return Pipeline([("annotate", annotator), ("learn", images_classifier(**params))])


def test_pipeline():
    images, y = coloured()
    pipe = pipeline(max_epochs=20).fit(images)
    vlm = pipe["annotate"].vlm
    assert vlm.n_images == 24
    assert pipe.classes_.tolist() == ["red", "green", "blue"]
    assert_array_equal(pipe["learn"].transduction_, y)
    assert pipe.predict(images).shape == (24,)
    assert pipe.predict_proba(images).shape == (24, 3)
    assert vlm.n_images == 24  # predictions need no annotator
    assert pipe.score(images, y) == np.mean(pipe.predict(images) == y)
    assert 0 <= pipe.score(images) <= 1
    assert_same_fit(pipe["learn"], pipeline(max_epochs=20).fit(images, y[::-1])["learn"], images)
    held_out = pipe.fit(images, learn__eval_set=(images, y))["learn"].history_[-1]
    assert held_out["eval_accuracy"] == pytest.approx(pipe.score(images, y))


def test_pipeline_pickles_without_training_and_without_images():
    images, y = coloured()
    pipe = pipeline().fit(images)
    assert b"ColourVLM" not in pickle.dumps(pipe["learn"])
    loaded = pickle.loads(pickle.dumps(pipe))
    assert_array_equal(loaded.predict_proba(images), pipe.predict_proba(images))


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_set_output(output, fitted):
    pipe = make_pipeline(StandardScaler(), classifier()).set_output(transform=output)
    frame = pd.DataFrame(X, columns=["a", "b"])
    pipe.fit(frame, Y)
    assert pipe.score(frame, T) > 0.5
    assert hasattr(pipe[-1], "feature_names_in_") == (output == "pandas")
    images, _ = coloured()
    assert pipeline().set_output(transform=output).fit(images).predict(images).shape == (24,)


def test_searches():
    grid = {"lr": [0.01, 0.05]}
    with_labels = GridSearchCV(classifier(), grid, cv=2).fit(LABELS, NAMES[T])
    assert with_labels.best_score_ > 0.5
    assert with_labels.predict(X).shape == (60,)
    scores = cross_val_score(classifier(), LABELS, cv=KFold(3))
    assert scores.shape == (3,)
    for scorer in (covering_rate_scorer, approximated_accuracy_scorer):
        search = GridSearchCV(classifier(), grid, cv=2, scoring=scorer).fit(LABELS)
        assert 0 < search.best_score_ <= 1
    few = np.where(np.arange(60) % 3, NAMES[T], "-1")
    scorer = make_labeled_scorer("accuracy")
    assert cross_val_score(classifier(), LABELS, few, scoring=scorer, cv=KFold(2)).min() > 0
    indicator = cross_val_score(classifier(), X, Y, cv=KFold(3))
    assert_allclose(
        indicator, cross_val_score(classifier(), X, PartialLabels.from_candidates(Y), cv=KFold(3))
    )
    search = GridSearchCV(classifier(), grid, cv=KFold(3), error_score="raise")
    assert search.fit(X, sp.csr_array(Y)).cv_results_["mean_test_score"][0] == indicator.mean()


def test_search_in_processes():
    images, y = coloured()
    grid = {"annotate__rule": ["union", "ratio"], "learn__lr": [0.01, 0.05]}
    search = GridSearchCV(
        pipeline(), grid, cv=2, n_jobs=2, scoring=covering_rate_scorer, error_score="raise"
    )
    search.fit(images)
    assert search.predict(images).shape == (24,)
    assert len(search.cv_results_["params"]) == 4
    features = cross_validate(
        classifier(max_epochs=2), X, T, cv=2, n_jobs=2, error_score="raise", return_estimator=True
    )
    assert features["estimator"][0].n_iter_ == 2


@pytest.mark.parametrize("routing", [False, True])
def test_metadata_routing(routing):
    images, y = coloured()
    with sklearn.config_context(enable_metadata_routing=routing):
        pipe = pipeline()
        if routing:
            pipe["learn"].set_fit_request(eval_set=True)
            pipe.fit(images, eval_set=(images, y))
        else:
            pipe.fit(images, learn__eval_set=(images, y))
        accuracy = pipe["learn"].history_[-1]["eval_accuracy"]
        assert accuracy == pytest.approx(pipe.score(images, y))
        assert pipe.score(images) >= 0
        search = GridSearchCV(pipe, {"learn__lr": [0.01]}, cv=2, error_score="raise")
        assert search.fit(images, y).predict(images).shape == (24,)


def test_clone_and_parameters(fitted):
    callbacks = [EarlyStopping(monitor="eval_accuracy")]
    clf = classifier(callbacks=callbacks, prior=[0.2, 0.3, 0.5], module=nn.Linear(2, 3))
    copied = clone(clf)
    assert copied.get_params().keys() == clf.get_params().keys()
    assert copied.callbacks[0].monitor == "eval_accuracy"
    assert copied.prior == [0.2, 0.3, 0.5]
    assert torch.equal(copied.module.weight, clf.module.weight)
    assert not hasattr(clone(fitted), "net_")
    assert clf.set_params(lr=0.5).lr == 0.5
    signature = inspect.signature(CoRegClassifier)
    assert set(signature.parameters) == set(clf.get_params())
    kinds = [p.kind for p in signature.parameters.values()]
    assert kinds[1:] == [inspect.Parameter.KEYWORD_ONLY] * (len(kinds) - 1)


def test_not_fitted():
    with pytest.raises(NotFittedError):
        classifier().predict(X)
    with pytest.raises(NotFittedError):
        classifier().score(X, T)
    with pytest.raises(NotFittedError):
        classifier().to_module()


# Pickles


def test_pickle_and_joblib(fitted, tmp_path):
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_same_fit(loaded, fitted)
    joblib.dump(fitted, tmp_path / "clf.joblib")
    assert_same_fit(joblib.load(tmp_path / "clf.joblib"), fitted)
    assert_same_fit(copy.deepcopy(fitted), fitted)
    assert_same_fit(loaded.fit(X, Y), fitted)


class Copier(Callback):
    copies = []

    def on_epoch_end(self, net, **kwargs):
        weights = {name: value.clone() for name, value in net.module_.state_dict().items()}
        self.copies.append((weights, pickle.loads(pickle.dumps(net))))


def test_pickle_of_a_net_in_training():
    Copier.copies.clear()
    classifier(max_epochs=2, callbacks=[Copier()]).fit(X, Y)
    for weights, net in Copier.copies:
        loaded = net.module_.state_dict()
        assert loaded.keys() == weights.keys()
        assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert [len(net.history) for _, net in Copier.copies] == [1, 2]


def test_pickle_holds_what_predicts():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 40)).astype(np.float32)
    y = rng.integers(0, 3, size=500)
    clf = classifier(max_epochs=4, contrastive_start=0, queue_size=8192, batch_size=64)
    clf.fit(features, y, eval_set=(features, y))
    content = pickle.dumps(clf)
    n_parameters = sum(value.numel() for value in clf.to_module().state_dict().values())
    assert len(content) < 1.05 * 4 * n_parameters + 40_000
    assert features[7].tobytes() not in content
    loaded = pickle.loads(content)
    assert loaded.net_.optimizer_ is None
    assert_array_equal(loaded.predict_proba(features), clf.predict_proba(features))


def test_pickle_holds_given_weights_once():
    module = nn.Sequential(nn.Linear(2, 500), nn.ReLU(), nn.Linear(500, 500), nn.Linear(500, 3))
    size = 4 * sum(p.numel() for p in module.parameters())
    clf = classifier(max_epochs=1, module=module, init=module.state_dict()).fit(X, Y)
    # the parameter module, the parameter init and the two networks
    assert len(pickle.dumps(clf)) < 4.2 * size


def test_pickle_from_a_gpu_loads_without_one(fitted):
    clf = copy.deepcopy(fitted)
    clf.net_.device = "cuda"
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="cpu"):
        loaded = pickle.loads(pickle.dumps(clf))
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


# Deployment


@pytest.mark.parametrize("deploy", ["ensemble", "single"])
def test_to_module(fitted, fitted_on_images, deploy):
    for clf, samples in ((fitted, X), (fitted_on_images, COLOUR)):
        clf = copy.deepcopy(clf).set_params(deploy=deploy)
        inputs = torch.tensor(samples, dtype=torch.float32)
        if samples.ndim == 4:
            inputs = inputs.permute(0, 3, 1, 2) / 255
        for module in (clf.to_module(), clf.set_params(deploy="ensemble").to_module(deploy)):
            assert type(module).__mro__[1] is nn.Module
            assert not module.training
            with torch.no_grad():
                output = module(inputs).numpy()
            expected = clf.set_params(deploy=deploy).predict_proba(samples)
            assert_allclose(output, expected, atol=1e-6)
    with pytest.raises(ValueError, match="'ensemble' or 'single'; got 'both'"):
        fitted.to_module("both")


def test_to_module_shares_nothing(fitted):
    before = fitted.predict_proba(X)
    module = fitted.to_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert_array_equal(fitted.predict_proba(X), before)


@pytest.mark.parametrize("deploy", ["ensemble", "single"])
def test_export_onnx(fitted, fitted_on_images, deploy, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    for clf, samples in ((fitted, X), (fitted_on_images, COLOUR)):
        path = tmp_path / f"{samples.ndim}.onnx"
        clf.export_onnx(path, deploy)
        model = onnx.load(path, load_external_data=False)  # the weights are in this one file
        onnx.checker.check_model(model)
        inputs = samples.astype(np.float32)
        if samples.ndim == 4:
            inputs = inputs.transpose(0, 3, 1, 2) / np.float32(255)
        expected = copy.deepcopy(clf).set_params(deploy=deploy).predict_proba(samples)
        for n in (1, 7):  # any batch size
            (output,) = ReferenceEvaluator(model).run(["probabilities"], {"input": inputs[:n]})
            assert_allclose(output, expected[:n], atol=1e-5)


# Parameters


def double(batch):
    return 2 * batch


class Linear(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layer = nn.Linear(n_features, n_classes)

    def forward(self, x):
        return self.layer(x)


CHANGES = {
    "module": Linear,
    "init": {},  # tested below
    "max_epochs": 6,
    "warm_up": 3,
    "batch_size": 32,
    "lr": 0.02,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "variant": "paper",
    "prior": None,
    "loss_window": 1,
    "division": NeighborVoteDetector(metric="euclidean"),
    "clean_threshold": 0.9,
    "co_labelling": "average",
    "n_weak_views": 1,
    "n_mixed_views": 2,
    "temperature": 0.7,
    "use_unlabelled": False,
    "unlabelled_sampling": "equal",
    "unlabelled_loss": "paper",
    "unlabelled_weight": 0.0,
    "mixup_alpha": None,
    "prototype_weight": 0.0,
    "prototype_momentum": 0.5,
    "prototype_temperature": 1.0,
    "prototype_views": "strong",
    "contrastive": "moco",
    "contrastive_weight": 0.5,
    "contrastive_temperature": 0.5,
    "contrastive_start": 2,
    "queue_size": 4,
    "key_momentum": 0.1,
    "reset_keys": True,
    "projection_dim": 8,
    "alignment_rounds": 3,
    "neighbor_weight": 0.5,
    "elr_weight": 1.0,
    "pseudo_label_threshold": 0.6,
    "disagreement_weight": 0.9,
    "candidate_update": "cluster",
    "doubly_robust": True,  # tested in test_coreg_options.py, as it takes known rows
    "prototype_blend": 0.9,
    "confidence_weight": 0.5,
    "image_size": (7, 7),
    "flip": False,
    "cutout": 1,
    "strong_operations": False,
    "weak_noise": 0.1,
    "strong_noise": 0.3,
    "feature_dropout": 0.5,
    "weak_transform": double,
    "strong_transform": double,
    "deploy": "single",
    "precision": "bf16",
    "random_state": 1,
    "callbacks": [GradientNormClipping(1e-3)],
}
NO_CHANGE = {
    "device": "cpu",
    "accelerator": "auto",  # which joins no others here
    "verbose": 0,
    "patience": 1,
    "early_stopping": "covering_rate",
    "warm_start": True,
    "checkpoint_dir": "states",
    "checkpoint_every": 1,
    # of these rows there are no scores, and no average is made; tested below
    "warm_up_target": "candidates",
    "evidence_weight": 0.0,
    "average_momentum": 0.5,
    "neighbors": 5,  # which count for nothing by default; see test_coreg_neighbours.py
}
OF_IMAGES = {"image_size", "flip", "cutout", "strong_operations"}


def test_the_tables_have_every_parameter():
    assert CHANGES.keys() | NO_CHANGE.keys() == CoRegClassifier().get_params().keys()


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - OF_IMAGES - {"init", "doubly_robust"}))
def test_parameter_changes_the_fit(fitted, name):
    other = classifier(**{name: CHANGES[name]}).fit(X, Y)
    assert not same_probabilities(other, fitted)


@pytest.mark.parametrize("name", sorted(OF_IMAGES))
def test_parameter_changes_the_fit_on_images(fitted_on_images, name):
    other = images_classifier(**{name: CHANGES[name]}).fit(COLOUR, LEVEL)
    assert not same_probabilities(other, fitted_on_images, COLOUR)


@pytest.mark.parametrize("name", NO_CHANGE)
def test_parameter_changes_nothing(fitted, name, tmp_path, monkeypatch):
    if name == "accelerator":
        pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    value = NO_CHANGE[name]
    params = {"patience": 50} if name == "early_stopping" else {}
    assert_same_fit(classifier(**{name: value, **params}).fit(X, Y), fitted)
    assert (tmp_path / "states").exists() == (name == "checkpoint_dir")


@pytest.mark.parametrize("name", CoRegClassifier().get_params())
def test_parameter_of_the_wrong_type(name):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter"):
        classifier(**{name: object()}).fit(X, Y)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0),
        ("warm_up", -1),
        ("batch_size", 1),
        ("batch_size", "Auto"),
        ("lr", 0),
        ("momentum", 1.0),
        ("weight_decay", -1e-3),
        ("prior", "uniforn"),
        ("loss_window", 0),
        ("clean_threshold", 1.1),
        ("co_labelling", "both"),
        ("average_momentum", 1.0),
        ("evidence_weight", -1.0),
        ("n_weak_views", 0),
        ("temperature", 0),
        ("use_unlabelled", "yes"),
        ("unlabelled_sampling", "twice"),
        ("unlabelled_loss", "sum"),
        ("unlabelled_weight", -1),
        ("mixup_alpha", 0),
        ("prototype_weight", -1),
        ("prototype_momentum", 1),
        ("prototype_temperature", 0),
        ("prototype_views", "weak"),
        ("contrastive", None),
        ("contrastive_weight", -1),
        ("contrastive_temperature", 0),
        ("contrastive_start", -1),
        ("queue_size", -1),
        ("key_momentum", 1.1),
        ("projection_dim", 0),
        ("image_size", 32),
        ("cutout", -1),
        ("strong_operations", "all"),
        ("weak_noise", -1),
        ("strong_noise", -1),
        ("feature_dropout", 1),
        ("deploy", "both"),
        ("early_stopping", True),
        ("patience", 0),
        ("checkpoint_every", 0),
        ("precision", "float16"),
        ("verbose", -1),
    ],
)
def test_parameter_out_of_range(name, value):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter"):
        classifier(**{name: value}).fit(X, Y)


def test_deploy(fitted):
    single = copy.deepcopy(fitted).set_params(deploy="single")
    assert_array_equal(single.label_distributions_, fitted.label_distributions_)
    networks = fitted.net_.module_.networks.eval()
    with torch.no_grad():
        logits = [network(torch.tensor(X, dtype=torch.float32)) for network in networks]
    assert_allclose(single.predict_proba(X), logits[0].softmax(1), atol=1e-6)
    assert_allclose(fitted.predict_proba(X), (logits[0] + logits[1]).softmax(1), atol=1e-6)
    assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=1e-12)
    with pytest.raises(ValueError, match="deploy must be"):
        single.set_params(deploy="singel").predict(X)


@pytest.mark.parametrize("kind", ["dict", "pt", "safetensors"])
def test_init(kind, tmp_path):
    module = nn.Sequential(nn.Linear(2, 3))
    init = weights(0.3)
    if kind == "pt":
        torch.save(init, tmp_path / "w.pt")
        init = tmp_path / "w.pt"
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file(init, tmp_path / "w.safetensors")
        init = str(tmp_path / "w.safetensors")
    clf = classifier(module=module, init=init, max_epochs=1, warm_up=1, lr=1e-9).fit(X, Y)
    for network in clf.net_.module_.networks:
        assert_allclose(network.classifier.weight.detach(), 0.3, rtol=1e-5)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([1, 2], "prior must be 3 non-negative class shares"),
        ([1, -2, 3], "prior must be"),
        ([0, 0, 0], "prior must be"),
        ([1, np.nan, 1], "prior must be"),
        ([1, np.inf, 1], "prior must be"),
        ("annotator", "prior='annotator' needs PartialLabels with scores"),
    ],
)
def test_bad_prior(prior, message):
    with pytest.raises(ValueError, match=message):
        classifier(prior=prior).fit(X, Y)


def test_prior():
    uniform, even = classifier(prior="uniform").fit(X, Y), classifier(prior=[2, 2, 2]).fit(X, Y)
    assert_same_fit(uniform, even)
    scores = np.tile(np.float32([0.5, 0.25, 0.25]), (60, 1))
    labels = PartialLabels(X, NAMES, Y, scores=scores)
    annotator = classifier(prior="annotator").fit(labels)
    assert same_probabilities(annotator, classifier(prior=[2, 1, 1]).fit(labels))
    assert not same_probabilities(annotator, classifier(prior="estimated").fit(labels))
    # equal weight in each set: rows of one, two and three candidates; the last is no label
    sets = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 1]])
    rows = np.resize(sets, (len(X), 3))
    shares = [1.5, 0.5, 1]
    assert len(X) % 4 == 0
    candidates = classifier(prior="candidates").fit(X, rows)
    assert same_probabilities(candidates, classifier(prior=shares).fit(X, rows))


def test_effective_classes():
    assert effective_classes(np.full(4, 0.25)) == pytest.approx(4)
    assert effective_classes(np.array([0.5, 0.5, 0, 0])) == pytest.approx(2)
    # 0.5 log 2 + 0.5 log 4 = 1.5 log 2
    assert effective_classes(np.array([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)


def test_adaptive_prior():
    balanced = classifier(prior="adaptive").fit(X, Y)
    assert_same_fit(balanced, classifier(prior="uniform").fit(X, Y))
    rows = np.resize([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], (60, 3))
    imbalanced = classifier(prior="adaptive").fit(X, rows)
    assert_same_fit(imbalanced, classifier(prior="candidates").fit(X, rows))
    assert not same_probabilities(imbalanced, classifier(prior="uniform").fit(X, rows))
    # the annotator's scores say more than the sets made of them
    labels = PartialLabels(X, NAMES, rows, scores=np.tile(np.float32([0.4, 0.3, 0.3]), (60, 1)))
    assert_same_fit(
        classifier(prior="adaptive").fit(labels), classifier(prior="uniform").fit(labels)
    )


def test_variants_are_names_for_settings():
    votes = np.stack([T, np.roll(T, 1), T], axis=1)
    labels = PartialLabels.from_votes(votes, NAMES, data=X)
    auto = {"max_epochs": 8, "warm_up": "auto", "contrastive": "auto"}
    paper = {
        "warm_up": 2,
        "warm_up_target": "candidates",
        "prior": "uniform",
        "n_mixed_views": 2,
        "unlabelled_sampling": "equal",
        "temperature": 0.5,
        "contrastive": "noise_tolerant",
        "co_labelling": "peer",
        "mixup_alpha": 4.0,
        "evidence_weight": 0.0,
    }
    robust = {
        "warm_up": 4,
        "warm_up_target": "scores",
        "prior": "adaptive",
        "n_mixed_views": 1,
        "unlabelled_sampling": "once",
        "temperature": 1.0,
        "contrastive": "none",
        "co_labelling": "peer",
        "mixup_alpha": 4.0,
        "evidence_weight": 0.0,
    }
    for variant, settings in (("paper", paper), ("robust", robust)):
        named = classifier(**auto, variant=variant).fit(labels)
        assert_same_fit(named, classifier(**{**auto, **settings}).fit(labels))
        phases = [row["phase"] for row in named.history_]
        assert phases.count("warm_up") == settings["warm_up"]
    # without scores or votes there is nothing but the candidates to start from
    bare = PartialLabels.from_candidates(labels.toarray(), data=X)
    assert_same_fit(
        classifier(**auto).fit(bare),
        classifier(**auto, warm_up_target="candidates").fit(bare),
    )
    assert [
        row["phase"] for row in classifier(max_epochs=1, warm_up="auto").fit(bare).history_
    ] == ["warm_up"]


def test_the_robust_variant_on_images():
    # the annotator prefers the first of two candidates
    scores = np.float32(0.5 * np.eye(3)[LEVEL] + 0.3 * np.eye(3)[LEVEL + 1] + 0.2 / 3)
    labels = PartialLabels(COLOUR, np.arange(3), scores > 0.1, scores=scores)
    images = {"co_labelling": "average", "mixup_alpha": 0.5, "evidence_weight": 1.0}
    named = images_classifier().fit(labels)
    assert_same_fit(named, images_classifier(**images).fit(labels), COLOUR)
    for name, value in {"average_momentum": 0.5, "evidence_weight": 2.0}.items():
        other = images_classifier(**{name: value}).fit(labels)
        assert not same_probabilities(other, named, COLOUR)
    # a warm-up on candidates does not trust the scores, so nothing else does unless it is told to
    bare, plain = images_classifier(warm_up_target="candidates"), labels.toarray()
    assert_same_fit(bare.fit(labels), images_classifier(prior="uniform").fit(COLOUR, plain), COLOUR)
    told = images_classifier(warm_up_target="candidates", evidence_weight=1.0).fit(labels)
    assert not same_probabilities(told, bare, COLOUR)


def test_evidence_needs_scores():
    with pytest.raises(ValueError, match="evidence_weight=1.0 needs PartialLabels with scores"):
        classifier(evidence_weight=1.0).fit(X, Y)


def test_warm_up_on_scores_learns_the_scores():
    """Half of each blob is called otherwise, so the best prediction is half and half."""
    first = np.tile(np.float32([0.5, 0.5, 0]), (60, 1))
    labels = PartialLabels(X, NAMES, np.ones((60, 3), int) - np.eye(3, dtype=int)[2], scores=first)
    clf = classifier(max_epochs=60, warm_up=60, lr=0.1).fit(labels)
    assert_allclose(clf.predict_proba(X), first, atol=0.1)
    assert clf.history_[-1]["loss_warm_up"] == pytest.approx(np.log(2), abs=0.05)


def test_warm_up_on_votes_equals_that_on_their_shares():
    votes = np.stack([T, np.roll(T, 1), T], axis=1)
    labels = PartialLabels.from_votes(votes, NAMES, data=X)
    shares = np.stack([(votes == c).mean(1) for c in range(3)], axis=1)
    scored = PartialLabels(X, NAMES, labels.toarray(), scores=shares)
    ours, theirs = classifier().fit(labels), classifier().fit(scored)
    assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


def test_warm_up_on_scores_trusts_known_labels_more():
    wrong = np.roll(np.eye(3, dtype=np.float32), 1, axis=1)[T]
    labels = PartialLabels(
        X, NAMES, np.eye(3, dtype=int)[T], scores=wrong, known=np.ones(60, dtype=bool)
    )
    clf = classifier(max_epochs=20, warm_up=20, lr=0.1).fit(labels)
    assert clf.score(X, NAMES[T]) > 0.9
    assert classifier(max_epochs=20, warm_up=20, lr=0.1, warm_up_target="scores").fit(
        PartialLabels(X, NAMES, np.eye(3, dtype=int)[T], scores=wrong)
    ).score(X, NAMES[T]) < 0.1  # fmt: skip


def test_warm_up_target_needs_scores():
    with pytest.raises(ValueError, match="warm_up_target='scores' needs PartialLabels with scores"):
        classifier(warm_up_target="scores").fit(X, Y)
    scores = np.zeros((60, 3), dtype=np.float32)
    scores[1:] = 1
    labels = PartialLabels(X, NAMES, Y, scores=scores)
    with pytest.raises(ValueError, match=r"scores must be probabilities.*row 0"):
        classifier(warm_up_target="scores").fit(labels)
    even = PartialLabels(X, NAMES, Y, scores=np.full((60, 3), 1 / 3, dtype=np.float32))
    with pytest.raises(ValueError, match="that prefer some classes"):
        classifier(warm_up_target="scores").fit(even)
    assert_same_fit(classifier().fit(even), classifier().fit(LABELS))


@pytest.mark.parametrize("scale, shift", [(1, -1), (0.2, 0)])
def test_scores_that_are_no_probabilities_are_left_alone(scale, shift):
    """Logits, or cosines; they are good enough for a rule."""
    scores = np.float32(scale * np.eye(3)[T] + shift)
    labels = PartialLabels(X, NAMES, Y, scores=scores)
    with pytest.warns(UserWarning, match="scores are no probabilities") as caught:
        clf = classifier().fit(labels)
    assert caught[0].filename == __file__
    assert_same_fit(clf, classifier().fit(LABELS))
    classifier(variant="paper").fit(labels)
    classifier(warm_up_target="candidates", prior="uniform").fit(labels)


def test_annotator_labels():
    candidates = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=bool)
    known = np.array([False, True, False, False, False])
    scores = np.float32([[3, 1, 0], [-1, 0, 0], [1, 1, 1], [0.5, 0.25, 0.25], [1, 1, 0]])
    problem = Problem(X[:5], NAMES, candidates, known, scores)
    # the label of the known row; nothing of a row that prefers no class, though of one with all
    expected = [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0], [0.5, 0.25, 0.25], [0.5, 0.5, 0]]
    labels, _ = annotator_labels(problem, True, "cpu")
    assert_allclose(labels, expected)
    votes = np.array([[0, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 2], [1, 1, 1]])
    problem = Problem(X[:5], NAMES, candidates, known, votes=votes)
    expected = [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    labels, shares = annotator_labels(problem, False, "cpu")
    assert_allclose(labels, expected, rtol=1e-6)
    # the prior is the mean of the rows with a label
    assert_allclose(resolve_prior("annotator", shares, candidates), [2 / 9, 7 / 9, 0], rtol=1e-6)
    # 2 of 9 and 7 of 9 are less than 0.8 * 3 classes
    roots = np.sqrt(np.sqrt([2, 7, 0]))
    assert_allclose(resolve_prior("adaptive", shares, candidates), roots / roots.sum(), rtol=1e-6)
    nothing = annotator_labels(Problem(X[:5], NAMES, candidates, known), False, "cpu")
    assert nothing == (None, None)


def test_a_warm_up_that_has_ended_stays_ended():
    labels = PartialLabels(X, NAMES, Y, scores=np.float32(np.eye(3)[T]))
    clf = classifier(max_epochs=5, warm_up="auto", warm_start=True, contrastive_start=2).fit(labels)
    clf.set_params(max_epochs=12).fit(labels)
    phases = ["warm_up"] * 2 + ["co_regularisation"] * 10
    assert [row["phase"] for row in clf.history_] == phases
    with_contrast = [row["loss_contrastive"] is not None for row in clf.history_]
    assert with_contrast == [False] * 4 + [True] * 8


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


def test_transforms_see_batches_of_floats():
    shapes = []

    class Watch(nn.Module):
        def forward(self, batch):
            assert batch.dtype == torch.float32
            assert batch.min() >= 0
            assert batch.max() <= 1
            shapes.append(batch.shape[1:])
            return batch

        def __deepcopy__(self, memo):
            return self

    images_classifier(weak_transform=Watch(), strong_transform=Watch()).fit(COLOUR, LEVEL)
    assert set(shapes) == {(3, 8, 8)}


def test_sets_of_names_through_the_binarizer():
    sets = [set(NAMES[row.astype(bool)]) for row in Y]
    binarizer = MultiLabelBinarizer()
    clf = classifier().fit(X, binarizer.fit_transform(sets))
    by_name = classifier().fit(PartialLabels.from_sets(sets, data=X))
    assert_array_equal(binarizer.classes_[clf.predict(X)], by_name.predict(X))


def test_pickle_reads_from_a_stream(fitted):
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    assert same_probabilities(joblib.load(stream), fitted)


def test_a_few_labels_teach_a_class_that_the_annotator_never_names():
    X, y = make_blobs(400, centers=4, cluster_std=0.6, random_state=3)
    named = np.where(y == 3, 0, y)  # the annotator takes the fourth class for the first
    scores = np.full((400, 4), 0.02)
    scores[np.arange(400), named] = 0.94
    candidates = np.eye(4, dtype=bool)[named]
    known = np.zeros(400, dtype=bool)
    for c in range(4):
        known[np.flatnonzero(y == c)[:8]] = True
    taught = np.where(known[:, None], np.eye(4, dtype=bool)[y], candidates)
    recall = []
    for sets, trusted in ((candidates, None), (taught, known)):
        labels = PartialLabels(X, np.arange(4), sets, scores=scores, known=trusted)
        clf = CoRegClassifier(max_epochs=20, random_state=0).fit(labels)
        recall.append(np.mean(clf.predict(X)[y == 3] == 3))
    assert recall[0] == 0 and recall[1] > 0.8
    assert_array_equal(clf.transduction_[known], y[known])
    assert (clf.clean_probability_[known] == 1).all()

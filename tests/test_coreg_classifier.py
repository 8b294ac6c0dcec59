"""CoRegClassifier as an estimator: the samples, labels and images it takes, and its scores."""

import coreg_fits
import numpy as np
import pandas as pd
import pytest
import torch
from coreg_fits import (
    COLOUR,
    GREY,
    LABELS,
    LEVEL,
    T,
    X,
    Y,
    assert_same_fit,
    classifier,
    images_classifier,
    same_probabilities,
)
from fakes import NAMES
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from torch import nn

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll._neural import _samples
from sklearn_npll._neural._samples import input_statistics

# Fixtures, which pytest finds by their names here.
fitted = coreg_fits.fitted
fitted_on_images = coreg_fits.fitted_on_images


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


def test_features_of_any_scale_are_standardised():
    small = np.random.default_rng(0).normal(size=(100, 2)) * [1e-9, 1] + [0, 0.1]
    small = np.c_[small, np.full(100, 0.1)].astype(np.float32)
    _, scale, _ = input_statistics(small)
    assert_allclose(scale, [*small[:, :2].std(axis=0, dtype=float), 1], rtol=1e-6)


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

import io
import pickle
import re
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import open_clip
import pandas as pd
import pytest
import sklearn
import torch
from fakes import ColourVLM, write_tiny_clip
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll._images import ImageReadError
from sklearn_npll.annotators import _open_clip
from sklearn_npll.annotators._agreement import one_coin_accuracies, vote_weights
from sklearn_npll.annotators._cache import EmbeddingCache
from sklearn_npll.annotators._open_clip import load_open_clip

CLASSES = ["red", "green", "blue"]
TEMPLATES = ["a {} thing.", "a pale {} thing."]
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 190, 0], [120, 0, 130]], np.uint8)
X = np.tile(RGB[:, None, None, :], (1, 4, 4, 1))
Y = np.array(["red", "green", "blue", "red", "blue"])


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def unit(vectors):
    vectors = np.asarray(vectors, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def vlm():
    return ColourVLM()


@pytest.fixture
def annotator(vlm):
    return VLMPartialAnnotator(CLASSES, templates=TEMPLATES, vlm=vlm)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, size=(7, 20, 20, 3), dtype=np.uint8)


class Learner(ClassifierMixin, BaseEstimator):
    """Predicts the brightest colour from the images alone; needs PartialLabels to fit."""

    def __init__(self, power=1):
        self.power = power

    def fit(self, X, y=None):
        self.labels_ = X
        self.candidates_ = np.asarray(X)
        self.classes_ = X.classes
        return self

    def predict(self, X):
        return np.array(CLASSES)[np.asarray(X.data).mean(axis=(1, 2)).argmax(axis=1)]


# What it computes


def test_probabilities_by_hand(annotator):
    images = unit(RGB.astype(float) + 1)
    text = unit([np.eye(3), np.eye(3) + 0.5])
    expected = softmax(20 * np.einsum("nd,tcd->ntc", images, text))
    annotator.fit(X)
    proba = annotator.predict_proba_per_template(X)
    np.testing.assert_allclose(proba, expected, atol=1e-5)
    np.testing.assert_allclose(annotator.predict_proba(X), expected.mean(axis=1), atol=1e-5)
    np.testing.assert_array_equal(annotator.predict(X), Y)
    np.testing.assert_allclose(annotator.embed(X), images, atol=1e-6)
    labels = annotator.transform(X)
    np.testing.assert_array_equal(labels.votes, expected.argmax(axis=2))
    np.testing.assert_allclose(labels.scores, expected.mean(axis=1), atol=1e-5)
    assert proba.dtype == labels.scores.dtype == annotator.embed(X).dtype == np.float32


class TableVLM:
    """Image i looks like prompt number j by a given cosine."""

    logit_scale = 10.0

    def __init__(self, cosines):
        self.cosines = np.asarray(cosines)

    def encode_image(self, images):
        rows = self.cosines[[image.getpixel((0, 0))[0] for image in images]]
        rest = np.sqrt(1 - (rows**2).sum(axis=1, keepdims=True))
        return np.hstack([rows, rest])

    def encode_text(self, texts):
        n = self.cosines.shape[1]
        return np.eye(n, n + 1)[[int(re.search(r"\d", text)[0]) for text in texts]]


def numbered(n):
    return np.arange(n, dtype=np.uint8).reshape(n, 1, 1)


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        # probabilities are softmax(10 * cosines): about (.70, .26, .03) and (.95, .05, .00)
        ("topk", 2, [[1, 1, 0], [1, 1, 0]]),
        ("topk", None, [[1, 1, 1], [1, 1, 1]]),
        ("threshold", None, [[1, 1, 0], [1, 0, 0]]),
        ("threshold", 0.02, [[1, 1, 1], [1, 1, 0]]),
        ("ratio", None, [[1, 0, 0], [1, 0, 0]]),
        ("ratio", 0.3, [[1, 1, 0], [1, 0, 0]]),
        ("cumulative", None, [[1, 1, 0], [1, 0, 0]]),
        ("cumulative", 0.98, [[1, 1, 1], [1, 1, 0]]),
    ],
)
def test_rules_on_mean_probabilities(rule, value, expected):
    vlm = TableVLM([[0.4, 0.3, 0.1], [0.5, 0.2, -0.1]])
    annotator = VLMPartialAnnotator(
        ["n0", "n1", "n2"], templates="simple", vlm=vlm, rule=rule, rule_value=value
    )
    labels = annotator.fit_transform(numbered(2))
    np.testing.assert_array_equal(labels.candidates, np.array(expected, dtype=bool))


def test_union_takes_the_choice_of_each_template():
    class Shifted(TableVLM):
        """Takes "n1!" for prompt 2."""

        def encode_text(self, texts):
            return np.eye(3, 4)[[(int(text[1]) + text.count("!")) % 3 for text in texts]]

    annotator = VLMPartialAnnotator(
        {0: "n0", 1: "n1", 2: "n2"},
        templates=["{}", "{}!", "{}"],
        vlm=Shifted([[0.9, 0.1, 0.0], [0.1, 0.0, 0.7]]),
    )
    labels = annotator.fit_transform(numbered(2))
    # Prompt 0 is the best of image 0: class 0 by the first template, class 2 by the second.
    np.testing.assert_array_equal(labels.votes, [[0, 2, 0], [2, 1, 2]])
    np.testing.assert_array_equal(labels.candidates.astype(int), [[1, 0, 1], [0, 1, 1]])


def test_several_names_are_averaged_in_each_template(vlm):
    annotator = VLMPartialAnnotator(
        {"warm": ["red", "green"], "cold": "blue"}, templates=TEMPLATES, vlm=vlm
    ).fit(X)
    pale = unit(np.eye(3) + 0.5)
    text = np.stack(
        [
            unit([[1, 1, 0], [0, 0, 1]]),
            unit([pale[0] + pale[1], pale[2]]),
        ]
    )
    expected = softmax(20 * np.einsum("nd,tcd->ntc", unit(RGB.astype(float) + 1), text))
    np.testing.assert_allclose(annotator.predict_proba_per_template(X), expected, atol=1e-5)
    np.testing.assert_array_equal(annotator.classes_, ["warm", "cold"])


def test_integer_labels(vlm):
    annotator = VLMPartialAnnotator({7: "red", 3: "green", 5: "blue"}, vlm=vlm).fit(X)
    np.testing.assert_array_equal(annotator.classes_, [7, 3, 5])
    np.testing.assert_array_equal(annotator.predict(X), [7, 3, 5, 7, 5])
    assert annotator.score(X, [7, 3, 5, 7, 3]) == 0.8


def test_candidates_of_many_classes_are_sparse(vlm):
    names = {i: f"colour number {i}, {'red' if i % 2 else 'blue'}" for i in range(70)}
    annotator = VLMPartialAnnotator(names, templates="simple", vlm=vlm, batch_size=2)
    labels = annotator.fit_transform(X, known_labels=[-1, 69, -1, -1, -1])
    assert sklearn.utils.validation.sp.issparse(labels.candidates)
    dense = labels.toarray()
    np.testing.assert_array_equal(dense.sum(axis=1), np.ones(5))
    assert dense[1, 69]
    assert dense[0, 1]  # the first red one


def test_batches_and_blocks_do_not_matter(vlm, monkeypatch):
    whole = VLMPartialAnnotator(CLASSES, vlm=vlm).fit_transform(X)
    monkeypatch.setattr("sklearn_npll.annotators._encoding._MAX_ELEMENTS", 100)
    parts = VLMPartialAnnotator(CLASSES, vlm=vlm, batch_size=2).fit_transform(X)
    np.testing.assert_allclose(whole.scores, parts.scores, atol=1e-6)
    np.testing.assert_array_equal(whole.votes, parts.votes)
    np.testing.assert_array_equal(whole, parts)


def test_tensors_of_a_torch_model_are_taken(annotator):
    class Torch(ColourVLM):
        logit_scale = torch.nn.Parameter(torch.tensor(20.0))

        def encode_image(self, images):
            return torch.tensor(super().encode_image(images), dtype=torch.bfloat16).requires_grad_()

    expected = annotator.fit(X).predict_proba(X)
    other = clone(annotator).set_params(vlm=Torch()).fit(X)
    np.testing.assert_allclose(other.predict_proba(X), expected, atol=0.05)


# When it computes


def test_transform_is_lazy_and_equals_fit_transform(annotator, vlm):
    now = annotator.fit_transform(X)
    assert now.is_materialized
    assert vlm.n_images == len(X)
    later = annotator.transform(X)
    assert later.data is X
    assert (later.shape, vlm.n_images) == ((5, 3), 5)
    np.testing.assert_array_equal(later, now)
    np.testing.assert_array_equal(later.scores, now.scores)
    assert vlm.n_images == 2 * len(X)
    np.testing.assert_array_equal(later.votes, now.votes)
    assert vlm.n_images == 2 * len(X)


class Photos(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return {"label": Y[index], "image": Image.fromarray(X[index])}


@pytest.mark.parametrize("samples", [X, list(X), pd.Series(list(X)), Photos()], ids=type)
def test_a_lazy_slice_annotates_only_its_rows(annotator, vlm, samples):
    labels = annotator.fit(samples).transform(samples)[[3, 1]]
    np.testing.assert_array_equal(labels.scores, annotator.predict_proba(X)[[3, 1]])
    assert vlm.n_images == 2 + 5


def test_a_lazy_container_is_settled_when_made(annotator):
    expected = annotator.fit_transform(X)
    lazy = annotator.transform(X)
    annotator.set_params(rule="topk", rule_value=2, classes=["green", "blue"], templates="simple")
    annotator.fit(X)
    np.testing.assert_array_equal(lazy, expected)


def test_fit_encodes_prompts_once_and_no_image(annotator, vlm):
    annotator.fit(X)
    assert (vlm.n_images, vlm.n_texts) == (0, 6)
    annotator.predict(X)
    annotator.predict(X)
    assert (vlm.n_images, vlm.n_texts) == (10, 6)


def test_predicting_with_a_pipeline_encodes_nothing(annotator, vlm):
    pipe = make_pipeline(annotator, Learner()).fit(X)
    assert vlm.n_images == 5
    assert pipe.score(X, Y) == 1
    assert vlm.n_images == 5


def test_embeddings_as_data(annotator, vlm):
    expected = annotator.fit_transform(X)
    annotator.set_params(output="embeddings")
    for labels in (annotator.fit_transform(X), annotator.transform(X)):
        np.testing.assert_allclose(labels.data, unit(RGB.astype(float) + 1), atol=1e-6)
        before = vlm.n_images
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(labels[1:3].data, labels.data[1:3])
        assert vlm.n_images == before  # the embeddings are not computed again


def test_embeddings_as_input(annotator, vlm):
    expected = annotator.fit_transform(X)
    embeddings = annotator.embed(X)
    before = vlm.n_images
    for features in (pd.DataFrame(embeddings, columns=list("abc")), embeddings * 7, embeddings):
        labels = annotator.fit_transform(features)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(labels.scores, expected.scores, atol=1e-5)
        assert annotator.n_features_in_ == 3
    assert vlm.n_images == before
    with pytest.raises(ValueError, match="X has 2 features, but VLMPartialAnnotator is expecting"):
        annotator.transform(embeddings[:, :2])
    with pytest.raises(ValueError, match=r"shape \(1, 2\), but the model embeds prompts in 3"):
        annotator.fit(embeddings[:, :2])
    assert not hasattr(annotator.fit(X), "n_features_in_")


# What y means


@pytest.mark.parametrize("y", [Y, Y[::-1], None, np.arange(5), [-1] * 5, ["-1"] * 5])
def test_y_is_ignored(annotator, y):
    expected = annotator.fit_transform(X).candidates
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = annotator.fit_transform(X, y)
    np.testing.assert_array_equal(labels, expected)
    assert labels.known is None


@pytest.mark.parametrize(
    "y", [[-1, 1, 2, -1, 0], ["red", -1, -1, -1, -1], np.array(["red", -1, -1, -1, -1], object)]
)
def test_few_labels_are_not_ignored_silently(annotator, y):
    with pytest.warns(UserWarning, match="y contains -1.*set use_y=True"):
        annotator.fit(X, y)


def test_use_y(annotator):
    free = annotator.fit_transform(X)
    annotator.set_params(use_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = annotator.fit_transform(X, ["green", -1, "blue", -1, -1])
    np.testing.assert_array_equal(labels.known, [True, False, True, False, False])
    expected = free.candidates.copy()
    expected[[0, 2]] = [[False, True, False], [True, False, False]]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(labels.scores, free.scores)
    np.testing.assert_array_equal(annotator.transform(X), free)
    assert annotator.fit_transform(X).known is None
    with pytest.raises(ValueError, match=r"y\[1\] is 'gren', .* Did you mean 'green'\?"):
        annotator.fit(X, ["red", "gren", "red", "red", "red"])


def test_known_labels_win_over_y(annotator):
    known = ["green", -1, -1, -1, -1]
    labels = annotator.set_params(use_y=True).fit_transform(X, Y, known_labels=known)
    assert labels.known.tolist() == [True, False, False, False, False]
    assert labels.toarray()[0].tolist() == [False, True, False]
    with pytest.raises(ValueError, match="known_labels has shape"):
        annotator.fit(X, known_labels=["green"])


@pytest.mark.parametrize("routing", [False, True])
def test_known_labels_are_sliced_by_cross_validation(annotator, routing):
    many, y = np.tile(X, (4, 1, 1, 1)), np.tile(Y, 4)
    known = np.where(np.arange(20) < 10, y.astype(object), -1)
    seen = []

    class Recorder(Learner):
        def fit(self, X, y=None):
            seen.append((X.known.sum(), len(X)))
            return super().fit(X, y)

    with sklearn.config_context(enable_metadata_routing=routing):
        name = "known_labels" if routing else "vlmpartialannotator__known_labels"
        if routing:
            annotator.set_fit_request(known_labels=True)
        pipe = make_pipeline(clone(annotator), Recorder())
        pipe.fit(many, y, **{name: known})
        cross_validate(pipe, many, y, cv=KFold(2), params={name: known})
    assert seen == [(10, 20), (0, 10), (10, 10)]


@pytest.mark.parametrize(
    ("params", "n_images"),
    [({}, 2), ({"rule": "cpl"}, 2), ({"refine": "zlap"}, 5), ({"aggregation": "label_model"}, 5),
     ({"template_weights": "agreement"}, 5), ({"template_weights": [1, 2]}, 2)],
)  # fmt: skip
def test_score_annotates_unlabelled_samples_only_if_scores_depend_on_them(
    annotator, vlm, params, n_images
):
    annotator.set_params(templates=["a {}.", "{}"], **params).fit(X)
    annotator.score(X, ["red", "red", -1, -1, -1])
    assert vlm.n_images == n_images


def test_templates_are_weighed_by_the_log_odds_of_their_accuracy(annotator):
    templates = ["a {}.", "{}", "a pale {}.", "it is no green, {}"]
    images = np.random.default_rng(0).integers(0, 256, size=(60, 2, 2, 3), dtype=np.uint8)
    annotator.set_params(templates=templates, template_weights="agreement").fit(images)
    votes = annotator.transform(images).votes
    accuracies = one_coin_accuracies(votes, 3)
    assert accuracies[3] < accuracies[0] - 0.1
    expected = vote_weights(accuracies, 3)
    np.testing.assert_allclose(annotator.weigh_templates(images), expected / expected.sum())


def test_labels_are_called_in_errors_as_they_were_given(annotator):
    for fit in (annotator.fit, annotator.fit_transform):
        with pytest.raises(ValueError, match=r"^known_labels has shape \(3,\); .* of 5 samples"):
            fit(X, Y, known_labels=Y[:3])
        with pytest.raises(ValueError, match=r"^known_labels\[1\] is 'gren', .* mean 'green'"):
            fit(X, known_labels=["red", "gren", -1, -1, -1])
        with pytest.raises(ValueError, match=r"known_labels holds .* pass classes\[known_labels\]"):
            fit(X, known_labels=[0, 1, 2, 0, 2])
    with pytest.raises(ValueError, match=r"^y has shape \(3,\)"):
        annotator.set_params(use_y=True).fit(X, Y[:3])


@pytest.mark.parametrize(
    "images", [["a.jpg", "b.jpg"], [Path("a.jpg")], [b"bytes"], [Image.new("RGB", (2, 2))]]
)
def test_data_frames_of_images_are_refused(annotator, images):
    for frame in (pd.DataFrame({"path": images}), pd.DataFrame({"id": 1, "path": images})):
        with pytest.raises(ValueError, match=r"column 'path' .* pass the column alone: df\['path'"):
            annotator.fit(frame)
    with pytest.raises(ValueError, match="NaN"):
        annotator.fit(pd.DataFrame({"a": [1.0, np.nan]}))
    with pytest.raises(ValueError, match="0 sample"):
        annotator.fit(pd.DataFrame({"a": []}, dtype=float))


def test_score(annotator):
    annotator.fit(X)
    assert annotator.score(X, Y) == 1
    assert annotator.score(X, ["red", "red", -1, -1, -1]) == 0.5
    with pytest.warns(UndefinedMetricWarning, match="No sample in y is labelled"):
        assert np.isnan(annotator.score(X, [-1] * 5))
    with pytest.raises(ValueError, match=r"y\[0\] is 'rot'"):
        annotator.score(X, ["rot"] * 5)


# Caches


def search_grid(annotator, cv=3, **kwargs):
    grid = {"vlmpartialannotator__templates": [TEMPLATES, "simple", "imagenet-80"]}
    pipe = make_pipeline(annotator, Learner())
    return GridSearchCV(pipe, grid, cv=cv, error_score="raise", **kwargs)


def many_images(n=30):
    images = np.random.default_rng(0).integers(0, 256, size=(n, 4, 4, 3), dtype=np.uint8)
    return images, np.array(CLASSES)[images.mean(axis=(1, 2)).argmax(axis=1)]


def test_a_search_with_a_cache_encodes_each_image_once(annotator, vlm, tmp_path):
    images, y = many_images()
    search_grid(annotator).fit(images, y)
    without, vlm.n_images = vlm.n_images, 0
    search = search_grid(clone(annotator).set_params(cache_dir=tmp_path / "new" / "cache"))
    search.fit(images, y)
    assert (without, vlm.n_images) == (7 * 30, 30)  # 3 folds * 3 candidates * 2/3, and the refit
    texts = vlm.n_texts
    np.testing.assert_array_equal(search.predict(images), y)
    search.fit(images[::-1], y[::-1])
    assert (vlm.n_images, vlm.n_texts) == (30, texts)


@pytest.mark.parametrize("kind", ["array", "PIL", "paths", "bytes", "dataset"])
def test_second_annotation_runs_no_encoder(vlm, annotator, tmp_path, kind):
    paths = []
    for i, image in enumerate(X):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    samples = {
        "array": X,
        "PIL": [Image.fromarray(image) for image in X],
        "paths": paths,
        "bytes": [path.read_bytes() for path in paths],
        "dataset": torch.utils.data.TensorDataset(torch.from_numpy(X).permute(0, 3, 1, 2)),
    }[kind]
    annotator.set_params(cache_dir=tmp_path / "cache", batch_size=2)
    first = annotator.fit_transform(samples)
    counts = vlm.n_images, vlm.n_texts
    assert counts == (5, 6)
    second = clone(annotator).set_params(rule="topk", rule_value=1).fit_transform(samples)
    np.testing.assert_array_equal(second.scores, first.scores)
    assert (vlm.n_images, vlm.n_texts) == counts
    np.testing.assert_allclose(
        first.scores, clone(annotator).set_params(cache_dir=None).fit(X).predict_proba(X), atol=1e-6
    )


def test_only_what_changed_is_encoded_again(vlm, annotator, tmp_path):
    annotator.set_params(cache_dir=tmp_path, batch_size=2)
    annotator.fit_transform(X)
    changed = X.copy()
    changed[[1, 2]] = X[[2, 1]]  # the cache goes by content, not by row
    changed[4] = 7
    labels = annotator.fit_transform(changed)
    assert vlm.n_images == 6
    expected = clone(annotator).set_params(cache_dir=None).fit_transform(changed)
    np.testing.assert_allclose(labels.scores, expected.scores, atol=1e-6)


def test_other_weights_have_another_cache(vlm, annotator, tmp_path):
    annotator.set_params(cache_dir=tmp_path).fit_transform(X)
    vlm.cache_key = "colour, trained longer"
    annotator.fit_transform(X)
    assert vlm.n_images == 10
    del ColourVLM.cache_key
    try:
        with pytest.raises(ValueError, match="needs vlm.cache_key"):
            clone(annotator).set_params(vlm=ColourVLM()).fit(X)
    finally:
        ColourVLM.cache_key = "colour"


def test_cache_of_a_real_model(tiny, photos, tmp_path, monkeypatch):
    annotator = VLMPartialAnnotator(CLASSES, model=tiny, cache_dir=tmp_path, batch_size=4)
    first = annotator.fit_transform(photos)
    _open_clip._load.cache_clear()

    def fail(self, prepared):
        raise AssertionError("the image encoder ran")

    monkeypatch.setattr(_open_clip.OpenClipEncoder, "encode_image", fail)
    again = VLMPartialAnnotator(
        {"a": "red", "b": ["green", "blue"]}, model=tiny, cache_dir=tmp_path, templates="simple"
    )
    assert again.fit_transform(photos).shape == (7, 2)
    np.testing.assert_array_equal(clone(annotator).fit_transform(photos), first)
    with pytest.raises(AssertionError, match="the image encoder ran"):
        annotator.fit_transform(photos ^ 1)


def test_cache_key_follows_weights_preprocessing_and_precision(tmp_path):
    def key(name, **kwargs):
        precision = kwargs.pop("precision", "fp32")
        model = write_tiny_clip(tmp_path / name, **kwargs)
        return load_open_clip(model, precision=precision).cache_key

    assert key("a") == key("b")
    assert len({key("a"), key("c", seed=1), key("d", mean=[0.1] * 3)}) == 3
    assert key("a") != key("a", precision="bf16")


def test_cache_survives_several_writers(tmp_path):
    keys = [str(i) for i in range(50)]

    def write():
        cache = EmbeddingCache(tmp_path, "one")
        for key in keys:
            cache.put([key], np.full((1, 3), int(key)))
        return len(cache.get(keys))

    both = joblib.Parallel(n_jobs=2, prefer="threads")([joblib.delayed(write)()] * 2)
    assert both == [50, 50]
    found = EmbeddingCache(tmp_path, "one").get([*keys, "x"])
    assert {key: vector.tolist() for key, vector in found.items()} == {
        key: [int(key)] * 3 for key in keys
    }
    assert EmbeddingCache(tmp_path, "two").get(keys) == {}


def test_more_keys_than_a_query_takes(tmp_path):
    cache = EmbeddingCache(tmp_path, "one")
    keys = [str(i) for i in range(1203)]
    cache.put(keys, np.arange(1203).reshape(-1, 1))
    found = cache.get(keys)
    assert [found[key][0] for key in keys] == list(range(1203))


def test_damaged_cache_is_named(annotator, tmp_path):
    annotator.set_params(cache_dir=tmp_path).fit(X)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match=rf"{path.name} cannot be used .* delete it"):
        annotator.fit_transform(X)


def test_a_model_is_loaded_once_a_process(tiny, photos, monkeypatch):
    _open_clip._load.cache_clear()
    loaded = []
    create = open_clip.create_model_from_pretrained
    monkeypatch.setattr(
        open_clip,
        "create_model_from_pretrained",
        lambda *args, **kwargs: loaded.append(args) or create(*args, **kwargs),
    )
    annotator = VLMPartialAnnotator(CLASSES, model=tiny, templates="simple")
    first = annotator.fit_transform(photos)
    second = pickle.loads(pickle.dumps(clone(annotator).fit(photos))).transform(photos)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert len(loaded) == 1
    VLMPartialAnnotator(CLASSES, model=tiny, templates="simple", precision="bf16").fit(photos)
    assert len(loaded) == 2


def test_a_rewritten_checkpoint_is_loaded_again(tmp_path, photos):
    name = write_tiny_clip(tmp_path / "model", seed=0)
    annotator = VLMPartialAnnotator(CLASSES, model=name)
    before = annotator.fit(photos).embed(photos)
    write_tiny_clip(tmp_path / "model", seed=1)
    assert np.abs(annotator.fit(photos).embed(photos) - before).max() > 0.1


# Pickling, cloning, scikit-learn


def test_a_pickle_holds_no_model(tiny, photos):
    annotator = VLMPartialAnnotator(CLASSES, model=tiny).fit(photos)
    expected = annotator.predict_proba(photos)
    stored = pickle.dumps(annotator)
    assert len(stored) < 5000
    np.testing.assert_array_equal(pickle.loads(stored).predict_proba(photos), expected)
    buffer = io.BytesIO()
    joblib.dump(make_pipeline(annotator, Learner()), buffer)
    assert buffer.tell() < 10_000
    lazy = annotator.transform(photos)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).scores, expected)


def test_a_reloaded_pipeline_predicts_without_the_model(tmp_path, photos):
    name = write_tiny_clip(tmp_path / "model")
    pipe = make_pipeline(VLMPartialAnnotator(CLASSES, model=name), Learner()).fit(photos)
    scores = pipe[0].transform(photos).scores
    pipe = pickle.loads(pickle.dumps(pipe))
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    assert pipe.predict(photos).shape == (7,)
    lazy = pipe[0].transform(photos)
    with pytest.raises(FileNotFoundError, match="model"):
        np.asarray(lazy)
    shutil.move(tmp_path / "elsewhere", tmp_path / "model")
    pipe[0].set_params(rule="topk", rule_value=1, model="missing")
    np.testing.assert_array_equal(lazy.scores, scores)  # settled when it was made
    assert not (lazy.set_sizes == 1).all()
    # and the model is that of the fit, whatever the parameters say now
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipe))[0].predict_proba(photos), scores)


def test_a_failed_first_fit_leaves_nothing_fitted(photos):
    annotator = VLMPartialAnnotator(CLASSES, model="no-such-model")
    with pytest.raises(ValueError, match="Unknown model"):
        annotator.fit(photos)
    with pytest.raises(NotFittedError):
        annotator.transform(photos)


def test_an_own_model_is_shared_by_clones_and_pickled(annotator, vlm):
    assert clone(annotator).vlm is vlm
    copied = pickle.loads(pickle.dumps(annotator.fit(X)))
    assert isinstance(copied.vlm, ColourVLM)
    np.testing.assert_array_equal(copied.transform(X), annotator.transform(X))
    classes = annotator.classes
    assert clone(annotator).classes == classes
    assert clone(annotator).classes is not classes


def test_clone_keeps_metadata_requests(annotator):
    with sklearn.config_context(enable_metadata_routing=True):
        annotator.set_fit_request(known_labels=True)
        assert clone(annotator).get_metadata_routing().fit.requests["known_labels"] is True


def test_searching_in_parallel(tiny, photos):
    y = np.array(CLASSES)[[0, 1, 2, 0, 1, 2, 0]]
    search = search_grid(VLMPartialAnnotator(CLASSES, model=tiny), cv=2, n_jobs=2).fit(photos, y)
    assert len(search.cv_results_["params"]) == 3
    scores = cross_val_score(VLMPartialAnnotator(CLASSES, model=tiny), photos, y, cv=2)
    assert scores.shape == (2,)


def test_set_output(annotator):
    assert annotator.set_output(transform="pandas") is annotator
    assert isinstance(annotator.fit_transform(X), PartialLabels)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(annotator.fit(X).transform(X), PartialLabels)


def test_not_fitted(annotator):
    for method in ("transform", "predict", "predict_proba", "predict_proba_per_template", "embed"):
        with pytest.raises(NotFittedError):
            getattr(annotator, method)(X)
    with pytest.raises(NotFittedError):
        annotator.score(X, Y)


def test_global_generators_are_untouched(tiny, photos):
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    _open_clip._load.cache_clear()
    VLMPartialAnnotator(CLASSES, model=tiny).fit_transform(photos)
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


# Bad input


@pytest.fixture
def damaged(tmp_path):
    paths = []
    for i, image in enumerate(X):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    content = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "1.png").unlink()
    return paths


def test_damaged_images_raise(annotator, damaged):
    with pytest.raises(ImageReadError, match="Image 1 .*1.png") as error:
        annotator.fit_transform(damaged)
    assert (error.value.index, error.value.path) == (1, damaged[1])
    with pytest.raises(ImageReadError, match="Image 2 .*3.png"):
        annotator.fit(X).predict([damaged[0], damaged[2], damaged[3]])


@pytest.mark.parametrize("rule", ["union", "topk"])
@pytest.mark.parametrize("cached", [False, True])
def test_damaged_images_are_skipped(annotator, damaged, vlm, rule, cached, tmp_path):
    annotator.set_params(on_error="skip", rule=rule, rule_value=1 if rule == "topk" else None)
    annotator.set_params(batch_size=2, cache_dir=tmp_path / "cache" if cached else None)
    whole = annotator.fit_transform(X)
    vlm.n_images = 0
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"2 of 5 images cannot be read .*Image 1 .*1\.png"):
            labels = annotator.fit_transform(damaged)
        good = [0, 2, 4]
        np.testing.assert_array_equal(labels.candidates[[1, 3]], np.ones((2, 3), bool))
        np.testing.assert_array_equal(labels.votes[[1, 3]], -1)
        np.testing.assert_allclose(labels.scores[[1, 3]], 1 / 3, atol=1e-6)
        np.testing.assert_array_equal(labels[good], whole[good])
    assert vlm.n_images == (3 if cached else 6)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert not annotator.embed(damaged)[[1, 3]].any()


def test_a_batch_of_nothing_but_damaged_images(annotator, tmp_path):
    annotator.set_params(on_error="skip", batch_size=1)
    with pytest.warns(UserWarning, match="2 of 2"):
        labels = annotator.fit_transform([tmp_path / "a.png", tmp_path / "b.png"])
    assert labels.mean_set_size == 3


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"classes": ["red"]}, ValueError, "classes has 1 element"),
        ({"classes": ["red", "red"]}, ValueError, "'red' is used twice"),
        ({"classes": ["red", ""]}, ValueError, "empty name"),
        ({"templates": ["a thing."]}, ValueError, r"templates\[0\]"),
        ({"templates": "coreg"}, ValueError, "Did you mean 'coreg-27'"),
        ({"rule": "unoin"}, ValueError, "Did you mean 'union'"),
        ({"rule_value": 2}, ValueError, "'union' has no argument"),
        ({"rule": "topk", "rule_value": 4}, ValueError, "k is 4"),
        ({"rule": "ratio", "rule_value": 1.5}, ValueError, "ratio is 1.5"),
        ({"rule": "topk", "rule_value": "3"}, ValueError, "'rule_value' parameter"),
        ({"batch_size": 0}, ValueError, "'batch_size' parameter"),
        ({"output": "pixels"}, ValueError, "'output' parameter"),
        ({"on_error": "ignore"}, ValueError, "'on_error' parameter"),
        ({"use_y": "yes"}, ValueError, "'use_y' parameter"),
        ({"vlm": object()}, TypeError, "has no method encode_image"),
        ({"vlm": type("V", (ColourVLM,), {"logit_scale": 0})()}, ValueError, "logit_scale is 0"),
        ({"vlm": type("V", (ColourVLM,), {"logit_scale": None})()}, ValueError, "logit_scale"),
    ],
)
def test_bad_parameters(annotator, vlm, params, error, message):
    with pytest.raises(error, match=message):
        annotator.set_params(**params).fit_transform(X)
    assert vlm.n_images == 0


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("photo.png", "single path"),
        (Image.new("L", (4, 4)), "single path or image"),
        ([], "Found array with 0 sample"),
        (io.BytesIO(b""), "single path or image"),
        (pd.Series([bytearray(b"")]), "type bytearray; encoded images must be bytes"),
        ([(io.BytesIO(b""), 0)], "type BytesIO; encoded images must be bytes"),
        ([io.BytesIO(b"")], "type BytesIO; encoded images must be bytes"),
        ([bytearray(b"")], "type bytearray; encoded images must be bytes"),
        (np.zeros((0, 4, 4)), "Found array with 0 sample"),
        (np.zeros((2, 3, 8, 8)), "channels seem to come first"),
        (np.zeros((2, 0, 8)), r"an image has shape .* got \(0, 8, 1\)"),
        (np.full((2, 4, 4), 300), "Image 0 cannot be read: it has values from 300 to 300"),
    ],
)
def test_bad_samples(annotator, samples, message):
    with pytest.raises(ValueError, match=message):
        annotator.fit_transform(samples)


def test_on_error_skip_of_an_array(vlm):
    images = np.repeat(np.linspace(0.2, 1, 4), 16).reshape(4, 4, 4)
    images[2, 0, 0] = np.nan
    annotator = VLMPartialAnnotator(["red", "green"], vlm=vlm, on_error="skip")
    with pytest.warns(UserWarning, match="Image 2"):
        labels = annotator.fit_transform(images)
    assert (labels.votes == -1).all(1).tolist() == [False, False, True, False]
    assert labels.toarray()[2].all()
    with pytest.raises(ImageReadError, match="Image 2"):
        annotator.set_params(on_error="raise").fit_transform(images)


def test_bad_encoders(annotator):
    class Bad(ColourVLM):
        def encode_image(self, images):
            return self.result

    vlm = Bad()
    annotator.set_params(vlm=vlm)
    vlm.result = np.ones((5, 2))
    with pytest.raises(ValueError, match=r"encode_image returned shape \(5, 2\) for 5 images"):
        annotator.fit_transform(X)
    vlm.result = np.full((5, 3), np.nan)
    with pytest.raises(ValueError, match="encode_image returned NaN"):
        annotator.fit_transform(X)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"model": "ViT-B32"}, ValueError, r"Unknown model 'ViT-B32'. Did you mean 'ViT-B-32'\?"),
        ({"model": "fashion-clip"}, ValueError, "Did you mean 'fashion-clip-tiny'"),
        ({"model": "ViT-B-32"}, ValueError, "needs weights.*The tags are 'openai'"),
        ({"model": "ViT-B-32", "pretrained": "opena1"}, ValueError, "Did you mean 'openai'"),
        ({"model": "ViT-B-32", "pretrained": "no/file.pt"}, ValueError, "neither a file nor a tag"),
        ({"model": "local-dir:nowhere"}, FileNotFoundError, "no folder 'nowhere'"),
        ({"model": "hf-hub:a/b", "pretrained": "openai"}, ValueError, "has no effect"),
        ({"device": "gpu"}, ValueError, "Unknown device 'gpu'"),
        ({"precision": "fp8"}, ValueError, "'precision' parameter"),
    ],
)
def test_bad_models(tiny, params, error, message):
    with pytest.raises(error, match=message):
        VLMPartialAnnotator(CLASSES, **{"model": tiny, **params}).fit(X)


def test_bad_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    name = write_tiny_clip(folder)
    with pytest.raises(ValueError, match="For a folder write 'local-dir:model'"):
        load_open_clip("model")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match="The weights of model='local-dir:.* cannot be loaded"):
        load_open_clip(name)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="has a configuration but no weights"):
        load_open_clip(name)
    config = folder / "open_clip_config.json"
    config.write_text("{}")
    with pytest.raises(ValueError, match="has no 'model_cfg'"):
        load_open_clip(name)
    config.unlink()
    with pytest.raises(FileNotFoundError, match="has no open_clip_config.json"):
        load_open_clip(name)


def test_shipped_model_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(_open_clip.resources, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match="'fashion-clip-tiny' that comes with sklearn_npll"):
        VLMPartialAnnotator(CLASSES).fit(X)


def test_shipped_model_works_offline():
    try:
        annotator = VLMPartialAnnotator({0: "sneaker", 1: "dress"}).fit(X)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    labels = annotator.fit_transform(X)
    assert labels.votes.shape == (5, 27)
    np.testing.assert_allclose(labels.scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tiny):
    with pytest.raises(ValueError, match="torch finds no working 'cuda'"):
        VLMPartialAnnotator(CLASSES, model=tiny, device="cuda").fit(X)
    assert load_open_clip(tiny, device="auto").device == "cpu"


def test_weights_from_a_file(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"logit_scale": torch.ones(())}, path)
    with pytest.raises(RuntimeError, match="weights.pt.* cannot be loaded"):
        load_open_clip("ViT-S-32-alt", path)


def test_progress_bar(annotator, capsys):
    annotator.fit_transform(X)
    assert capsys.readouterr().err == ""
    annotator.set_params(verbose=True).fit_transform(X)
    assert "5/5" in capsys.readouterr().err


# open_clip


def reference_proba(encoder, images, templates, names):
    """Probabilities as open_clip's own documentation computes them."""
    model = encoder.model
    with torch.inference_mode():
        pixels = torch.stack([encoder.preprocess(Image.fromarray(image)) for image in images])
        image = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1)
        per_template = []
        for template in templates:
            tokens = encoder.tokenizer([template.format(name) for name in names])
            text = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)
            per_template.append((model.logit_scale.exp() * image @ text.T).softmax(dim=-1))
    return torch.stack(per_template, dim=1).numpy()


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("as_pil", [False, True])
def test_agrees_with_open_clip(tmp_path, photos, custom_text, as_pil):
    name = write_tiny_clip(tmp_path, custom_text=custom_text)
    annotator = VLMPartialAnnotator(CLASSES, templates=TEMPLATES, model=name, batch_size=3)
    samples = [Image.fromarray(photo) for photo in photos] if as_pil else photos
    proba = annotator.fit(samples).predict_proba_per_template(samples)
    expected = reference_proba(load_open_clip(name), photos, TEMPLATES, sorted(CLASSES))
    # Arrays are resized by torch, which rounds a few pixels the other way.
    np.testing.assert_allclose(proba, expected, atol=1e-6 if as_pil else 1e-3)
    assert np.ptp(expected, axis=0).max() > 0.01  # the images differ by more than that


@pytest.mark.parametrize("custom_text", [False, True])
def test_short_prompts_are_encoded_exactly(tmp_path, custom_text):
    encoder = load_open_clip(write_tiny_clip(tmp_path, custom_text=custom_text))
    texts = ("a cat!", "the photo of a dog that is not quite so short, for once.")
    tokens = encoder.tokenizer(list(texts))
    assert tokens.shape[1] == 24
    seen = []
    tower = encoder.model.text if custom_text else encoder.model
    tower.ln_final.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    short = encoder.encode_text(texts)
    with torch.inference_mode():
        full = encoder.model.encode_text(tokens).numpy()
    assert seen[0][1] == 17 < seen[1][1] == 24
    np.testing.assert_allclose(short, full, atol=1e-6)
    _open_clip._load.cache_clear()


def test_a_tower_that_looks_ahead_is_not_cut_short(tmp_path):
    name = write_tiny_clip(tmp_path, custom_text=True)
    encoder = load_open_clip(name)
    encoder.model.text.attn_mask = None
    full = encoder.model.encode_text(encoder.tokenizer(["a cat"])).detach().numpy()
    np.testing.assert_allclose(encoder.encode_text(("a cat",)), full, atol=1e-6)
    _open_clip._load.cache_clear()


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 31, 3), (100, 70, 3), (32, 32, 3)])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_batch_preprocessing_is_that_of_open_clip(tmp_path, shape, mode, interpolation):
    name = write_tiny_clip(tmp_path, resize_mode=mode, interpolation=interpolation)
    encoder = load_open_clip(name)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(4, *shape), dtype=np.uint8)
    prepared = encoder.prepare(images)
    expected = torch.stack([encoder.preprocess(Image.fromarray(i.squeeze())) for i in images])
    if prepared.dtype == torch.uint8:
        scale, shift = encoder._normalisation
        grey_level = scale.max()
        difference = (prepared.float() * scale + shift - expected).abs() / grey_level
        assert difference.max() < 2.01
        assert difference.mean() < 0.02
    else:
        assert mode == "longest"
        torch.testing.assert_close(prepared, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(tiny, photos, precision):
    full = VLMPartialAnnotator(CLASSES, model=tiny).fit(photos)
    half = VLMPartialAnnotator(CLASSES, model=tiny, precision=precision).fit(photos)
    np.testing.assert_allclose(half.embed(photos), full.embed(photos), atol=0.05)
    assert half.embed(photos).dtype == np.float32


def test_prompts_are_kept_by_the_loaded_model(tiny, photos, monkeypatch):
    _open_clip._load.cache_clear()
    calls = []
    encode = _open_clip.OpenClipEncoder._encode_text
    monkeypatch.setattr(
        _open_clip.OpenClipEncoder,
        "_encode_text",
        lambda self, texts: calls.append(len(texts)) or encode(self, texts),
    )
    for rule in ("union", "topk", "ratio"):
        VLMPartialAnnotator(CLASSES, model=tiny, rule=rule).fit(photos)
    assert calls == [27 * 3]


def test_decoding_and_encoding_overlap(vlm):
    # Batch 1 is read before the encoder gets batch 0: otherwise this waits in vain.
    import threading

    read = threading.Event()

    class Photos(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index >= 2:
                read.set()
            return Image.fromarray(X[index])

    class Waiting(ColourVLM):
        def encode_image(self, images):
            assert read.wait(timeout=20)
            return super().encode_image(images)

    VLMPartialAnnotator(CLASSES, vlm=Waiting(), batch_size=2).fit_transform(Photos())


def test_reading_is_only_a_few_batches_ahead():
    ahead = []

    class Photos(torch.utils.data.Dataset):
        n_read = 0

        def __len__(self):
            return 40

        def __getitem__(self, index):
            self.n_read += 1
            return X[0]

    class Slow(ColourVLM):
        def encode_image(self, images):
            time.sleep(0.01)
            ahead.append(photos.n_read - self.n_images)
            return super().encode_image(images)

    photos = Photos()
    VLMPartialAnnotator(CLASSES, vlm=Slow(), batch_size=2).fit_transform(photos)
    assert len(ahead) == 20
    assert 2 < max(ahead) <= 4


def test_annotating_imports_open_clip_only_if_needed():
    code = (
        "import sys, sklearn_npll\n"
        "assert 'open_clip' not in sys.modules and 'torchvision' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.weights
def test_real_clip():
    shades = np.repeat(RGB[:3, None, :], 64 * 64, axis=1).reshape(3, 64, 64, 3)
    annotator = VLMPartialAnnotator(
        CLASSES, templates=["a {} square."], model="ViT-B-32-quickgelu", pretrained="openai"
    )
    assert annotator.fit(shades).predict(shades).tolist() == CLASSES
    assert annotator.logit_scale_ == pytest.approx(100, abs=0.1)

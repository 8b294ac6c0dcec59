"""VLMPartialAnnotator: what it computes and when, and what y means."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
import vlm_colours
from fakes import ColourVLM, known_in_folds
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.pipeline import make_pipeline
from vlm_colours import CLASSES, RGB, TEMPLATES, Learner, X, Y

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators._agreement import one_coin_accuracies, vote_weights

# Fixtures, which pytest finds by their names here.
vlm = vlm_colours.vlm
annotator = vlm_colours.annotator


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def unit(vectors):
    vectors = np.asarray(vectors, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# What it computes


def test_probabilities_by_hand(annotator):
    images = unit(RGB.astype(float) + 1)
    text = unit([np.eye(3), np.eye(3) + 0.5])[:, ::-1]  # blue, green, red
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
            unit([[0, 0, 1], [1, 1, 0]]),
            unit([pale[2], pale[0] + pale[1]]),
        ]
    )
    expected = softmax(20 * np.einsum("nd,tcd->ntc", unit(RGB.astype(float) + 1), text))
    np.testing.assert_allclose(annotator.predict_proba_per_template(X), expected, atol=1e-5)
    np.testing.assert_array_equal(annotator.classes_, ["cold", "warm"])


def test_integer_labels(vlm):
    annotator = VLMPartialAnnotator({7: "red", 3: "green", 5: "blue"}, vlm=vlm).fit(X)
    np.testing.assert_array_equal(annotator.classes_, [3, 5, 7])
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
    seen = known_in_folds(annotator, many, y, known, routing)
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

"""ConformalPartialAnnotator: its arithmetic, its guarantee, laziness, labels and refusals."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from fakes import ColourVLM, FeatureVLM, known_in_folds
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import ConformalPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.annotators._conformal import (
    aps_scores,
    conformal_quantile,
    conformal_rank,
    conformal_sets,
    lac_scores,
    min_calibration_size,
)
from sklearn_npll.baselines import PseudoLabelClassifier
from sklearn_npll.datasets import load_fashion_mnist

CLASSES = ["red", "green", "blue"]
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, size=(40, 4, 4, 3), dtype=np.uint8)
Y = np.array(CLASSES)[X.mean(axis=(1, 2)).argmax(axis=1)]
FEW = np.where(np.arange(40) < 20, Y.astype(object), -1)


class Scores(TransformerMixin, BaseEstimator):
    """An annotator that takes its probabilities for samples."""

    def __init__(self, classes=("a", "b", "c"), votes=False):
        self.classes = classes
        self.votes = votes

    def fit(self, X, y=None):
        assert y is None
        self.classes_ = np.array(self.classes)
        return self

    def transform(self, X):
        def plan(data):
            data = np.asarray(data)
            if self.votes:
                votes = np.where(data.any(axis=1), data.argmax(axis=1), -1)[:, None]
                return {"candidates": np.ones(data.shape, dtype=bool), "votes": votes}
            return {"candidates": np.ones(data.shape, dtype=bool), "scores": data}

        return PartialLabels(X, self.classes_, plan=plan)


@pytest.fixture
def vlm():
    return ColourVLM()


@pytest.fixture
def annotator(vlm):
    return ConformalPartialAnnotator(VLMPartialAnnotator(CLASSES, templates="simple", vlm=vlm))


def feature_annotator(**params):
    vlm = VLMPartialAnnotator({0: "cat", 1: "dog", 2: "fox", 3: "owl"}, vlm=FeatureVLM())
    return ConformalPartialAnnotator(vlm, coverage=0.5, **params)


@parametrize_with_checks(
    [feature_annotator(use_y=True), feature_annotator(use_y=True, method="aps")]
)
def test_common_checks(estimator, check):
    if check.func.__name__ in ("check_transformer_general", "check_transformer_data_not_an_array"):
        pytest.skip("fit_transform believes the labels, so it is not the same as transform")
    check(estimator)


# Arithmetic

PROBA = np.array([[0.625, 0.25, 0.125], [0.125, 0.375, 0.5], [0.25, 0.5, 0.25]])


def test_nonconformity_by_hand():
    np.testing.assert_allclose(lac_scores(PROBA), -np.log(PROBA))
    # of all before the class; of the equal last ones the first comes first
    before = np.array([[0, 0.625, 0.875], [0.875, 0.5, 0], [0.5, 0, 0.75]])
    np.testing.assert_allclose(aps_scores(PROBA), -np.log(1 - before), atol=1e-12)
    equal = np.array([[0.25, 0.25, 0.5, 0.0]])
    assert lac_scores(equal)[0, 3] == np.inf
    np.testing.assert_allclose(aps_scores(equal)[0, :3], -np.log([0.5, 0.25, 1]), atol=1e-12)
    assert aps_scores(equal)[0, 3] == np.inf
    assert lac_scores(PROBA.astype(np.float32)).dtype == np.float64
    np.testing.assert_array_equal(lac_scores(PROBA.astype(np.float32)), lac_scores(PROBA))


@pytest.mark.parametrize("coverage", [0.1, 0.5, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_rank_and_least_number(coverage):
    from fractions import Fraction

    exact = Fraction(str(coverage))
    for n in [*range(1, 200), 999, 1000]:
        assert conformal_rank(n, coverage) == -((-(n + 1) * exact) // 1)
    least = min_calibration_size(coverage)
    assert conformal_rank(least, coverage) <= least
    assert least == 1 or conformal_rank(least - 1, coverage) > least - 1


def test_quantile_by_hand():
    scores = [0.9, 0.1, 0.3, 0.7, 0.5]
    assert conformal_quantile(scores, 0.5) == 0.5  # rank ceil(6 * 0.5) = 3
    assert conformal_quantile(scores, 0.51) == 0.7
    assert conformal_quantile(scores, 5 / 6) == 0.9
    assert conformal_quantile(scores, 0.1) == 0.1


def test_sets_by_hand():
    lac = conformal_sets(lac_scores(PROBA), -np.log(0.375))
    np.testing.assert_array_equal(lac.astype(int), [[1, 0, 0], [0, 1, 1], [0, 1, 0]])
    aps = conformal_sets(aps_scores(PROBA), -np.log(1 - 0.625))
    np.testing.assert_array_equal(aps.astype(int), [[1, 1, 0], [0, 1, 1], [1, 1, 0]])
    empty = conformal_sets(lac_scores(PROBA), -np.log(0.9))  # the most probable class remains
    np.testing.assert_array_equal(empty.astype(int), [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    own = conformal_sets(lac_scores(PROBA), -np.log([0.2, 0.9, 0.1]))
    np.testing.assert_array_equal(own.astype(int), [[1, 0, 1], [0, 0, 1], [1, 0, 1]])


def test_estimator_by_hand():
    true = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    proba = np.array([[p, 0.95 - p, 0.05] for p in true] + [[0.35, 0.45, 0.2], [0.1, 0.1, 0.8]])
    y = ["a"] * 7 + [-1, -1]
    annotator = ConformalPartialAnnotator(Scores(), coverage=0.75)
    labels = annotator.fit(proba, known_labels=y).transform(proba)
    # rank ceil(8 * 0.75) = 6 of the probabilities from 0.9 on: the candidates have p >= 0.4
    np.testing.assert_allclose(np.exp(-annotator.quantiles_), [0.4, 0.4, 0.4], atol=1e-6)
    assert annotator.n_calibration_ == 7
    np.testing.assert_array_equal(labels.toarray()[4:].astype(int), [
        [1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1],
    ])  # fmt: skip
    np.testing.assert_allclose(labels.scores, proba, atol=1e-6)
    assert (labels.known, labels.votes) == (None, None)
    believed = annotator.fit_transform(proba, known_labels=y)
    np.testing.assert_array_equal(believed.known, np.arange(9) < 7)
    np.testing.assert_array_equal(believed[:7].toarray(), [[True, False, False]] * 7)
    np.testing.assert_array_equal(believed[7:], labels[7:])
    np.testing.assert_array_equal(annotator.predict(proba)[-3:], ["b", "b", "c"])
    assert annotator.score(proba, y) == 5 / 7


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_tiny_probabilities_are_told_apart(method):
    proba = np.array([[1, 1e-7, 1e-12, 1e-20]] * 9, dtype=np.float32)
    annotator = ConformalPartialAnnotator(Scores(classes=range(4)), method=method)
    sets = annotator.fit(proba, known_labels=[1] * 9).transform(proba).toarray()
    np.testing.assert_array_equal(sets.astype(int), [[1, 1, 0, 0]] * 9)


def test_a_threshold_for_each_class():
    proba = np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.1, 0.9, 0.0], [0.05, 0.9, 0.05],
                      [0.4, 0.3, 0.3], [0.3, 0.3, 0.4]])  # fmt: skip
    y = ["a", "a", "b", "b", "c", "c"]
    annotator = ConformalPartialAnnotator(Scores(), coverage=0.6, class_conditional=True)
    labels = annotator.fit(proba, known_labels=y).transform(proba)
    # rank ceil(3 * 0.6) = 2 of two: the larger score of each class
    np.testing.assert_allclose(np.exp(-annotator.quantiles_), [0.5, 0.9, 0.3], atol=1e-6)
    np.testing.assert_array_equal(labels.toarray().astype(int), [
        [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1],
    ])  # fmt: skip


def test_votes_serve_where_there_are_no_scores_and_abstaining_leaves_all_classes():
    proba = np.array([[0.9, 0.1, 0.0]] * 4 + [[0, 0, 0], [0.0, 1.0, 0.0]])
    annotator = ConformalPartialAnnotator(Scores(votes=True), coverage=0.5)
    labels = annotator.fit_transform(proba, known_labels=["a"] * 4 + [-1, -1])
    np.testing.assert_array_equal(labels.toarray()[3:].astype(int), [
        [1, 0, 0], [1, 1, 1], [0, 1, 0],
    ])  # fmt: skip
    np.testing.assert_allclose(labels.scores[4], 1 / 3, atol=1e-6)


# The guarantee, on real images and a real model


@pytest.fixture(scope="module")
def fashion():
    """Embeddings of 400 images of the model that comes with the package, and its annotator."""
    data = load_fashion_mnist("test")
    X, y = data.images[:400], data.target_names[data.target[:400]]
    vlm = VLMPartialAnnotator(data.class_prompts, templates="simple").fit(X)
    return vlm, vlm.embed(X), y


@pytest.mark.parametrize(
    "params",
    [
        {"refine": "zlap"},
        {"template_weights": "agreement"},
        {"aggregation": "dawid_skene"},
    ],
)
@pytest.mark.parametrize(
    "wrap", [lambda a: a, make_pipeline, lambda a: EnsemblePartialAnnotator([a])]
)
def test_a_transductive_annotator_is_asked_about_all_at_once(fashion, params, wrap):
    vlm, embeddings, y = fashion
    vlm = clone(vlm).set_params(templates=["a {}.", "{}", "the {}"], **params)
    known = np.where(np.arange(400) < 30, y, "-1")
    annotator = ConformalPartialAnnotator(wrap(vlm), coverage=0.8)
    quantile = annotator.fit(embeddings, known_labels=known).quantiles_[0]
    annotator.fit_transform(embeddings, known_labels=known)
    assert quantile == annotator.quantiles_[0]
    assert quantile != clone(annotator).fit(embeddings[:30], known_labels=known[:30]).quantiles_[0]


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_coverage_of_new_images(fashion, method, coverage):
    vlm, embeddings, y = fashion
    rng, n, n_splits = np.random.default_rng(0), 60, 80
    annotator = ConformalPartialAnnotator(vlm, coverage=coverage, method=method)
    rates, sizes = [], []
    for _ in range(n_splits):
        known = y.astype(object)
        known[rng.permutation(400)[n:]] = -1
        labels = annotator.fit_transform(embeddings, known_labels=known)
        assert labels.known.sum() == n
        new = labels[~labels.known]
        rates.append(new.coverage(y[~labels.known]))
        sizes.append(new.mean_set_size)
    # One split: Beta(k, n + 1 - k) for the threshold, then a binomial of the 340 others.
    k = conformal_rank(n, coverage)
    mean, variance = k / (n + 1), k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2))
    deviation = np.sqrt(variance + mean * (1 - mean) / 340)
    assert abs(np.mean(rates) - mean) < 4 * deviation / np.sqrt(n_splits) + 0.5 / 340
    assert np.mean(rates) > coverage - 4 * deviation / np.sqrt(n_splits)
    assert np.std(rates) < 1.5 * deviation
    assert np.mean(sizes) < 7


def test_coverage_within_classes(fashion):
    vlm, embeddings, y = fashion
    rng, rates = np.random.default_rng(0), {True: [], False: []}
    hard = "Shirt"
    for _ in range(25):
        known = y.astype(object)
        known[rng.permutation(400)[200:]] = -1
        for conditional in rates:
            annotator = ConformalPartialAnnotator(
                vlm, coverage=0.8, class_conditional=conditional
            ).fit(embeddings, known_labels=known)
            rows = (known == -1) & (y == hard)
            rates[conditional].append(annotator.transform(embeddings)[rows].coverage(y[rows]))
    assert np.mean(rates[True]) > 0.8 - 0.04
    assert np.mean(rates[False]) < 0.7


def test_sets_of_lac_are_smaller_than_those_of_the_cumulative_rule(fashion):
    vlm, embeddings, y = fashion
    lac = ConformalPartialAnnotator(vlm, coverage=0.9).fit(embeddings, known_labels=y)
    lac = lac.transform(embeddings)
    aps = ConformalPartialAnnotator(vlm, coverage=0.9, method="aps")
    aps = aps.fit(embeddings, known_labels=y)
    aps = aps.transform(embeddings)
    assert min(lac.coverage(y), aps.coverage(y)) >= 0.9
    assert lac.mean_set_size < aps.mean_set_size


# When it computes


@pytest.mark.parametrize(
    "samples",
    [list(X), torch.utils.data.TensorDataset(torch.tensor(X).permute(0, 3, 1, 2))],
    ids=["list", "dataset"],
)
def test_fit_asks_about_labelled_samples_of_any_kind(annotator, vlm, samples):
    expected = clone(annotator).fit(X, known_labels=FEW).quantiles_
    annotator.set_params(annotator__output="embeddings").fit(samples, known_labels=FEW)
    assert vlm.n_images == 40
    np.testing.assert_array_equal(annotator.quantiles_, expected)


def test_fit_asks_about_labelled_samples_only(annotator, vlm):
    annotator.fit(X, known_labels=FEW)
    assert vlm.n_images == 20
    later = annotator.transform(X)
    assert later.data is X
    assert vlm.n_images == 20
    now = clone(annotator).fit_transform(X, known_labels=FEW)
    assert vlm.n_images == 60
    np.testing.assert_array_equal(later, now)
    np.testing.assert_array_equal(later.votes, now.votes)
    part = annotator.transform(X)[[30, 2]]
    np.testing.assert_array_equal(part, now.toarray()[[30, 2]])
    assert vlm.n_images == 102


def test_a_lazy_container_is_settled_when_made(annotator):
    expected = annotator.fit_transform(X, known_labels=FEW)
    lazy = annotator.transform(X)
    annotator.annotator_.set_params(templates="{}")
    annotator.set_params(coverage=0.5, method="aps", annotator__templates="{}").fit(
        X[:20], known_labels=Y[:20]
    )
    np.testing.assert_array_equal(lazy, expected)
    np.testing.assert_array_equal(lazy.scores, expected.scores)


def test_data_is_the_samples_as_given(annotator):
    images = list(X)
    assert annotator.fit_transform(images, known_labels=FEW).data is images
    assert annotator.transform(images).data is images


# What y means


@pytest.mark.parametrize("wrap", [lambda a: a, make_pipeline], ids=["alone", "pipeline"])
def test_the_embeddings_of_the_annotator_are_passed_on(wrap, vlm):
    def make(output):
        inner = VLMPartialAnnotator(CLASSES, templates="simple", vlm=vlm, output=output)
        return ConformalPartialAnnotator(wrap(inner), coverage=0.8).fit(X, known_labels=FEW)

    annotator, expected = make("embeddings"), make("images").transform(X)
    embeddings = VLMPartialAnnotator(CLASSES, templates="simple", vlm=vlm).fit(X).embed(X)
    for labels in (annotator.transform(X), annotator.fit_transform(X, known_labels=FEW)):
        np.testing.assert_array_equal(labels.data, embeddings)
        np.testing.assert_array_equal(labels.scores, expected.scores)
    np.testing.assert_array_equal(annotator.transform(X).candidates, expected.candidates)
    part = annotator.transform(X)[3:5]
    assert not part.is_materialized
    np.testing.assert_array_equal(part.candidates, expected.candidates[3:5])


def test_labels_are_believed_from_wherever_they_come(annotator):
    free = annotator.fit(X, known_labels=FEW).transform(X)
    by_known = annotator.fit_transform(X, Y[::-1], known_labels=FEW)
    by_y = clone(annotator).set_params(use_y=True).fit_transform(X, FEW)
    expected = free.toarray().copy()
    expected[:20] = np.equal.outer(Y[:20], free.classes)
    for labels in (by_known, by_y):
        np.testing.assert_array_equal(labels.known, np.arange(40) < 20)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(labels.scores, free.scores)


@pytest.mark.parametrize("y", [Y, FEW, None])
def test_y_is_not_used_silently(annotator, vlm, y):
    for fit in (annotator.fit, annotator.fit_transform):
        with pytest.raises(ValueError, match="pass known_labels, with -1 .*, or set use_y=True"):
            fit(X, y)
    assert vlm.n_images == 0


def test_the_inner_annotator_sees_no_labels():
    proba = np.tile(PROBA, (4, 1))
    y = ["a", "c", "b"] * 4
    labels = ConformalPartialAnnotator(Scores(), use_y=True).fit_transform(proba, y)
    assert labels.known.all()  # and Scores.fit has seen that y is None


@pytest.mark.parametrize("routing", [False, True])
def test_known_labels_are_sliced_by_cross_validation(annotator, routing):
    known = np.where(np.arange(40) % 2, Y.astype(object), -1)
    seen = known_in_folds(annotator, X, Y, known, routing)
    assert seen == [(20, 40), (10, 20), (10, 20)]


# Parameters


def test_search_clone_and_pickle(annotator, vlm):
    pipe = make_pipeline(feature_annotator(use_y=True), PseudoLabelClassifier(LogisticRegression()))
    rows = np.random.default_rng(0).normal(size=(60, 4))
    y = feature_annotator().fit(rows, known_labels=np.arange(60) % 3).predict(rows)
    grid = {
        "conformalpartialannotator__coverage": [0.5, 0.8],
        "conformalpartialannotator__method": ["lac", "aps"],
        "conformalpartialannotator__annotator__templates": ["simple", "coreg-27"],
    }
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(rows, y)
    assert search.best_score_ > 0.6
    annotator.fit(X, known_labels=FEW)
    copy = clone(annotator)
    assert copy.annotator.vlm is vlm
    with pytest.raises(NotFittedError):
        copy.predict(X)
    loaded = pickle.loads(pickle.dumps(annotator))
    np.testing.assert_array_equal(loaded.transform(X), annotator.transform(X))
    container = pickle.loads(pickle.dumps(annotator.transform(X)))
    assert container.is_materialized


def test_over_an_ensemble_and_in_one(annotator, vlm):
    pale = VLMPartialAnnotator(CLASSES[::-1], templates="a pale {}.", vlm=vlm)
    members = [("clear", annotator.annotator), ("pale", pale)]
    over = ConformalPartialAnnotator(EnsemblePartialAnnotator(members), coverage=0.8)
    labels = over.fit_transform(X, known_labels=FEW)
    assert labels.votes.shape == (40, 2)
    assert labels[20:].coverage(Y[20:]) > 0.6
    inside = EnsemblePartialAnnotator([("conformal", annotator), ("pale", pale)])
    np.testing.assert_array_equal(
        inside.fit_transform(X, known_labels=FEW).known, np.arange(40) < 20
    )
    message = "annotator 'conformal' .* pass known_labels, .* or set use_y=True on the ensemble"
    for unlabelled in (inside, EnsemblePartialAnnotator([("pale", pale), ("conformal", inside)])):
        with pytest.raises(ValueError, match=message):
            unlabelled.fit(X, Y)
    assert inside.set_params(use_y=True).fit_transform(X, Y).known.all()
    for needy in (annotator, inside.set_params(pale="drop")):
        with pytest.raises(ValueError, match="needs labels itself, .* wrap it in FrozenEstimator"):
            ConformalPartialAnnotator(needy).fit(X, known_labels=Y)


def test_a_frozen_conformal_member_needs_no_labels(annotator):
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator
    member = frozen(annotator.fit(X, known_labels=FEW))
    labels = EnsemblePartialAnnotator([member]).fit_transform(X)
    np.testing.assert_array_equal(labels, annotator.transform(X))


def test_frozen_annotator(annotator):
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator
    fitted = annotator.annotator.fit(X)
    conformal = ConformalPartialAnnotator(frozen(fitted))
    expected = annotator.fit_transform(X, known_labels=FEW)
    np.testing.assert_array_equal(conformal.fit_transform(X, known_labels=FEW), expected)
    np.testing.assert_array_equal(conformal.transform(X), expected)


def test_the_annotator_sees_the_columns_by_name():
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator
    rows, known = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 4
    frame = pd.DataFrame(rows, columns=list("abcd"))
    conformal = feature_annotator()
    conformal.set_params(annotator=frozen(conformal.annotator.fit(frame)))
    labels = conformal.fit(frame, known_labels=known).transform(frame)
    np.testing.assert_array_equal(
        labels, feature_annotator().fit(rows, known_labels=known).transform(rows)
    )
    with pytest.raises(ValueError, match="feature names should match"):
        conformal.fit(frame[list("dcba")], known_labels=known)


def test_many_classes_are_sparse(vlm):
    names = {i: f"number {i}, {'red' if i % 2 else 'blue'}" for i in range(70)}
    inner = VLMPartialAnnotator(names, templates="simple", vlm=vlm)
    annotator = ConformalPartialAnnotator(inner, coverage=0.6)
    known = np.where(np.arange(40) < 8, np.arange(40), -1)
    labels = annotator.fit_transform(X, known_labels=known)
    assert sklearn.utils.validation.sp.issparse(labels.candidates)
    assert labels.tocsr()[:8].indices.tolist() == list(range(8))


# Refusals


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({}, None, r"\(use_y=True\) requires y to be passed, .* as y or known_labels"),
        ({}, np.where(np.arange(40) < 8, Y, "-1"), "coverage=0.9 needs at least 9 labelled samples"
         "; got 8. Label more samples, or lower the coverage"),
        ({"coverage": 0.99}, Y, "at least 99 labelled samples; got 40"),
        ({"class_conditional": True}, np.where(Y == "red", "-1", Y), r"at least 9 labelled samples"
         r" of each class, but there are fewer of 'red' \(0\)"),
        ({}, np.full(40, -1), "at least 9 labelled samples; got 0"),
        ({}, np.where(np.arange(40) == 3, "gren", Y), r"y\[3\] is 'gren', .* Did you mean 'green'"),
        ({}, Y[:5], "y has shape"),
        ({"coverage": 1.0}, Y, "'coverage' parameter"),
        ({"coverage": 90}, Y, "'coverage' parameter"),
        ({"method": "raps"}, Y, "'method' parameter .* must be a str among"),
        ({"annotator": "vlm"}, Y, "'annotator' parameter"),
    ],
)  # fmt: skip
def test_wrong_parameters(annotator, vlm, params, y, message):
    with pytest.raises(ValueError, match=message):
        annotator.set_params(use_y=True, **params).fit_transform(X, y)
    assert not hasattr(annotator, "classes_")
    assert vlm.n_images == 0


def test_no_annotator():
    with pytest.raises(TypeError, match="has no classes_ after fit"):
        ConformalPartialAnnotator(sklearn.preprocessing.StandardScaler()).fit(
            PROBA, known_labels=[0, 1, 0]
        )
    logits = np.tile([[-3.0, 2.0, 0.5]], (12, 1))
    with pytest.raises(ValueError, match="scores must be probabilities"):
        ConformalPartialAnnotator(Scores()).fit(logits, known_labels=["a"] * 12)
    with pytest.raises(NotFittedError):
        ConformalPartialAnnotator(Scores()).transform(PROBA)

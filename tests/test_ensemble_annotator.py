"""EnsemblePartialAnnotator: its arithmetic and laziness, and what it makes of real images."""

import warnings

import ensemble_members
import numpy as np
import pandas as pd
import pytest
import sklearn
from ensemble_members import CLASSES, FIRST, Table, X, Y, feature_member, numbered
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll._rules import candidates_from_scores
from sklearn_npll.annotators import ConformalPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.annotators._agreement import (
    agreement_weights,
    one_coin_accuracies,
    one_coin_posterior,
    vote_weights,
)
from sklearn_npll.annotators._ensemble import answer_weights
from sklearn_npll.datasets import load_fashion_mnist

# Fixtures, which pytest finds by their names here.
vlms = ensemble_members.vlms
ensemble = ensemble_members.ensemble


# scikit-learn's checks


@parametrize_with_checks(
    [
        EnsemblePartialAnnotator([feature_member(), feature_member(templates="simple")]),
        EnsemblePartialAnnotator(
            [("a", feature_member(output="embeddings")), ("b", feature_member())],
            weights="agreement",
            rule="cumulative",
        ),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


# Weights by agreement


def test_vote_weights_by_hand():
    # log((3 - 1) * .8 / .2) = log 8; an accuracy of 1/3 is chance
    np.testing.assert_allclose(vote_weights([0.8, 1 / 3, 0.1], 3), [np.log(8), 0, 0], atol=1e-12)


def test_one_coin_posterior_is_bayes_rule():
    accuracy, n_classes = np.array([0.8, 0.6, 0.5]), 3
    votes = np.array([[0, 1, 1], [2, -1, 0]])
    posterior = one_coin_posterior(votes, vote_weights(accuracy, n_classes), n_classes)
    expected = np.ones((2, 3))
    for row, row_votes in enumerate(votes):
        for vote, a in zip(row_votes, accuracy):
            if vote >= 0:
                expected[row] *= np.where(np.arange(3) == vote, a, (1 - a) / 2)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posterior, expected, rtol=1e-12)


def test_one_step_of_one_coin_by_hand():
    votes = np.array([[0, 0, 1], [1, 1, 1], [0, 1, -1]])
    # vote shares of row 0: 2/3 and 1/3; of row 1: 0 and 1; of row 2: 1/2 and 1/2
    right = [2 / 3 + 1 + 1 / 2, 2 / 3 + 1 + 1 / 2, 1 / 3 + 1]
    expected = [(right[0] + 1) / 5, (right[1] + 1) / 5, (right[2] + 1) / 4]
    np.testing.assert_allclose(one_coin_accuracies(votes, 2, max_iter=1), expected)


def test_accuracies_of_planted_voters_are_found():
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=3000)
    accuracy = np.array([0.9, 0.75, 0.6, 0.4])
    wrong = (truth[:, None] + rng.integers(1, 4, size=(3000, 4))) % 4
    votes = np.where(rng.random((3000, 4)) < accuracy, truth[:, None], wrong)
    np.testing.assert_allclose(one_coin_accuracies(votes, 4), accuracy, atol=0.03)
    weights = agreement_weights(votes, 4)
    expected = np.log(3 * accuracy / (1 - accuracy))
    np.testing.assert_allclose(weights, expected / expected.sum(), atol=0.02)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(agreement_weights(votes[:, order], 4), weights[order], atol=1e-4)


def test_weights_where_agreement_says_nothing():
    two = np.array([[0, 0], [0, 1], [2, 2]])
    np.testing.assert_allclose(agreement_weights(two, 3), [0.5, 0.5])
    opposed = np.array([[0, 1], [1, 0]])
    np.testing.assert_allclose(agreement_weights(opposed, 2), [0.5, 0.5])
    silent = np.full((3, 2), -1)
    np.testing.assert_allclose(agreement_weights(silent, 2), [0.5, 0.5])


def test_agreement_finds_the_bad_member():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=60)
    good, fair, bad = (
        np.eye(3)[np.where(rng.random(60) < right, truth, rng.integers(3, size=60))]
        for right in (0.95, 0.85, 0.0)
    )
    timid = 0.02 * good + 0.98 / 3  # the same choices as a good one, with little confidence
    members = [("good", Table(good)), ("timid", Table(timid)), ("fair", Table(fair))]
    annotator = EnsemblePartialAnnotator([*members, ("bad", Table(bad))], weights="agreement")
    annotator.fit(numbered(60))
    good, timid, fair, bad = annotator.weights_
    assert good == timid
    assert good > fair > 3 * bad
    assert annotator.weights_.sum() == pytest.approx(1)
    first = annotator.weights_.copy()
    np.testing.assert_array_equal(annotator.fit(numbered(60)).weights_, first)


# What it computes

SECOND = [[0.1, 0.2, 0.7], [0.3, 0.6, 0.1]]  # of c, a, b


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, [[0.35, 0.5, 0.15], [0.35, 0.45, 0.2]]),
        ([3, 1], [[0.425, 0.4, 0.175], [0.225, 0.625, 0.15]]),
        ([1, 0], FIRST),
    ],
)
def test_scores_are_the_weighted_mean_by_class_name(weights, expected):
    second = Table(SECOND, classes=("c", "a", "b"))
    annotator = EnsemblePartialAnnotator([Table(FIRST), second], weights=weights)
    labels = annotator.fit_transform(numbered(2))
    np.testing.assert_allclose(labels.scores, expected, atol=1e-6)
    np.testing.assert_allclose(annotator.predict_proba(numbered(2)), expected, atol=1e-6)
    assert labels.scores.dtype == np.float32
    np.testing.assert_array_equal(labels.classes, ["a", "b", "c"])
    np.testing.assert_array_equal(
        annotator.predict(numbered(2)), labels.classes[labels.scores.argmax(1)]
    )


def test_union_and_votes_by_class_name():
    first = Table(FIRST, votes=[[0, 1], [1, -1]], candidates=[[1, 1, 0], [0, 1, 0]])
    second = Table(SECOND, candidates=[[0, 0, 1], [1, 1, 0]], classes=("c", "a", "b"))
    labels = EnsemblePartialAnnotator([first, second]).fit_transform(numbered(2))
    np.testing.assert_array_equal(labels.toarray().astype(int), [[1, 1, 0], [1, 1, 1]])
    # the second has no votes, so it gives one for its most probable class: b, then a
    np.testing.assert_array_equal(labels.votes, [[0, 1, 1], [1, -1, 0]])
    third = Table(
        votes=[[2, 2, 0], [-1, 0, 1]], candidates=np.ones((2, 3)), classes=("c", "a", "b")
    )
    labels = EnsemblePartialAnnotator([first, third]).fit_transform(numbered(2))
    np.testing.assert_array_equal(labels.votes, [[0, 1, 1, 1, 2], [1, -1, -1, 2, 0]])
    shares = [[0, 2 / 3, 1 / 3], [1 / 2, 0, 1 / 2]]  # of a, b, c
    np.testing.assert_allclose(labels.scores, (np.array(FIRST) + shares) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("topk", 2, [[1, 1, 0], [1, 1, 0]]),
        ("threshold", 0.2, [[1, 1, 0], [1, 1, 1]]),
        ("ratio", 0.75, [[0, 1, 0], [1, 1, 0]]),
        ("cumulative", None, [[1, 1, 1], [1, 1, 1]]),
        # scores [.35, .5, .15] and [.35, .45, .2]: sets {b} and {b, a} reach a sum of .4505, and of
        # these stay what is not below the mean of its column, .35, .475 and .175
        ("cpl", (0.01, 0.5), [[0, 1, 0], [1, 0, 0]]),
    ],
)
def test_rules_on_the_combined_scores(rule, value, expected):
    second = Table(SECOND, classes=("c", "a", "b"))
    annotator = EnsemblePartialAnnotator([Table(FIRST), second], rule=rule, rule_value=value)
    labels = annotator.fit_transform(numbered(2))
    np.testing.assert_array_equal(labels.toarray().astype(int), expected)


@pytest.mark.parametrize("rule", ["union", "topk"])
def test_images_that_nobody_can_read_keep_all_classes(vlms, rule, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    members = [VLMPartialAnnotator(CLASSES, vlm=vlm, on_error="skip") for vlm in vlms]
    value = 1 if rule == "topk" else None
    annotator = EnsemblePartialAnnotator(members, rule=rule, rule_value=value)
    with pytest.warns(UserWarning, match="cannot be read"):
        labels = annotator.fit_transform([X[0], broken])
    np.testing.assert_array_equal(labels.toarray().astype(int), [[0, 0, 1], [1, 1, 1]])


def test_who_abstains_about_a_sample_has_no_say_in_it():
    shares = answer_weights(np.array([[True, False, True], [False] * 3]), np.array([2, 1, 1]))
    np.testing.assert_allclose(shares, [[2 / 3, 0, 1 / 3], [1 / 2, 1 / 4, 1 / 4]])
    first = Table(FIRST + [[1 / 3] * 3], votes=[[1], [1], [-1]], candidates=[[1, 1, 0], [0, 1, 0],
                  [1, 1, 1]])  # fmt: skip
    silent = Table(votes=[[-1, -1], [0, -1], [-1, -1]], candidates=np.array([[1, 1, 1], [1, 0, 0],
                   [1, 1, 1]]))  # fmt: skip
    annotator = EnsemblePartialAnnotator([first, silent], weights=[3, 1])
    labels = annotator.fit_transform(numbered(3))
    np.testing.assert_array_equal(labels.toarray().astype(int), [[1, 1, 0], [1, 1, 0], [1, 1, 1]])
    expected = [FIRST[0], [0.325, 0.6, 0.075], [1 / 3] * 3]
    np.testing.assert_allclose(labels.scores, expected, atol=1e-6)
    # the quantiles of "cpl" are those of the samples somebody answered about
    labels = annotator.set_params(rule="cpl").fit_transform(numbered(3))
    cpl = candidates_from_scores(np.array(expected[:2], np.float32), "cpl")
    np.testing.assert_array_equal(labels.toarray(), [*cpl, [True] * 3])
    nobody = clone(annotator).fit(numbered(3)).transform(numbered(3)[[2, 2]])
    assert nobody.toarray().all()


@pytest.mark.parametrize("n_classes", [3, 70])
def test_who_abstains_has_no_say_also_with_many_classes(n_classes):
    eye, every, classes = np.eye(n_classes), np.ones(n_classes), np.arange(n_classes)
    first = Table(votes=[[0], [-1], [-1]], candidates=[eye[0], every, every], classes=classes)
    second = Table(votes=[[1], [1], [-1]], candidates=[eye[1], eye[1], every], classes=classes)
    labels = EnsemblePartialAnnotator([first, second]).fit_transform(numbered(3))
    assert labels.set_sizes.tolist() == [2, 1, n_classes]
    assert labels.toarray()[1, 1]


def test_many_classes_are_sparse(vlms):
    names = {i: f"number {i}, {'red' if i % 2 else 'blue'}" for i in range(70)}
    turned = dict(reversed(names.items()))
    members = [
        VLMPartialAnnotator(own, templates="simple", vlm=vlm)
        for own, vlm in zip((names, turned), vlms)
    ]
    annotator = EnsemblePartialAnnotator(members)
    labels = annotator.fit_transform(X, known_labels=[-1, 69, -1, -1, 2])
    assert sklearn.utils.validation.sp.issparse(labels.candidates)
    dense = labels.toarray()
    assert np.flatnonzero(dense[0]).tolist() == [1]  # the first red one
    assert np.flatnonzero(dense[1]).tolist() == [69]
    assert np.flatnonzero(dense[4]).tolist() == [2]
    assert np.flatnonzero(annotator.transform(X).toarray()[2]).tolist() == [0]


# When it computes


def test_nobody_is_asked_before_the_candidates_are_used(ensemble, vlms):
    ensemble.fit(X)
    later = ensemble.transform(X)
    assert later.data is X
    assert not later.is_materialized
    assert [vlm.n_images for vlm in vlms] == [0, 0]
    now = clone(ensemble).fit_transform(X)
    assert now.data is X
    assert [vlm.n_images for vlm in vlms] == [5, 5]
    np.testing.assert_array_equal(later, now)
    np.testing.assert_array_equal(later.scores, now.scores)
    np.testing.assert_array_equal(later.votes, now.votes)
    assert [vlm.n_images for vlm in vlms] == [10, 10]
    part = ensemble.transform(X)[[3, 1]]
    np.testing.assert_array_equal(part.scores, now.scores[[3, 1]])
    assert [vlm.n_images for vlm in vlms] == [12, 12]


def test_each_member_is_asked_once_also_for_its_weight(ensemble, vlms):
    ensemble.set_params(weights="agreement").fit_transform(X)
    assert [vlm.n_images for vlm in vlms] == [5, 5]


def test_a_member_without_weight_is_not_asked(ensemble, vlms):
    ensemble.set_params(weights=[0, 2], clear__output="embeddings")
    labels = ensemble.fit_transform(X)
    ensemble.predict(X)
    assert [vlm.n_images for vlm in vlms] == [0, 10]
    assert labels.votes.shape == (5, 2)


def test_predicting_with_a_pipeline_asks_nobody(ensemble, vlms):
    class Brightest(ClassifierMixin, BaseEstimator):
        def fit(self, X, y=None):
            self.candidates_, self.classes_ = np.asarray(X), X.classes
            return self

        def predict(self, X):
            colours = np.array(["red", "green", "blue"])
            return colours[np.asarray(X.data).mean(axis=(1, 2)).argmax(axis=1)]

    pipe = make_pipeline(ensemble, Brightest()).fit(X, Y)
    assert [vlm.n_images for vlm in vlms] == [5, 5]
    assert pipe.score(X, Y) == 1
    assert [vlm.n_images for vlm in vlms] == [5, 5]


def test_a_lazy_container_is_settled_when_made(ensemble):
    expected = ensemble.fit_transform(X)
    lazy = ensemble.transform(X)
    ensemble.named_annotators_["pale"].set_params(rule="topk", rule_value=3)
    ensemble.set_params(rule="topk", rule_value=1, weights=[0, 1], clear__templates="{}").fit(X[:2])
    np.testing.assert_array_equal(lazy, expected)
    np.testing.assert_array_equal(lazy.scores, expected.scores)


@pytest.mark.parametrize("wrap", [lambda a: a, make_pipeline, lambda a: [("inner", a)]])
def test_a_container_is_settled_whatever_becomes_of_a_frozen_annotator(vlms, wrap):
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator
    fitted = VLMPartialAnnotator(CLASSES, templates=["a {}."], vlm=vlms[0]).fit(X)
    member = wrap(frozen(fitted))
    member = EnsemblePartialAnnotator(member) if isinstance(member, list) else member
    for annotator in (
        EnsemblePartialAnnotator([member]).fit(X),
        ConformalPartialAnnotator(member, coverage=0.5).fit(X, known_labels=Y),
    ):
        expected, lazy = annotator.predict_proba(X), annotator.transform(X)
        fitted.set_params(templates=["a pale {}."], classes=CLASSES[::-1]).fit(X)
        np.testing.assert_array_equal(lazy[[3, 0]].scores, expected[[3, 0]])
        np.testing.assert_array_equal(lazy.scores, expected)
        fitted.set_params(templates=["a {}."], classes=CLASSES).fit(X)


def test_data_is_the_samples_as_given(ensemble):
    ensemble.set_params(pale__output="embeddings")
    images = list(X)
    assert ensemble.fit_transform(images).data is images
    assert ensemble.transform(images).data is images


def test_data_frames_and_their_names():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 4)), columns=list("abcd"))
    annotator = EnsemblePartialAnnotator([feature_member(), feature_member(templates="{}")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        now = annotator.fit_transform(frame)
        np.testing.assert_array_equal(annotator.transform(frame), now)
    assert annotator.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names should match"):
        annotator.transform(frame[["a", "b", "c"]])
    annotator.fit(frame.to_numpy())
    with pytest.raises(ValueError, match="X has 3 features, but EnsemblePartialAnnotator"):
        annotator.transform(frame.to_numpy()[:, :3])


def test_members_see_the_columns_by_name():
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 4)), columns=list("abcd"))
    annotator = EnsemblePartialAnnotator([frozen(feature_member().fit(frame))])
    labels = annotator.fit_transform(frame)
    assert labels.data is frame
    np.testing.assert_array_equal(labels, feature_member().fit_transform(frame))
    np.testing.assert_array_equal(annotator.transform(frame)[[4, 1]], labels.toarray()[[4, 1]])
    with pytest.raises(ValueError, match="feature names should match"):
        clone(annotator).fit_transform(frame[list("dcba")])


def test_what_is_wrong_is_found_before_anybody_is_asked(ensemble, vlms):
    wrong = [
        {"pale__classes": ["red", "green", "dark blue"]},
        {"use_y": True},
        {"rule": "topk", "rule_value": 9},
    ]
    for params in wrong:
        params["weights"] = "agreement"
        with pytest.raises(ValueError):
            clone(ensemble).set_params(**params).fit_transform(X, ["rot"] * 5)
    assert [vlm.n_images for vlm in vlms] == [0, 0]


# Real images and a real model


@pytest.fixture(scope="module")
def fashion():
    data = load_fashion_mnist("test")
    X, y = data.images[:300], data.target_names[data.target[:300]]
    return data.class_prompts, X, y


def test_on_fashion_mnist(fashion):
    class_prompts, X, y = fashion
    names = list(class_prompts)
    # each class under the name of another
    scrambled = dict(zip(names, np.roll(list(class_prompts.values()), 1, axis=0)))
    members = {
        "simple": VLMPartialAnnotator(class_prompts, templates="simple"),
        "short": VLMPartialAnnotator(dict(reversed(class_prompts.items())), templates="{}"),
        "general": VLMPartialAnnotator(class_prompts),
        "wrong": VLMPartialAnnotator(scrambled, templates="a {}."),
    }
    embeddings = members["simple"].fit(X).embed(X)
    alone = {name: clone(a).fit(embeddings) for name, a in members.items()}
    coverage = {name: a.transform(embeddings).coverage(y) for name, a in alone.items()}
    good = [(name, members[name]) for name in ("simple", "short", "general")]
    labels = EnsemblePartialAnnotator(good).fit_transform(embeddings)
    assert labels.votes.shape == (300, 29)
    assert labels.coverage(y) >= max(coverage[name] for name, _ in good)
    mean = sum(alone[name].predict_proba(embeddings) for name, _ in good)
    np.testing.assert_allclose(labels.scores, mean / 3, atol=1e-5)
    everyone = EnsemblePartialAnnotator(list(members.items()))
    equal = everyone.fit_transform(embeddings)
    everyone.set_params(weights="agreement").fit(embeddings)
    assert everyone.weights_[3] == 0
    assert everyone.weights_[:3].min() > 0.2
    assert everyone.score(embeddings, y) > 0.6
    agreed = everyone.transform(embeddings)
    assert agreed.mean_set_size < equal.mean_set_size - 0.5
    assert agreed.coverage(y) > equal.coverage(y) - 0.04

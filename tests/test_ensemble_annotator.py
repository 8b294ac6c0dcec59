"""EnsemblePartialAnnotator: its arithmetic, laziness, labels, parameters and refusals."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from fakes import ColourVLM, FeatureVLM
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll._rules import candidates_from_scores
from sklearn_npll.annotators import (
    ChatPartialAnnotator,
    ConformalPartialAnnotator,
    EnsemblePartialAnnotator,
)
from sklearn_npll.annotators._agreement import (
    agreement_weights,
    one_coin_accuracies,
    one_coin_posterior,
    vote_weights,
)
from sklearn_npll.annotators._ensemble import answer_weights, name_annotators
from sklearn_npll.baselines import PseudoLabelClassifier
from sklearn_npll.datasets import load_fashion_mnist

CLASSES = ["red", "green", "blue"]
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 190, 0], [120, 0, 130]], np.uint8)
X = np.tile(RGB[:, None, None, :], (1, 4, 4, 1))
Y = np.array(["red", "green", "blue", "red", "blue"])


class Table(TransformerMixin, BaseEstimator):
    """Knows what to say of image i, whose pixels are i, and counts the rows it is asked about."""

    def __init__(self, scores=None, votes=None, candidates=None, classes=("a", "b", "c"), log=None):
        self.scores = scores
        self.votes = votes
        self.candidates = candidates
        self.classes = classes
        self.log = log

    def __sklearn_clone__(self):
        return type(self)(**self.get_params())  # clones write to the same log

    def fit(self, X, y=None, known_labels=None):
        self.classes_ = np.array(self.classes)
        self.known_labels_ = known_labels
        return self

    def transform(self, X):
        def plan(data):
            rows = np.asarray(data).reshape(len(data), -1)[:, 0].astype(int)
            if self.log is not None:
                self.log.append(len(rows))
            parts = {"scores": self.scores, "votes": self.votes}
            parts = {k: None if v is None else np.asarray(v)[rows] for k, v in parts.items()}
            if self.candidates is not None:
                return {"candidates": np.asarray(self.candidates)[rows], **parts}
            best = np.eye(len(self.classes), dtype=bool)[np.asarray(parts["scores"]).argmax(axis=1)]
            return {"candidates": best, **parts}

        return PartialLabels(X, self.classes, plan=plan)


def numbered(n):
    return np.arange(n, dtype=np.uint8).reshape(n, 1, 1)


@pytest.fixture
def vlms():
    return ColourVLM(), ColourVLM()


@pytest.fixture
def ensemble(vlms):
    clear = VLMPartialAnnotator(CLASSES, templates="a {} thing.", vlm=vlms[0])
    pale = VLMPartialAnnotator(CLASSES[::-1], templates=["{}", "a pale {}."], vlm=vlms[1])
    return EnsemblePartialAnnotator([("clear", clear), ("pale", pale)])


# scikit-learn's checks


def feature_member(**params):
    return VLMPartialAnnotator({0: "cat", 1: "dog", 2: "fox"}, vlm=FeatureVLM(), **params)


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

FIRST = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]
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


# What y means


@pytest.mark.parametrize("y", [Y, Y[::-1], None])
def test_y_is_ignored(ensemble, y):
    expected = ensemble.fit_transform(X).candidates
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = ensemble.fit_transform(X, y)
    np.testing.assert_array_equal(labels, expected)
    assert labels.known is None


def test_few_labels_are_not_ignored_silently(ensemble):
    for y in (["red", -1, -1, -1, -1], [-1, 1, 2, -1, 0]):
        with pytest.warns(UserWarning, match="y contains -1.*set use_y=True") as caught:
            ensemble.fit(X, y)
        assert caught[0].filename == __file__


def test_trusted_labels(ensemble):
    free = ensemble.fit_transform(X)
    known = ["green", -1, "blue", -1, -1]
    expected = free.toarray().copy()
    expected[[0, 2]] = [[False, True, False], [True, False, False]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_y = ensemble.set_params(use_y=True).fit_transform(X, known)
        by_known = ensemble.fit_transform(X, Y[::-1], known_labels=known)
    for labels in (by_y, by_known):
        np.testing.assert_array_equal(labels, expected)
        assert labels.known.tolist() == [True, False, True, False, False]
        np.testing.assert_array_equal(labels.scores, free.scores)
    np.testing.assert_array_equal(ensemble.transform(X), free)
    with pytest.raises(ValueError, match=r"known_labels\[1\] is 'gren', .* Did you mean 'green'"):
        ensemble.fit(X, ["red", "gren", "red", "red", "red"])
    with pytest.raises(ValueError, match=r"known_labels\[1\] is 'gren'"):
        ensemble.fit(X, Y, known_labels=["red", "gren", "red", "red", "red"])
    with pytest.raises(ValueError, match="known_labels has shape"):
        ensemble.fit(X, known_labels=["green"])


def test_trusted_labels_reach_the_members_that_take_them():
    class NoKnown(Table):
        def fit(self, X, y=None):
            return super().fit(X)

    annotator = EnsemblePartialAnnotator([Table(FIRST), NoKnown(FIRST)])
    annotator.fit(numbered(2), ["a", "b"])
    assert annotator.annotators_[0].known_labels_ is None
    annotator.fit(numbered(2), known_labels=["a", -1])
    assert annotator.annotators_[0].known_labels_ == ["a", -1]


@pytest.mark.parametrize("routing", [False, True])
def test_known_labels_are_sliced_by_cross_validation(ensemble, routing):
    many, y = np.tile(X, (4, 1, 1, 1)), np.tile(Y, 4)
    known = np.where(np.arange(20) < 10, y.astype(object), -1)
    seen = []

    class Recorder(ClassifierMixin, BaseEstimator):
        def fit(self, X, y=None):
            seen.append((X.known.sum(), len(X)))
            self.classes_ = X.classes
            return self

        def predict(self, X):
            return np.full(len(X), "red")

    with sklearn.config_context(enable_metadata_routing=routing):
        name = "known_labels" if routing else "ensemblepartialannotator__known_labels"
        if routing:
            ensemble.set_fit_request(known_labels=True)
        pipe = make_pipeline(clone(ensemble), Recorder())
        pipe.fit(many, y, **{name: known})
        cross_validate(pipe, many, y, cv=KFold(2), params={name: known})
    assert seen == [(10, 20), (0, 10), (10, 10)]


def test_score(ensemble):
    ensemble.fit(X)
    assert ensemble.score(X, Y) == 1
    assert ensemble.score(X, ["red", "red", -1, -1, -1]) == 0.5
    assert ensemble.score(list(X), ["red", "red", -1, -1, -1]) == 0.5
    with pytest.warns(UndefinedMetricWarning, match="No sample in y is labelled"):
        assert np.isnan(ensemble.score(X, [-1] * 5))


# Parameters


def test_nested_parameters(ensemble):
    params = ensemble.get_params()
    assert params["clear__templates"] == "a {} thing."
    assert params["pale"] is ensemble.annotators[1][1]
    assert set(ensemble.get_params(deep=False)) == {
        "annotators", "rule", "rule_value", "use_y", "weights",
    }  # fmt: skip
    ensemble.set_params(clear__rule="topk", pale="drop", rule="ratio")
    assert ensemble.annotators[0][1].rule == "topk"
    assert ensemble.annotators[1] == ("pale", "drop")
    with pytest.raises(ValueError, match="Invalid parameter 'nobody'"):
        ensemble.set_params(nobody__rule="topk")
    other = ColourVLM()
    new = [("x", VLMPartialAnnotator(CLASSES)), ("y", VLMPartialAnnotator(CLASSES, vlm=other))]
    ensemble.set_params(annotators=new, x__vlm=other)
    assert ensemble.annotators[0][1].vlm is other


def test_unnamed_annotators(vlms):
    members = [VLMPartialAnnotator(CLASSES, vlm=vlm) for vlm in vlms]
    annotator = EnsemblePartialAnnotator(members)
    annotator.set_params(**{"vlmpartialannotator-2__templates": "simple"})
    assert members[1].templates == "simple"
    assert list(annotator.fit(X).named_annotators_) == [
        "vlmpartialannotator-1", "vlmpartialannotator-2",
    ]  # fmt: skip
    new = VLMPartialAnnotator(CLASSES, vlm=vlms[0], templates="{}")
    annotator.set_params(**{"vlmpartialannotator-1": new})
    assert annotator.annotators == [new, members[1]]
    chat = ChatPartialAnnotator(CLASSES, backend=len)
    for other in ("drop", chat):
        with pytest.raises(ValueError, match=r"rename .*'vlmpartialannotator'\]. Give them names"):
            annotator.set_params(**{"vlmpartialannotator-1": other})
        assert annotator.annotators == [new, members[1]]
    assert [name for name, _ in name_annotators([Table(), new])] == ["table", "vlmpartialannotator"]


def test_dropped_members(ensemble, vlms):
    alone = ensemble.annotators[0][1].fit_transform(X)
    ensemble.set_params(pale="drop", weights=[2, 5])
    labels = ensemble.fit_transform(X)
    np.testing.assert_array_equal(labels, alone)
    np.testing.assert_array_equal(labels.votes, alone.votes)
    assert ensemble.weights_.tolist() == [1]
    assert list(ensemble.named_annotators_) == ["clear"]
    assert vlms[1].n_images == 0


def test_search_over_members_rules_and_weights(ensemble):
    many, y = np.tile(X, (6, 1, 1, 1)), np.tile(Y, 6)
    grid = {
        "clear__templates": ["a {} thing.", "a {}."],
        "rule": ["union", "topk"],
        "weights": [None, "agreement"],
        "pale": ["drop", ensemble.annotators[1][1]],
    }
    search = GridSearchCV(ensemble, grid, cv=2, error_score="raise").fit(many, y)
    assert search.best_score_ == 1
    assert len(search.cv_results_["params"]) == 16
    features = make_pipeline(
        EnsemblePartialAnnotator([("a", feature_member()), ("b", feature_member(templates="{}"))]),
        PseudoLabelClassifier(LogisticRegression()),
    )
    rows = np.random.default_rng(0).normal(size=(60, 4))
    grid = {"ensemblepartialannotator__a__rule": ["union", "topk"]}
    search = GridSearchCV(features, grid, cv=2, error_score="raise")
    search.fit(rows, features.fit(rows)[0].predict(rows))
    assert search.best_score_ > 0.6


def test_clone_and_pickle(ensemble, vlms):
    ensemble.set_params(weights="agreement").fit(X)
    copy = clone(ensemble)
    assert copy.annotators[0][1] is not ensemble.annotators[0][1]
    assert copy.annotators[0][1].vlm is vlms[0]
    with pytest.raises(NotFittedError):
        copy.transform(X)
    loaded = pickle.loads(pickle.dumps(ensemble))
    np.testing.assert_array_equal(loaded.predict_proba(X), ensemble.predict_proba(X))
    lazy = ensemble.transform(X)
    container = pickle.loads(pickle.dumps(lazy))
    assert container.is_materialized
    np.testing.assert_array_equal(container, lazy)
    assert repr(copy).startswith("EnsemblePartialAnnotator(annotators=[('clear',")
    assert ensemble.set_output(transform="pandas") is ensemble


def test_ensembles_and_pipelines_as_members(ensemble):
    clear = ensemble.annotators[0][1]
    outer = EnsemblePartialAnnotator([("inner", ensemble), ("pipe", make_pipeline(clear))])
    outer.set_params(inner__clear__templates="{}", pipe__vlmpartialannotator__rule="topk")
    assert outer.fit_transform(X).votes.shape == (5, 4)
    np.testing.assert_array_equal(outer.transform(X), outer.fit_transform(X))


def test_frozen_members(ensemble):
    fitted = ensemble.annotators[0][1].fit(X)
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator(fitted)
    annotator = EnsemblePartialAnnotator([("frozen", frozen)])
    np.testing.assert_array_equal(annotator.fit_transform(X), fitted.transform(X))
    np.testing.assert_array_equal(annotator.transform(X), fitted.transform(X))
    assert annotator.annotators_[0].estimator is fitted


def test_global_generators_are_untouched(ensemble):
    before = np.random.get_state(legacy=False)["state"], torch.get_rng_state()  # noqa: NPY002
    ensemble.set_params(weights="agreement").fit_transform(X)
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    np.testing.assert_equal(after, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


# Refusals


def other_classes(vlm=None):
    return VLMPartialAnnotator(["red", "green", "dark blue"], vlm=vlm or ColourVLM())


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"annotators": []}, ValueError, "the list is empty"),
        ({"annotators": "coreg"}, ValueError, "'annotators' parameter .* must be an instance of"),
        ({"annotators": [("a", 3)]}, TypeError, "annotator 'a' is 3, but must have the methods"),
        ({"annotators": [("a", "dorp")]}, TypeError, "annotator 'a' is 'dorp', .* or be 'drop'"),
        ({"annotators": [Table(FIRST), ("a", Table(FIRST))]}, TypeError, "must be a list of"),
        ({"annotators": [(1, Table(FIRST))]}, TypeError, r"tuples; got \(1, Table"),
        ({"annotators": [("a", Table()), ("a", Table())]}, ValueError, "not unique"),
        ({"annotators": [("rule", Table(FIRST))]}, ValueError, "conflict with constructor"),
        ({"annotators": [("a__b", Table(FIRST))]}, ValueError, "must not contain __"),
        ({"clear": "drop", "pale": "drop"}, ValueError, "all are 'drop'"),
        ({"pale": other_classes()}, ValueError, "it lacks"
         r" \['blue'\] and adds \['dark blue'\]"),
        ({"pale": StandardScaler()}, (TypeError, ValueError), "(has no classes_|dim 4)"),
        ({"pale": EnsemblePartialAnnotator("ab")}, TypeError, r"must be a list of .* got 'a' in"),
        ({"pale": EnsemblePartialAnnotator([3])}, TypeError, "annotator 'int' is 3, but must"),
        ({"weights": [1]}, ValueError, r"weights has shape \(1,\); .* each of 2 annotators"),
        ({"weights": [1, -1]}, ValueError, r"weights\[1\] is -1.0"),
        ({"weights": [1, np.nan]}, ValueError, r"weights\[1\] is nan"),
        ({"weights": [0, 0]}, ValueError, "weights are all 0"),
        ({"weights": [0, 1], "pale": "drop"}, ValueError, "are 0"),
        ({"weights": "agremeent"}, ValueError, "'weights' parameter"),
        ({"rule": "ratios"}, ValueError, "Did you mean 'ratio'"),
        ({"rule_value": 3}, ValueError, "rule='union' has no argument"),
        ({"rule": "topk", "rule_value": 4}, ValueError, "k is 4"),
        ({"rule": "topk", "rule_value": (1, 2)}, ValueError, r"k is \(1, 2\)"),
        ({"rule": "cpl", "rule_value": (0.6, 2)}, ValueError, r"quantiles are \(0.6, 2\)"),
        ({"use_y": "yes"}, ValueError, "'use_y' parameter"),
    ],
)  # fmt: skip
def test_wrong_parameters(ensemble, params, error, message):
    with pytest.raises(error, match=message):
        ensemble.set_params(**params).fit(X)
    assert not hasattr(ensemble, "classes_")


def test_wrong_samples(ensemble):
    with pytest.raises(ValueError, match="0 sample"):
        ensemble.fit([])
    with pytest.raises(ValueError, match="put it in a list"):
        ensemble.fit("cat.jpg")
    with pytest.raises(NotFittedError):
        ensemble.predict(X)
    ensemble.fit(X)
    with pytest.raises(ValueError, match="pass its data to annotate them again"):
        ensemble.transform(ensemble.transform(X))
    with pytest.raises(ValueError, match="channels seem to come first"):
        ensemble.transform(np.zeros((2, 3, 8, 8)))


def test_members_must_give_partial_labels_with_scores_or_votes():
    class Plain(Table):
        def transform(self, X):
            return np.ones((len(X), 3))

    with pytest.raises(TypeError, match="annotator 'plain' is no annotator: .* got ndarray"):
        EnsemblePartialAnnotator([Plain(FIRST)]).fit_transform(numbered(2))
    mute = Table(candidates=np.ones((2, 3)))
    with pytest.raises(ValueError, match="annotator 'mute' gives candidates without scores"):
        EnsemblePartialAnnotator([("mute", mute)]).fit_transform(numbered(2))
    logits = Table([[-3.0, 2.0, 0.5]] * 2)
    with pytest.raises(ValueError, match="scores must be probabilities, but in rows 0, 1"):
        EnsemblePartialAnnotator([("logits", logits)]).fit_transform(numbered(2))


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

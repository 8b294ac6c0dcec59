"""EnsemblePartialAnnotator: labels it is given, parameters and refusals."""

import pickle
import warnings

import ensemble_members
import numpy as np
import pytest
import torch
from ensemble_members import CLASSES, FIRST, Table, X, Y, feature_member, numbered
from fakes import ColourVLM, known_in_folds
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators import ChatPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.annotators._ensemble import name_annotators
from sklearn_npll.baselines import PseudoLabelClassifier

# Fixtures, which pytest finds by their names here.
vlms = ensemble_members.vlms
ensemble = ensemble_members.ensemble


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
    seen = known_in_folds(ensemble, many, y, known, routing)
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

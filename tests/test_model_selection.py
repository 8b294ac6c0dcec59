"""Scorers, alone and inside scikit-learn's searches."""

import pickle

import numpy as np
import pytest
import sklearn
from scipy import sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.metrics import accuracy_score, f1_score, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.metrics import covering_rate
from sklearn_npll.model_selection import (
    approximated_accuracy_scorer,
    choose_rule_value,
    covering_rate_scorer,
    make_labeled_scorer,
)

SETS = [["cat"], ["cat", "dog"], ["dog"], ["fox"], ["cat", "dog", "fox"], ["fox", "cat"]]
NAMES = ["cat", "dog", "fox"]


class Annotator(TransformerMixin, BaseEstimator):
    """Gives sample i the candidates SETS[i], lazily; the samples are their numbers."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        def plan(data):
            rows = [SETS[i] for i in data]
            return {"candidates": PartialLabels.from_sets(rows, classes=NAMES).candidates}

        return PartialLabels(X, NAMES, plan=plan)


class Stateless(Annotator):
    """Learns nothing, so that no attribute tells it is fitted."""

    def fit(self, X, y=None):
        return self


class Constant(ClassifierMixin, BaseEstimator):
    """Predicts one class, its classes in reverse order, with a probability of 0.5."""

    def __init__(self, label="cat"):
        self.label = label

    def fit(self, X, y=None):
        self.classes_ = np.array(NAMES[::-1])
        return self

    def predict(self, X):
        return np.full(len(X), self.label)

    def predict_proba(self, X):
        proba = np.where(self.classes_ == self.label, 0.5, 0.25)
        return np.tile(proba, (len(X), 1))


@pytest.fixture
def pipe():
    return make_pipeline(Annotator(), Constant()).fit(list(range(6)))


LABELS = PartialLabels.from_sets(SETS, classes=NAMES)
# Row 4 carries no label. "cat" is a candidate of rows 0, 1 and 5 of the other five.
RATE = 3 / 5
# Its confidence there: 1, 0.5 / 0.75 and 0.5 / 0.75.
ACCURACY = (1 + 2 / 3 + 2 / 3) / 5


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [(covering_rate_scorer, RATE), (approximated_accuracy_scorer, ACCURACY)],
)
class TestLabelFreeScorers:
    def test_with_every_source_of_candidates(self, pipe, scorer, expected):
        samples, classifier = list(range(6)), pipe[-1]
        in_reverse = LABELS.toarray()[:, ::-1]  # the order of classes_
        assert scorer(classifier, LABELS) == pytest.approx(expected)
        assert scorer(classifier, samples, LABELS) == pytest.approx(expected)
        assert scorer(classifier, samples, in_reverse) == pytest.approx(expected)
        assert scorer(classifier, samples, sp.csr_matrix(in_reverse)) == pytest.approx(expected)
        assert scorer(pipe, samples) == pytest.approx(expected)

    def test_true_labels_are_ignored(self, pipe, scorer, expected):
        assert scorer(pipe, list(range(6)), ["dog"] * 6) == pytest.approx(expected)
        assert scorer(pipe[-1], LABELS, ["dog"] * 6) == pytest.approx(expected)

    def test_no_candidates_is_an_error(self, pipe, scorer, expected):
        with pytest.raises(ValueError, match="no candidates to compare"):
            scorer(pipe[-1], list(range(6)))

    def test_search_without_labels(self, pipe, scorer, expected):
        search = GridSearchCV(
            pipe,
            {"constant__label": ["dog", "cat", "fox"]},
            scoring=scorer,
            cv=3,
            error_score="raise",
        )
        # Candidates of rows 0-1, 2-3 and 4-5 (without 4): cat 2/2, 0/2, 1/1 is the best.
        assert search.fit(list(range(6))).best_params_ == {"constant__label": "cat"}
        if scorer is covering_rate_scorer:
            assert search.best_score_ == pytest.approx(2 / 3)

    def test_annotator_without_state(self, pipe, scorer, expected):
        samples = list(range(6))
        for nested in (
            make_pipeline(Stateless(), Constant()),
            make_pipeline("passthrough", Stateless(), Constant()),
            make_pipeline(FunctionTransformer(), make_pipeline(Stateless(), Constant())),
            make_pipeline(make_pipeline(Stateless(), Constant())),
        ):
            assert scorer(nested.fit(samples), samples) == pytest.approx(expected)
        search = GridSearchCV(
            make_pipeline(Stateless(), Constant()),
            {"constant__label": ["dog", "cat"]},
            scoring=scorer,
            cv=3,
            error_score="raise",
        )
        assert search.fit(samples).best_params_ == {"constant__label": "cat"}

    def test_annotator_that_is_not_fitted_is_an_error(self, pipe, scorer, expected):
        annotator = VLMPartialAnnotator(["cat", "dog"])
        with pytest.raises(NotFittedError, match="VLMPartialAnnotator"):
            scorer(make_pipeline(annotator, pipe[-1]), np.zeros((6, 64), dtype=np.float32))

    def test_is_picklable(self, pipe, scorer, expected):
        assert pickle.loads(pickle.dumps(scorer)) is scorer


def test_unknown_class_of_the_estimator(pipe):
    labels = PartialLabels.from_sets([["cats"], ["dog"]], classes=["cats", "dog", "fox"])
    with pytest.raises(ValueError, match="'cat', which the candidates do not have. Did .* 'cats'"):
        approximated_accuracy_scorer(pipe[-1], labels)


def test_estimator_that_knows_fewer_classes():
    class Cat(Constant):
        def fit(self, X, y=None):
            self.classes_ = np.array(["cat"])
            return self

    # All the probability of "cat" is on the candidates where it is one.
    assert approximated_accuracy_scorer(Cat().fit(LABELS), LABELS) == RATE


@pytest.fixture
def always_1():
    return DummyClassifier(strategy="constant", constant=1).fit([[0]] * 2, [0, 1])


@pytest.mark.parametrize(
    ("score", "arguments"),
    [
        ("accuracy", {}),
        (accuracy_score, {}),
        (make_scorer(accuracy_score), {}),
        (lambda est, X, y: est.score(X, y), {}),
        (f1_score, {"average": "micro"}),
    ],
)
def test_labeled_scorer_ignores_unlabelled_rows(always_1, score, arguments):
    scorer = make_labeled_scorer(score, **arguments)
    assert scorer(always_1, [[0]] * 6, [1, -1, 0, -1, 1, 1]) == 3 / 4
    assert make_scorer(accuracy_score)(always_1, [[0]] * 6, [1, -1, 0, -1, 1, 1]) == 3 / 6


def test_labeled_scorer_of_a_loss():
    prior = DummyClassifier().fit([[0]] * 4, [0, 1, 1, 1])
    scorer = make_labeled_scorer(log_loss, response_method="predict_proba", greater_is_better=False)
    expected = (np.log(0.75) + np.log(0.25)) / 2
    assert scorer(prior, [[0]] * 4, [1, -1, 0, -1]) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [None, object])
def test_labeled_scorer_of_names_and_of_any_samples(dtype):
    y = np.array(["cat", -1, "dog", -1, "cat", -1], dtype=dtype)
    scorer = make_labeled_scorer("accuracy")
    for samples in (LABELS, list("abcdef"), np.zeros((6, 2, 2))):
        assert scorer(Constant().fit(samples), samples, y) == 2 / 3


def test_labeled_scorer_takes_the_matching_samples():
    def share_of_even(est, X, y):
        return np.mean(np.asarray(X) % 2 == 0)

    assert make_labeled_scorer(share_of_even)(None, [0, 1, 2, 3], [5, -1, 6, 7]) == 2 / 3


def test_labeled_scorer_without_labels_is_nan(always_1):
    with pytest.warns(UndefinedMetricWarning, match="No row of y is labelled"):
        assert np.isnan(make_labeled_scorer("accuracy")(always_1, [[0]], [-1]))


def test_labeled_scorer_rejects_arguments_of_a_scorer():
    with pytest.raises(TypeError, match="takes no arguments; pass a metric"):
        make_labeled_scorer("accuracy", average="macro")


@pytest.mark.parametrize("routing", [False, True])
def test_scorers_in_cross_validation_with_and_without_routing(pipe, routing):
    y = np.array(["cat", "cat", "dog", "-1", "-1", "cat"])
    scoring = {"labelled": make_labeled_scorer("accuracy"), "free": covering_rate_scorer}
    folds = [([0], [0, 1, 2]), ([0], [3, 4, 5])]
    with sklearn.config_context(enable_metadata_routing=routing):
        results = cross_validate(pipe, list(range(6)), y, scoring=scoring, cv=folds)
        np.testing.assert_allclose(results["test_labelled"], [2 / 3, 1])
        np.testing.assert_allclose(results["test_free"], [2 / 3, 1 / 2])
        search = GridSearchCV(
            pipe, {"constant__label": NAMES}, scoring=scoring["labelled"], cv=folds
        ).fit(list(range(6)), y)
    assert search.best_params_ == {"constant__label": "cat"}


def test_scorers_in_parallel_and_pickled(always_1):
    scorer = pickle.loads(pickle.dumps(make_labeled_scorer("accuracy")))
    assert (
        repr(scorer)
        == "make_labeled_scorer(make_scorer(accuracy_score, response_method='predict'))"
    )
    y = [0, 1, -1, 0, 1, -1]
    scores = cross_val_score(always_1, [[0]] * 6, y, scoring=scorer, cv=2, n_jobs=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_covering_rate_is_agreement_not_accuracy():
    """The caveat of the docstring: copying the annotator's mistakes scores 1."""
    y = np.array(["cat", "dog", "fox"])
    wrong = PartialLabels.from_sets([["dog"], ["fox"], ["cat"]], classes=NAMES)
    copied = wrong.classes[wrong.toarray().argmax(axis=1)]
    assert covering_rate(copied, wrong) == 1
    assert accuracy_score(y, copied) == 0


# Choosing the argument of a candidate rule

PROBA = [[0.75, 0.25, 0.0], [0.5, 0.375, 0.125], [0.25, 0.25, 0.5], [0.625, 0.125, 0.25]]
TRUTH = ["cat", "dog", "dog", "fox"]  # of ranks 1, 2, 3, 2


@pytest.mark.parametrize(
    ("rule", "coverage", "value"),
    [
        ("topk", 0.25, 1),
        ("topk", 0.3, 2),
        ("topk", 0.75, 2),
        ("topk", 0.76, 3),
        ("threshold", 0.2, 1.0),  # the most probable class is a candidate of any threshold
        ("threshold", 0.5, 0.375),
        ("threshold", 1.0, 0.25),
        ("ratio", 0.5, 0.75),
        ("ratio", 0.75, 0.5),
        ("ratio", 1.0, 0.4),
        ("cumulative", 0.25, 2e-6),
        ("cumulative", 0.5, 0.5 + 2e-6),
        ("cumulative", 0.75, 0.625 + 2e-6),
        ("cumulative", 1.0, 0.75 + 2e-6),
    ],
)
def test_rule_value_by_hand(rule, coverage, value):
    chosen = choose_rule_value(PROBA, TRUTH, rule, coverage=coverage, classes=NAMES)
    assert chosen == pytest.approx(value, abs=1e-9)
    assert type(chosen) is type(value)


@pytest.mark.parametrize("rule", ["topk", "threshold", "ratio", "cumulative"])
@pytest.mark.parametrize("coverage", [0.5, 0.9, 1.0])
def test_no_other_rule_value_has_smaller_sets(rule, coverage):
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.full(5, 0.7), size=60).astype(np.float32)
    y = np.array([rng.choice(5, p=np.float64(row) / np.float64(row).sum()) for row in scores])
    few = np.where(np.arange(60) < 40, y, -1)
    value = choose_rule_value(scores, few, rule, coverage=coverage)
    grid = range(1, 6) if rule == "topk" else np.linspace(0.001, 1, 500).tolist()

    def sets(value):
        return PartialLabels.from_scores(scores[:40], rule, value)

    assert sets(value).coverage(y[:40]) >= coverage
    enough = [sets(v) for v in grid if sets(v).coverage(y[:40]) >= coverage]
    assert sets(value).mean_set_size <= min(labels.mean_set_size for labels in enough)


def test_rule_value_of_partial_labels_asks_about_labelled_rows_only():
    asked = []

    def plan(data):
        asked.append(list(data))
        scores = np.array(PROBA, dtype=np.float32)[data]
        return {"candidates": np.ones((len(data), 3)), "scores": scores}

    labels = PartialLabels([0, 1, 2, 3], NAMES, plan=plan)
    value = choose_rule_value(labels, ["cat", -1, "dog", -1], "threshold", coverage=1.0)
    assert (value, asked) == (0.25, [[0, 2]])


@pytest.mark.parametrize(
    ("scores", "y", "kwargs", "message"),
    [
        (PROBA, TRUTH, {"rule": "ratios"}, "Did you mean 'ratio'"),
        (PROBA, TRUTH, {"rule": "union"}, "needs the vote of each prompt"),
        (PROBA, TRUTH, {"coverage": 0}, "coverage is 0; it must be a number in"),
        (PROBA, TRUTH, {"coverage": 90}, "coverage is 90"),
        (PROBA, TRUTH, {"coverage": "all"}, "coverage is 'all'"),
        (PROBA, ["cat", "dgo", -1, -1], {}, r"y\[1\] is 'dgo', .* Did you mean 'dog'"),
        (PROBA, [-1] * 4, {}, "No sample in y is labelled"),
        (PROBA, TRUTH[:3], {}, "y has shape"),
        (PROBA, [0, 1, 1, 2], {}, "The classes are names"),
        (PROBA, TRUTH, {"classes": NAMES[:2]}, "expected"),
        (PROBA[0], TRUTH, {}, "must be numbers of shape"),
        ([[np.nan, 0, 1]], ["cat"], {}, "NaN or infinity in row 0"),
        ([[-3.0, 2.0, 0.0]], ["cat"], {}, "not probabilities in row 0"),
        ([[1.0, 0.0, 0.0]], ["dog"], {"rule": "ratio"}, "No value of rule 'ratio' has a coverage"),
        ([[1.0, 0.0, 0.0]], ["dog"], {"rule": "cumulative"}, "No value of rule 'cumulative'"),
    ],
)
def test_rule_value_refusals(scores, y, kwargs, message):
    with pytest.raises(ValueError, match=message):
        choose_rule_value(scores, y, **{"rule": "threshold", "classes": NAMES, **kwargs})


def test_rule_value_needs_the_scores_of_partial_labels():
    labels = PartialLabels.from_sets(SETS, NAMES)
    with pytest.raises(ValueError, match="no scores"):
        choose_rule_value(labels, ["cat"] * 6, "topk")
    with pytest.raises(ValueError, match="have their own"):
        choose_rule_value(labels, ["cat"] * 6, "topk", classes=NAMES)
    zero = choose_rule_value([[1.0, 0.0, 0.0]], ["dog"], "threshold", classes=NAMES)
    assert PartialLabels.from_scores([[1.0, 0.0, 0.0]], "threshold", zero).mean_set_size == 3


def test_a_scorer_is_a_name_or_callable():
    with pytest.raises(TypeError, match="score is 3; give a scorer, its name, or a metric"):
        make_labeled_scorer(3)

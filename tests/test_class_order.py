"""Classes are sorted in every estimator, and matched by name where a container keeps its own."""

from collections.abc import Generator

import numpy as np
import pytest
from fakes import FeatureVLM
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import make_blobs
from sklearn.metrics import get_scorer, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll._inputs import shares_by_class
from sklearn_npll.annotators import ConformalPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.baselines import (
    AnnotatorClassifier,
    CEClassifier,
    DawidSkeneClassifier,
    DistillationClassifier,
    LabelModelClassifier,
    PLKNeighborsClassifier,
    PseudoLabelClassifier,
)
from sklearn_npll.cli._folder import ANNOTATION, LABELS, load_labels, write_json
from sklearn_npll.detection import DeFTClassifier, LabelMatchDetector, NeighborVoteDetector
from sklearn_npll.metrics import ambiguity_score, approximated_accuracy, covering_rate
from sklearn_npll.model_selection import approximated_accuracy_scorer, covering_rate_scorer
from sklearn_npll.plot import CandidateGridDisplay

NAMES = np.array(["c", "a", "b"])
TURN = np.array([1, 2, 0])  # where the sorted names are among these
RNG = np.random.default_rng(0)
X, CODES = make_blobs(90, centers=3, random_state=2)
Y = NAMES[CODES]
SCORES = RNG.dirichlet([1, 1, 1], 90).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[CODES]
SCORES /= SCORES.sum(axis=1, keepdims=True)
VOTES = np.where(RNG.random((90, 4)) < 0.7, CODES[:, None], RNG.integers(-1, 3, (90, 4)))
PARTS = {"scores": SCORES, "votes": VOTES, "known": np.arange(90) < 5}
CANDIDATES = np.eye(3, dtype=bool)[CODES]
CANDIDATES[20::4, 0] = True
CANDIDATES[10:13] = True
UNSORTED = PartialLabels(X, NAMES, CANDIDATES, **PARTS)
SORTED = PartialLabels(
    X,
    NAMES[TURN],
    np.ascontiguousarray(CANDIDATES[:, TURN]),
    scores=np.ascontiguousarray(SCORES[:, TURN]),
    votes=np.array([2, 0, 1, -1])[VOTES],
    known=PARTS["known"],
)


class Model(BaseEstimator):
    """A fitted model that does not sort its classes."""

    classes_ = NAMES

    def fit(self, X, y=None):
        return self

    def predict_proba(self, X):
        return SCORES[: len(X)]

    def transform(self, X):
        return PartialLabels(X, NAMES, CANDIDATES[: len(X)], scores=SCORES[: len(X)])


def assert_same_labels(first, second):
    assert_array_equal(first.classes, second.classes)
    assert_array_equal(first.toarray(), second.toarray())
    for part in ("scores", "votes", "known"):
        one, other = getattr(first, part), getattr(second, part)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert_array_equal(np.asarray(one), np.asarray(other))


# The container


def test_sort_classes():
    made = UNSORTED.sort_classes()
    assert_same_labels(made, SORTED)
    assert made.data is X and made.known is UNSORTED.known
    assert UNSORTED.classes.tolist() == NAMES.tolist()  # nothing is changed in it
    assert SORTED.sort_classes() is SORTED
    assert UNSORTED.sort_classes(NAMES) is UNSORTED
    assert_same_labels(SORTED.sort_classes(NAMES.tolist()), UNSORTED)
    bare = PartialLabels.from_candidates([[1, 0, 1]], classes=[10, 9, 1]).sort_classes()
    assert bare.classes.tolist() == [1, 9, 10]
    assert (bare.toarray().tolist(), bare.scores, bare.votes) == ([[True, False, True]], None, None)


def test_sort_classes_refuses_others():
    with pytest.raises(ValueError, match=r"'cat' is no class of these .* Did you mean 'cats'"):
        PartialLabels.from_sets([["cats"], ["dog"]]).sort_classes(["dog", "cat"])
    for classes in (["a", "b"], ["a", "b", "c", "a"]):
        with pytest.raises(ValueError, match="each of the 3 classes of these labels must be in it"):
            UNSORTED.sort_classes(classes)


def test_sort_classes_of_sparse_parts():
    n = 70
    names = RNG.permutation(n)
    candidates = sp.csr_array(RNG.random((20, n)) < 0.05)
    candidates = sp.csr_array(candidates + sp.csr_array(np.eye(20, n, dtype=bool)))
    scores = sp.csr_array(candidates * RNG.random((20, n)))
    votes = RNG.integers(-1, n, (20, 3))
    labels = PartialLabels(None, names, candidates, scores=scores, votes=votes)
    made = labels.sort_classes()
    order = names.argsort()
    assert sp.issparse(made.candidates) and sp.issparse(made.scores)
    assert made.candidates.has_sorted_indices and made.scores.has_sorted_indices
    assert_array_equal(made.toarray(), labels.toarray()[:, order])
    assert_array_equal(made.scores.toarray(), labels.scores.toarray()[:, order])
    assert_array_equal(np.append(made.classes, -1)[made.votes], np.append(names, -1)[votes])


def test_a_plan_is_called_once():
    calls = []

    def plan(data):
        calls.append(len(data))
        return {"candidates": CANDIDATES[: len(data)], "scores": SCORES[: len(data)]}

    lazy = PartialLabels(X, np.sort(NAMES), plan=plan)
    assert lazy.sort_classes() is lazy and not calls
    lazy = PartialLabels(X, NAMES, plan=plan)[:40]
    made = lazy.sort_classes()
    assert_array_equal(made.scores, SCORES[:40, TURN])
    assert_array_equal(lazy.scores, SCORES[:40])
    assert calls == [40]


# Annotators


@pytest.mark.parametrize("classes", [NAMES.tolist(), {"c": "c", "a": "a", "b": ["b", "bee"]}])
def test_annotators_sort_labels_with_their_names(classes):
    annotator = VLMPartialAnnotator(classes, vlm=FeatureVLM(), templates=["{}", "a {}"])
    turned = dict(sorted(classes.items())) if isinstance(classes, dict) else sorted(classes)
    expected = clone(annotator).set_params(classes=turned).fit_transform(X)
    assert expected.classes.tolist() == ["a", "b", "c"]
    assert_same_labels(annotator.fit_transform(X), expected)


def test_ensembles_sort_and_match_by_name():
    members = [Model(), VLMPartialAnnotator(["b", "c", "a"], vlm=FeatureVLM())]
    annotator = EnsemblePartialAnnotator(members, weights=[1, 0])
    labels = annotator.fit_transform(X)
    assert labels.classes.tolist() == ["a", "b", "c"]
    assert_array_equal(labels.toarray(), SORTED.toarray())
    assert_allclose(labels.scores, SORTED.scores, rtol=1e-6)
    assert_array_equal(labels.votes[:, 0], SORTED.scores.argmax(axis=1))


@pytest.mark.parametrize("class_conditional", [False, True])
def test_conformal_annotators_sort(class_conditional):
    annotator = ConformalPartialAnnotator(
        Model(), coverage=0.8, class_conditional=class_conditional
    )
    labels = annotator.fit(X, known_labels=Y).transform(X)
    assert annotator.classes_.tolist() == ["a", "b", "c"]
    assert_allclose(labels.scores, SORTED.scores, rtol=1e-6)
    assert labels.coverage(Y) >= 0.8
    # one that was saved before kept the annotator's order
    annotator.classes_, annotator.quantiles_ = NAMES, annotator.quantiles_[[2, 0, 1]]
    assert_array_equal(annotator.transform(X).sort_classes().toarray(), labels.toarray())


# Learners

LEARNERS = [
    CoRegClassifier(max_epochs=3, random_state=0),
    CoRegClassifier(max_epochs=3, random_state=0, division=NeighborVoteDetector()),
    CEClassifier(max_epochs=2, random_state=0),
    DistillationClassifier(max_epochs=2, random_state=0),
    PLKNeighborsClassifier(),
    PseudoLabelClassifier(PLKNeighborsClassifier(), random_state=0),
    DeFTClassifier(LabelMatchDetector(), PLKNeighborsClassifier()),
    AnnotatorClassifier(),
    DawidSkeneClassifier(),
    LabelModelClassifier(),
]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda value: type(value).__name__)
def test_two_orders_of_columns_give_the_same_bits(learner):
    fitted = [clone(learner).fit(labels) for labels in (SORTED, UNSORTED)]
    proba = [clf.predict_proba(labels) for clf in fitted for labels in (SORTED, UNSORTED)]
    for clf in fitted:
        assert clf.classes_.tolist() == ["a", "b", "c"]
    for other in proba[1:]:
        assert_array_equal(other, proba[0])
    for name in ("label_distributions_", "clean_probability_", "pseudo_labels_", "confusion_"):
        if hasattr(fitted[0], name):
            assert_array_equal(*(getattr(clf, name) for clf in fitted))
    assert UNSORTED.known.sum() == 5  # learners change nothing in it


@pytest.mark.parametrize("detector", [LabelMatchDetector(), NeighborVoteDetector()])
def test_detectors_sort(detector):
    fitted = [clone(detector).fit(labels) for labels in (SORTED, UNSORTED)]
    assert fitted[1].classes_.tolist() == ["a", "b", "c"]
    assert_array_equal(*(d.clean_score_ for d in fitted))
    assert_array_equal(fitted[1].score_noise(UNSORTED), fitted[1].score_noise(SORTED))


def test_a_detector_with_a_model_that_does_not_sort():
    detector = LabelMatchDetector(Model()).fit(X, Y)
    assert detector.classes_.tolist() == ["a", "b", "c"]
    assert_allclose(detector.predict_proba(X), SORTED.scores, rtol=1e-6)
    assert_allclose(detector.clean_score_, SCORES[np.arange(90), CODES], rtol=1e-6)


class Unsorted(NeighborVoteDetector):
    """A detector that does not sort its classes."""

    def fit(self, X, y=None):
        super().fit(X, y)
        self.classes_ = self.classes_[::-1]
        return self

    def predict_proba(self, X):
        return super()._predict_proba(X)[:, ::-1]


def test_a_detector_that_does_not_sort():
    clf = DeFTClassifier(NeighborVoteDetector(), PLKNeighborsClassifier()).fit(SORTED)
    other = DeFTClassifier(Unsorted(), PLKNeighborsClassifier()).fit(SORTED)
    assert_array_equal(other.classes_, clf.classes_)
    assert_array_equal(other.predict_proba(X), clf.predict_proba(X))


def test_what_was_saved_before_keeps_its_order():
    clf = AnnotatorClassifier().fit(SORTED)
    clf.classes_ = NAMES  # as where an earlier version was fitted
    assert_allclose(clf.predict_proba(SORTED), SCORES, rtol=1e-6)
    assert_array_equal(clf.predict(SORTED), NAMES[SCORES.argmax(axis=1)])


def test_a_folder_of_the_command_line_may_be_older(tmp_path):
    paths = [f"{i}.png" for i in range(90)]
    UNSORTED.replace(data=paths).save(tmp_path / LABELS)
    write_json(tmp_path / ANNOTATION, {"folder": "."})
    assert_same_labels(load_labels(tmp_path)[0], SORTED)


# Probabilities and metrics


@pytest.mark.parametrize("learner", [LEARNERS[0], DistillationClassifier(max_epochs=4)])
def test_metrics_of_scikit_learn(learner):
    annotator = VLMPartialAnnotator(NAMES.tolist(), vlm=FeatureVLM(), rule="topk", rule_value=1)
    pipe = make_pipeline(annotator, clone(learner).set_params(random_state=0)).fit(X)
    proba = pipe.predict_proba(X)
    # by hand, in the user's order
    mine = proba[:, [2, 0, 1]]
    loss = -np.log(mine[np.arange(90), CODES]).mean()
    area = roc_auc_score(CODES, mine, multi_class="ovr")
    assert_array_equal(pipe.predict(X), NAMES[mine.argmax(axis=1)])
    assert log_loss(Y, proba) == pytest.approx(loss)
    assert get_scorer("neg_log_loss")(pipe, X, Y) == pytest.approx(-loss)
    assert roc_auc_score(Y, proba, multi_class="ovr") == pytest.approx(area)
    assert get_scorer("roc_auc_ovr")(pipe, X, Y) == pytest.approx(area)


def test_scorers_match_by_name():
    clf = AnnotatorClassifier().fit(SORTED)
    for scorer in (covering_rate_scorer, approximated_accuracy_scorer):
        expected = scorer(clf, SORTED)
        for labels in (UNSORTED, UNSORTED[:, ...]):
            assert scorer(clf, labels) == pytest.approx(expected)
            assert scorer(clf, SORTED, labels) == pytest.approx(expected)
    assert clf.score(UNSORTED) == pytest.approx(clf.score(SORTED))
    assert clf.score(UNSORTED, UNSORTED) == pytest.approx(clf.score(SORTED, SORTED))


def test_metrics_are_told_the_columns():
    proba = AnnotatorClassifier().fit(UNSORTED).predict_proba(UNSORTED)
    for metric in (covering_rate, approximated_accuracy):
        expected = metric(proba, SORTED)
        assert metric(proba, UNSORTED, classes=["a", "b", "c"]) == expected
        assert metric(SCORES, UNSORTED) == pytest.approx(expected)
    own = ambiguity_score(UNSORTED, Y, per_class=True)
    turned = ambiguity_score(UNSORTED, Y, per_class=True, classes=["a", "b", "c"])
    assert_array_equal(turned, own[TURN])
    with pytest.raises(ValueError, match="'d' is no class of these labels"):
        covering_rate(proba, UNSORTED, classes=["a", "b", "d"])


def test_a_grid_matches_by_name():
    pytest.importorskip("matplotlib").use("agg")
    images = RNG.integers(0, 256, (90, 8, 8), dtype=np.uint8)
    labels = UNSORTED.replace(data=images)
    clf = CoRegClassifier("resnet8", max_epochs=1, random_state=0).fit(labels)
    shown = CandidateGridDisplay.from_estimator(clf, labels, rows=np.arange(20))
    assert shown.purified == clf.transduction_[:20].tolist()


# Shares by the names of classes


def test_prior_by_name():
    shares = {"c": 0.5, "a": 0.2, "b": 0.3}
    learner = CoRegClassifier(max_epochs=3, random_state=0)
    by_name = clone(learner).set_params(prior=shares).fit(UNSORTED)
    by_array = clone(learner).set_params(prior=[0.2, 0.3, 0.5]).fit(UNSORTED)
    assert_array_equal(by_name.predict_proba(X), by_array.predict_proba(X))
    with pytest.raises(ValueError, match=r"prior: 'C' is no class\. Did you mean 'c'\?"):
        clone(learner).set_params(prior={"C": 0.5, "a": 0.2, "b": 0.3}).fit(UNSORTED)
    with pytest.raises(ValueError, match="prior: there is no share for b, c"):
        clone(learner).set_params(prior={"a": 1}).fit(UNSORTED)
    with pytest.raises(ValueError, match="non-negative class shares"):
        clone(learner).set_params(prior={**shares, "a": -1}).fit(UNSORTED)
    with pytest.raises(InvalidParameterError, match="prior"):
        clone(learner).set_params(prior=0.5).fit(UNSORTED)


def test_prior_by_number():
    labels = PartialLabels(X, [10, 9, 1], CANDIDATES, **PARTS)
    learner = CoRegClassifier(max_epochs=2, random_state=0, prior={10: 5, 9: 2, np.int64(1): 3})
    by_array = clone(learner).set_params(prior=[3, 2, 5]).fit(labels)
    assert by_array.classes_.tolist() == [1, 9, 10]
    assert_array_equal(learner.fit(labels).predict_proba(X), by_array.predict_proba(X))


def test_class_prior_by_name():
    by_name = LabelModelClassifier(class_prior={"c": 0.5, "a": 0.2, "b": 0.3}).fit(UNSORTED)
    assert_array_equal(by_name.class_prior_, [0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="class_prior: there is no share for a"):
        LabelModelClassifier(class_prior={"c": 0.5, "b": 0.5}).fit(UNSORTED)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a"}, r"prior is \{'a'\}\. Give one number for each class"),
        ((share for share in [0.2, 0.3, 0.5]), "prior is <generator"),
        (["many", "few", "few"], "prior is .*many"),
        ({"a": "many", "b": 1, "c": 1}, "prior: the share of 'a' is 'many'. Give one number"),
        ({"a": None, "b": 1, "c": 1}, "prior: the share of 'a' is None"),
        ({"a": 1, "b": 1, "c": [1, 2]}, r"prior: the share of 'c' is \[1, 2\]"),
    ],
)
def test_shares_that_are_no_numbers(shares, message):
    if not isinstance(shares, Generator):
        with pytest.raises(ValueError, match=message):
            CoRegClassifier(prior=shares).fit(UNSORTED)
    with pytest.raises(ValueError, match=message):
        shares_by_class(shares, np.array(["a", "b", "c"]), "prior")


def test_prior_of_a_series_goes_by_its_index():
    pd = pytest.importorskip("pandas")
    shares = {"c": 0.5, "a": 0.2, "b": 0.3}
    learner = CoRegClassifier(max_epochs=2, random_state=0)
    by_name = clone(learner).set_params(prior=shares).fit(UNSORTED)
    by_index = clone(learner).set_params(prior=pd.Series(shares)).fit(UNSORTED)
    np.testing.assert_array_equal(by_index.predict_proba(UNSORTED), by_name.predict_proba(UNSORTED))
    with pytest.raises(ValueError, match="prior: 0 is no class"):
        clone(learner).set_params(prior=pd.Series([0.2, 0.3, 0.5])).fit(UNSORTED)


def test_a_class_of_another_type_is_told_apart():
    learner = CoRegClassifier(max_epochs=2, prior={"0": 0.5, "1": 0.5})
    with pytest.raises(ValueError, match=r"prior: '0' is no class\. Did you mean 0\?"):
        learner.fit(np.eye(4), np.eye(2)[[0, 1, 0, 1]])

"""Baselines on pseudo-labels: scikit-learn's classifiers behind an adapter."""

import pickle

import numpy as np
import pytest
from fakes import NAMES, FeatureVLM
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier
from sklearn.svm import LinearSVC
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.baselines._adapters import PseudoLabelClassifier

# -- scikit-learn's classifiers on pseudo-labels -----------------------------------------------

X, T = make_blobs(200, n_features=4, centers=3, cluster_std=2, random_state=0)
rng = np.random.default_rng(0)
Y = np.eye(3, dtype=int)[T]
Y[np.arange(200), rng.integers(3, size=200)] = 1  # often a wrong class besides the true one
SCORES = 0.2 * Y + 0.5 * np.eye(3)[T] + 0.1
SELF_TRAINING = SelfTrainingClassifier(LogisticRegression())


class Recorder(LogisticRegression):
    """Remembers what it was trained on."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = X, y, sample_weight
        return super().fit(X, y, sample_weight)


def labelled(samples=X, **parts):
    return PartialLabels(samples, NAMES, Y, **parts)


all_labelled = pytest.mark.filterwarnings("ignore:y contains no unlabeled samples")


@all_labelled
@pytest.mark.parametrize("labels", ["best", "unanimous"])
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        LabelSpreading(kernel="knn"),
        LabelPropagation(kernel="knn"),
        SELF_TRAINING,
        make_pipeline(StandardScaler(), LabelSpreading(kernel="knn")),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2),
    ],
    ids=["LR", "spreading", "propagation", "self-training", "pipeline", "search"],
)
def test_adapter(estimator, labels):
    clf = PseudoLabelClassifier(estimator, labels=labels, random_state=0)
    clf.fit(labelled(scores=SCORES))
    assert_array_equal(clf.classes_, NAMES)
    assert clf.n_features_in_ == 4
    assert clf.score(X, NAMES[T]) > 0.85
    assert clf.label_distributions_.shape == (200, 3)
    assert np.mean(clf.transduction_ == NAMES[T]) > 0.85
    assert_array_equal(clf.classes_[clf.predict_proba(X).argmax(axis=1)], clf.predict(X))
    again = clone(clf).fit(X, labelled(None, scores=SCORES))
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    copy = pickle.loads(pickle.dumps(clf))
    assert_array_equal(copy.predict_proba(labelled()), clf.predict_proba(X))


def test_adapter_best_labels():
    clf = PseudoLabelClassifier(Recorder()).fit(labelled(scores=SCORES))
    assert_array_equal(clf.pseudo_labels_, T)
    assert_array_equal(clf.estimator_.seen_[1], T)
    first, second, other = (
        PseudoLabelClassifier(Recorder(), random_state=seed).fit(X, Y).pseudo_labels_
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, second)
    assert (first != other).any()
    assert Y[np.arange(200), first].all()


def test_adapter_unanimous_rows():
    single = Y.sum(axis=1) == 1
    spreading = PseudoLabelClassifier(LabelSpreading(kernel="knn"), labels="unanimous").fit(X, Y)
    assert_array_equal(spreading.pseudo_labels_, np.where(single, T, -1))
    own = LabelSpreading(kernel="knn").fit(X, np.where(single, T, -1))
    assert_array_equal(spreading.label_distributions_, own.label_distributions_)
    assert_array_equal(spreading.transduction_, own.transduction_)
    # A supervised classifier never sees -1 in the end.
    logistic = PseudoLabelClassifier(Recorder(), labels="unanimous").fit(X, Y)
    assert_array_equal(logistic.estimator_.seen_[0], X[single])
    assert_array_equal(logistic.estimator_.seen_[1], T[single])
    assert len(logistic.label_distributions_) == 200


def test_adapter_soft_labels():
    candidates = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0], [1, 1, 1]])
    scores = [[0.6, 0.2, 0.2], [1, 0, 0], [1 / 3] * 3, [0, 1, 0], [0.8, 0.2, 0]]
    labels = PartialLabels(X[:5], NAMES, candidates, scores=scores)
    clf = PseudoLabelClassifier(Recorder(), labels="soft").fit(labels)
    rows, y, weight = clf.estimator_.seen_
    assert_array_equal(rows, X[[0, 0, 1, 3, 4, 4]])  # without the row of which nothing is known
    assert_array_equal(y, [0, 1, 2, 1, 0, 1])
    assert_allclose(weight, [0.75, 0.25, 1, 1, 0.8, 0.2], rtol=1e-6)
    assert clf.label_distributions_.shape == (5, 3)
    clf = PseudoLabelClassifier(LogisticRegression(), labels="soft").fit(X, Y)
    assert clf.score(X, T) > 0.85
    piped = PseudoLabelClassifier(make_pipeline(LogisticRegression()), labels="soft").fit(X, Y)
    assert_array_equal(piped.predict_proba(X), clf.predict_proba(X))
    with pytest.raises(ValueError, match="fit of LabelSpreading has no sample_weight; choose"):
        PseudoLabelClassifier(LabelSpreading(), labels="soft").fit(X, Y)


@all_labelled
@pytest.mark.parametrize("estimator", [LogisticRegression(), LabelSpreading(), SELF_TRAINING])
def test_adapter_class_without_pseudo_label(estimator):
    candidates = np.eye(4, dtype=bool)[T]
    candidates[:, 3] = T == 1  # class 3 is only ever a candidate beside class 1
    scores = np.eye(4)[T] + 0.1
    clf = PseudoLabelClassifier(estimator)
    clf.fit(PartialLabels(X, [*NAMES, "dog"], candidates, scores=scores))
    assert_array_equal(clf.classes_, [*NAMES, "dog"])
    proba = clf.predict_proba(X)
    assert_array_equal(proba[:, 3], 0)
    assert_allclose(proba.sum(axis=1), 1)
    assert clf.label_distributions_.shape == (200, 4)


def test_adapter_labels_with_minus_one():
    y = NAMES[T].astype(object)
    y[50:] = -1
    spreading = PseudoLabelClassifier(LabelSpreading(kernel="knn")).fit(X, y)
    assert_array_equal(spreading.pseudo_labels_, np.r_[T[:50], np.full(150, -1)])
    assert spreading.score(X, NAMES[T]) > 0.85
    logistic = PseudoLabelClassifier(Recorder(max_iter=500)).fit(X, y)
    assert len(logistic.estimator_.seen_[1]) == 50
    assert logistic.score(X, NAMES[T]) > 0.85


def test_adapter_without_predict_proba():
    clf = PseudoLabelClassifier(LogisticRegression()).fit(labelled(scores=SCORES))
    clf.set_params(estimator=LinearSVC(dual=False)).fit(labelled(scores=SCORES))
    assert not hasattr(clf, "predict_proba")
    assert not hasattr(clf, "label_distributions_")  # of the first fit
    assert_array_equal(clf.transduction_, clf.predict(X))
    assert clf.score(X, NAMES[T]) > 0.85


def test_adapter_is_searchable():
    search = GridSearchCV(
        PseudoLabelClassifier(LogisticRegression(), random_state=0),
        {"estimator__C": [0.1, 1], "labels": ["best", "soft"]},
        cv=3,
    )
    search.fit(labelled(scores=SCORES), NAMES[T])
    assert search.best_score_ > 0.85
    assert search.predict(X).shape == (200,)


def test_adapter_in_a_pipeline():
    annotator = VLMPartialAnnotator(
        NAMES.tolist(), vlm=FeatureVLM(), rule="topk", rule_value=2, output="embeddings"
    )
    for estimator in (LogisticRegression(), LabelSpreading(kernel="knn")):
        pipe = make_pipeline(annotator, PseudoLabelClassifier(estimator)).fit(X)
        assert np.mean(pipe.predict(X) == annotator.fit(X).predict(X)) > 0.8


def test_adapter_leaves_its_estimator_alone():
    estimator = LogisticRegression()
    PseudoLabelClassifier(estimator).fit(X, Y)
    assert not hasattr(estimator, "classes_")


def test_adapter_bad_input():
    clf = PseudoLabelClassifier(LogisticRegression())
    with pytest.raises(NotFittedError):
        clf.predict(X)
    with pytest.raises(InvalidParameterError, match="estimator"):
        PseudoLabelClassifier(StandardScaler()).fit(X, Y)
    with pytest.raises(InvalidParameterError, match="labels"):
        PseudoLabelClassifier(LogisticRegression(), labels="hard").fit(X, Y)
    with pytest.raises(ValueError, match='holds images.*VLMPartialAnnotator.output="embeddings".'):
        clf.fit(np.zeros((200, 8, 8), dtype=np.uint8), Y)
    with pytest.raises(ValueError, match="carry no samples"):
        clf.fit(PartialLabels.from_candidates(Y))
    with pytest.raises(ValueError, match="requires y"):
        clf.fit(X)
    with pytest.raises(ValueError, match="must be probabilities"):
        PseudoLabelClassifier(LogisticRegression(), labels="soft").fit(labelled(scores=-SCORES))


@pytest.mark.parametrize("estimator", [LogisticRegression(), LabelSpreading()])
def test_adapter_too_few_labels(estimator):
    clf = PseudoLabelClassifier(estimator, labels="unanimous")
    pairs = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    with pytest.raises(ValueError, match='no row with a label.*labels="best" labels more rows'):
        clf.fit(X[:3], pairs)
    pairs[1] = [0, 1, 0]
    with pytest.raises(ValueError, match="labels of one class only"):
        clf.fit(X[:3], pairs)
    clf.set_params(labels="best")
    same = PartialLabels(X[:3], NAMES, [[1, 1, 0]] * 3, scores=[[0.7, 0.2, 0.1]] * 3)
    with pytest.raises(ValueError, match='labels="best" leaves labels of one class only'):
        clf.fit(same)


def test_only_the_labels_that_a_human_vouched_for():
    X, y = make_blobs(60, centers=3, random_state=0)
    wrong = np.eye(3, dtype=int)[(y + 1) % 3]  # the annotator is wrong everywhere
    known = np.arange(60) % 4 == 0
    candidates = np.where(known[:, None], np.eye(3, dtype=int)[y], wrong)
    labels = PartialLabels(X, NAMES, candidates, known=known)
    clf = PseudoLabelClassifier(LabelSpreading(), labels="known").fit(labels)
    assert_array_equal(clf.pseudo_labels_, np.where(known, y, -1))
    assert clf.score(X, NAMES[y]) > 0.85
    probe = PseudoLabelClassifier(LogisticRegression(), labels="known").fit(labels)
    alone = LogisticRegression().fit(X[known], y[known])
    assert_allclose(probe.predict_proba(X), alone.predict_proba(X))
    for nothing in (PartialLabels(X, NAMES, candidates), np.eye(3, dtype=int)[y]):
        with pytest.raises(ValueError, match='"known" leaves no row .* labels more rows'):
            X_, y_ = (nothing, None) if isinstance(nothing, PartialLabels) else (X, nothing)
            clone(clf).fit(X_, y_)

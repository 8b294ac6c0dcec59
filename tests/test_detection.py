"""Detectors of noisy labels as estimators, and those that need no annotator."""

import pickle
import sys
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from detection_data import NOISY, SCORES, SETS, T, X
from fakes import NAMES
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist, make_candidates
from sklearn_npll.detection import (
    BaseNoiseDetector,
    CLIPCleanerDetector,
    ConfidentLearningDetector,
    LabelMatchDetector,
    NeighborVoteDetector,
    SmallLossDetector,
)
from sklearn_npll.detection._rules import LossMixture

CLEAN = NOISY == T

KNOWN = np.zeros(120, dtype=bool)
KNOWN[5] = True  # wrong, as its label is noisy, but a human says so
LABELS = PartialLabels(X, NAMES, SETS, scores=SCORES, known=KNOWN)


class TenClasses(BaseEstimator):
    """An annotator for any data, of more classes than there are labels, fitted on samples alone."""

    def fit(self, X):
        self.classes_ = np.arange(-1, 10)
        return self

    def predict_proba(self, X):
        centres = np.linspace(-3, 3, 11)
        proba = np.exp(-np.abs(np.asarray(X, dtype=float)[:, :1] - centres))
        return proba / proba.sum(axis=1, keepdims=True)


class Fixed(BaseNoiseDetector):
    """Scores that are out of range, and a mask that believes every row."""

    def _fit_scores(self, problem):
        n = len(problem.candidates)
        return np.ones(n, dtype=bool), np.linspace(-1, 2, n)

    def _predict_proba(self, X):
        X = self._check_samples(X, reset=False)
        proba = np.arange(1.0, len(self.classes_) + 1)
        return np.tile(proba / proba.sum(), (len(X), 1))


CHECKED = [
    LabelMatchDetector(TenClasses()),
    CLIPCleanerDetector(TenClasses(), random_state=0),
    SmallLossDetector(random_state=0),
    NeighborVoteDetector(),
]
# None of these asks an annotator of its own, so all learn from LABELS.
DETECTORS = [
    LabelMatchDetector(),
    CLIPCleanerDetector(random_state=0),
    CLIPCleanerDetector(cv=3, random_state=0),
    SmallLossDetector(random_state=0),
    NeighborVoteDetector(metric="euclidean"),
]
each_detector = pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)


def sets(*rows):
    return np.array(rows, dtype=bool)


@parametrize_with_checks(CHECKED)
def test_common_checks(estimator, check):
    check(estimator)


# -- what all detectors share ------------------------------------------------------------------


def test_known_rows_and_rows_without_a_label():
    detector = Fixed().fit(LABELS[:10])
    score = np.linspace(-1, 2, 10).clip(0, 1)
    score[5], score[7] = 1, 0
    assert_allclose(detector.clean_score_, score)
    assert_allclose(detector.noise_score_, 1 - score)
    assert_array_equal(np.flatnonzero(~detector.clean_mask_), [7])
    assert_array_equal(detector.classes_, NAMES)
    # 1 - sum_S p with p = 1/6, 2/6, 3/6
    labels = PartialLabels(
        X[:4], NAMES, sets([1, 0, 0], [0, 1, 1], [1, 1, 1], [1, 0, 0]), known=[0, 0, 0, 1]
    )
    assert_allclose(detector.score_noise(labels), [5 / 6, 1 / 6, 1, 0])


def test_labels_of_new_rows_are_matched_by_name():
    detector = Fixed().fit(X, NAMES[T])
    by_name = detector.score_noise(X[:3], ["cat", "ant", -1])
    assert_allclose(by_name, [1 / 2, 5 / 6, 1])
    matrix = [[0, 0, 1], [1, 0, 0], [1, 1, 1]]
    for y in (matrix, sp.csr_array(matrix), PartialLabels.from_candidates(matrix, classes=NAMES)):
        assert_allclose(detector.score_noise(X[:3], y), by_name)
    turned = PartialLabels(X[:3], ["cat", "ant"], [[1, 0], [0, 1], [1, 1]])
    assert_allclose(detector.score_noise(turned), by_name)
    binary = Fixed().fit(X, np.where(T, 1, -1))
    assert_allclose(binary.score_noise(X[:2], [-1, 1]), [2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "pass y, or a PartialLabels"),
        (["ant", "bee"], "inconsistent numbers"),
        (["ant", "bee", "cta"], r"row 2 has the unknown class 'cta'\. Did you mean 'cat'"),
        (np.eye(2, dtype=int)[[0, 1, 0]], "y has 2 columns, but Fixed has 3 classes"),
        (np.zeros((3, 3)), "no candidate"),
        ([{"ant"}, {"bee"}, {"cat"}], "list of sets"),
        (PartialLabels.from_sets([["dog"], ["ant"], ["ant"]]), "class 'dog', which Fixed"),
        (PartialLabels.from_sets([["bee"], ["ant"]]), "inconsistent numbers"),
    ],
)
def test_bad_labels_of_new_rows(y, message):
    with pytest.raises(ValueError, match=message):
        Fixed().fit(X, NAMES[T]).score_noise(X[:3], y)


def test_bad_input():
    for detector in (Fixed(), *DETECTORS):
        with pytest.raises(ValueError, match="target y is None"):
            detector.fit(X)
        with pytest.raises(NotFittedError):
            clone(detector).predict_proba(X)
        with pytest.raises(NotFittedError):
            clone(detector).score_noise(X, T)
        with pytest.raises(ValueError, match="nothing to learn from"):
            detector.fit(X, np.ones((120, 3)))
    with pytest.raises(ValueError, match="holds images"):
        Fixed().fit(np.zeros((3, 4, 4)), [0, 1, 1])
    for wrong in (
        SmallLossDetector(clean_threshold=2),
        SmallLossDetector(StandardScaler()),
        SmallLossDetector(cv=1),
        SmallLossDetector(n_rounds=0),
        NeighborVoteDetector(0),
        CLIPCleanerDetector(consistency_threshold=-1),
        CLIPCleanerDetector("annotator"),
        ConfidentLearningDetector(filter_by="prune"),
        SmallLossDetector(LogisticRegression(C=-1)),
    ):
        with pytest.raises(InvalidParameterError):
            wrong.fit(X, NOISY)


@pytest.mark.parametrize(
    "y",
    [
        NAMES[NOISY],
        NAMES[NOISY].tolist(),
        pd.Series(NAMES[NOISY]),
        np.eye(3, dtype=int)[NOISY],
        sp.csr_array(np.eye(3, dtype=int)[NOISY]),
        sp.coo_matrix(np.eye(3, dtype=int)[NOISY]),
        PartialLabels.from_candidates(np.eye(3)[NOISY], classes=NAMES),
    ],
    ids=lambda y: type(y).__name__,
)
@pytest.mark.parametrize("convert", [np.asarray, list, pd.DataFrame], ids=lambda f: f.__name__)
def test_fit_resample(convert, y):
    detector = NeighborVoteDetector(metric="euclidean")
    X_in = X.tolist() if convert is list else convert(X)
    X_clean, y_clean = detector.fit_resample(X_in, y)
    rows = np.flatnonzero(detector.clean_mask_)
    assert 80 < len(rows) < 110
    assert type(X_clean) is type(X_in)
    assert_array_equal(np.asarray(X_clean), X[rows])
    dense = y_clean.toarray() if hasattr(y_clean, "toarray") else np.asarray(y_clean)
    labels = NAMES[NOISY] if dense.ndim == 1 else np.eye(3)[NOISY]
    assert_array_equal(dense, labels[rows])


def test_fit_resample_of_a_container():
    detector = LabelMatchDetector()
    clean, nothing = detector.fit_resample(LABELS)
    assert nothing is None
    assert_array_equal(clean.data, X[detector.clean_mask_])
    assert_array_equal(clean.toarray(), SETS[detector.clean_mask_])
    assert_array_equal(clean.known.nonzero()[0], [detector.clean_mask_[:5].sum()])


@each_detector
def test_y_beside_a_container_is_refused(detector):
    detector = clone(detector)
    for ask in (detector.fit, detector.fit_resample):
        with pytest.raises(
            ValueError, match="a PartialLabels, whose candidates.*there is a y, too"
        ):
            ask(LABELS, NAMES[T])
    detector.fit(LABELS)
    with pytest.raises(ValueError, match="leave y out"):
        detector.score_noise(LABELS, LABELS)


def test_y_is_judged_by_the_scores_as_the_error_says():
    y = NAMES[NOISY]
    labels = LABELS.replace(candidates=LABELS.classes == np.asarray(y)[:, None], known=None)
    assert_array_equal(LabelMatchDetector().fit(labels).clean_mask_, CLEAN)


@each_detector
def test_finds_the_noise(detector):
    detector = clone(detector).fit(LABELS)
    judged = ~KNOWN & ~SETS.all(axis=1)
    contained = SETS[np.arange(120), T]
    assert f1_score(contained[judged], detector.clean_mask_[judged]) > 0.93
    score = detector.clean_score_
    assert score[judged & contained].mean() > score[judged & ~contained].mean() + 0.3
    assert ((score >= 0) & (score <= 1)).all()
    assert (detector.clean_mask_[5], score[5]) == (True, 1)
    assert (detector.clean_mask_[7], score[7]) == (False, 0)
    assert_allclose(detector.predict_proba(LABELS).sum(axis=1), 1)
    assert np.mean(detector.predict_proba(LABELS).argmax(axis=1) == T) > 0.85
    new = detector.score_noise(LABELS)
    assert new[judged & ~contained].mean() > new[judged & contained].mean() + 0.3


@each_detector
def test_same_seed_same_result(detector):
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    first = clone(detector).fit(LABELS)
    second = pickle.loads(pickle.dumps(clone(first).fit(X, LABELS)))
    after = np.random.get_state()  # noqa: NPY002
    assert (after[1].tolist(), after[2]) == (keys.tolist(), position)
    assert_array_equal(first.clean_score_, second.clean_score_)
    assert_array_equal(first.clean_mask_, second.clean_mask_)
    assert_array_equal(first.score_noise(LABELS), second.score_noise(X, LABELS))
    assert_array_equal(first.predict_proba(LABELS), second.predict_proba(LABELS))


# -- without an annotator ----------------------------------------------------------------------


def test_small_loss_by_hand():
    detector = SmallLossDetector(LogisticRegression(), random_state=0).fit(X, NAMES[NOISY])
    proba = cross_val_predict(LogisticRegression(), X, NOISY, cv=3, method="predict_proba")
    loss = -np.log(proba[np.arange(120), NOISY])
    assert_allclose(detector.clean_score_, LossMixture(0).fit(loss).clean_probability(loss))
    assert_array_equal(detector.clean_mask_, detector.clean_score_ > 0.5)
    stricter = SmallLossDetector(LogisticRegression(), clean_threshold=0.99, random_state=0)
    assert stricter.fit(X, NOISY).clean_mask_.sum() < detector.clean_mask_.sum()
    whole = LogisticRegression().fit(X, NOISY)
    assert_allclose(detector.predict_proba(X), whole.predict_proba(X))


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_small_loss_of_a_label_that_no_other_row_has():
    X, truth = make_blobs(200, n_features=5, centers=4, random_state=0)
    rng = np.random.default_rng(0)
    wrong = rng.random(200) < 0.4
    noisy = np.where(wrong, (truth + rng.integers(1, 4, 200)) % 4, truth)
    typo = np.where(np.arange(200) == 3, 9, noisy)
    detector = SmallLossDetector(random_state=0)
    precision = [(~wrong[4:])[detector.fit(X, y).clean_mask_[4:]].mean() for y in (noisy, typo)]
    assert precision[0] > 0.8
    assert abs(precision[1] - precision[0]) < 0.05
    assert (detector.clean_mask_[3], detector.clean_score_[3]) == (False, 0)


def test_small_loss_of_too_few_rows():
    with pytest.raises(ValueError, match="cv=3 cannot split the 2 rows with a label, so set cv"):
        SmallLossDetector().fit(X[:2], [0, 1])


def test_small_loss_of_sets_gains_by_rounds():
    rng = np.random.default_rng(0)
    X, y = make_blobs(300, n_features=5, centers=6, cluster_std=3, random_state=1)
    candidates = make_candidates(y, q=0.4, eta=0.2, random_state=rng.integers(99))
    clean = candidates[np.arange(300), y]
    means = []
    for n_rounds in (1, 4):
        detector = SmallLossDetector(n_rounds=n_rounds, random_state=0).fit(X, candidates)
        means.append(f1_score(clean, detector.clean_mask_))
    assert means[1] > means[0] + 0.02


def test_neighbor_vote_by_hand():
    X = np.array([[0.0], [1], [2.1], [10], [11], [12.1]])
    candidates = sets([1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1])
    detector = NeighborVoteDetector(2, metric="euclidean").fit(X, candidates)
    # votes: (.25, .75, 0), (.5, .5, 0), (.75, .25, 0), (0, .75, .25), (0, .5, .5), none
    assert_allclose(detector.clean_score_, [0.25, 1, 0.25, 0.25, 1, 0])
    assert_array_equal(detector.clean_mask_, [False, True, False, False, True, False])
    # rows of `fit` vote on new rows, those without a label do not
    assert_allclose(detector.predict_proba([[0.4], [99]]), [[0.75, 0.25, 0], [0, 0.25, 0.75]])
    assert_allclose(detector.score_noise([[0.4], [99]], [0, 2]), [0.25, 0.25])
    everyone = NeighborVoteDetector(99, metric="euclidean").fit(X, candidates)
    assert_allclose(everyone.predict_proba([[0.0]]), [[1.5 / 5, 2 / 5, 1.5 / 5]])
    candidates[1:] = True
    with pytest.raises(ValueError, match="at least 2 rows with a label"):
        detector.fit(X, candidates)


# -- cleanlab ----------------------------------------------------------------------------------


@parametrize_with_checks([ConfidentLearningDetector()])
def test_common_checks_of_confident_learning(estimator, check):
    pytest.importorskip("cleanlab")
    check(estimator)


def test_confident_learning_is_cleanlab():
    filters = pytest.importorskip("cleanlab.filter")
    detector = ConfidentLearningDetector(LogisticRegression(), filter_by="both")
    labels = PartialLabels.from_candidates(np.eye(4)[np.array([0, 1, 3])[NOISY]], data=X)
    detector.fit(labels)  # class 2 has no rows
    proba = cross_val_predict(LogisticRegression(), X, NOISY, cv=3, method="predict_proba")
    issues = filters.find_label_issues(NOISY, proba, filter_by="both", n_jobs=1)
    assert_array_equal(detector.clean_mask_, ~issues)
    assert_allclose(detector.clean_score_, proba[np.arange(120), NOISY])
    assert f1_score(CLEAN, detector.clean_mask_) > 0.9
    with pytest.raises(ValueError, match=r"for single labels, but rows 1, .* have several"):
        detector.fit(LABELS)


def test_confident_learning_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(ImportError, match="pip install cleanlab"):
        ConfidentLearningDetector().fit(X, NOISY)


# -- real data ---------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def fashion():
    """Embeddings of 400 images by the shipped model, its scores, and 40 % wrong labels."""
    data = load_fashion_mnist("train")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(data.images))[:400]
    classes = dict(enumerate(data.class_prompts.values()))
    annotator = VLMPartialAnnotator(classes, templates="simple", output="embeddings")
    labels = annotator.fit_transform(data.images[rows])
    wrong = rng.random(400) < 0.4
    noisy = np.where(wrong, (data.target[rows] + rng.integers(1, 10, 400)) % 10, data.target[rows])
    candidates = np.eye(10, dtype=bool)[noisy]
    return PartialLabels(labels.data, labels.classes, candidates, scores=labels.scores), ~wrong


@pytest.mark.parametrize(
    ("detector", "least"),
    [
        (LabelMatchDetector(), 0.75),
        (CLIPCleanerDetector(random_state=0), 0.75),
        (SmallLossDetector(random_state=0), 0.83),
        (NeighborVoteDetector(), 0.78),
        (ConfidentLearningDetector(), 0.81),
    ],
    ids=lambda value: type(value).__name__,
)
def test_fashion_mnist(detector, least):
    if isinstance(detector, ConfidentLearningDetector):
        pytest.importorskip("cleanlab")
    labels, clean = fashion()
    found = clone(detector).fit(labels).clean_mask_
    assert f1_score(clean, found) > least

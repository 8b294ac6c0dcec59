"""Learning from what a detector believes: DeFTClassifier, and Co-Reg divided by a detector."""

import pickle

import numpy as np
import pandas as pd
import pytest
from detection_data import noisy_blobs
from fakes import ColourVLM
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll._neural import _base
from sklearn_npll._neural._checkpoint import save_checkpoint
from sklearn_npll.baselines import CCClassifier, PLKNeighborsClassifier
from sklearn_npll.coreg._division import agree_with_mask
from sklearn_npll.detection import (
    DeFTClassifier,
    LabelMatchDetector,
    NeighborVoteDetector,
    SmallLossDetector,
)

NAMES = np.array(["ant", "bee", "cat"])
X, T, NOISY, SCORES, SETS = noisy_blobs(90)
KNOWN = np.zeros(90, dtype=bool)
KNOWN[5] = True
LABELS = PartialLabels(X, NAMES, SETS, scores=SCORES, known=KNOWN)
VOTE = NeighborVoteDetector(metric="euclidean")


class Given(BaseEstimator):
    """A detector with clean scores by the first feature."""

    def __init__(self, threshold=0.5):
        self.threshold = threshold

    def fit(self, X, y=None):
        labels = X if isinstance(X, PartialLabels) else None
        self.classes_ = np.unique(y) if labels is None else labels.classes
        self.clean_score_ = np.asarray(X if labels is None else labels.data)[:, 0]
        self.clean_mask_ = self.clean_score_ > self.threshold
        return self

    def predict_proba(self, X):
        return np.tile([0.2, 0.5, 0.3], (len(X), 1))


class Recorder(ClassifierMixin, BaseEstimator):
    """Keeps what it is trained on."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = (X, y, sample_weight)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


class PackageRecorder(Recorder, CCClassifier):
    """The same, as a classifier of this package."""

    def fit(self, X, y=None):
        self.seen_ = (X, y)
        self.classes_ = y.classes
        return self


@pytest.mark.filterwarnings("ignore:fewer than min_per_class:UserWarning")
@parametrize_with_checks(
    [
        DeFTClassifier(NeighborVoteDetector(), LogisticRegression()),
        DeFTClassifier(SmallLossDetector(random_state=0), LogisticRegression(), use="weights"),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


# -- DeFTClassifier ----------------------------------------------------------------------------

DATA = np.array([[0.9, 0], [0.8, 1], [0.7, 2], [0.3, 3], [0.2, 4], [0.6, 5]])
CANDIDATES = np.array(
    [[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [1, 1, 1]], dtype=bool
)
SMALL = PartialLabels(DATA, NAMES, CANDIDATES, scores=np.full((6, 3), 1 / 3))


def test_clean_rows_and_their_most_probable_candidates():
    clf = DeFTClassifier(Given(), Recorder(), min_per_class=0).fit(SMALL)
    seen, labels, weight = clf.estimator_.seen_
    assert_array_equal(seen, DATA[:3])  # the last one has no label
    assert_array_equal(labels, ["ant", "bee", "cat"])
    assert weight is None
    assert_array_equal(np.flatnonzero(clf.kept_mask_), [0, 1, 2])
    assert_array_equal(clf.classes_, NAMES)
    assert clf.n_features_in_ == 2


def test_weights_are_clean_scores():
    clf = DeFTClassifier(Given(), Recorder(), use="weights").fit(SMALL)
    seen, labels, weight = clf.estimator_.seen_
    assert_array_equal(seen, DATA[:5])
    assert_array_equal(labels, ["ant", "bee", "cat", "cat", "bee"])
    assert_allclose(weight, DATA[:5, 0])
    piped = DeFTClassifier(Given(), make_pipeline(StandardScaler(), Recorder()), use="weights")
    assert_allclose(piped.fit(SMALL).estimator_[-1].seen_[2], DATA[:5, 0])
    for estimator in (KNeighborsClassifier(), CCClassifier()):
        with pytest.raises(ValueError, match=r"Classifier has no sample_weight"):
            DeFTClassifier(Given(), estimator, use="weights").fit(SMALL)


def test_classes_that_lose_all_their_rows():
    y = ["ant", "ant", "bee", "cat", "cat", "ant"]
    clf = DeFTClassifier(Given(), Recorder())
    with pytest.warns(UserWarning, match=r"min_per_class=1 rows are clean of 'cat', so"):
        clf.fit(DATA, y)
    assert_array_equal(np.flatnonzero(clf.kept_mask_), [0, 1, 2, 3, 5])
    with pytest.warns(UserWarning, match=r"min_per_class=2 rows are clean of 'cat', so"):
        clf.set_params(min_per_class=2).fit(DATA, y)  # there is only one bee
    assert clf.kept_mask_.all()
    clf.set_params(min_per_class=0).fit(DATA, y)
    assert_array_equal(np.flatnonzero(clf.kept_mask_), [0, 1, 2, 5])
    assert_array_equal(clf.classes_, NAMES)
    assert_allclose(clf.predict_proba(DATA), np.tile([0.5, 0.5, 0], (6, 1)))
    with pytest.raises(ValueError, match="believes no row"):
        clf.set_params(detector__threshold=1).fit(DATA, y)


def test_classifiers_of_the_package_learn_from_candidates():
    clf = DeFTClassifier(Given(), PackageRecorder(), min_per_class=0).fit(SMALL)
    seen, labels = clf.estimator_.seen_
    assert_array_equal(seen, DATA[:3])
    assert_array_equal(labels.toarray(), CANDIDATES[:3])
    assert_array_equal(labels.classes, NAMES)
    assert labels.scores.shape == (3, 3)
    in_pipeline = DeFTClassifier(VOTE, make_pipeline(StandardScaler(), PLKNeighborsClassifier()))
    assert in_pipeline.fit(LABELS).score(X, NAMES[T]) > 0.9
    binary = np.where(T == 1, 1, -1)  # -1 is a class
    clf = DeFTClassifier(VOTE, PLKNeighborsClassifier()).fit(X, binary)
    assert_array_equal(clf.classes_, [-1, 1])
    assert clf.score(X, binary) > 0.9


def test_cleaning_helps():
    student = KNeighborsClassifier(1)
    for detector in (VOTE, SmallLossDetector(random_state=0)):
        clf = DeFTClassifier(detector, student).fit(X, NAMES[NOISY])
        assert clf.score(X, NAMES[T]) > student.fit(X, NAMES[NOISY]).score(X, NAMES[T]) + 0.1
        again = pickle.loads(pickle.dumps(clone(clf).fit(X, NAMES[NOISY])))
        assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert clf.score(LABELS) > 0.5  # agreement with the annotator
    assert not hasattr(DeFTClassifier(VOTE, LinearSVC()), "predict_proba")
    with pytest.raises(NotFittedError):
        DeFTClassifier(VOTE, student).predict(X)


def test_parameters_of_both_parts_are_searched():
    grid = {"detector__n_neighbors": [1, 10], "estimator__n_neighbors": [1, 3]}
    search = GridSearchCV(DeFTClassifier(VOTE, KNeighborsClassifier()), grid, cv=3)
    search.fit(LABELS, NAMES[T])
    assert search.best_params_["detector__n_neighbors"] == 10
    assert search.best_score_ > 0.9
    without_search = DeFTClassifier(LabelMatchDetector(), LogisticRegression())
    assert cross_val_score(without_search, LABELS, NAMES[T], cv=3).mean() > 0.9
    for wrong in ({"use": "rows"}, {"min_per_class": -1}, {"detector": "vote"}):
        with pytest.raises(InvalidParameterError):
            DeFTClassifier(VOTE, KNeighborsClassifier()).set_params(**wrong).fit(LABELS)
    with pytest.raises(InvalidParameterError):
        DeFTClassifier(NeighborVoteDetector(0), KNeighborsClassifier()).fit(LABELS)


def test_a_matrix_and_an_annotator_with_names():
    class Named(BaseEstimator):
        def fit(self, X):
            self.classes_ = NAMES[::-1]
            return self

        def predict_proba(self, X):
            return np.full((len(X), 3), [0.6, 0.3, 0.1])

    matrix = np.eye(3, dtype=int)[[2, 1, 0, 2, 1, 0]]  # cat, bee, ant, cat, bee, ant
    clf = DeFTClassifier(LabelMatchDetector(Named()), Recorder(), min_per_class=0)
    clf.fit(DATA, matrix)
    assert_array_equal(clf.classes_, NAMES)
    assert_array_equal(clf.estimator_.seen_[1], ["cat", "cat"])
    with pytest.raises(ValueError, match="class 0, which the annotator does not know"):
        coreg(division=LabelMatchDetector(Named())).fit(DATA, matrix)
    named = PartialLabels.from_candidates(matrix, classes=NAMES)
    found = coreg(division=LabelMatchDetector(Named()), max_epochs=3).fit(DATA, named)
    assert_allclose(found.clean_probability_, [0.6, 0.3, 0.1] * 2)


def test_names_of_features():
    frame = pd.DataFrame(X, columns=["width", "height"])
    clf = DeFTClassifier(VOTE, LogisticRegression()).fit(frame, NOISY)
    assert_array_equal(clf.feature_names_in_, ["width", "height"])
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame[["height", "width"]])
    with pytest.raises(ValueError, match="carry no samples"):
        clf.predict(PartialLabels(None, NAMES, SETS))
    by_name = make_column_transformer(("passthrough", ["height"]))
    piped = DeFTClassifier(VOTE, make_pipeline(by_name, LogisticRegression()))
    alone = DeFTClassifier(VOTE, LogisticRegression()).fit(X, NOISY).kept_mask_
    on_height = LogisticRegression().fit(X[alone, 1:], NOISY[alone])
    for labels in ((frame, NOISY), (PartialLabels(frame, range(3), np.eye(3)[NOISY]),)):
        proba = piped.fit(*labels).predict_proba(labels[0])
        assert_allclose(proba, on_height.predict_proba(X[:, 1:]))


def test_images():
    colours = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}
    y = np.repeat(list(colours), 8)
    images = np.array([np.full((8, 8, 3), colours[c]) for c in y], dtype=np.uint8)
    noisy = y.copy()
    noisy[::8] = ["blue", "red", "green"]
    annotator = VLMPartialAnnotator(list(colours), vlm=ColourVLM())
    student = CCClassifier(max_epochs=8, batch_size=8, lr=0.1, random_state=0)
    clf = DeFTClassifier(LabelMatchDetector(annotator), student).fit(images, noisy)
    assert clf.kept_mask_.sum() == 21
    assert clf.score(images, y) == 1
    assert not hasattr(clf, "n_features_in_")


# -- Co-Reg ------------------------------------------------------------------------------------


def coreg(**params):
    return CoRegClassifier(
        **{"max_epochs": 6, "warm_up": 2, "batch_size": 16, "random_state": 0, **params}
    )


def same_training(a, b):
    drop = [[{k: v for k, v in r.items() if k != "seconds"} for r in c.history_] for c in (a, b)]
    assert str(drop[0]) == str(drop[1])
    assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    assert_array_equal(a.clean_probability_, b.clean_probability_)


@pytest.fixture(scope="module")
def divided():
    return coreg(division=VOTE).fit(LABELS)


def test_a_detector_divides(divided):
    detector = clone(VOTE).fit(LABELS)
    score, mask = detector.clean_score_, detector.clean_mask_
    apart = (score > 0.5) != mask
    assert_allclose(divided.clean_probability_[~apart], score[~apart])
    assert_array_equal(divided.clean_probability_ > 0.5, mask)
    assert (score[5], score[7]) == (1, 0)
    sizes = [row["partial_size"] for row in divided.history_ if "partial_size" in row]
    assert sizes == [np.count_nonzero(mask)] * 4
    assert np.isnan(divided.history_[-1]["mixture_means"]).all()
    assert not hasattr(divided.division, "clean_score_")  # a clone was fitted
    assert divided.score(X, NAMES[T]) > 0.85  # over twelve seeds 0.89 to 0.99


class Quarter(Given):
    """A detector whose scores are 1/4, and which believes a number of rows."""

    def fit(self, X, y=None):
        super().fit(X, y)
        self.clean_score_ = np.full(len(X), 0.25)
        self.clean_mask_ = np.arange(len(X)) < self.threshold
        return self


def test_scores_agree_with_the_mask_by_hand():
    score = np.array([0.2, 0.9, 0.2, 0.9, 0.6], dtype=np.float32)
    mask = np.array([True, True, False, False, True])
    above = np.nextafter(np.float32(0.6), np.float32(1))
    expected = np.array([above, 0.9, 0.2, 0.6, above], dtype=np.float32)
    found = agree_with_mask(score, mask, 0.6)
    assert_array_equal(found, expected)
    assert found.dtype == np.float32


def test_the_mask_of_a_detector_decides():
    clf = coreg(division=Quarter(40), clean_threshold=0.3).fit(LABELS)
    assert [r["partial_size"] for r in clf.history_ if "partial_size" in r] == [39] * 4  # not row 7
    believed = np.delete(clf.clean_probability_[:40], [5, 7])
    assert_allclose(believed, 0.3, rtol=1e-6)
    assert (believed > np.float32(0.3)).all()
    assert_array_equal(clf.clean_probability_[40:], 0.25)


def test_the_rows_known_and_without_a_label_are_settled():
    with pytest.warns(UserWarning, match="Quarter believes 1 of 90 rows, too few") as caught:
        found = coreg(division=Quarter(0)).fit(LABELS).clean_probability_
    assert caught[0].filename == __file__
    assert (found[5], found[7]) == (1, 0)
    assert_array_equal(np.delete(found, [5, 7]), 0.25)


def test_same_seed_same_division(divided):
    same_training(divided, coreg(division=clone(VOTE)).fit(X, LABELS))
    same_training(divided, pickle.loads(pickle.dumps(divided)))
    mixture = coreg().fit(LABELS)
    assert mixture.division == "mixture"
    assert (mixture.clean_probability_ != divided.clean_probability_).any()
    search = GridSearchCV(coreg(), {"division": ["mixture", VOTE, Given()]}, cv=2)
    nested = search.estimator.set_params(division=clone(VOTE), division__n_neighbors=3)
    assert nested.division.n_neighbors == 3


def test_resumes_with_the_same_division(divided, tmp_path, monkeypatch):
    def save_and_stop(state, path):
        save_checkpoint(state, path)
        if len(state["history"]) == 4:
            raise KeyboardInterrupt

    saved = coreg(division=VOTE, checkpoint_dir=tmp_path, checkpoint_every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_base, "save_checkpoint", save_and_stop)
        clone(saved).fit(LABELS)
    same_training(saved.fit(LABELS), divided)
    assert len(list(tmp_path.iterdir())) == 1
    for other in ("mixture", clone(VOTE).set_params(n_neighbors=3)):
        clone(saved).set_params(division=other, max_epochs=3).fit(LABELS)
    assert len(list(tmp_path.iterdir())) == 3


def test_warm_start_may_change_the_division(divided):
    clf = coreg(division=VOTE, warm_start=True, max_epochs=4).fit(LABELS)
    clf.set_params(max_epochs=6).fit(LABELS)
    assert_array_equal(clf.clean_probability_, divided.clean_probability_)
    for division in ("mixture", VOTE):
        clf.set_params(division=division, max_epochs=clf.max_epochs + 2).fit(LABELS)
        by_mixture = np.isfinite(clf.history_[-1]["mixture_means"]).all()
        assert by_mixture == (division == "mixture")
    assert len(clf.history_) == 10


def test_divisions_that_do_not_suit():
    with pytest.raises(InvalidParameterError, match="division"):
        coreg(division="detector").fit(LABELS)
    with pytest.raises(InvalidParameterError, match="n_neighbors"):
        coreg(division=NeighborVoteDetector(0)).fit(LABELS)
    with pytest.raises(ValueError, match="division=StandardScaler must be a detector"):
        coreg(division=StandardScaler()).fit(X, T)
    with pytest.raises(ValueError, match="division=Given must be a detector"):
        coreg(division=Given()).fit(X + 99, T)
    binary = np.where(T == 1, 1, -1)
    clf = coreg(division=VOTE, max_epochs=3).fit(X, binary)
    assert_allclose(clf.clean_probability_, clone(VOTE).fit(X, binary).clean_score_)

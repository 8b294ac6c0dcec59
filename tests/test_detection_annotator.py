"""Detectors of noisy labels that ask an annotator, and their rules by hand."""

import numpy as np
import pytest
from detection_data import NOISY, SCORES, SETS, T, X
from fakes import NAMES, ColourVLM, FeatureVLM
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll.annotators import ConformalPartialAnnotator
from sklearn_npll.detection import CLIPCleanerDetector, LabelMatchDetector


class Oracle:
    """An annotator with fixed classes and probabilities by row number, which is the feature."""

    def __init__(self, classes, proba):
        self.classes_ = np.asarray(classes)
        self.proba = np.asarray(proba, dtype=float)

    def predict_proba(self, X):
        return self.proba[np.asarray(X)[:, 0].astype(int)]


# -- the annotator -----------------------------------------------------------------------------

ROWS = np.arange(4.0)[:, None]
OPINION = [[0.7, 0.2, 0.1, 0], [0.1, 0.6, 0.3, 0], [0.2, 0.2, 0.6, 0], [0, 0, 0.2, 0.8]]
TURNED = Oracle(["dog", "cat", "bee", "ant"], np.array(OPINION)[:, ::-1])


def test_label_match_by_hand():
    detector = LabelMatchDetector(TURNED).fit(ROWS, ["ant", "cat", "bee", "dog"])
    assert_array_equal(detector.classes_, ["ant", "bee", "cat", "dog"])
    assert_array_equal(detector.clean_mask_, [True, False, False, True])
    assert_allclose(detector.clean_score_, [0.7, 0.3, 0.2, 0.8])
    assert_allclose(detector.score_noise(ROWS, ["bee"] * 4), [0.8, 0.4, 0.8, 1])
    assert_allclose(detector.predict_proba(ROWS), TURNED.proba[:, [3, 2, 1, 0]])
    assert isinstance(detector.annotator_, Oracle)


def test_an_annotator_that_abstains_believes_nothing():
    votes = [[0, 0, 1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1], [2, 2, 2], [1, 1, -1]] * 2
    single = np.eye(3, dtype=int)[[0, 0, 1, 2, 2, 1] * 2]
    labels = PartialLabels(X[:12], NAMES, single, votes=votes)
    expected = [True, False, False, False, True, True] * 2
    detector = LabelMatchDetector().fit(labels)
    assert_array_equal(detector.clean_mask_, expected)
    assert_allclose(detector.clean_score_, [2 / 3, 1 / 3, 1 / 3, 1 / 3, 1, 1] * 2)
    cleaner = CLIPCleanerDetector(clean_threshold=0, random_state=0).fit(labels)
    assert not cleaner.clean_mask_[1:4].any() and not cleaner.clean_mask_[7:10].any()
    assert cleaner.clean_mask_.any()


def test_labels_need_not_name_every_class_of_the_annotator():
    # the last row is no ant and no cat but a dog, which no label says
    detector = LabelMatchDetector(TURNED).fit(ROWS, ["ant", "cat", "cat", "cat"])
    assert_array_equal(detector.clean_mask_, [True, False, True, False])
    turned = PartialLabels(ROWS, ["cat", "ant"], [[0, 1], [1, 0], [1, 0], [1, 1]])
    detector.fit(turned)
    assert_allclose(detector.clean_score_, [0.7, 0.3, 0.6, 0])  # all candidates: no label


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, sp.csr_array])
def test_columns_of_a_matrix_are_classes_of_the_annotator(convert):
    matrix = convert(np.eye(4, dtype=int)[[0, 2, 1, 3]])  # ant, cat, bee, dog
    by_name = LabelMatchDetector(TURNED).fit(ROWS, ["ant", "cat", "bee", "dog"])
    detector = LabelMatchDetector(TURNED).fit(ROWS, matrix)
    assert_array_equal(detector.clean_score_, by_name.clean_score_)
    assert_array_equal(detector.score_noise(ROWS, matrix), detector.noise_score_)
    for numbers in ([3, 2, 1, 0], [0, 1, 2, 3]):  # dog, cat, bee, ant in the order of the columns
        turned = TURNED.proba if numbers[0] else TURNED.proba[:, ::-1]
        by_number = LabelMatchDetector(Oracle(numbers, turned)).fit(ROWS, matrix)
        assert_array_equal(by_number.clean_score_, by_name.clean_score_)
    numbered = LabelMatchDetector(Oracle([1, 2, 3, 4], TURNED.proba))
    for method in (numbered.fit, numbered.fit(ROWS, [1, 2, 3, 4]).score_noise):
        with pytest.raises(ValueError, match=r"0 to 3, but .* has the classes .*name the col"):
            method(ROWS, matrix)
    with pytest.raises(ValueError, match="y has 4 columns, but the annotator has 3 classes"):
        LabelMatchDetector(Oracle(range(3), SCORES)).fit(ROWS, matrix)


def test_the_labels_may_be_of_one_class():
    detector = LabelMatchDetector(TURNED).fit(ROWS, ["ant", "ant", "-1", "ant"])
    assert_allclose(detector.clean_score_, [0.7, 0.1, 0, 0])
    assert_array_equal(detector.clean_mask_, [True, False, False, False])
    with pytest.raises(ValueError, match="all labels are of one class; use LabelMatchDetector"):
        CLIPCleanerDetector(TURNED).fit(ROWS, ["ant"] * 4)
    with pytest.raises(ValueError, match="at least 2 classes"):
        LabelMatchDetector(Oracle(["ant"], np.ones((4, 1)))).fit(ROWS, ["ant"] * 4)


@pytest.mark.parametrize(
    "detector", [LabelMatchDetector(), CLIPCleanerDetector(random_state=0)], ids=type
)
def test_fitting_the_annotator_again_has_no_effect(detector):
    annotator = Oracle(["dog", "cat", "bee", "ant"], TURNED.proba)
    detector = clone(detector).set_params(annotator=annotator)
    y = ["ant", "cat", "bee", "dog"]
    before = detector.fit(ROWS, y).score_noise(ROWS, y)
    annotator.classes_, annotator.proba = annotator.classes_[::-1], annotator.proba[::-1]
    assert_array_equal(detector.score_noise(ROWS, y), before)
    detector.annotator_.classes_ = np.array(list("abcd"))  # as where the copy wraps what is fitted
    with pytest.raises(ValueError, match="fitted again, with other classes"):
        detector.score_noise(ROWS, y)


def test_scores_are_matched_by_name():
    labels = PartialLabels(None, ["ant", "bee"], [[1, 0], [1, 0]], scores=[[0.9, 0.1], [0.4, 0.6]])
    detector = LabelMatchDetector().fit(labels)
    assert_array_equal(detector.clean_mask_, [True, False])
    turned = PartialLabels(None, ["bee", "ant"], [[0, 1]], scores=[[0.3, 0.7]])
    assert_allclose(detector.predict_proba(turned), [[0.7, 0.3]])
    assert_allclose(detector.score_noise(turned), [0.3])
    votes = PartialLabels.from_votes([[0, 0, 1, 0], [1, 1, 1, 1]], ["ant", "bee"])
    assert_allclose(
        LabelMatchDetector().fit(votes[1:].concatenate([votes[1:]] * 2)).clean_score_, 1
    )
    assert_allclose(detector.predict_proba(votes), [[0.75, 0.25], [0, 1]])


def test_images_and_an_annotator_that_is_not_fitted():
    colours = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}
    y = np.repeat(list(colours), 8)
    images = np.array([np.full((4, 4, 3), colours[c]) for c in y], dtype=np.uint8)
    images[:, :, 0] += np.arange(24, dtype=np.uint8)[:, None, None] // 5
    noisy = y.copy()
    noisy[::8] = ["blue", "red", "green"]
    vlm = ColourVLM()
    annotator = VLMPartialAnnotator(["green", "blue", "red"], vlm=vlm)
    for detector in (LabelMatchDetector(annotator), CLIPCleanerDetector(annotator, random_state=0)):
        detector.fit(list(images), noisy)
        assert_array_equal(detector.clean_mask_[::8], False)
        assert detector.clean_mask_.mean() > 0.6
        assert not hasattr(annotator, "classes_") and not hasattr(detector, "n_features_in_")
        assert_array_equal(detector.classes_, ["blue", "green", "red"])
        assert_array_equal(detector.classes_[detector.predict_proba(images).argmax(axis=1)], y)
        assert detector.score_noise(images[:1], ["red"]) < detector.score_noise(
            images[:1], ["blue"]
        )
        kept, _ = detector.fit_resample(list(images), noisy)
        assert len(kept) == detector.clean_mask_.sum()
    embeddings = annotator.fit(images).embed(images)
    by_embeddings = CLIPCleanerDetector(annotator, random_state=0).fit(embeddings, noisy)
    assert_allclose(by_embeddings.clean_score_, detector.clean_score_, atol=1e-6)
    assert by_embeddings.n_features_in_ == 3
    with pytest.raises(ValueError, match="holds images"):
        CLIPCleanerDetector(Oracle(annotator.classes_, np.eye(3))).fit(images, noisy)


def test_annotators_that_do_not_suit():
    y = ["ant", "cat", "bee", "dog"]
    with pytest.raises(ValueError, match="KNeighborsClassifier, has no classes_"):
        LabelMatchDetector(KNeighborsClassifier()).fit(ROWS, y)
    conformal = ConformalPartialAnnotator(VLMPartialAnnotator(["ant", "bee"], vlm=FeatureVLM()))
    with pytest.raises(ValueError, match=r"Conformal.* has no classes_.*FrozenEstimator"):
        LabelMatchDetector(conformal).fit(ROWS, y)
    with pytest.raises(ValueError, match="dimensions"):  # an error of fit itself stays as it is
        LabelMatchDetector(VLMPartialAnnotator(["ant", "bee"], vlm=ColourVLM())).fit(ROWS, y)
    with pytest.raises(ValueError, match="needs the annotator's opinion"):
        LabelMatchDetector().fit(ROWS, y)
    with pytest.raises(ValueError, match=r"row 1 has the unknown class 'cta'\. Did you mean 'cat'"):
        LabelMatchDetector(TURNED).fit(ROWS, ["ant", "cta", "bee", "dog"])
    with pytest.raises(ValueError, match="class 'fox', which the annotator does not know"):
        LabelMatchDetector(TURNED).fit(ROWS, PartialLabels.from_sets([["fox"]] * 3 + [["ant"]]))
    with pytest.raises(ValueError, match=r"returned the shape \(4, 3\) for 4 samples and 4"):
        LabelMatchDetector(Oracle(TURNED.classes_, np.ones((4, 3)))).fit(ROWS, y)
    with pytest.raises(ValueError, match="NaN"):
        LabelMatchDetector(Oracle(TURNED.classes_, np.full((4, 4), np.nan))).fit(ROWS, y)
    with pytest.raises(ValueError, match="rows 0, 1, 2, 3 they are negative"):
        LabelMatchDetector(Oracle(TURNED.classes_, -np.ones((4, 4)))).fit(ROWS, y)
    bare = PartialLabels(None, NAMES, SETS, scores=SCORES)
    with pytest.raises(ValueError, match="PartialLabels that carry no samples"):
        LabelMatchDetector(Oracle(NAMES, SCORES)).fit(bare)
    with pytest.raises(ValueError, match="pass features as X and the PartialLabels as y"):
        CLIPCleanerDetector().fit(bare)
    with pytest.raises(ValueError, match="annotator needs samples, but X is None"):
        LabelMatchDetector(TURNED).fit(None, y)
    detector = LabelMatchDetector().fit(bare)
    with pytest.raises(ValueError, match="needs the annotator's opinion"):
        detector.predict_proba(X)
    detector.set_params(annotator=TURNED).fit(ROWS, y)
    with pytest.raises(ValueError, match="PartialLabels that carry no samples"):
        detector.predict_proba(bare)


def test_a_frozen_annotator_comes_through_a_clone():
    frozen = pytest.importorskip("sklearn.frozen")
    trained = LogisticRegression().fit(X, NAMES[T])
    detector = clone(LabelMatchDetector(frozen.FrozenEstimator(trained))).fit(X, NAMES[NOISY])
    assert_array_equal(detector.clean_mask_, trained.predict(X) == NAMES[NOISY])


def test_clip_cleaner_by_hand():
    labels = PartialLabels.from_candidates(np.eye(3)[NOISY])
    labels = PartialLabels(X, labels.classes, labels.candidates, scores=SCORES + X[:, :1] ** 2 / 99)
    detector = CLIPCleanerDetector(random_state=0).fit(labels)
    learner = LogisticRegression(class_weight="balanced", max_iter=1000).fit(X, NOISY)
    zero_shot = labels.scores / labels.scores.sum(axis=1, keepdims=True, dtype=float)
    rows, passed, found = np.arange(120), np.ones(120, dtype=bool), []
    rng = np.random.RandomState(0)
    for proba in (zero_shot, learner.predict_proba(X)):
        p = proba[rows, NOISY]
        posterior = np.empty(120)
        for c in range(3):
            logp = np.log(p[c == NOISY])
            scaled = ((logp - logp.min()) / np.ptp(logp))[:, None]
            # of 1 - scaled, so that the initial assignment is the same
            mixture = GaussianMixture(2, max_iter=50, reg_covar=5e-4, random_state=rng)
            mixture.fit(1 - scaled)
            upper = mixture.means_[:, 0].argmin()
            posterior[c == NOISY] = mixture.predict_proba(1 - scaled)[:, upper]
        passed &= (posterior >= 0.5) & (p / proba.max(axis=1) >= 0.8)
        found += [posterior, p / proba.max(axis=1)]
    assert 60 < passed.sum() < 100
    assert_array_equal(detector.clean_mask_, passed)
    assert_allclose(detector.clean_score_, np.mean(found, axis=0), atol=1e-6)


def test_clip_cleaner_keeps_a_row_of_each_class():
    wrong = PartialLabels(X, NAMES, np.eye(3)[(T + 1) % 3], scores=SCORES)
    detector = CLIPCleanerDetector(random_state=0).fit(wrong)
    assert_array_equal(np.bincount((T + 1)[detector.clean_mask_] % 3), [1, 1, 1])
    assert detector.clean_score_[detector.clean_mask_].max() == detector.clean_score_.max()

"""What CoRegClassifier makes of an annotator: its prior, classes, evidence and labels."""

import numpy as np
import pytest
from coreg_fits import (
    COLOUR,
    LABELS,
    LEVEL,
    T,
    X,
    Y,
    assert_same_fit,
    classifier,
    images_classifier,
    same_probabilities,
)
from fakes import NAMES
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_blobs

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll._inputs import Problem
from sklearn_npll.coreg._annotation import annotator_labels, effective_classes, resolve_prior

# Prior, variants, evidence


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([1, 2], "prior must be 3 non-negative class shares"),
        ([1, -2, 3], "prior must be"),
        ([0, 0, 0], "prior must be"),
        ([1, np.nan, 1], "prior must be"),
        ([1, np.inf, 1], "prior must be"),
        ("annotator", "prior='annotator' needs PartialLabels with scores"),
    ],
)
def test_bad_prior(prior, message):
    with pytest.raises(ValueError, match=message):
        classifier(prior=prior).fit(X, Y)


def test_prior():
    uniform, even = classifier(prior="uniform").fit(X, Y), classifier(prior=[2, 2, 2]).fit(X, Y)
    assert_same_fit(uniform, even)
    scores = np.tile(np.float32([0.5, 0.25, 0.25]), (60, 1))
    labels = PartialLabels(X, NAMES, Y, scores=scores)
    annotator = classifier(prior="annotator").fit(labels)
    assert same_probabilities(annotator, classifier(prior=[2, 1, 1]).fit(labels))
    assert not same_probabilities(annotator, classifier(prior="estimated").fit(labels))
    # equal weight in each set: rows of one, two and three candidates; the last is no label
    sets = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 1]])
    rows = np.resize(sets, (len(X), 3))
    shares = [1.5, 0.5, 1]
    assert len(X) % 4 == 0
    candidates = classifier(prior="candidates").fit(X, rows)
    assert same_probabilities(candidates, classifier(prior=shares).fit(X, rows))


def test_effective_classes():
    assert effective_classes(np.full(4, 0.25)) == pytest.approx(4)
    assert effective_classes(np.array([0.5, 0.5, 0, 0])) == pytest.approx(2)
    # 0.5 log 2 + 0.5 log 4 = 1.5 log 2
    assert effective_classes(np.array([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)


def test_adaptive_prior():
    balanced = classifier(prior="adaptive").fit(X, Y)
    assert_same_fit(balanced, classifier(prior="uniform").fit(X, Y))
    rows = np.resize([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], (60, 3))
    imbalanced = classifier(prior="adaptive").fit(X, rows)
    assert_same_fit(imbalanced, classifier(prior="candidates").fit(X, rows))
    assert not same_probabilities(imbalanced, classifier(prior="uniform").fit(X, rows))
    # the annotator's scores say more than the sets made of them
    labels = PartialLabels(X, NAMES, rows, scores=np.tile(np.float32([0.4, 0.3, 0.3]), (60, 1)))
    assert_same_fit(
        classifier(prior="adaptive").fit(labels), classifier(prior="uniform").fit(labels)
    )


def test_variants_are_names_for_settings():
    votes = np.stack([T, np.roll(T, 1), T], axis=1)
    labels = PartialLabels.from_votes(votes, NAMES, data=X)
    auto = {"max_epochs": 8, "warm_up": "auto", "contrastive": "auto"}
    paper = {
        "warm_up": 2,
        "warm_up_target": "candidates",
        "prior": "uniform",
        "n_mixed_views": 2,
        "unlabelled_sampling": "equal",
        "temperature": 0.5,
        "contrastive": "noise_tolerant",
        "co_labelling": "peer",
        "mixup_alpha": 4.0,
        "evidence_weight": 0.0,
    }
    robust = {
        "warm_up": 4,
        "warm_up_target": "scores",
        "prior": "adaptive",
        "n_mixed_views": 1,
        "unlabelled_sampling": "once",
        "temperature": 1.0,
        "contrastive": "none",
        "co_labelling": "peer",
        "mixup_alpha": 4.0,
        "evidence_weight": 0.0,
    }
    for variant, settings in (("paper", paper), ("robust", robust)):
        named = classifier(**auto, variant=variant).fit(labels)
        assert_same_fit(named, classifier(**{**auto, **settings}).fit(labels))
        phases = [row["phase"] for row in named.history_]
        assert phases.count("warm_up") == settings["warm_up"]
    # without scores or votes there is nothing but the candidates to start from
    bare = PartialLabels.from_candidates(labels.toarray(), data=X)
    assert_same_fit(
        classifier(**auto).fit(bare),
        classifier(**auto, warm_up_target="candidates").fit(bare),
    )
    assert [
        row["phase"] for row in classifier(max_epochs=1, warm_up="auto").fit(bare).history_
    ] == ["warm_up"]


@pytest.mark.parametrize("variant", ["paper", "robust"])
@pytest.mark.parametrize("target, n_epochs", [("candidates", 5), ("scores", 4)])
def test_automatic_warm_up_on_images(variant, target, n_epochs):
    labels = PartialLabels.from_votes(np.stack([LEVEL, LEVEL + 1], axis=1), np.arange(3))
    clf = images_classifier(variant=variant, max_epochs=10, warm_up="auto", warm_up_target=target)
    clf.fit(labels.replace(data=COLOUR))
    assert [row["phase"] for row in clf.history_].count("warm_up") == n_epochs


def test_the_robust_variant_on_images():
    # the annotator prefers the first of two candidates
    scores = np.float32(0.5 * np.eye(3)[LEVEL] + 0.3 * np.eye(3)[LEVEL + 1] + 0.2 / 3)
    labels = PartialLabels(COLOUR, np.arange(3), scores > 0.1, scores=scores)
    images = {"co_labelling": "average", "mixup_alpha": 0.5, "evidence_weight": 1.0}
    named = images_classifier().fit(labels)
    assert_same_fit(named, images_classifier(**images).fit(labels), COLOUR)
    for name, value in {"average_momentum": 0.5, "evidence_weight": 2.0}.items():
        other = images_classifier(**{name: value}).fit(labels)
        assert not same_probabilities(other, named, COLOUR)
    # a warm-up on candidates does not trust the scores, so nothing else does unless it is told to
    bare, plain = images_classifier(warm_up_target="candidates"), labels.toarray()
    assert_same_fit(bare.fit(labels), images_classifier(prior="uniform").fit(COLOUR, plain), COLOUR)
    told = images_classifier(warm_up_target="candidates", evidence_weight=1.0).fit(labels)
    assert not same_probabilities(told, bare, COLOUR)


def test_evidence_needs_scores():
    with pytest.raises(ValueError, match="evidence_weight=1.0 needs PartialLabels with scores"):
        classifier(evidence_weight=1.0).fit(X, Y)


def test_warm_up_on_scores_learns_the_scores():
    """Half of each blob is called otherwise, so the best prediction is half and half."""
    first = np.tile(np.float32([0.5, 0.5, 0]), (60, 1))
    labels = PartialLabels(X, NAMES, np.ones((60, 3), int) - np.eye(3, dtype=int)[2], scores=first)
    clf = classifier(max_epochs=60, warm_up=60, lr=0.1).fit(labels)
    assert_allclose(clf.predict_proba(X), first, atol=0.1)
    assert clf.history_[-1]["loss_warm_up"] == pytest.approx(np.log(2), abs=0.05)


def test_warm_up_on_votes_equals_that_on_their_shares():
    votes = np.stack([T, np.roll(T, 1), T], axis=1)
    labels = PartialLabels.from_votes(votes, NAMES, data=X)
    shares = np.stack([(votes == c).mean(1) for c in range(3)], axis=1)
    scored = PartialLabels(X, NAMES, labels.toarray(), scores=shares)
    ours, theirs = classifier().fit(labels), classifier().fit(scored)
    assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


def test_warm_up_on_scores_trusts_known_labels_more():
    wrong = np.roll(np.eye(3, dtype=np.float32), 1, axis=1)[T]
    labels = PartialLabels(
        X, NAMES, np.eye(3, dtype=int)[T], scores=wrong, known=np.ones(60, dtype=bool)
    )
    clf = classifier(max_epochs=20, warm_up=20, lr=0.1).fit(labels)
    assert clf.score(X, NAMES[T]) > 0.9
    assert classifier(max_epochs=20, warm_up=20, lr=0.1, warm_up_target="scores").fit(
        PartialLabels(X, NAMES, np.eye(3, dtype=int)[T], scores=wrong)
    ).score(X, NAMES[T]) < 0.1  # fmt: skip


def test_warm_up_target_needs_scores():
    with pytest.raises(ValueError, match="warm_up_target='scores' needs PartialLabels with scores"):
        classifier(warm_up_target="scores").fit(X, Y)
    scores = np.zeros((60, 3), dtype=np.float32)
    scores[1:] = 1
    labels = PartialLabels(X, NAMES, Y, scores=scores)
    with pytest.raises(ValueError, match=r"scores must be probabilities.*row 0"):
        classifier(warm_up_target="scores").fit(labels)
    even = PartialLabels(X, NAMES, Y, scores=np.full((60, 3), 1 / 3, dtype=np.float32))
    with pytest.raises(ValueError, match="that prefer some classes"):
        classifier(warm_up_target="scores").fit(even)
    assert_same_fit(classifier().fit(even), classifier().fit(LABELS))


@pytest.mark.parametrize("scale, shift", [(1, -1), (0.2, 0)])
def test_scores_that_are_no_probabilities_are_left_alone(scale, shift):
    """Logits, or cosines; they are good enough for a rule."""
    scores = np.float32(scale * np.eye(3)[T] + shift)
    labels = PartialLabels(X, NAMES, Y, scores=scores)
    with pytest.warns(UserWarning, match="scores are no probabilities") as caught:
        clf = classifier().fit(labels)
    assert caught[0].filename == __file__
    assert_same_fit(clf, classifier().fit(LABELS))
    classifier(variant="paper").fit(labels)
    classifier(warm_up_target="candidates", prior="uniform").fit(labels)


def test_annotator_labels():
    candidates = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=bool)
    known = np.array([False, True, False, False, False])
    scores = np.float32([[3, 1, 0], [-1, 0, 0], [1, 1, 1], [0.5, 0.25, 0.25], [1, 1, 0]])
    problem = Problem(X[:5], NAMES, candidates, known, scores)
    # the label of the known row; nothing of a row that prefers no class, though of one with all
    expected = [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0], [0.5, 0.25, 0.25], [0.5, 0.5, 0]]
    labels, _ = annotator_labels(problem, True, "cpu")
    assert_allclose(labels, expected)
    votes = np.array([[0, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 2], [1, 1, 1]])
    problem = Problem(X[:5], NAMES, candidates, known, votes=votes)
    expected = [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    labels, shares = annotator_labels(problem, False, "cpu")
    assert_allclose(labels, expected, rtol=1e-6)
    # the prior is the mean of the rows with a label
    assert_allclose(resolve_prior("annotator", shares, candidates), [2 / 9, 7 / 9, 0], rtol=1e-6)
    # 2 of 9 and 7 of 9 are less than 0.8 * 3 classes
    roots = np.sqrt(np.sqrt([2, 7, 0]))
    assert_allclose(resolve_prior("adaptive", shares, candidates), roots / roots.sum(), rtol=1e-6)
    nothing = annotator_labels(Problem(X[:5], NAMES, candidates, known), False, "cpu")
    assert nothing == (None, None)


def test_a_warm_up_that_has_ended_stays_ended():
    labels = PartialLabels(X, NAMES, Y, scores=np.float32(np.eye(3)[T]))
    clf = classifier(max_epochs=5, warm_up="auto", warm_start=True, contrastive_start=2).fit(labels)
    clf.set_params(max_epochs=12).fit(labels)
    phases = ["warm_up"] * 2 + ["co_regularisation"] * 10
    assert [row["phase"] for row in clf.history_] == phases
    with_contrast = [row["loss_contrastive"] is not None for row in clf.history_]
    assert with_contrast == [False] * 4 + [True] * 8


def test_a_few_labels_teach_a_class_that_the_annotator_never_names():
    X, y = make_blobs(400, centers=4, cluster_std=0.6, random_state=3)
    named = np.where(y == 3, 0, y)  # the annotator takes the fourth class for the first
    scores = np.full((400, 4), 0.02)
    scores[np.arange(400), named] = 0.94
    candidates = np.eye(4, dtype=bool)[named]
    known = np.zeros(400, dtype=bool)
    for c in range(4):
        known[np.flatnonzero(y == c)[:8]] = True
    taught = np.where(known[:, None], np.eye(4, dtype=bool)[y], candidates)
    recall = []
    for sets, trusted in ((candidates, None), (taught, known)):
        labels = PartialLabels(X, np.arange(4), sets, scores=scores, known=trusted)
        # by trust alone eight of a hundred rows are outvoted: 0 to 0.98 of them, by the seed
        clf = CoRegClassifier(max_epochs=20, doubly_robust=trusted is not None, random_state=0)
        recall.append(np.mean(clf.fit(labels).predict(X)[y == 3] == 3))
    assert recall[0] == 0 and recall[1] > 0.8
    assert_array_equal(clf.transduction_[known], y[known])
    assert (clf.clean_probability_[known] == 1).all()

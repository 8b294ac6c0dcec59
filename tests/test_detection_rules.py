"""The rules of the detectors by hand, and the training on candidates."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_npll._candidate_rows import fit_on_candidates, weight_name
from sklearn_npll._inputs import Problem
from sklearn_npll.detection._base import align_classes
from sklearn_npll.detection._rules import (
    LossMixture,
    add_best,
    best_candidate,
    candidate_loss,
    candidate_mass,
    consistency,
    has_opinion,
    label_match,
    neighbor_votes,
)
from sklearn_npll.detection._training import cross_val_proba

NAMES = np.array(["ant", "bee", "cat"])


def sets(*rows):
    return np.array(rows, dtype=bool)


PROBA = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
CANDIDATES = sets([1, 0, 1], [1, 1, 0], [0, 1, 0])


def test_rules_of_a_set():
    assert_allclose(candidate_mass(PROBA, CANDIDATES), [0.7, 0.3, 0.4])
    assert_allclose(candidate_loss(PROBA, CANDIDATES), -np.log([0.7, 0.3, 0.4]))
    assert_allclose(consistency(PROBA, CANDIDATES), [1, 3 / 7, 1])
    assert_array_equal(best_candidate(PROBA, CANDIDATES), [0, 1, 1])
    assert_array_equal(label_match(PROBA, CANDIDATES), [True, False, False])  # first of a tie wins
    # all equal: no opinion, and a rounding error is none
    uniform = np.array([[1 / 3] * 3, [1 / 3 + 1e-8, 1 / 3, 1 / 3], [0.34, 0.33, 0.33]])
    assert_array_equal(has_opinion(uniform), [False, False, True])
    first = sets([1, 0, 0], [1, 0, 0], [1, 0, 0])
    assert_array_equal(label_match(uniform, first), [False, False, True])
    assert_array_equal(consistency(uniform, first), [0, 0, 1])
    nothing = np.array([[0.0, 1.0]])
    assert_allclose(candidate_loss(nothing, sets([1, 0])), 8 * np.log(10))
    assert best_candidate(np.zeros((1, 3)), sets([0, 0, 1])) == [2]
    assert candidate_mass(np.full((1, 3), 0.1 + 0.7 / 3 + 1e-9), sets([1, 1, 1])) == [1]


def test_neighbor_votes():
    shares = np.array([[1.0, 0], [0.5, 0.5], [0, 1]])
    assert_allclose(
        neighbor_votes(np.array([[0, 1], [1, 2]]), shares), [[0.75, 0.25], [0.25, 0.75]]
    )


def test_loss_mixture():
    loss = np.array([1.0, 1.1, 1.2, 4.9, 5.0])
    mixture = LossMixture(0).fit(loss)
    assert_array_equal(mixture.clean_probability(loss) > 0.5, [True, True, True, False, False])
    scaled = ((loss - 1) / 4)[:, None]
    by_hand = GaussianMixture(2, max_iter=50, reg_covar=5e-4, random_state=0).fit(scaled)
    lower = by_hand.means_[:, 0].argmin()
    assert_allclose(mixture.clean_probability(loss), by_hand.predict_proba(scaled)[:, lower])
    # new losses beyond those seen count as the nearest of these
    assert_array_equal(
        mixture.clean_probability(np.array([0.0, 99])), mixture.clean_probability(loss[[0, -1]])
    )
    for few in (loss[:0], loss[:1], np.full(4, 2.0)):
        assert_array_equal(LossMixture(0).fit(few).clean_probability(loss), np.ones(5))


def test_add_best():
    mask = sets([1, 0, 0, 0, 0, 0])[0]
    score = np.array([0.1, 0.9, 0.4, 0.6, 0.6, 1.0])
    codes = np.array([0, 0, 1, 1, 1, -1])
    assert_array_equal(add_best(mask, score, codes, 0), mask)
    assert_array_equal(np.flatnonzero(add_best(mask, score, codes, 1)), [0, 3])
    assert_array_equal(np.flatnonzero(add_best(mask, score, codes, 2)), [0, 1, 3, 4])
    assert_array_equal(np.flatnonzero(add_best(mask, score, codes, 9)), [0, 1, 2, 3, 4])


def test_align_classes():
    problem = Problem(
        None,
        np.array(["cat", "ant"]),
        sets([1, 0], [1, 1]),
        np.zeros(2, dtype=bool),
        scores=np.array([[0.9, 0.1], [0.6, 0.4]]),
        votes=np.array([[0, 1, -1], [0, 0, 0]]),
    )
    aligned = align_classes(problem, NAMES, "the annotator")
    assert_array_equal(aligned.candidates, sets([0, 0, 1], [1, 1, 1]))  # still without a label
    assert_allclose(aligned.scores, [[0.1, 0, 0.9], [0.4, 0, 0.6]])
    assert_array_equal(aligned.votes, [[2, 0, -1], [2, 2, 2]])
    with pytest.raises(ValueError, match=r"class 'ant', which the annotator .* mean 'aunt'"):
        align_classes(problem, np.array(["aunt", "cat"]), "the annotator")


def test_weights_of_candidates_are_sample_weights():
    weights = np.array([[0.25, 0.75], [1, 0], [0, 1], [1, 0]])
    data = np.array([[0.0], [1], [2], [3]])
    model = fit_on_candidates(make_pipeline(StandardScaler(), GaussianNB()), data, weights)
    scaled = StandardScaler().fit_transform(data[[0, 0, 1, 2, 3]])
    by_hand = GaussianNB().fit(scaled, [0, 1, 0, 1, 0], sample_weight=[0.25, 0.75, 1, 1, 1])
    assert_allclose(model[-1].theta_, by_hand.theta_)
    assert weight_name(GaussianNB()) == "sample_weight"
    nested = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), GaussianNB()))
    assert weight_name(nested) == "pipeline__gaussiannb__sample_weight"
    fit_on_candidates(nested, data, weights)
    fit_on_candidates(KNeighborsClassifier(1), data, np.eye(2)[[0, 1, 0, 1]])  # needs no weights
    some = weights * [[1], [0], [1], [1]]
    assert_array_equal(fit_on_candidates(GaussianNB(), data, some).class_count_, [1.25, 1.75])
    with pytest.raises(ValueError, match="KNeighborsClassifier has no sample_weight"):
        fit_on_candidates(KNeighborsClassifier(1), data, weights)


def test_rows_are_predicted_by_others():
    data, labels = np.arange(6.0)[:, None], np.array([0, 1, 0, 1, 0, 1])
    proba, weights, judged = cross_val_proba(
        KNeighborsClassifier(1), data, np.eye(2)[labels], KFold(6)
    )
    assert judged.all()  # though the probability of each label is 0
    # the nearest other row is of the other class
    assert_array_equal(proba.argmax(axis=1), 1 - labels)
    assert_array_equal(weights, np.eye(2)[labels])
    with pytest.raises(ValueError, match="exactly one test set"):
        cross_val_proba(GaussianNB(), data, np.eye(2)[labels], ShuffleSplit(2, random_state=0))
    with pytest.raises(ValueError, match=r"cv=7 cannot split the 6 rows .* set cv.*n_splits=7"):
        cross_val_proba(GaussianNB(), data, np.eye(2)[labels], 7)


def test_rows_with_a_label_that_others_do_not_have_are_not_judged():
    data = np.arange(6.0)[:, None]
    weights = np.eye(3)[[0, 1, 0, 1, 0, 2]]
    weights[4] = [0.5, 0, 0.5]
    estimator = LogisticRegression()
    assert_array_equal(cross_val_proba(estimator, data, weights, KFold(6))[2], True)
    weights[4] = [1, 0, 0]
    proba, _, judged = cross_val_proba(estimator, data, weights, KFold(6))
    assert_array_equal(judged, [True] * 5 + [False])
    assert proba[5, 2] == 0


def test_rounds_weight_candidates_by_predictions():
    data = np.repeat([[-1.0, 0], [1.0, 0]], 20, axis=0) + np.linspace(-0.3, 0.3, 40)[:, None]
    candidates = np.arange(2) == np.repeat([0, 1], 20)[:, None]
    candidates = np.column_stack([candidates, np.zeros(40, dtype=bool)])
    candidates[::2, 2] = True  # a class that is never alone
    start = candidates / candidates.sum(axis=1, keepdims=True)
    first, *_ = cross_val_proba(LogisticRegression(), data, start, 2)
    last, weights, _ = cross_val_proba(LogisticRegression(), data, start, 2, n_rounds=5)
    assert last[:, 2].mean() < first[:, 2].mean() / 2
    assert_allclose(weights[::2].sum(axis=1), 1)
    assert_array_equal(weights > 0, candidates)

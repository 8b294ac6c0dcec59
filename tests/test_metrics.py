"""Metrics against hand-computed values, for every form candidates can have."""

import numpy as np
import pytest
from scipy import sparse as sp
from sklearn.exceptions import UndefinedMetricWarning

from sklearn_npll import PartialLabels
from sklearn_npll.metrics import (
    ambiguity_score,
    approximated_accuracy,
    coverage_score,
    covering_rate,
    noise_detection_auc,
    noise_detection_f1,
)

NAMES = np.array(["cat", "dog", "fox"])
CANDIDATES = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]])
Y = np.array([0, 2, 1, 0, 0])


def wide(candidates):
    """The same with 97 classes more, which are stored as CSR."""
    return sp.csr_matrix(np.hstack([candidates, np.zeros((len(candidates), 97), int)]))


FORMS = {
    "dense": lambda c: c,
    "lists": lambda c: c.tolist(),
    "csr": sp.csr_matrix,
    "partial": PartialLabels.from_candidates,
    "wide": wide,
}


@pytest.mark.parametrize("form", FORMS)
def test_coverage(form):
    candidates = FORMS[form](CANDIDATES)
    assert coverage_score(Y, candidates) == 3 / 5  # rows 1 and 4 miss it
    assert coverage_score([0, -1, -1, -1, 0], candidates) == 1 / 2


def test_values_that_are_no_numbers():
    candidates = [[1, 0], [1, 1], [0, 1]]
    for metric in (covering_rate, approximated_accuracy):
        with pytest.raises(ValueError, match="probabilities contains NaN"):
            metric(np.full((3, 2), np.nan), candidates)
    for metric in (noise_detection_auc, noise_detection_f1):
        with pytest.raises(ValueError, match="clean_probability contains NaN"):
            metric([0, 1, 0], candidates, [np.nan, 1, 0])


def test_names_of_classes():
    assert coverage_score(NAMES[Y], CANDIDATES, classes=NAMES) == 3 / 5
    assert covering_rate(NAMES[Y], CANDIDATES, classes=NAMES) == 2 / 4
    named = PartialLabels.from_candidates(CANDIDATES, classes=NAMES)
    assert noise_detection_auc(NAMES[Y], named, [1, 0, 1, 0, 0]) == 1
    with pytest.raises(ValueError, match="Did you mean 'dog'"):
        coverage_score(["cat", "dog", "dgo", "cat", "fox"], named)


def test_ambiguity():
    # Sizes 1, 2, 2, 3, 1: with one of each counted as true 4 of 10 wrong classes are candidates.
    assert ambiguity_score(CANDIDATES) == pytest.approx(4 / 10)
    # With the truth: wrong candidates 0, 2, 1, 2, 1 of 10.
    assert ambiguity_score(CANDIDATES, Y) == pytest.approx(6 / 10)
    # cat is wrong in rows 1, 2 (candidate in 1); dog in 0, 1, 3, 4 (1, 3); fox in 0, 2, 3, 4.
    np.testing.assert_allclose(
        ambiguity_score(CANDIDATES, Y, per_class=True), [1 / 2, 2 / 4, 3 / 4]
    )
    np.testing.assert_allclose(
        ambiguity_score(CANDIDATES, [0, -1, -1, 0, -1], per_class=True), [np.nan, 1 / 2, 1 / 2]
    )
    with pytest.raises(ValueError, match="needs y_true"):
        ambiguity_score(CANDIDATES, per_class=True)


def test_ambiguity_of_many_classes():
    assert ambiguity_score(wide(CANDIDATES), Y) == pytest.approx(6 / (5 * 99))
    per_class = ambiguity_score(wide(CANDIDATES), Y, per_class=True)
    np.testing.assert_allclose(per_class[:4], [1 / 2, 2 / 4, 3 / 4, 0])


def test_ambiguity_recovers_the_flip_probability():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 20_000)
    candidates = rng.random((20_000, 5)) < 0.3
    candidates[np.arange(20_000), y] = True
    assert ambiguity_score(candidates, y) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("form", ["dense", "csr", "partial"])
def test_covering_rate_leaves_out_rows_without_a_label(form):
    candidates = FORMS[form](CANDIDATES)
    assert covering_rate([0, 2, 1, 0, 0], candidates) == 2 / 4
    proba = np.array([[0.6, 0.3, 0.1], [0, 0.4, 0.6], [0, 1, 0], [1, 0, 0], [0.5, 0.5, 0]])
    assert covering_rate(proba, candidates) == 2 / 4


def test_covering_rate_of_many_classes_counts_the_full_row():
    # Row 3 has three of a hundred classes here, so it does carry a label.
    assert covering_rate([0, 2, 1, 0, 0], wide(CANDIDATES)) == 3 / 5


@pytest.mark.parametrize("form", ["dense", "csr", "partial"])
def test_approximated_accuracy(form):
    proba = [[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.1, 0.6, 0.3], [1, 0, 0], [0.5, 0.1, 0.4]]
    expected = (1 + 0.5 / 0.8 + 0.6 / 0.9 + 0) / 4  # row 3 carries no label
    assert approximated_accuracy(proba, FORMS[form](CANDIDATES)) == pytest.approx(expected)


def test_approximated_accuracy_without_probability_on_the_candidates():
    assert approximated_accuracy([[0, 1, 0]], [[1, 0, 0]]) == 0
    assert approximated_accuracy([[0, 0, 0]], [[1, 0, 0]]) == 0


def test_noise_detection():
    clean = [0.9, 0.6, 0.5, 0.0, 0.1]
    # Judged are rows 0, 1, 2, 4 (3 carries no label); 0 and 2 are valid. Of the pairs of a valid
    # and a noisy row, 0-1, 0-4 and 2-4 are in the right order, 2-1 is not.
    assert noise_detection_auc(Y, CANDIDATES, clean) == pytest.approx(3 / 4)
    # Taken for noisy: 2 (not above 0.5) and 4. Precision 1/2, recall 1/2.
    assert noise_detection_f1(Y, CANDIDATES, clean) == pytest.approx(1 / 2)
    # Taken for noisy at 0.65: 1, 2, 4. Precision 2/3, recall 1.
    assert noise_detection_f1(Y, CANDIDATES, clean, threshold=0.65) == pytest.approx(4 / 5)
    # Taken for clean at 0.65: 0. Precision 1, recall 1/2.
    score = noise_detection_f1(Y, CANDIDATES, clean, threshold=0.65, positive="clean")
    assert score == pytest.approx(2 / 3)
    # Without row 4: noisy is 1, taken for noisy is 2.
    assert noise_detection_f1([0, 2, 1, 0, -1], CANDIDATES, clean) == 0


def test_sparse_probabilities():
    proba = np.array([[0.6, 0.4, 0.0], [0.0, 0.1, 0.9]])
    for sparse in (sp.csr_array(proba), sp.coo_matrix(proba)):
        assert covering_rate(sparse, [[1, 0, 0], [1, 0, 0]]) == 0.5
        assert approximated_accuracy(sparse, [[1, 1, 0], [1, 0, 0]]) == pytest.approx(0.3)


def test_predictions_and_thresholds_that_are_none():
    with pytest.raises(ValueError, match=r"y_pred\[1\] is 5, .* no. a class. Classes are 0, 1, 2"):
        covering_rate([0, 5], [[1, 0, 0], [1, 0, 0]])
    for threshold in ("high", np.nan, None):
        with pytest.raises(ValueError, match="threshold is .*; it must be a number"):
            noise_detection_f1([0, 1], [[1, 0, 0], [1, 0, 0]], [0.5, 0.5], threshold=threshold)


def test_undefined_metrics_are_nan_with_a_warning():
    with pytest.warns(UndefinedMetricWarning, match="All 2 candidate sets are valid"):
        assert np.isnan(noise_detection_auc([0, -1, 2, -1, -1], CANDIDATES, np.ones(5)))
    with pytest.warns(UndefinedMetricWarning, match="All 1 candidate sets are noisy"):
        assert np.isnan(noise_detection_auc([1, -1, -1, -1, -1], CANDIDATES, np.ones(5)))
    with pytest.warns(UndefinedMetricWarning, match="No candidate set can be judged"):
        assert np.isnan(noise_detection_f1([-1] * 5, CANDIDATES, np.ones(5)))
    with pytest.warns(UndefinedMetricWarning, match="no row with a label"):
        assert np.isnan(covering_rate([1], [[1, 1]]))
    with pytest.warns(UndefinedMetricWarning, match="no labelled row"):
        assert np.isnan(ambiguity_score(CANDIDATES, [-1] * 5))


def test_errors():
    with pytest.raises(ValueError, match=r"shape \(5, 2\) but the candidates \(5, 3\)"):
        approximated_accuracy(np.ones((5, 2)), CANDIDATES)
    with pytest.raises(ValueError, match=r"clean_probability has shape \(4,\)"):
        noise_detection_auc(Y, CANDIDATES, np.ones(4))
    with pytest.raises(ValueError, match="positive is 'dirty'"):
        noise_detection_f1(Y, CANDIDATES, np.ones(5), positive="dirty")

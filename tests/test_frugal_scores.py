"""Scores of many classes that are sparse: kept so, handed on, and given by annotators."""

import pickle
import tracemalloc
import warnings

import frugal_data
import numpy as np
import pytest
import torch
from fakes import ColourVLM, FeatureVLM
from frugal_data import CANDIDATES, N_CLASSES, SCORES, N, T, X, classifier, make_labels
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.naive_bayes import GaussianNB

from sklearn_npll import PartialLabels, VLMPartialAnnotator, _inputs
from sklearn_npll._evidence import are_probabilities, check_shares, largest_columns
from sklearn_npll._rules import candidates_from_scores, largest_scores
from sklearn_npll.annotators import ConformalPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.baselines import PseudoLabelClassifier
from sklearn_npll.baselines._aggregation import best_labels
from sklearn_npll.coreg._annotation import annotator_labels, candidate_shares, soft_labels
from sklearn_npll.model_selection import choose_rule_value
from sklearn_npll.plot import CandidateGridDisplay

# Fixtures, which pytest finds by their names here.
large = frugal_data.large

RED = np.full((4, 4, 3), [255, 0, 0], dtype=np.uint8)


# -- sparse scores -----------------------------------------------------------------------------

SPARSE = largest_scores(SCORES, 5)


def test_largest_scores():
    scores = np.array([[0.5, 0.25, 0.25, 0], [0.2, 0.2, 0.2, 0.4], [0.25] * 4, [0, 0, 1, 0]])
    expected = [[2 / 3, 1 / 3, 0, 0], [1 / 3, 0, 0, 2 / 3], [0.25] * 4, [0, 0, 1, 0]]
    kept = largest_scores(scores, 2)
    assert kept.dtype == np.float32
    assert_allclose(kept.toarray(), expected, rtol=1e-6)
    assert np.diff(kept.indptr).tolist() == [2, 2, 4, 1]
    assert_allclose(largest_scores(scores, 9).toarray(), scores, rtol=1e-6)


def test_scores_that_are_sparse_stay_so(tmp_path):
    labels = PartialLabels(X, np.arange(N_CLASSES), CANDIDATES, scores=SPARSE.tocoo())
    assert isinstance(labels.scores, sp.csr_array)
    assert labels.scores.dtype == np.float32
    rows = np.array([3, 1])
    assert_array_equal(labels[rows].scores.toarray(), SPARSE.toarray()[rows])
    assert_array_equal(pickle.loads(pickle.dumps(labels)).scores.toarray(), SPARSE.toarray())
    labels.save(tmp_path / "labels")
    loaded = PartialLabels.load(tmp_path / "labels")
    assert isinstance(loaded.scores, sp.csr_array)
    assert_array_equal(loaded.scores.toarray(), SPARSE.toarray())
    dense = PartialLabels(X, np.arange(N_CLASSES), CANDIDATES, scores=SCORES)
    joined = PartialLabels.concatenate([labels, dense])
    assert_array_equal(joined.scores.toarray(), np.concatenate([SPARSE.toarray(), SCORES]))
    none = PartialLabels(X, np.arange(N_CLASSES), CANDIDATES)
    assert PartialLabels.concatenate([labels, none]).scores is None


def test_sparse_scores_given_are_not_changed():
    scores = sp.csr_array((np.array([0.5, 0.0, 0.5]), [1, 0, 1], [0, 3]), shape=(1, 2))
    labels = PartialLabels(None, ["a", "b"], [[1, 1]], scores=scores)
    assert labels.scores.toarray().tolist() == [[0, 1]]
    assert scores.nnz == 3


@pytest.mark.parametrize(
    "value, message",
    [
        (np.nan, "scores contain NaN or infinity in row 7"),
        (np.inf, "scores contain NaN or infinity in row 7"),
        (-0.5, r"scores has the value -0.5 in row 7. Sparse scores must not be negative"),
    ],
)
def test_sparse_scores_that_are_refused(value, message):
    scores = SPARSE.toarray()
    scores[7, 2] = value
    with pytest.raises(ValueError, match=message):
        PartialLabels(X, np.arange(N_CLASSES), CANDIDATES, scores=sp.csr_array(scores))
    if value != -0.5:
        with pytest.raises(ValueError, match=message):
            PartialLabels(X, np.arange(N_CLASSES), CANDIDATES, scores=scores)
    with pytest.raises(ValueError, match="scores has shape"):
        PartialLabels(X, np.arange(N_CLASSES), CANDIDATES, scores=sp.csr_array(scores[:-1]))


@pytest.mark.parametrize("rule", ["topk", "threshold", "ratio", "cumulative"])
def test_rules_take_sparse_scores(rule, monkeypatch):
    monkeypatch.setattr("sklearn_npll._rules._MAX_CELLS", 7 * N_CLASSES)
    labels = PartialLabels.from_scores(SPARSE, rule)
    expected = PartialLabels.from_scores(SPARSE.toarray(), rule)
    assert_array_equal(labels.toarray(), expected.toarray())
    assert isinstance(labels.scores, sp.csr_array)


def test_rules_take_no_class_that_is_not_stored():
    scores = sp.csr_array([[0, 0.75, 0.25, 0], [1.0, 0, 0, 0]])
    assert candidates_from_scores(scores, "topk", 3).toarray().astype(int).tolist() == [
        [0, 1, 1, 0],
        [1, 0, 0, 0],
    ]
    with pytest.raises(ValueError, match="'cpl' compares all scores of all rows"):
        candidates_from_scores(scores, "cpl")
    empty = sp.csr_array((2, 4))
    with pytest.raises(ValueError, match="rows 0, 1 of candidates have no candidate"):
        PartialLabels.from_scores(empty, "topk")


def test_rows_are_told_about_alike():
    values = sp.csr_array([[0, 0.5, 0.5], [0, 0, 0], [0.25, 0, 0.75]])
    assert largest_columns(values).tolist() == [1, 0, 2]
    assert largest_columns(values.toarray()).tolist() == [1, 0, 2]
    for form in (values, values.toarray()):
        with pytest.raises(ValueError, match="in row 1 they are negative or all zero"):
            check_shares(form)
        check_shares(form, np.array([True, False, True]))
        assert not are_probabilities(form)
        assert are_probabilities(form, np.array([True, False, True]))


def test_candidate_shares():
    dense = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
    expected = [1 / 4, 3 / 4, 0]
    assert_allclose(candidate_shares(dense), expected)
    assert_allclose(candidate_shares(sp.csr_array(dense)), expected)


def test_soft_labels_of_rows(large):
    labels = make_labels(scores=SPARSE)
    problem = _inputs.check_problem(labels, None, sparse=True)
    found, shares = annotator_labels(problem, True, "cpu")
    dense = _inputs.check_problem(labels, None)
    assert isinstance(dense.candidates, np.ndarray)
    expected = soft_labels(dense)
    assert_allclose(found[torch.arange(N)], expected, rtol=1e-6)
    assert_allclose(shares, expected.mean(0), rtol=1e-5)


def test_learners_take_sparse_scores(large):
    sparse, dense = make_labels(scores=SPARSE), make_labels(scores=SPARSE.toarray())
    fits = [classifier().fit(labels).predict_proba(X) for labels in (sparse, dense)]
    assert_array_equal(*fits)
    assert_array_equal(best_labels(sparse, 0), best_labels(dense, 0))
    fits = [
        PseudoLabelClassifier(GaussianNB(), labels="soft").fit(labels).predict_proba(X)
        for labels in (sparse, dense)
    ]
    assert_array_equal(*fits)


def test_sparse_distributions_are_drawn_and_handed_on(large):
    images = np.zeros((N, 4, 4), dtype=np.uint8)
    clf = classifier().fit(make_labels())
    distributions = clf.label_distributions_
    shown = [
        CandidateGridDisplay.from_partial_labels(
            PartialLabels.from_candidates(CANDIDATES, images), rows=[7, 3], label_distributions=form
        )
        for form in (distributions, distributions.toarray())
    ]
    assert shown[0].purified == shown[1].purified == clf.transduction_[[7, 3]].astype(str).tolist()
    meta = PseudoLabelClassifier(classifier(), labels="best").fit(X, CANDIDATES)
    assert isinstance(meta.label_distributions_, np.ndarray)
    assert_array_equal(meta.transduction_, meta.estimator_.transduction_)


def test_candidates_may_be_read_only(large):
    wide = sp.csr_array((N, 64), dtype=bool)
    wide = sp.hstack([sp.csr_array(CANDIDATES), wide], format="csr")
    labels = PartialLabels.from_csr(wide, X)
    candidates = labels.candidates
    for part in (candidates.data, candidates.indices, candidates.indptr):
        part.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(max_epochs=3).fit(labels)


def test_choosing_a_rule_needs_all_scores():
    with pytest.raises(ValueError, match="These scores are sparse"):
        choose_rule_value(make_labels(scores=SPARSE), T, "topk")


# -- the annotator -----------------------------------------------------------------------------

CLASSES = [f"class {i}" for i in range(70)]


def annotator(**params):
    return VLMPartialAnnotator(CLASSES, vlm=FeatureVLM(), batch_size=50, **params)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"rule": "cumulative"},
        {"rule": "cpl"},
        {"aggregation": "vote", "rule": "topk"},
        {"template_weights": "agreement"},
        {"aggregation": "dawid_skene"},
    ],
    ids=str,
)
def test_an_annotator_keeps_the_largest_scores(params):
    few = annotator(max_scores=4, **params)
    labels, expected = few.fit_transform(X), annotator(**params).fit_transform(X)
    assert_array_equal(labels.toarray(), expected.toarray())
    assert_array_equal(labels.votes, expected.votes)
    assert_array_equal(labels.scores.toarray(), largest_scores(expected.scores, 4).toarray())
    # what scikit-learn asks for are all probabilities
    assert_array_equal(few.predict_proba(X), expected.scores)
    assert_array_equal(few.predict(X), few.classes_[expected.scores.argmax(axis=1)])
    assert_array_equal(few.transform(X).scores.toarray(), labels.scores.toarray())
    assert few.transform(X)[:0].scores.shape == (0, 70)


def test_no_matrix_of_scores_is_made():
    many, classes = np.repeat(X, 20, axis=0), [f"class {i}" for i in range(300)]
    peaks = []
    for max_scores in (None, 4):
        params = {"templates": "simple", "batch_size": 50, "max_scores": max_scores}
        labels = VLMPartialAnnotator(classes, vlm=FeatureVLM(), **params).fit(X).transform(many)
        tracemalloc.start()
        assert labels.scores.shape == (len(many), 300)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    matrix = 4 * len(many) * 300
    assert peaks[0] > matrix
    assert peaks[1] < 0.5 * matrix


def test_trusted_labels_and_skipped_images_have_scores_of_their_own():
    known = ["class 7" if row == 3 else -1 for row in range(N)]
    labels = annotator(max_scores=4).fit_transform(X, known_labels=known)
    assert labels.known.nonzero()[0].tolist() == [3]
    assert labels.classes[labels[3]].tolist() == ["class 7"]
    colours = VLMPartialAnnotator(["red", "green", "blue"], vlm=ColourVLM(), max_scores=1)
    with pytest.warns(UserWarning, match="1 of 2 images cannot be read"):
        labels = colours.set_params(on_error="skip").fit_transform(["none.png", RED])
    assert_allclose(labels.scores.toarray(), [[1 / 3] * 3, [0, 0, 1]], rtol=1e-6)


def test_annotators_of_annotators_take_sparse_scores():
    members = [("few", annotator(max_scores=4)), ("all", annotator(templates="simple"))]
    labels = EnsemblePartialAnnotator(members).fit_transform(X)
    parts = [member.fit_transform(X).scores for _, member in members]
    assert_allclose(labels.scores, (parts[0].toarray() + parts[1]) / 2, rtol=1e-5)
    y = annotator().fit(X).predict(X)
    conformal = ConformalPartialAnnotator(annotator(max_scores=4)).fit(X, known_labels=y)
    assert conformal.transform(X).coverage(y) >= 0.9


@pytest.mark.parametrize("value", [0, -1, 2.5, "all"])
def test_max_scores_that_are_refused(value):
    with pytest.raises(ValueError, match="'max_scores' parameter"):
        annotator(max_scores=value).fit(X)

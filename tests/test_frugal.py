"""Many samples of many classes: nothing is a matrix of both, and nothing comes out differently."""

import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from fakes import ColourVLM, FeatureVLM
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator, _inputs
from sklearn_npll._evidence import are_probabilities, check_shares, largest_columns
from sklearn_npll._neural import _sparse_rows
from sklearn_npll._neural._sparse_rows import (
    MappedRows,
    SparseCandidates,
    SparseRows,
    collect_rows,
    largest_or_candidates,
    mean_predictions,
    reduce_rows,
    row_blocks,
)
from sklearn_npll._rules import candidates_from_scores, largest_scores
from sklearn_npll.annotators import ConformalPartialAnnotator, EnsemblePartialAnnotator
from sklearn_npll.baselines import PseudoLabelClassifier
from sklearn_npll.baselines._aggregation import best_labels
from sklearn_npll.coreg import _dividing_net, _division
from sklearn_npll.coreg._annotation import annotator_labels, candidate_shares, soft_labels
from sklearn_npll.datasets import make_candidates
from sklearn_npll.detection import NeighborVoteDetector
from sklearn_npll.model_selection import choose_rule_value
from sklearn_npll.plot import CandidateGridDisplay

N, N_CLASSES = 240, 30
RED = np.full((4, 4, 3), [255, 0, 0], dtype=np.uint8)
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(N_CLASSES, 8)) * 2
T = RNG.integers(N_CLASSES, size=N)
X = (CENTRES[T] + RNG.normal(size=(N, 8))).astype(np.float32)
CANDIDATES = make_candidates(T, q=0.05, eta=0.2, classes=np.arange(N_CLASSES), random_state=0)
CANDIDATES[:5] = True
SCORES = np.exp(X @ CENTRES.T / 4)
SCORES = (SCORES / SCORES.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture
def large(monkeypatch):
    """Let every problem be a large one, in blocks of few rows."""
    monkeypatch.setattr(_inputs, "SPARSE_FROM", 0)
    monkeypatch.setattr(_sparse_rows, "BLOCK_CELLS", 50 * N_CLASSES)


def classifier(**params):
    defaults = {"max_epochs": 4, "warm_up": 2, "lr": 0.05, "contrastive_start": 0, "batch_size": 60}
    return CoRegClassifier(random_state=0, **{**defaults, **params})


def small_network(n_features, n_classes):
    return nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_classes))


# -- sparse rows -------------------------------------------------------------------------------

DENSE = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0], [3.0, 0.0, 4.0]])


def make_rows():
    blocks = [(DENSE[:2], DENSE[:2] != 0), (DENSE[2:], DENSE[2:] != 0)]
    return SparseRows.from_blocks(blocks, (3, 3), 9, "cpu")


def test_sparse_rows():
    rows = make_rows()
    assert rows.sizes.tolist() == [2, 0, 2]
    assert rows.columns.tolist() == [1, 2, 0, 2]
    assert rows.values.tolist() == [2, 1, 3, 4]
    assert len(rows) == 3
    for key in (slice(None), slice(1, 3), torch.tensor([2, 0, 2]), torch.tensor([], dtype=int)):
        assert_array_equal(rows[key], DENSE[key])
    assert_array_equal(rows.to_scipy().toarray(), DENSE)


def test_sparse_candidates_store_nothing_for_rows_of_all_classes():
    dense = np.array([[1, 0, 1], [1, 1, 1], [0, 1, 0]], dtype=bool)
    candidates = SparseCandidates.from_scipy(sp.csr_array(dense), "cpu")
    assert candidates.columns.tolist() == [0, 2, 1]
    assert candidates.all(1).tolist() == [False, True, False]
    for key in (slice(None), slice(1, 2), torch.tensor([2, 1])):
        assert_array_equal(candidates[key], dense[key])
        assert candidates[key].dtype == torch.bool
    with pytest.raises(ValueError, match="axis 1; got 0"):
        candidates.all(0)


def test_rows_are_reduced_block_by_block(monkeypatch):
    monkeypatch.setattr(_sparse_rows, "BLOCK_CELLS", 6)
    rows = make_rows()
    assert row_blocks(rows) == [slice(0, 2), slice(2, 3)]
    assert row_blocks(DENSE) == [slice(0, 3)]
    mapped = MappedRows(torch.add, rows, rows)
    assert_array_equal(mapped[torch.tensor([0])], 2 * DENSE[:1])
    assert reduce_rows(lambda a, b: (a * b).sum(1), rows, mapped).tolist() == [10, 0, 50]
    largest, where = collect_rows(lambda part: rows[part].max(1), rows)
    assert (largest.tolist(), where.tolist()) == ([2, 0, 4], [1, 0, 2])


def test_what_is_kept_of_predictions():
    proba = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2]])
    candidates = torch.tensor([[True, False, False], [True, True, True]])
    kept = largest_or_candidates(proba, candidates, 1)
    assert kept.tolist() == [[True, True, False], [True, False, False]]
    assert largest_or_candidates(proba, candidates, 20).all()


def test_mean_predictions():
    candidates = SparseCandidates.from_scipy(sp.csr_array(np.eye(3, dtype=bool)), "cpu")
    blocks = [(torch.tensor([0, 1]), DENSE[:2]), (torch.tensor([2]), DENSE[2:])]
    mean, rescaled = mean_predictions(blocks, candidates, lambda p, c: p * c)
    assert_allclose(mean, [1, 2 / 3, 5 / 3], rtol=1e-6)
    assert_allclose(rescaled, [0, 0, 4 / 3], rtol=1e-6)
    assert mean_predictions(blocks, candidates, None)[1] is None


# -- Co-Reg ------------------------------------------------------------------------------------

VOTES = np.argsort(-SCORES, axis=1)[:, [0, 0, 1]]


def make_labels(**parts):
    known = np.zeros(N, dtype=bool)
    known[np.flatnonzero(CANDIDATES.sum(1) == 1)[0]] = True
    return PartialLabels(X, np.arange(N_CLASSES), CANDIDATES, known=known, **parts)


@pytest.mark.parametrize(
    "params, parts",
    [
        ({}, {}),
        ({"variant": "paper"}, {}),
        ({"prior": None, "unlabelled_loss": "paper", "doubly_robust": True}, {"votes": VOTES}),
        ({"prior": "estimated"}, {"scores": SCORES}),
        ({"pseudo_label_threshold": "class", "prototype_blend": 0.5}, {"scores": SCORES}),
        ({"prior": "annotator", "division": NeighborVoteDetector()}, {"scores": SCORES}),
        ({"division": "class"}, {}),
    ],
    ids=["robust", "paper", "votes", "estimated", "options", "detector", "class"],
)
def test_large_and_small_problems_train_alike(params, parts, monkeypatch):
    monkeypatch.setattr(_division, "MIN_ROWS", 4)  # for thirty classes of 240 rows
    labels = make_labels(**parts)
    small = classifier(**params).fit(labels)
    assert isinstance(small.label_distributions_, np.ndarray)
    monkeypatch.setattr(_inputs, "SPARSE_FROM", 0)
    monkeypatch.setattr(_sparse_rows, "BLOCK_CELLS", 50 * N_CLASSES)
    monkeypatch.setattr(_dividing_net, "KEPT_CLASSES", N_CLASSES)
    large = classifier(**params).fit(labels)
    assert_allclose(large.predict_proba(X), small.predict_proba(X), atol=2e-5)
    assert_allclose(large.clean_probability_, small.clean_probability_, atol=1e-4)
    assert isinstance(large.label_distributions_, sp.csr_array)
    distributions = large.label_distributions_.toarray()
    assert_allclose(distributions, small.label_distributions_, atol=2e-5)
    assert_array_equal(large.transduction_, small.transduction_)
    for one, other in zip(large.history_, small.history_, strict=True):
        assert one.keys() == other.keys()
        for name in ("partial_size", "label_change_rate", "covering_rate", "loss_partial"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-5)
        accuracy = one.get("approximated_accuracy")
        assert accuracy == pytest.approx(other.get("approximated_accuracy"), abs=1e-4)


def test_training_is_exact_whatever_is_kept_of_predictions(large, monkeypatch):
    fits = []
    for n_kept in (1, N_CLASSES):
        monkeypatch.setattr(_dividing_net, "KEPT_CLASSES", n_kept)
        fits.append(classifier().fit(make_labels()))
    few, all_ = fits
    assert_array_equal(few.predict_proba(X), all_.predict_proba(X))
    assert_array_equal(few.clean_probability_, all_.clean_probability_)
    sizes = np.diff(few.label_distributions_.indptr)
    labelled = ~CANDIDATES.all(1)
    assert (sizes[labelled] <= CANDIDATES.sum(1)[labelled] + 2).all()
    assert (sizes[~labelled] <= 2).all()
    assert_allclose(few.label_distributions_.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "params",
    [
        {"alignment_rounds": 2},
        {"neighbor_weight": 0.5},
        {"elr_weight": 1.0},
        {"candidate_update": "cluster"},
        {"confidence_weight": 0.5},
    ],
)
def test_options_that_remember_matrices_train_as_ever(large, params):
    clf = classifier(max_epochs=3, **params).fit(make_labels())
    assert isinstance(clf.label_distributions_, np.ndarray)


def test_single_labels_of_large_problems(large):
    y = np.where(np.arange(N) < 5, -1, T)
    clf = classifier(max_epochs=3).fit(X, y)
    assert isinstance(clf.label_distributions_, sp.csr_array)
    assert_array_equal(clf.classes_, np.unique(T))
    rows = y >= 0
    assert clf.score(X[rows], y[rows]) > 0.5
    with pytest.raises(ValueError, match="every class is a candidate of every row"):
        classifier().fit(X, np.ones((N, 3), dtype=int))


def test_checkpoints_and_warm_starts_of_large_problems(large, tmp_path):
    labels = make_labels(scores=sp.csr_array(SCORES))
    whole = classifier(max_epochs=4).fit(labels)
    part = classifier(max_epochs=2, warm_start=True).fit(labels)
    resumed = pickle.loads(pickle.dumps(part)).set_params(max_epochs=4).fit(labels)
    assert [row["phase"] for row in resumed.history_] == [row["phase"] for row in whole.history_]
    stored = classifier(max_epochs=4, checkpoint_dir=tmp_path)
    expected = stored.fit(labels).predict_proba(X)
    assert_array_equal(clone(stored).fit(labels).predict_proba(X), expected)
    assert len(list(tmp_path.iterdir())) == 1
    other = make_labels(scores=sp.csr_array(SCORES[:, ::-1]))
    clone(stored).fit(other)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_large_fit_leaves_global_generators_alone_and_repeats(large):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (classifier().fit(make_labels()).predict_proba(X) for _ in range(2))
    assert_array_equal(first, second)
    assert_array_equal(torch.get_rng_state(), torch_state)
    assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


class Largest(TorchDispatchMode):
    """Notes the size in bytes of the largest tensor that is made."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        for part in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(part, torch.Tensor):
                self.n_bytes = max(self.n_bytes, part.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("is_large", [True, False])
@pytest.mark.parametrize("with_scores", [True, False])
def test_what_is_allocated(is_large, with_scores, monkeypatch):
    n, n_classes = 3000, 1000
    monkeypatch.setattr(_inputs, "SPARSE_FROM", 0 if is_large else np.inf)
    monkeypatch.setattr(_sparse_rows, "BLOCK_CELLS", 2**17)
    rng = np.random.default_rng(0)
    entries = rng.random((n, 5)).astype(np.float32)
    columns = rng.integers(n_classes // 5, size=(n, 5)) + np.arange(5) * (n_classes // 5)
    parts = (entries.ravel(), columns.ravel(), np.arange(n + 1) * 5)
    scores = sp.csr_array(parts, shape=(n, n_classes))
    scores = sp.csr_array(scores.multiply(1 / scores.sum(axis=1)[:, None])).astype(np.float32)
    features = rng.normal(size=(n, 8)).astype(np.float32)
    if with_scores:
        labels = PartialLabels.from_scores(scores, "ratio", data=features)
    else:
        labels = PartialLabels.from_csr(scores.astype(bool), features)
    clf = classifier(module=small_network, max_epochs=2, warm_up=1, batch_size=64)
    tracemalloc.start()
    with Largest() as largest:
        clf.fit(labels).predict(features)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    matrix = 4 * n * n_classes  # bytes of a float32
    if is_large:
        assert peak < 0.5 * matrix
        assert largest.n_bytes < 0.2 * matrix
        assert clf.label_distributions_.nnz < 50 * n
    else:  # what the test would see
        assert largest.n_bytes >= matrix


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
    assert labels[3].nonzero()[0].tolist() == [7]
    colours = VLMPartialAnnotator(["red", "green", "blue"], vlm=ColourVLM(), max_scores=1)
    with pytest.warns(UserWarning, match="1 of 2 images cannot be read"):
        labels = colours.set_params(on_error="skip").fit_transform(["none.png", RED])
    assert_allclose(labels.scores.toarray(), [[1 / 3] * 3, [1, 0, 0]], rtol=1e-6)


def test_annotators_of_annotators_take_sparse_scores():
    members = [("few", annotator(max_scores=4)), ("all", annotator(templates="simple"))]
    labels = EnsemblePartialAnnotator(members).fit_transform(X)
    parts = [member.fit_transform(X).scores for _, member in members]
    assert_allclose(labels.scores, (parts[0].toarray() + parts[1]) / 2, rtol=1e-5)
    y = np.array(CLASSES)[annotator().fit(X).predict_proba(X).argmax(axis=1)]
    conformal = ConformalPartialAnnotator(annotator(max_scores=4)).fit(X, known_labels=y)
    assert conformal.transform(X).coverage(y) >= 0.9


@pytest.mark.parametrize("value", [0, -1, 2.5, "all"])
def test_max_scores_that_are_refused(value):
    with pytest.raises(ValueError, match="'max_scores' parameter"):
        annotator(max_scores=value).fit(X)

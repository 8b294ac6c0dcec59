"""Many samples of many classes: nothing is a matrix of both, and nothing comes out differently."""

import pickle
import tracemalloc

import frugal_data
import numpy as np
import pytest
import torch
from frugal_data import CANDIDATES, N_CLASSES, SCORES, N, T, X, classifier, make_labels
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from sklearn.base import clone
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_npll import PartialLabels, _inputs
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
from sklearn_npll.coreg import _dividing_net, _division
from sklearn_npll.detection import NeighborVoteDetector

# Fixtures, which pytest finds by their names here.
large = frugal_data.large


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

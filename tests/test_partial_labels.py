"""PartialLabels: contents, laziness, scikit-learn's own machinery, storage."""

import copy
import pickle
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.utils import resample, shuffle

from sklearn_npll import PartialLabels

CANDIDATES = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)
NAMES = ["cat", "dog", "fox"]


class CountingPlan:
    """Annotates sample i with the class i % 3 and counts how often it is asked, for how many."""

    def __init__(self):
        self.seen = []

    def __call__(self, data):
        self.seen.append(len(data))
        codes = np.asarray(data) % 3
        return {
            "candidates": np.eye(3, dtype=bool)[codes],
            "scores": np.eye(3)[codes],
            "votes": np.stack([codes, codes], axis=1),
            "known": codes == 0,
        }

    def __reduce__(self):
        raise pickle.PicklingError("a plan holds a model and must never be pickled")


@pytest.fixture
def labels():
    return PartialLabels(
        np.arange(4) * 10,
        NAMES,
        CANDIDATES,
        scores=CANDIDATES / CANDIDATES.sum(axis=1, keepdims=True),
        votes=[[0, 0, 0], [0, 1, 0], [1, 2, -1], [2, -1, -1]],
        known=[True, False, False, False],
    )


def make_lazy(n=12):
    plan = CountingPlan()
    return PartialLabels(np.arange(n), NAMES, plan=plan), plan


def make_wide(n=20, n_classes=200, seed=0):
    """Candidates of enough classes to be stored as CSR: two neighbours in each row."""
    first = np.random.default_rng(seed).integers(0, n_classes - 1, n)
    dense = np.zeros((n, n_classes), dtype=bool)
    dense[np.arange(n), first] = dense[np.arange(n), first + 1] = True
    return PartialLabels.from_candidates(dense, data=np.arange(n)), dense, first


# What it holds


def test_is_an_array_like_of_candidates(labels):
    assert labels.shape == (4, 3) and labels.ndim == 2 and labels.dtype == bool
    assert len(labels) == 4
    np.testing.assert_array_equal(np.asarray(labels), CANDIDATES)
    np.testing.assert_array_equal(np.asarray(labels, dtype=float), CANDIDATES.astype(float))
    np.testing.assert_array_equal(list(labels), CANDIDATES)
    assert np.array(labels) is not labels.candidates
    assert repr(labels) == (
        "PartialLabels(n_samples=4, n_classes=3, mean_set_size=1.50, data=ndarray)"
    )


def test_figures_against_hand_computed_values(labels):
    np.testing.assert_array_equal(labels.set_sizes, [1, 2, 2, 1])
    assert labels.mean_set_size == 1.5
    # Pairs that agree: row 0 3/3, row 1 1/3, row 2 0/1; row 3 has a single vote and is left out.
    assert labels.agreement == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert labels.coverage(["cat", "fox", "fox", "fox"]) == 0.75
    assert labels.coverage(["dog", -1, "fox", -1]) == 0.5
    np.testing.assert_array_equal(
        labels.contains(["cat", -1, "cat", "fox"]), [True, False, False, True]
    )
    summary = labels.summary(["cat", "fox", "fox", "fox"])
    assert dict(summary) == {
        "n_samples": 4,
        "n_classes": 3,
        "mean_set_size": 1.5,
        "single_share": 0.5,
        "unlabelled_share": 0.0,
        "agreement": pytest.approx(4 / 9),
        "n_known": 1,
        "coverage": 0.75,
        "noise_rate": 0.25,
    }
    assert "coverage          0.75" in repr(summary).splitlines()
    assert "coverage" not in labels.summary()


def test_summary_of_no_rows(labels):
    summary = labels[[]].summary()
    assert summary["n_samples"] == 0
    assert np.isnan([summary["mean_set_size"], summary["single_share"]]).all()


def test_coverage_without_labels_is_nan(labels):
    with pytest.warns(UndefinedMetricWarning, match="No sample in y is labelled"):
        assert np.isnan(labels.coverage([-1, -1, -1, -1]))


def test_agreement_needs_two_votes():
    assert PartialLabels.from_candidates(CANDIDATES).agreement is None
    assert PartialLabels.from_votes([[0], [1]], NAMES).agreement is None
    assert PartialLabels.from_votes([[0, -1], [-1, 1]], NAMES).agreement is None


@pytest.mark.parametrize("make", [np.array, list, pd.Series, lambda y: np.array(y, dtype=object)])
def test_encode_labels_of_any_kind(labels, make):
    np.testing.assert_array_equal(
        labels.encode_labels(make(["fox", "cat", "dog", "cat"])), [2, 0, 1, 0]
    )
    np.testing.assert_array_equal(
        labels.encode_labels(make(["fox", -1, -1, "cat"])), [2, -1, -1, 0]
    )


def test_encode_labels_of_numbered_classes():
    labels = PartialLabels.from_candidates(CANDIDATES, classes=[7, 3, 5])
    np.testing.assert_array_equal(labels.encode_labels([5, 7.0, -1, 3]), [2, 0, -1, 1])
    with pytest.raises(ValueError, match=r"y\[2\] is 4, which is not a class"):
        labels.encode_labels([5, 7, 4, 3])


def test_encode_labels_explains_what_is_wrong(labels):
    with pytest.raises(ValueError, match=r"y\[1\] is 'fx', .* Did you mean 'fox'\?"):
        labels.encode_labels(["cat", "fx", "cat", "dog"])
    with pytest.raises(ValueError, match=r"y\[0\] is 0, .* pass classes\[y\]"):
        labels.encode_labels([0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"y has shape \(3,\); .* 4 samples"):
        labels.encode_labels(["cat", "fox", "dog"])
    with pytest.raises(ValueError, match=r"y has shape \(4, 3\)"):
        labels.encode_labels(CANDIDATES)


# Constructors


@pytest.mark.parametrize("dtype", [bool, int, np.uint8, float])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array, sp.coo_matrix])
def test_from_candidates_dense_and_sparse(dtype, form):
    labels = PartialLabels.from_candidates(form(CANDIDATES.astype(dtype)), classes=NAMES)
    assert isinstance(labels.candidates, np.ndarray) and labels.candidates.dtype == bool
    np.testing.assert_array_equal(labels.candidates, CANDIDATES)
    np.testing.assert_array_equal(labels.tocsr().toarray(), CANDIDATES)


def test_from_candidates_of_a_data_frame_and_of_partial_labels():
    frame = pd.DataFrame(CANDIDATES.astype(int), columns=NAMES)
    labels = PartialLabels.from_candidates(frame, classes=frame.columns)
    assert labels.classes.tolist() == NAMES
    np.testing.assert_array_equal(PartialLabels.from_candidates(labels).candidates, CANDIDATES)


def test_many_classes_are_stored_as_csr():
    labels, dense, first = make_wide()
    assert sp.issparse(labels.candidates) and labels.candidates.dtype == bool
    np.testing.assert_array_equal(labels.toarray(), dense)
    np.testing.assert_array_equal(np.asarray(labels), dense)
    np.testing.assert_array_equal(labels[3], dense[3])
    assert labels.mean_set_size == 2
    assert labels.coverage(first) == 1
    assert labels.coverage(np.where(np.arange(20) < 5, first + 1, (first + 7) % 200)) == 0.25
    np.testing.assert_array_equal(labels.contains(np.r_[first[:1], [-1] * 19]), np.arange(20) == 0)


def test_csr_with_explicit_zeros_and_duplicates_is_cleaned_but_not_changed():
    given = sp.csr_matrix(
        (np.array([1, 0, 1, 1]), np.array([0, 1, 2, 2]), np.array([0, 2, 4])), shape=(2, 100)
    )
    labels = PartialLabels.from_csr(given)
    np.testing.assert_array_equal(labels.set_sizes, [1, 1])
    assert given.nnz == 4
    with pytest.raises(TypeError, match="from_candidates"):
        PartialLabels.from_csr(CANDIDATES)


def test_from_sets():
    labels = PartialLabels.from_sets([{"fox"}, ("cat", "dog"), ["dog", "dog"]])
    assert labels.classes.tolist() == NAMES
    np.testing.assert_array_equal(labels.candidates.astype(int), [[0, 0, 1], [1, 1, 0], [0, 1, 0]])
    assert PartialLabels.from_sets([["b"], ["a"]], classes=["b", "a", "c"]).shape == (2, 3)
    with pytest.raises(ValueError, match=r"sets\[1\] names 'foxx', .* Did you mean 'fox'"):
        PartialLabels.from_sets([["cat"], ["dog", "foxx"], ["cat"]], classes=NAMES)
    with pytest.raises(TypeError, match=r"sets\[0\] is 'cat'; .* \['cat'\]"):
        PartialLabels.from_sets(["cat", "dog"], classes=NAMES)
    with pytest.raises(ValueError, match="row 1 of candidates have no candidate"):
        PartialLabels.from_sets([["cat"], []], classes=NAMES)
    with pytest.raises(ValueError, match="sets mix names and numbers"):
        PartialLabels.from_sets([["cat", 1]])


def test_from_scores_keeps_the_scores():
    scores = [[0.5, 0.3, 0.2], [0.9, 0.08, 0.02]]
    labels = PartialLabels.from_scores(scores, "ratio", 0.6, classes=NAMES)
    np.testing.assert_array_equal(labels.candidates.astype(int), [[1, 1, 0], [1, 0, 0]])
    assert labels.scores.dtype == np.float32
    np.testing.assert_allclose(labels.scores, scores, rtol=1e-6)


@pytest.mark.parametrize("n_classes", [3, 300])
def test_from_votes_keeps_the_votes_compactly(n_classes):
    votes = np.array([[0, 2, -1], [1, 1, 1]])
    labels = PartialLabels.from_votes(votes, np.arange(n_classes))
    assert sp.issparse(labels.candidates) == (n_classes == 300)
    np.testing.assert_array_equal(labels.set_sizes, [2, 1])
    np.testing.assert_array_equal(labels.votes, votes)
    assert labels.votes.itemsize == (1 if n_classes == 3 else 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": CANDIDATES * [[1], [0], [0], [1]]}, "rows 1, 2 of candidates have no"),
        ({"candidates": CANDIDATES * 0.5}, "value 0.5 in row 0; .*from_scores"),
        ({"candidates": sp.csr_array(CANDIDATES * [[1], [1], [3], [1]])}, "value 3 in row 2"),
        ({"candidates": [[0], [0, 1], [1, 2], [2]]}, "from_sets .*MultiLabelBinarizer"),
        ({"candidates": CANDIDATES[:, :2]}, r"candidates has shape \(4, 2\); expected \(4, 3\)"),
        ({"candidates": None}, "candidates or a plan"),
        ({"data": np.arange(5)}, "data has 5 samples but candidates has 4 rows"),
        ({"classes": ["cat", "dog", "cat"]}, "class 'cat' is given more than once"),
        ({"classes": [0, -1, 1]}, "-1 cannot be a class"),
        ({"classes": "cat"}, r"list of names .* shape \(\)"),
        ({"scores": CANDIDATES[:2]}, r"scores has shape \(2, 3\); expected \(4, 3\)"),
        ({"scores": np.where(CANDIDATES, 1, np.nan)}, "NaN or infinity in rows 0, 1, 2, 3"),
        ({"votes": [[0], [1], [3], [0]]}, "votes go from 0 to 3; .* 0 to 2, or -1"),
        ({"votes": [0, 1, 2, 0]}, r"votes has shape \(4,\)"),
        ({"known": [True, True, False, False]}, "row 1 known by a human must have exactly one"),
        ({"known": [True]}, r"known has shape \(1,\)"),
        ({"plan": CountingPlan()}, "give them or a plan"),
    ],
)
def test_errors_say_what_is_wrong_and_where(change, message):
    parameters = {"data": None, "classes": NAMES, "candidates": CANDIDATES, **change}
    with pytest.raises(ValueError, match=message):
        PartialLabels(**parameters)


def test_errors_of_type():
    with pytest.raises(TypeError, match="plan must be callable"):
        PartialLabels(np.arange(3), NAMES, plan="plan")
    with pytest.raises(ValueError, match="data is None"):
        PartialLabels(None, NAMES, plan=CountingPlan())
    with pytest.raises(TypeError, match="generator has no length"):
        PartialLabels((i for i in range(4)), NAMES, CANDIDATES)


# Slicing


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([2, 0, 2], [2, 0, 2]),
        (np.array([-1, 1], dtype=np.int32), [3, 1]),
        (np.array([True, False, False, True]), [0, 3]),
        ([False, True, True, False], [1, 2]),
        (pd.Series([False, True, False, False]), [1]),
        (range(2), [0, 1]),
        ([], []),
        ((np.array([3, 1]), Ellipsis), [3, 1]),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_slices_keep_all_parts_aligned(labels, key, rows, lazy):
    if lazy:
        plan = CountingPlan()
        labels = PartialLabels(np.arange(4) * 10, NAMES, plan=plan)
        whole = plan(np.arange(4) * 10)
    else:
        whole = {name: getattr(labels, name) for name in ("candidates", "scores", "votes", "known")}
    part = labels[key]
    assert isinstance(part, PartialLabels) and part.shape == (len(rows), 3)
    assert part.is_materialized is not lazy
    np.testing.assert_array_equal(part.data, np.arange(4)[rows] * 10)
    for name, value in whole.items():
        np.testing.assert_array_equal(getattr(part, name), value[rows])


def test_slices_of_slices(labels):
    np.testing.assert_array_equal(labels[[3, 2, 1]][1:].data, [20, 10])
    np.testing.assert_array_equal(labels[1:][[2, 0]].data, [30, 10])
    np.testing.assert_array_equal(labels[[3, 2, 1]][[0, 2]][[1]].candidates, CANDIDATES[[1]])


def test_wrong_keys(labels):
    for key in (4, [0, 4], -5):
        with pytest.raises(IndexError, match="out of range"):
            labels[key]
    with pytest.raises(IndexError, match="columns are fixed"):
        labels[:, 1]
    with pytest.raises(IndexError, match="got str"):
        labels["cat"]
    with pytest.raises(ValueError, match=r"mask has shape \(2,\); expected \(4,\)"):
        labels[np.array([True, False])]


def test_samples_of_every_kind_are_sliced():
    from torch import tensor
    from torch.utils.data import ConcatDataset, Dataset

    class Squares(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return i * i

    class HuggingFaceLike:
        def __init__(self, items):
            self.items = list(items)

        def __len__(self):
            return len(self.items)

        def __getitem__(self, i):
            return self.items[i]

        def select(self, rows):
            return HuggingFaceLike(self.items[row] for row in rows)

    frame = pd.DataFrame({"a": range(4)}, index=list("wxyz"))
    kinds = {
        "list": (["w", "x", "y", "z"], lambda d: d == ["z", "x"]),
        "tuple": (("w", "x", "y", "z"), lambda d: list(d) == ["z", "x"]),
        "frame": (frame, lambda d: d.index.tolist() == ["z", "x"]),
        "series": (frame["a"], lambda d: d.tolist() == [3, 1]),
        "sparse": (sp.csr_matrix(np.eye(4)), lambda d: d.indices.tolist() == [3, 1]),
        "tensor": (tensor([0, 1, 2, 3]), lambda d: d.tolist() == [3, 1]),
        "dataset": (Squares(), lambda d: [d[i] for i in range(len(d))] == [9, 1]),
        "hf": (HuggingFaceLike(range(4)), lambda d: d.items == [3, 1]),
        "none": (None, lambda d: d is None),
    }
    for kind, (data, is_right) in kinds.items():
        labels = PartialLabels.from_candidates(CANDIDATES, data=data)
        assert is_right(labels[[3, 1]].data), kind
        assert is_right(labels[:0:-2].data), kind
        assert is_right(labels[[3, 2, 1]][::2].data), kind
    twice = PartialLabels.from_candidates(CANDIDATES, data=Squares())
    twice = PartialLabels.concatenate([twice, twice])
    assert isinstance(twice.data, ConcatDataset) and twice.data[7] == 9


def test_memory_map_is_neither_copied_by_slices_nor_read_before_use(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.arange(40, dtype=np.uint8).reshape(10, 2, 2))
    images = np.load(path, mmap_mode="r")
    labels = PartialLabels.from_candidates(np.eye(10), data=images)
    assert labels.data is images
    assert np.shares_memory(labels[2:5].data, images)
    part = labels[[7, 1]]
    assert part._data is images
    np.testing.assert_array_equal(part.data, images[[7, 1]])


# Laziness


def test_plan_is_called_once_and_only_when_needed():
    lazy, plan = make_lazy()
    assert lazy.shape == (12, 3) and len(lazy) == 12 and not lazy.is_materialized
    assert "not annotated yet" in repr(lazy)
    lazy.data, lazy.classes, lazy[2:4], lazy[[1, 2]].shape  # noqa: B018
    assert plan.seen == []
    np.testing.assert_array_equal(lazy.candidates, np.eye(3, dtype=bool)[np.arange(12) % 3])
    lazy.scores, lazy.votes, lazy.known, lazy.mean_set_size, np.asarray(lazy)  # noqa: B018
    assert plan.seen == [12] and lazy.is_materialized


@pytest.mark.parametrize("name", ["scores", "votes", "known"])
def test_any_result_of_the_plan_calls_it(name):
    lazy, plan = make_lazy()
    assert getattr(lazy, name) is not None
    assert plan.seen == [12]


def test_slices_of_a_lazy_container_annotate_only_themselves():
    lazy, plan = make_lazy()
    part = lazy[[1, 5, 3]]
    np.testing.assert_array_equal(part.candidates.argmax(axis=1), [1, 2, 0])
    assert plan.seen == [3] and not lazy.is_materialized
    lazy.candidates  # noqa: B018
    np.testing.assert_array_equal(lazy[[1, 5, 3]].candidates, part.candidates)
    assert plan.seen == [3, 12]


def test_loop_over_the_rows_calls_the_plan_once():
    lazy, plan = make_lazy()
    np.testing.assert_array_equal(list(lazy), np.eye(3, dtype=bool)[np.arange(12) % 3])
    assert plan.seen == [12]


def test_failed_plan_can_be_tried_again():
    calls = []

    def plan(data):
        calls.append(len(data))
        if len(calls) == 1:
            raise OSError("the model could not be read")
        return {"candidates": np.ones((len(data), 3))}

    lazy = PartialLabels([1, 2], NAMES, plan=plan)
    with pytest.raises(OSError, match="could not be read"):
        lazy.candidates  # noqa: B018
    assert lazy.candidates.all() and calls == [2, 2]


@pytest.mark.parametrize(
    "copied", [pickle, joblib, copy.copy, copy.deepcopy], ids=lambda f: f.__name__
)
def test_copies_annotate_first_and_hold_no_plan(copied, tmp_path):
    lazy, plan = make_lazy()
    if copied is pickle:
        again = pickle.loads(pickle.dumps(lazy))
    elif copied is joblib:
        joblib.dump(lazy, tmp_path / "labels")
        again = joblib.load(tmp_path / "labels")
    else:
        again = copied(lazy)
    assert plan.seen == [12] and again.is_materialized
    for name in ("classes", "data", "candidates", "scores", "votes", "known"):
        np.testing.assert_array_equal(getattr(again, name), getattr(lazy, name))


def test_pickle_of_a_slice_holds_only_the_slice():
    labels = PartialLabels.from_candidates(np.ones((1000, 2)), data=np.zeros((1000, 1000)))
    assert len(pickle.dumps(labels[[5]])) < 20_000


# scikit-learn's machinery


class SetVote(ClassifierMixin, BaseEstimator):
    """Predicts the most frequent candidate; remembers what it was given."""

    def __init__(self, shift=0):
        self.shift = shift

    def fit(self, X, y=None):
        assert isinstance(X, PartialLabels)
        self.classes_ = X.classes
        self.class_ = X.classes[(X.toarray().sum(axis=0).argmax() + self.shift) % X.shape[1]]
        return self

    def predict(self, X):
        assert isinstance(X, PartialLabels)
        return np.full(len(X), self.class_)


@pytest.mark.parametrize("lazy", [False, True])
def test_train_test_split_and_folds(lazy):
    labels, plan = make_lazy()
    if not lazy:
        labels.candidates  # noqa: B018
    y = np.array(NAMES)[np.arange(12) % 3]
    train, test, y_train, y_test = train_test_split(labels, y, test_size=4, stratify=y)
    assert train.shape == (8, 3) and test.shape == (4, 3)
    assert train.coverage(y_train) == test.coverage(y_test) == 1
    np.testing.assert_array_equal(np.sort(np.r_[train.data, test.data]), np.arange(12))
    for rows, _ in KFold(3).split(labels):
        np.testing.assert_array_equal(labels[rows].data, rows)
    assert len(list(StratifiedKFold(2).split(labels, y))) == 2
    assert plan.seen == ([8, 4] if lazy else [12])


def test_shuffle_and_resample_keep_samples_and_candidates_together():
    labels, dense, _ = make_wide()
    for part in (shuffle(labels, random_state=0), resample(labels, random_state=0)):
        np.testing.assert_array_equal(part.toarray(), dense[part.data])


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_cross_validation_and_search(n_jobs):
    labels = PartialLabels.from_sets(
        [["cat"]] * 8 + [["cat", "dog"]] * 4, classes=NAMES, data=np.arange(12)
    )
    y = ["cat"] * 9 + ["dog"] * 3
    scores = cross_val_score(SetVote(), labels, y, cv=3, n_jobs=n_jobs)
    np.testing.assert_allclose(scores, [0.75, 0.75, 0.75])
    assert cross_val_predict(SetVote(), labels, y, cv=3, n_jobs=n_jobs).tolist() == ["cat"] * 12
    search = GridSearchCV(SetVote(), {"shift": [0, 1]}, cv=3, n_jobs=n_jobs).fit(labels, y)
    assert search.best_params_ == {"shift": 0}
    search = GridSearchCV(
        SetVote(), {"shift": [1, 0]}, cv=3, scoring=lambda est, X: X.coverage(est.predict(X))
    )
    assert search.fit(labels).best_params_ == {"shift": 0}


# Joining and storing


def test_concatenate(labels):
    joined = PartialLabels.concatenate([labels[2:], labels[[0]]])
    for name in ("data", "candidates", "scores", "votes", "known"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(labels, name)[[2, 3, 0]])
    wide, dense, _ = make_wide()
    joined = PartialLabels.concatenate([wide[:3], wide[10:]])
    assert sp.issparse(joined.candidates)
    np.testing.assert_array_equal(joined.toarray(), np.r_[dense[:3], dense[10:]])


def test_concatenate_of_unequal_parts(labels):
    plain = PartialLabels.from_candidates(CANDIDATES, data=np.arange(4), classes=NAMES)
    joined = PartialLabels.concatenate([labels, plain])
    assert joined.scores is None and joined.votes is None
    np.testing.assert_array_equal(joined.known, [True] + [False] * 7)
    with pytest.raises(ValueError, match=r"parts\[1\] has classes \[0, 1, 2\]"):
        PartialLabels.concatenate([labels, PartialLabels.from_candidates(CANDIDATES)])
    paths = PartialLabels.from_candidates(CANDIDATES, data=list("abcd"), classes=NAMES)
    with pytest.raises(ValueError, match="different kinds cannot be joined: list, ndarray"):
        PartialLabels.concatenate([labels, paths])
    with pytest.raises(ValueError, match="at least one"):
        PartialLabels.concatenate([])


def test_concatenate_of_frames_and_sparse_samples():
    for data in (pd.DataFrame({"a": range(4)}), sp.csr_matrix(np.eye(4))):
        labels = PartialLabels.from_candidates(CANDIDATES, data=data)
        joined = PartialLabels.concatenate([labels[2:], labels[:1]])
        assert type(joined.data) is type(data) and joined.data.shape[0] == 3


@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_save_and_load_without_pickle(labels, tmp_path, suffix):
    labels.save(tmp_path / f"labels{suffix}")
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as file:
        assert all(array.dtype != object for array in dict(file).values())
    again = PartialLabels.load(tmp_path / f"labels{suffix}")
    for name in ("data", "classes", "candidates", "scores", "votes", "known"):
        value = getattr(again, name)
        np.testing.assert_array_equal(value, getattr(labels, name))
        assert value.dtype == getattr(labels, name).dtype


def test_save_of_paths_and_of_many_classes(tmp_path):
    wide, dense, _ = make_wide(n_classes=300)
    paths = [tmp_path / f"{i}.jpg" for i in range(20)]
    PartialLabels.from_candidates(dense, data=paths).save(tmp_path / "wide")
    again = PartialLabels.load(tmp_path / "wide")
    assert again.data == [str(path) for path in paths]
    assert sp.issparse(again.candidates) and again.scores is None
    np.testing.assert_array_equal(again.toarray(), dense)


def test_save_says_when_samples_are_left_out(tmp_path):
    labels = PartialLabels.from_candidates(CANDIDATES, data=[b"1", b"2", b"3", b"4"])
    with pytest.warns(UserWarning, match="left out.*data is None"):
        labels.save(tmp_path / "labels")
    assert PartialLabels.load(tmp_path / "labels").data is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PartialLabels.from_candidates(CANDIDATES).save(tmp_path / "labels")


# Memory


@pytest.mark.parametrize("source", ["csr", "sets"])
def test_memory_is_proportional_to_the_candidates(source):
    """At a 20th of 1,000,000 x 1,000 within a 20th of 500 MB, construction and use included.

    A dense bool matrix alone would take 50 MB here.
    """
    n, n_classes = 50_000, 1000
    rng = np.random.default_rng(0)
    columns = np.sort(rng.integers(0, n_classes // 3, (n, 3)) + np.arange(3) * (n_classes // 3))
    if source == "csr":
        indptr = np.arange(n + 1) * 3
        given = sp.csr_matrix((np.ones(3 * n, bool), columns.ravel(), indptr), (n, n_classes))
    else:
        given = columns.tolist()
    tracemalloc.start()
    if source == "csr":
        labels = PartialLabels.from_csr(given)
    else:
        labels = PartialLabels.from_sets(given, classes=np.arange(n_classes))
    assert labels.coverage(columns[:, 1]) == 1
    assert labels.summary()["mean_set_size"] == 3
    labels[rng.permutation(n)].tocsr()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6 / 20

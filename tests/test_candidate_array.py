"""PartialLabels as an array: slices, laziness, copies, and scikit-learn's own machinery."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from fakes import CountingPlan, make_wide
from scipy import sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin
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


def make_lazy(n=12):
    plan = CountingPlan()
    return PartialLabels(np.arange(n), NAMES, plan=plan), plan


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

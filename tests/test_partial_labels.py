"""PartialLabels: contents, errors, joining and storage."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from fakes import CountingPlan, make_wide
from scipy import sparse as sp
from sklearn.exceptions import UndefinedMetricWarning

from sklearn_npll import PartialLabels

CANDIDATES = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)
NAMES = ["cat", "dog", "fox"]


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
    with pytest.raises(ValueError, match="classes mix names and numbers"):
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
        ({"classes": [1, 1.5, 2]}, "class 1.5 is no whole number"),
        ({"classes": [1, 2, np.nan]}, "class nan is no whole number"),
        ({"classes": ["cat", 1, 2]}, "classes mix names and numbers: 'cat', 1, 2"),
        ({"classes": ["cat", "dog", None]}, "got None among them"),
        ({"classes": [("cat", 1), "dog", "fox"]}, r"got \('cat', 1\) among them"),
        ({"classes": [[1, 2, 3]]}, r"list of names .* got \[\[1, 2, 3\]\]"),
        ({"classes": "cat"}, r"list of names .* got 'cat'"),
        ({"classes": {"cat", "dog", "fox"}}, r"list of names .* got \{"),
        ({"classes": [b"cat", b"dog", b"fox"]}, "got b'cat' among them"),
        ({"classes": np.array([b"cat", b"dog", b"fox"])}, r"list of names .* got array\(\[b'cat'"),
        ({"candidates": CANDIDATES.astype(int).astype(str)}, "the value '1' in row 0"),
        ({"votes": [[0], [1], [0.5], [0]]}, "votes have dtype float64; a vote is a whole number"),
        ({"known": [0, 2, 3, 3]}, r"known must be a mask.*; got \[0, 2, 3, 3\]"),
        ({"known": ["yes", "", "", ""]}, r"known must be a mask.*; got \['yes'"),
        ({"known": [True, None, False, False]}, r"known must be a mask.*; got \[True, None"),
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
    for data in ({0, 1, 2, 3}, dict.fromkeys(range(4))):
        with pytest.raises(TypeError, match="has no numbered rows; make it a list"):
            PartialLabels(data, NAMES, CANDIDATES)
    for sets in (None, ({"cat"} for _ in range(4))):
        with pytest.raises(TypeError, match="sets of type .* has no length"):
            PartialLabels.from_sets(sets)
    with pytest.raises(TypeError, match=r"parts\[1\] is of type ndarray, no PartialLabels"):
        PartialLabels.concatenate([PartialLabels(None, NAMES, CANDIDATES), CANDIDATES])
    with pytest.raises(TypeError, match="generator has no length"):
        PartialLabels((i for i in range(4)), NAMES, CANDIDATES)


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
    more = PartialLabels.from_votes(np.zeros((4, 5), int), NAMES, data=np.arange(4))
    with pytest.raises(ValueError, match=r"different numbers of votes: \[\d, 5\]\. Drop them"):
        PartialLabels.concatenate([labels, more])
    assert PartialLabels.concatenate([labels, more.replace(votes=None)]).votes is None


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

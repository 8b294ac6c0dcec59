"""Tests of labels as tables of pandas, polars and pyarrow."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse as sp
from sklearn import config_context

from sklearn_npll import PartialLabels, VLMPartialAnnotator
from sklearn_npll._frames import make_frame
from sklearn_npll._partial_labels import label_columns

ROWS = [  # of the fixture `labels`, worked out by hand
    {
        "row": 0,
        "label": "cat",
        "confidence": 1.0,
        "set_size": 1,
        "agreement": 1.0,
        "known": True,
        "candidates": ["cat"],
        "votes": ["cat", "cat", "cat"],
    },
    {
        "row": 1,
        "label": "cat",
        "confidence": 0.5,
        "set_size": 2,
        "agreement": 1 / 3,
        "known": False,
        "candidates": ["cat", "dog"],
        "votes": ["cat", "dog", "cat"],
    },
    {
        "row": 2,
        "label": "dog",
        "confidence": 0.5,
        "set_size": 2,
        "agreement": 0.0,
        "known": False,
        "candidates": ["dog", "fox"],
        "votes": ["dog", "fox", None],
    },
    {
        "row": 3,
        "label": "fox",
        "confidence": 1.0,
        "set_size": 1,
        "agreement": None,
        "known": False,
        "candidates": ["fox"],
        "votes": ["fox", None, None],
    },
]


def to_rows(frame, library):
    if library == "pandas":
        return frame.astype({"agreement": object}).replace({np.nan: None}).to_dict("records")
    return frame.to_pylist() if library == "pyarrow" else frame.to_dicts()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_hold_what_is_known_of_each_sample(labels, library):
    pytest.importorskip(library)
    frame = labels.to_frame(library, votes=True)
    assert type(frame).__module__.split(".")[0] == library
    assert to_rows(frame, library) == ROWS
    assert "votes" not in labels.to_frame(library)[:1]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_paths_in_the_place_of_rows(library):
    pytest.importorskip(library)
    labels = PartialLabels.from_sets([["b"], ["a", "b"]], data=["x.jpg", "y\udcff.jpg"])
    frame = labels.to_frame(library)
    rows = frame.to_dict("records") if library == "pandas" else to_rows(frame, library)
    assert [row["path"] for row in rows] == ["x.jpg", r"y\udcff.jpg"]
    # no votes, no scores: the first candidate, with an equal share
    assert [row["label"] for row in rows] == ["b", "a"]
    assert [row["confidence"] for row in rows] == [1, 0.5]
    assert list(rows[0]) == ["path", "label", "confidence", "set_size", "candidates"]


def test_the_index_of_pandas_samples():
    pd = pytest.importorskip("pandas")
    data = pd.Series(["x.jpg", "y.jpg", "z.jpg"], index=[30, 10, 20])
    labels = PartialLabels.from_candidates(np.eye(3), data=data)
    assert labels.to_frame().index.tolist() == [30, 10, 20]
    assert labels[1:].to_frame()["path"].to_dict() == {10: "y.jpg", 20: "z.jpg"}


def test_paths_in_a_series_of_polars():
    polars = pytest.importorskip("polars")
    labels = PartialLabels.from_candidates(np.eye(2), data=polars.Series(["x.jpg", "y.jpg"]))
    assert labels[1:].to_frame("polars")["path"].to_list() == ["y.jpg"]


def test_many_classes_and_numbers_as_names():
    pytest.importorskip("pandas")
    n = 70  # candidates and scores are sparse
    labels = PartialLabels.from_candidates(np.eye(n, dtype=bool)[[3, 69]], classes=range(n))
    frame = labels.to_frame()
    assert frame["label"].tolist() == [3, 69]
    assert frame["candidates"].tolist() == [[3], [69]]


def test_scores_that_are_no_shares():
    rows = [[2, 1, 1], [0.5, 0.25, 0.25]]
    for scores in (rows, sp.csr_array(rows)):
        columns = label_columns(PartialLabels.from_scores(scores, "topk", 1))
        assert_array_equal(columns["label"], [0, 0])
        assert_array_equal(columns["confidence"], [0.5, 0.5])
    pytest.importorskip("pandas")
    frame = PartialLabels.from_scores([[-2.0, -1, -3], [3, 4, -1], [0, 0, 0]]).to_frame()
    assert frame["label"].tolist() == [1, 1, 0]
    assert frame["confidence"].isna().all()


def test_no_rows(labels):
    pytest.importorskip("pyarrow")
    assert labels[:0].to_frame("pyarrow").num_rows == 0


def test_errors(labels, monkeypatch):
    with pytest.raises(ValueError, match=r"'pandsa' makes no tables.*Did you mean 'pandas'"):
        labels.to_frame("pandsa")
    with pytest.raises(ValueError, match="these labels have no votes"):
        PartialLabels.from_candidates([[1, 0]]).to_frame("pyarrow", votes=True)
    for library in ("pandas", "polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=f"Tables of {library} need it: pip install"):
            make_frame({}, library)


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_scikit_learn_is_not_asked_for_tables(output):
    """A table would lose the samples, so the learner behind the annotator gets none."""
    pytest.importorskip(output)

    class Brightness:
        logit_scale = 10.0

        def encode_image(self, images):
            shares = np.array([np.asarray(image).mean() / 255 for image in images])
            return np.stack([1 - shares, shares], axis=1)

        def encode_text(self, texts):
            return np.array([[1, 0] if "night" in text else [0, 1] for text in texts])

    X = np.array([[[250]], [[3]]], dtype=np.uint8)
    annotator = VLMPartialAnnotator(["day", "night"], vlm=Brightness()).set_output(transform=output)
    with config_context(transform_output=output):
        for labels in (annotator.fit_transform(X), annotator.transform(X)):
            assert isinstance(labels, PartialLabels)
            assert labels.to_frame(output)["label"].to_list() == ["day", "night"]

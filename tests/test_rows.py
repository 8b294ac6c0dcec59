"""Rows of samples of any kind: counted, taken and joined."""

import numpy as np
import pytest
import torch
from scipy import sparse as sp
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from sklearn_npll._rows import join, length, take


class Letters:
    """A dataset: only a length and items."""

    def __len__(self):
        return 4

    def __getitem__(self, row):
        return "abcd"[row]


def test_length():
    assert length(np.zeros((3, 2)), "X") == length(sp.csr_array((3, 5)), "X") == 3
    assert length(Letters(), "X") == 4
    for endless in (iter("abc"), np.float64(1)):
        with pytest.raises(TypeError, match="X of type .* has no length"):
            length(endless, "X")


@pytest.mark.parametrize("rows", [np.array([2, 0]), slice(1, 3)])
def test_take(rows):
    expected = np.arange(4)[rows].tolist()
    assert take(None, rows) is None
    assert take(np.arange(4), rows).tolist() == expected
    assert take([0, 1, 2, 3], rows) == expected
    assert take(sp.csr_array(np.diag([1, 2, 3, 4])), rows).sum(axis=1).tolist() == [
        row + 1 for row in expected
    ]
    part = take(Letters(), rows)
    assert isinstance(part, Subset) and list(part) == ["abcd"[row] for row in expected]


def test_join():
    assert join([["a"], ["b", "c"]]) == ["a", "b", "c"]
    assert join([np.arange(2), np.arange(1)]).tolist() == [0, 1, 0]
    assert join([sp.csr_array((2, 3)), sp.csr_array((1, 3))]).shape == (3, 3)
    assert join([["a"], None]) is None
    both = join([Letters(), Letters()])
    assert isinstance(both, ConcatDataset) and both[5] == "b"
    tensors = [torch.arange(2), torch.arange(1)]
    assert torch.equal(join(tensors), torch.tensor([0, 1, 0]))
    tables = [TensorDataset(part) for part in tensors]
    assert isinstance(join(tables), ConcatDataset)
    with pytest.raises(ValueError, match="cannot be joined: Tensor, ndarray"):
        join([tensors[0], np.arange(2)])
    with pytest.raises(ValueError, match="cannot be joined: list, ndarray"):
        join([["a"], np.arange(2)])


def test_join_of_tables():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [1, 2]})
    assert join([frame, frame[:1]])["a"].to_list() == [1, 2, 1]
    assert join([frame["a"], frame["a"]]).to_list() == [1, 2, 1, 2]
    with pytest.raises(ValueError, match="different kinds cannot be joined: DataFrame, Series"):
        join([frame, frame["a"]])
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [1, 2]})
    with pytest.raises(ValueError, match="type Table cannot be joined; make them arrays or lists"):
        join([table, table])

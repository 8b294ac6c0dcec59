"""The file that partial labels are saved in: arrays, without pickle."""

import os
import warnings

import numpy as np
from scipy import sparse as sp


def write_labels(file, labels):
    """Write partial labels to an open file.

    Parameters
    ----------
    file : binary file
    labels : PartialLabels

    Warns
    -----
    UserWarning
        If the samples can only be written with pickle, and are left out.
    """
    csr = labels.tocsr()
    arrays = {
        "classes": labels.classes,
        "columns": csr.indices.astype(np.min_scalar_type(len(labels.classes))),
        "sizes": labels.set_sizes,
        "votes": labels.votes,
        "known": labels.known,
    }
    if sp.issparse(labels.scores):
        arrays["score_values"] = labels.scores.data
        arrays["score_columns"] = labels.scores.indices
        arrays["score_starts"] = labels.scores.indptr
    else:
        arrays["scores"] = labels.scores
    data = labels.data
    if isinstance(data, np.ndarray) and not data.dtype.hasobject:
        arrays["data"] = data
    elif isinstance(data, list) and all(isinstance(x, (str, os.PathLike)) for x in data):
        arrays["data_list"] = np.array([os.fspath(x) for x in data], dtype=str)
    elif data is not None:
        warnings.warn(
            f"The samples ({type(data).__name__}) cannot be written without pickle and are left"
            " out; only an array or a list of paths can. After load, data is None.",
            stacklevel=3,  # the caller of save
        )
    np.savez_compressed(
        file, **{name: array for name, array in arrays.items() if array is not None}
    )


def read_parts(file):
    """Read what `write_labels` wrote.

    Parameters
    ----------
    file : binary file

    Returns
    -------
    dict
        Arguments of `PartialLabels`.
    """
    with np.load(file, allow_pickle=False) as arrays:
        arrays = dict(arrays)
    columns, sizes, n_classes = arrays["columns"], arrays["sizes"], len(arrays["classes"])
    if not _are_counts(sizes, n_classes):
        raise ValueError("the numbers of candidates are out of range")
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    shape = (len(sizes), n_classes)
    candidates = _checked_csr(np.ones(len(columns), dtype=bool), columns, starts, shape)
    data = arrays["data_list"].tolist() if "data_list" in arrays else arrays.get("data")
    parts = {name: arrays.get(name) for name in ("scores", "votes", "known")}
    if "score_values" in arrays:
        values, columns, starts = (arrays[f"score_{x}"] for x in ("values", "columns", "starts"))
        parts["scores"] = _checked_csr(values, columns, starts, shape)
    return {"data": data, "classes": arrays["classes"], "candidates": candidates, **parts}


def _checked_csr(values, columns, starts, shape):
    """Make a CSR array of parts that SciPy trusts, and with which it would write anywhere."""
    n_rows, n_columns = shape
    if not (_are_counts(columns, n_columns - 1) and _are_counts(starts, len(columns))):
        raise ValueError("the parts of a sparse matrix are out of range")
    if len(starts) != n_rows + 1 or starts[0] != 0 or starts[-1] != len(columns):
        raise ValueError(f"a sparse matrix has not {n_rows} rows of {len(columns)} entries")
    if values.shape != columns.shape or (starts[1:] < starts[:-1]).any():
        raise ValueError("the parts of a sparse matrix contradict each other")
    parts = (values, columns.astype(np.int32), starts.astype(np.int64))
    return sp.csr_array(parts, shape=shape)


def _are_counts(values, largest):
    """Whether an array of one dimension holds integers from 0 to the largest."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return False
    return not len(values) or bool(values.min() >= 0 and values.max() <= largest)


def npz_path(path):
    path = os.fspath(path)
    return path if path.endswith(".npz") else path + ".npz"

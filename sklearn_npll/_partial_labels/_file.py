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
    # SciPy trusts these, and would write to any place in memory.
    if not (_are_counts(columns, n_classes - 1) and _are_counts(sizes, n_classes)):
        raise ValueError("the candidates are out of range")
    if sizes.sum() != len(columns):
        raise ValueError(f"there are {len(columns)} candidates in place of {sizes.sum()}")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    candidates = sp.csr_array(
        (np.ones(len(columns), dtype=bool), columns.astype(np.int32), starts),
        shape=(len(sizes), n_classes),
    )
    data = arrays["data_list"].tolist() if "data_list" in arrays else arrays.get("data")
    parts = {name: arrays.get(name) for name in ("scores", "votes", "known")}
    if "score_values" in arrays:
        entries = (arrays[f"score_{name}"] for name in ("values", "columns", "starts"))
        parts["scores"] = sp.csr_array(tuple(entries), shape=candidates.shape)
    return {"data": data, "classes": arrays["classes"], "candidates": candidates, **parts}


def _are_counts(values, largest):
    """Whether an array of one dimension holds integers from 0 to the largest."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return False
    return not len(values) or bool(values.min() >= 0 and values.max() <= largest)


def npz_path(path):
    path = os.fspath(path)
    return path if path.endswith(".npz") else path + ".npz"

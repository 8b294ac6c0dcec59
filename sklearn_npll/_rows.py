"""Rows of samples of any accepted kind: counted, taken and joined."""

import numpy as np
from scipy import sparse as sp


def _length(data, name):
    shape = getattr(data, "shape", None)
    try:
        return shape[0] if shape is not None else len(data)
    except (TypeError, IndexError):
        raise TypeError(
            f"{name} of type {type(data).__name__} has no length; it must be an array, a list or"
            " a dataset with a length and items."
        ) from None


def _is_array(data):
    return sp.issparse(data) or hasattr(data, "__array__")


def _take(data, rows):
    """The given rows, a slice or integers, of samples of any accepted kind."""
    if data is None:
        return None
    if hasattr(data, "iloc"):
        return data.iloc[rows]
    if _is_array(data):
        return data[rows]
    if isinstance(data, (list, tuple)):
        return data[rows] if isinstance(rows, slice) else [data[row] for row in rows]
    if isinstance(rows, slice):
        rows = np.arange(len(data))[rows]
    if hasattr(data, "select"):  # a Hugging Face dataset
        return data.select(rows)
    from torch.utils.data import Subset

    return Subset(data, rows.tolist())


def _join(parts):
    """Samples or arrays of the same kind one after another; None if any is None."""
    if any(part is None for part in parts):
        return None
    if all(isinstance(part, list) for part in parts):
        return [sample for part in parts for sample in part]
    if all(hasattr(part, "iloc") for part in parts):
        import pandas as pd

        return pd.concat(parts)
    if all(sp.issparse(part) for part in parts):
        return sp.vstack(parts, format="csr")
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    if any(isinstance(part, list) or _is_array(part) for part in parts):
        kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
        raise ValueError(f"Samples of different kinds cannot be joined: {kinds}.")
    from torch.utils.data import ConcatDataset

    return ConcatDataset(parts)

"""Rows of samples of any accepted kind: counted, taken and joined."""

from collections.abc import Mapping, Set

import numpy as np
from scipy import sparse as sp


def length(data, name):
    """Count samples; an error calls them by a name.

    Parameters
    ----------
    data : indexable
    name : str

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If they have no length or no order.
    """
    shape = getattr(data, "shape", None)
    if shape is None and isinstance(data, (Set, Mapping)):
        raise TypeError(
            f"{name} of type {type(data).__name__} has no numbered rows; make it a list or array."
        )
    try:
        return shape[0] if shape is not None else len(data)
    except (TypeError, IndexError):
        raise TypeError(
            f"{name} of type {type(data).__name__} has no length; it must be an array, a list or"
            " a dataset with a length and items."
        ) from None


def _is_array(data):
    return sp.issparse(data) or hasattr(data, "__array__")


def take(data, rows):
    """Take rows out of samples.

    Parameters
    ----------
    data : indexable or None
        An array, a sparse matrix, a pandas object, a list, or a torch or Hugging Face dataset.
    rows : slice or ndarray of int
        Not negative.

    Returns
    -------
    indexable or None
        Of the same kind; a tuple becomes a list and a torch dataset a subset.
    """
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


def join(parts):
    """Join samples of the same kind one after another.

    Parameters
    ----------
    parts : list of indexable or None

    Returns
    -------
    indexable or None
        None if any part is None.

    Raises
    ------
    ValueError
        If the parts are of different kinds, or of one that cannot be joined.
    """
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
        kinds = {type(part) for part in parts}
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        if len(kinds) > 1:
            raise ValueError(f"Samples of different kinds cannot be joined: {names}.")
        library = type(parts[0]).__module__.partition(".")[0]
        if library == "torch":
            import torch

            return torch.cat(parts)
        if library == "polars":
            import polars

            return polars.concat(parts)
        raise ValueError(f"Samples of type {names} cannot be joined; make them arrays or lists.")
    from torch.utils.data import ConcatDataset

    return ConcatDataset(parts)

"""Columns as a table of pandas, polars or pyarrow."""

import numpy as np

from ._messages import did_you_mean

LIBRARIES = ("pandas", "polars", "pyarrow")


def make_frame(columns, library, index=None):
    """Make a table of a dict of columns.

    Parameters
    ----------
    columns : dict of str to ndarray or list
        Strings, numbers, or lists of strings. NaN and None are missing values.
    library : {"pandas", "polars", "pyarrow"}
        What makes the table.
    index : pandas.Index, default=None
        Of a pandas table.

    Returns
    -------
    pandas.DataFrame, polars.DataFrame or pyarrow.Table

    Raises
    ------
    ImportError
        If the library is not installed.
    ValueError
        If it is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> make_frame({"a": np.array([1.5, np.nan])}, "pyarrow").to_pylist()
    [{'a': 1.5}, {'a': None}]
    """
    if library not in LIBRARIES:
        raise ValueError(
            f"library={library!r} makes no tables here; it may be 'pandas', 'polars' or 'pyarrow'."
            f"{did_you_mean(library, LIBRARIES)}"
        )
    columns = {name: _writable(values) for name, values in columns.items()}
    try:
        if library == "pandas":
            import pandas

            return pandas.DataFrame(columns, index=index)
        if library == "polars":
            import polars

            return polars.DataFrame(columns, nan_to_null=True)
        import pyarrow
    except ImportError as error:
        raise ImportError(f"Tables of {library} need it: pip install {library}.") from error
    return pyarrow.table(
        {name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()}
    )


def _writable(values):
    """Values without the parts of file names that are no text; numbers stay an array."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "biuf":
            return values
        values = values.tolist()
    return [
        v.encode(errors="backslashreplace").decode() if isinstance(v, str) else v for v in values
    ]

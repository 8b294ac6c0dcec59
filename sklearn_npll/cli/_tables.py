"""Tables as CSV, JSON or Parquet files."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from .._files import atomic_write
from .._frames import make_frame
from .._messages import did_you_mean

FORMATS = ("csv", "json", "parquet")
SEPARATOR = "|"  # of several classes in a cell of a CSV file


def check_table(path):
    """Check that a table can be written, before the work that fills it.

    Parameters
    ----------
    path : str or path-like
        The file.

    Raises
    ------
    ValueError
        If its ending is none of a table.
    ImportError
        If pyarrow is needed and missing.

    Examples
    --------
    >>> check_table("labels.txt")
    Traceback (most recent call last):
    ...
    ValueError: 'labels.txt' must end in .csv, .json or .parquet.
    """
    form = _format(path)
    if form not in FORMATS:
        raise ValueError(
            f"{str(path)!r} must end in .csv, .json or .parquet.{did_you_mean(form, FORMATS)}"
        )
    if form == "parquet":
        _pyarrow()


def write_table(path, columns):
    """Write a table in the format of the file's ending.

    In a CSV file, several classes in a cell are separated by ``|``, and NaN is an empty cell; JSON
    is a list of objects, with null for NaN.

    Parameters
    ----------
    path : str or path-like
        The file; it is replaced whole or not at all.
    columns : dict of str to sequence
        The columns: strings, numbers, or lists of strings.
    """
    columns = {name: _plain(values) for name, values in columns.items()}
    write = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}[_format(path)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        write(file, columns)


def _format(path):
    return Path(path).suffix.lower().lstrip(".")


def _plain(values):
    """Values as Python objects: numbers in six digits, None for NaN."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return [None if np.isnan(value) else float(f"{value:.6g}") for value in values]
    return values.tolist() if isinstance(values, np.ndarray) else values


def _write_csv(file, columns):
    # File names that are no UTF-8 are written as the bytes that they are.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values()):
        writer.writerow(SEPARATOR.join(v) if isinstance(v, list) else v for v in row)
    text.detach()  # flushes, and leaves the file open


def _write_json(file, columns):
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    file.write(json.dumps(rows, indent=1).encode())


def _write_parquet(file, columns):
    _pyarrow().parquet.write_table(make_frame(columns, "pyarrow"), file)


def _pyarrow():
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: pip install pyarrow. Or take csv or json."
        ) from error
    return pyarrow

"""The container that carries samples and their candidate labels through scikit-learn.

It is an array of candidates (`_array`) with figures (`_measures`) and a table (`_table`), which can
be made, joined and saved (`_labels`, `_file`); `_checks` says what its parts must be.
"""

from ._checks import SPARSE_FROM_CLASSES, check_class_names, row_sizes
from ._file import npz_path, write_labels
from ._labels import PartialLabels
from ._measures import encode_labels
from ._table import label_columns

__all__ = [
    "SPARSE_FROM_CLASSES",
    "PartialLabels",
    "check_class_names",
    "encode_labels",
    "label_columns",
    "npz_path",
    "row_sizes",
    "write_labels",
]

"""The container that carries samples and their candidate labels through scikit-learn.

It is an array of candidates (`_array`) with figures (`_measures`), which can be made, joined and
saved (`_labels`, `_file`); `_checks` says what its parts must be.
"""

from ._checks import SPARSE_FROM_CLASSES, row_sizes
from ._file import npz_path, write_labels
from ._labels import PartialLabels
from ._measures import encode_labels

__all__ = [
    "SPARSE_FROM_CLASSES",
    "PartialLabels",
    "encode_labels",
    "npz_path",
    "row_sizes",
    "write_labels",
]

"""The container that carries samples and their candidate labels through scikit-learn.

It is an array of candidates (`_array`) with figures (`_measures`), which can be made, joined and
saved (`_labels`, `_file`); `_checks` says what its parts must be.
"""

from ._labels import PartialLabels

__all__ = ["PartialLabels"]

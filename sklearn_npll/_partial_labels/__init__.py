"""The container that carries samples and their candidate labels through scikit-learn."""

from ._labels import PartialLabels

__all__ = ["PartialLabels"]

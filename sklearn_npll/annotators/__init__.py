"""Annotators: transformers that turn unlabelled samples into candidate labels."""

from ._conformal import ConformalPartialAnnotator
from ._ensemble import EnsemblePartialAnnotator
from ._vlm_annotator import VLMPartialAnnotator

__all__ = ["ConformalPartialAnnotator", "EnsemblePartialAnnotator", "VLMPartialAnnotator"]

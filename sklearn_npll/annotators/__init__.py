"""Annotators: transformers that turn unlabelled samples into candidate labels."""

from ._vlm_annotator import VLMPartialAnnotator

__all__ = ["VLMPartialAnnotator"]

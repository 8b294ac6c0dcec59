"""Detectors of noisy labels: which rows of an annotator's labels can be believed."""

from ._base import BaseNoiseDetector

__all__ = ["BaseNoiseDetector"]

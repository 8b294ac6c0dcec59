"""Learning from the noisy partial labels that vision-language models give to images."""

from . import annotators, baselines, datasets, detection, metrics, model_selection, plot
from ._partial_labels import PartialLabels
from .annotators import VLMPartialAnnotator
from .coreg import CoRegClassifier

__version__ = "0.1.0.dev0"

__all__ = [
    "CoRegClassifier",
    "PartialLabels",
    "VLMPartialAnnotator",
    "annotators",
    "baselines",
    "datasets",
    "detection",
    "metrics",
    "model_selection",
    "plot",
]

"""Detectors of noisy labels: which rows of an annotator's labels can be believed."""

from ._annotator import CLIPCleanerDetector, LabelMatchDetector
from ._base import BaseNoiseDetector
from ._classifier import DeFTClassifier
from ._deft import DeFTDetector
from ._model_free import ConfidentLearningDetector, NeighborVoteDetector, SmallLossDetector

__all__ = [
    "BaseNoiseDetector",
    "CLIPCleanerDetector",
    "ConfidentLearningDetector",
    "DeFTClassifier",
    "DeFTDetector",
    "LabelMatchDetector",
    "NeighborVoteDetector",
    "SmallLossDetector",
]

"""Pictures of candidates, of training and of what was learnt, as scikit-learn displays.

Each display computes its figures in a ``from_...`` constructor, which also draws it, and can be
drawn again with ``plot``. Matplotlib is needed for drawing only.
"""

from ._candidate_grid import CandidateGridDisplay
from ._candidate_sets import CandidateSetDisplay
from ._confusion import ConfusionComparisonDisplay
from ._history import TrainingHistoryDisplay

__all__ = [
    "CandidateGridDisplay",
    "CandidateSetDisplay",
    "ConfusionComparisonDisplay",
    "TrainingHistoryDisplay",
]

"""The rules of rival methods: pure functions of tensors, one for each rule of a paper.

Shapes: ``n`` rows of a batch, ``C`` classes (at least two), ``V`` views of a row, ``k`` neighbours.
Each row has at least one candidate. Rows in which every class is a candidate carry no label: the
losses leave them out of their mean, and no rule changes their candidates. Confidences, weights,
targets and new candidates carry no gradient.

The average over the candidates of Feng et al. (NeurIPS 2020, "CC") is `candidate_nll` of
`sklearn_npll.coreg._losses`; the confidence of PRODEN and RC is `rescale_candidates` of
`sklearn_npll.coreg._division`.
"""

from ._candidates import (
    average_based_loss,
    class_activation_label,
    complementary_loss,
    consistency_loss,
    consistent_confidence,
    leveraged_loss,
    leveraged_weights,
    uniform_confidence,
    weighted_cross_entropy,
)
from ._neighbours import knn_label_votes, nearest_share, neighbour_contrast, reliable_rows
from ._noisy_candidates import (
    alim_target,
    alim_weight,
    estimate_noise_rate,
    fredis_loss,
    fredis_refine,
    purify_candidates,
)
from ._noisy_labels import (
    elr_loss,
    elr_target,
    forget_rate,
    generalised_cross_entropy,
    label_smoothing,
    small_loss_rows,
    symmetric_cross_entropy,
)

__all__ = [
    "alim_target",
    "alim_weight",
    "average_based_loss",
    "class_activation_label",
    "complementary_loss",
    "consistency_loss",
    "consistent_confidence",
    "elr_loss",
    "elr_target",
    "estimate_noise_rate",
    "forget_rate",
    "fredis_loss",
    "fredis_refine",
    "generalised_cross_entropy",
    "knn_label_votes",
    "label_smoothing",
    "leveraged_loss",
    "leveraged_weights",
    "nearest_share",
    "neighbour_contrast",
    "purify_candidates",
    "reliable_rows",
    "small_loss_rows",
    "symmetric_cross_entropy",
    "uniform_confidence",
    "weighted_cross_entropy",
]

"""Partial-label learners that mend the candidate sets: classes join and leave them."""

from numbers import Integral, Real

import torch

from .._compat import Interval
from .._neural._base import NeuralClassifier, learner
from ..coreg._division import rescale_candidates
from ._net import RuleNet
from ._partial_label import PRODENNet
from ._rules import (
    fredis_loss,
    fredis_refine,
    purify_candidates,
    uniform_confidence,
    weighted_cross_entropy,
)


class POPNet(PRODENNet):
    """PRODEN whose candidates are purified after a warm-up."""

    def start(self, data):
        """Begin with the given candidates."""
        return {
            **super().start(data),
            "candidates": data.candidates.clone(),
            "window": [],
            "threshold": self.method.threshold,
        }

    def begin_epoch(self, data):
        """Drop candidates whose mean confidence in the last epochs is low."""
        memory, method = self.memory_, self.method
        if not self.epoch_:
            return
        memory["window"] = [*memory["window"], memory["confidence"].clone()][-method.window :]
        if self.warming_up:
            return
        mean = torch.stack(memory["window"]).mean(0)
        purified = purify_candidates(mean, memory["candidates"], memory["threshold"])
        changed = (purified != memory["candidates"]).any(1).float().mean().item()
        memory["candidates"] = purified
        memory["confidence"] = rescale_candidates(memory["confidence"], purified)
        if changed < method.min_change:
            memory["threshold"] = min(2 * memory["threshold"], 1.0)

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        logits, candidates = self.logits(data, rows), self.memory_["candidates"][rows]
        return weighted_cross_entropy(
            logits, self.refresh(rows, logits, candidates), data.candidates[rows]
        )

    def label_distributions(self, proba, data):
        """Return the predictions restricted to the purified candidates."""
        return rescale_candidates(proba, self.memory_["candidates"])


@learner
class POPClassifier(NeuralClassifier):
    """Progressive purification: PRODEN that drops candidates it has long given little confidence.

    Parameters
    ----------
    {shared_parameters}
    warm_up : int, default=10
        Epochs before candidates are dropped; the paper takes 20.
    window : int, default=5
        Epochs over which the confidence is averaged.
    threshold : float in [0, 1], default=1e-3
        Candidates below this share of the largest confidence of the row are dropped, at first.
    min_change : float in [0, 1], default=0.01
        The threshold doubles after an epoch in which a smaller share of the rows changed.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] N. Xu, B. Liu, J. Lv, C. Qiao, X. Geng, "Progressive Purification for Instance-Dependent
       Partial Label Learning", ICML 2023.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "warm_up": [Interval(Integral, 0, None, closed="left")],
        "window": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "min_change": [Interval(Real, 0, 1, closed="both")],
    }
    _net_class = POPNet
    _fixed = {"variant": "proden"}

    warm_up: int = 10
    window: int = 5
    threshold: float = 1e-3
    min_change: float = 0.01


class FREDISNet(RuleNet):
    """Trains on confidences in candidates that are refined and disambiguated in turns."""

    def start(self, data):
        """Begin with the given candidates."""
        method = self.method
        confidence = uniform_confidence(data.candidates)
        return {
            "confidence": confidence,
            "proba": confidence.clone(),
            "candidates": data.candidates.clone(),
            "theta": method.theta,
            "delta": method.delta,
        }

    def begin_epoch(self, data):
        """Every so many epochs, add likely classes to the candidates and remove unlikely ones."""
        memory, method = self.memory_, self.method
        turn = max(1, round(method.update_every * self.max_epochs))
        if self.warming_up or (self.epoch_ - method.warm_up) % turn:
            return
        max_added = max(1, round(method.max_added * len(data))) if method.max_added else 0
        memory["candidates"] = fredis_refine(
            memory["proba"], memory["candidates"], memory["theta"], memory["delta"], max_added
        )
        memory["confidence"] = rescale_candidates(memory["confidence"], memory["candidates"])
        memory["theta"] = min(memory["theta"] + method.step, 0.9)
        memory["delta"] = max(memory["delta"] - method.step, 0.1)

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        memory, method = self.memory_, self.method
        logits, candidates = self.logits(data, rows), self.memory_["candidates"][rows]
        loss = fredis_loss(
            logits, memory["confidence"][rows], candidates,
            method.consistency_weight, method.complement_weight,
        )  # fmt: skip
        proba = logits.detach().softmax(1)
        memory["proba"][rows] = proba
        new = rescale_candidates(proba, candidates)
        memory["confidence"][rows] = torch.lerp(new, memory["confidence"][rows], method.smoothing)
        return loss

    def label_distributions(self, proba, data):
        """Return the predictions restricted to the refined candidates."""
        return rescale_candidates(proba, self.memory_["candidates"])


@learner
class FREDISClassifier(NeuralClassifier):
    """Fusion of refinement and disambiguation for noisy partial labels.

    Every few epochs, classes that are almost as likely as the likeliest one join the candidates,
    and candidates that are much less likely leave them.

    Parameters
    ----------
    {shared_parameters}
    warm_up : int, default=10
        Epochs before the candidates change.
    update_every : float, default=0.1
        Share of `max_epochs` between two changes; the paper takes 20 epochs of 250 or so.
    theta : float, default=1e-6
        A class whose probability is less than this below the largest joins, at first.
    delta : float, default=1.0
        A candidate whose probability is more than this below the largest leaves, at first.
    step : float, default=0.1
        What theta gains (up to 0.9) and delta loses (down to 0.1) at each change.
    max_added : float, default=0.02
        Largest number of classes that join at a change, as a share of the samples, and half the
        largest number that leaves; 0 keeps the candidates. The paper adds up to 500 to 50,000
        samples.
    smoothing : float, default=0.9
        Share of the old confidence in the moving average.
    consistency_weight, complement_weight : float, default=1.0
        Weights of the two terms of the loss.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] C. Qiao, N. Xu, J. Lv, Y. Ren, X. Geng, "FREDIS: A Fusion Framework of Refinement and
       Disambiguation for Unreliable Partial Label Learning", ICML 2023.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "warm_up": [Interval(Integral, 0, None, closed="left")],
        "update_every": [Interval(Real, 0, 1, closed="right")],
        "theta": [Interval(Real, 0, 1, closed="both")],
        "delta": [Interval(Real, 0, 1, closed="both")],
        "step": [Interval(Real, 0, 1, closed="both")],
        "max_added": [Interval(Real, 0, 1, closed="both")],
        "smoothing": [Interval(Real, 0, 1, closed="left")],
        "consistency_weight": [Interval(Real, 0, None, closed="left")],
        "complement_weight": [Interval(Real, 0, None, closed="left")],
    }
    _net_class = FREDISNet

    warm_up: int = 10
    update_every: float = 0.1
    theta: float = 1e-6
    delta: float = 1.0
    step: float = 0.1
    max_added: float = 0.02
    smoothing: float = 0.9
    consistency_weight: float = 1.0
    complement_weight: float = 1.0

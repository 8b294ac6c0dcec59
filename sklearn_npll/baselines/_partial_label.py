"""Partial-label learners that identify the true label among the candidates, or average over them.

The rules are in `_rules`; here each is a few lines of what is remembered and when.
"""

from numbers import Real

import torch

from .._compat import Interval, StrOptions
from .._neural._base import NeuralClassifier
from .._neural._docs import learner
from ..coreg._division import rescale_candidates
from ..coreg._losses import candidate_nll
from ._net import RuleNet
from ._rules import (
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


class CCNet(RuleNet):
    """Trains with the negative log of the candidates' probability."""

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        return candidate_nll(self.logits(data, rows), data.candidates[rows])


@learner
class CCClassifier(NeuralClassifier):
    """Classifier-consistent partial-label learner: the candidates' probability is maximised.

    Parameters
    ----------
    {shared_parameters}

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] L. Feng, J. Lv, B. Han, M. Xu, G. Niu, X. Geng, B. An, M. Sugiyama, "Provably Consistent
       Partial-Label Learning", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll.baselines import CCClassifier
    >>> X, y = make_blobs(300, centers=3, random_state=0)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::3, 0] = 1
    >>> clf = CCClassifier(max_epochs=10, lr=0.05, random_state=0).fit(X, candidates)
    >>> clf.score(X, y) > 0.85
    True
    """

    _net_class = CCNet


class ConfidenceNet(RuleNet):
    """Remembers the confidence in each candidate of each row."""

    def start(self, data):
        """Begin with equal confidence in each candidate."""
        return {"confidence": uniform_confidence(data.candidates)}


class PRODENNet(ConfidenceNet):
    """Trains with confidences that are refreshed after each batch."""

    def refresh(self, rows, logits, candidates):
        """Return the confidences that the loss takes, and remember new ones."""
        new = rescale_candidates(logits.detach().softmax(1), candidates)
        old = self.memory_["confidence"][rows]
        self.memory_["confidence"][rows] = new
        return new if self.method.variant == "rc" and self.epoch_ else old

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        logits, candidates = self.logits(data, rows), data.candidates[rows]
        return weighted_cross_entropy(logits, self.refresh(rows, logits, candidates), candidates)


@learner
class PRODENClassifier(NeuralClassifier):
    """Progressive identification of the true label, or the risk-consistent learner RC.

    Both weight the cross-entropy by the predictions restricted to the candidates. PRODEN takes
    those of the last visit of a sample, RC those of the present one, after an epoch of equal
    weights.

    Parameters
    ----------
    {shared_parameters}
    variant : {"proden", "rc"}, default="proden"
        Which of the two.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] J. Lv, M. Xu, L. Feng, G. Niu, X. Geng, M. Sugiyama, "Progressive Identification of True
       Labels for Partial-Label Learning", ICML 2020.
    .. [2] L. Feng et al.,
       "Provably Consistent Partial-Label Learning", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll.baselines import PRODENClassifier
    >>> X, y = make_blobs(300, centers=3, random_state=0)
    >>> candidates = np.eye(3, dtype=int)[y]
    >>> candidates[::3, 0] = 1
    >>> clf = PRODENClassifier(max_epochs=10, lr=0.05, random_state=0).fit(X, candidates)
    >>> clf.score(X, y) > 0.85
    True
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "variant": [StrOptions({"proden", "rc"})],
    }
    _net_class = PRODENNet

    variant: str = "proden"


class LWSNet(RuleNet):
    """Trains with weights inside and outside the candidates."""

    def start(self, data):
        """Begin with equal weights inside, and equal ones outside."""
        zeros = torch.zeros(data.candidates.shape, device=self.device)
        return {"weights": leveraged_weights(zeros, data.candidates)}

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        logits, candidates = self.logits(data, rows), data.candidates[rows]
        weights = self.memory_["weights"][rows]
        self.memory_["weights"][rows] = leveraged_weights(logits, candidates)
        return leveraged_loss(logits, weights, candidates, self.method.beta, self.method.loss)


@learner
class LWSClassifier(NeuralClassifier):
    """Leveraged weighted loss: candidates are raised and the other classes lowered.

    Parameters
    ----------
    {shared_parameters}
    loss : {"sigmoid", "cross_entropy"}, default="sigmoid"
        Loss of a class; "cross_entropy" is LWC.
    beta : float, default=2.0
        Weight of the classes that are no candidates.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] H. Wen, J. Cui, H. Hang, J. Liu, Y. Wang, Z. Lin, "Leveraged Weighted Loss for Partial
       Label Learning", ICML 2021.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "loss": [StrOptions({"sigmoid", "cross_entropy"})],
        "beta": [Interval(Real, 0, None, closed="left")],
    }
    _net_class = LWSNet

    loss: str = "sigmoid"
    beta: float = 2.0


class CAVLNet(ConfidenceNet):
    """Trains on the candidate of the largest class activation value."""

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        logits, candidates = self.logits(data, rows), data.candidates[rows]
        confidence = self.memory_["confidence"][rows]
        label = class_activation_label(logits.detach(), candidates)
        chosen = torch.nn.functional.one_hot(label, logits.shape[1]).float()
        self.memory_["confidence"][rows] = chosen
        return weighted_cross_entropy(logits, confidence, candidates)


@learner
class CAVLClassifier(NeuralClassifier):
    """Class activation value learning: trains on the candidate whose activation is largest.

    Parameters
    ----------
    {shared_parameters}

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] F. Zhang, L. Feng, B. Han, T. Liu, G. Niu, T. Qin, M. Sugiyama, "Exploiting Class
       Activation Value for Partial-Label Learning", ICLR 2022.
    """

    _net_class = CAVLNet


class ABSNet(RuleNet):
    """Trains with a bounded loss, averaged over the candidates."""

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        method = self.method
        logits = self.logits(data, rows)
        return average_based_loss(logits, data.candidates[rows], method.loss, method.q)


@learner
class ABSClassifier(NeuralClassifier):
    """Average-based learner: a bounded loss, averaged over the candidates.

    Parameters
    ----------
    {shared_parameters}
    loss : {"gce", "mae"}, default="gce"
        Generalised cross-entropy or mean absolute error.
    q : float in (0, 1], default=0.7
        Exponent of the generalised cross-entropy.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] J. Lv, B. Liu, L. Feng, N. Xu, M. Xu, B. An, G. Niu, X. Geng, M. Sugiyama, "On the
       Robustness of Average Losses for Partial-Label Learning", TPAMI 2023.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "loss": [StrOptions({"gce", "mae"})],
        "q": [Interval(Real, 0, 1, closed="right")],
    }
    _net_class = ABSNet

    loss: str = "gce"
    q: float = 0.7


class CRDPLLNet(ConfidenceNet):
    """Trains views of a sample towards their geometric mean on the candidates."""

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        candidates, strong = data.candidates[rows], data.views.strong
        inputs = torch.cat([data.views.weak(rows), strong(rows), strong(rows)])
        logits = self.classify(0, self.embed(0, inputs)).unflatten(0, (3, len(rows)))
        loss = complementary_loss(logits[0], candidates)
        confidence = self.memory_["confidence"][rows]
        log_proba = logits.detach().log_softmax(2)
        self.memory_["confidence"][rows] = consistent_confidence(log_proba, candidates)
        weight = self.ramp(self.method.ramp_up) * self.method.consistency_weight
        return loss + weight * consistency_loss(logits, confidence, candidates)


@learner
class CRDPLLClassifier(NeuralClassifier):
    """Consistency regularisation: one weak and two strong views agree on a candidate.

    Parameters
    ----------
    {shared_parameters}
    consistency_weight : float, default=1.0
        Weight of the consistency in the end.
    ramp_up : float, default=0.5
        Share of the epochs over which that weight grows from 0; the paper takes 100 of 200.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] D.-D. Wu, D.-B. Wang, M.-L. Zhang, "Revisiting Consistency Regularization for Deep
       Partial Label Learning", ICML 2022.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "consistency_weight": [Interval(Real, 0, None, closed="left")],
        "ramp_up": [Interval(Real, 0, 1, closed="both")],
    }
    _net_class = CRDPLLNet
    _samples_per_row = 3

    consistency_weight: float = 1.0
    ramp_up: float = 0.5

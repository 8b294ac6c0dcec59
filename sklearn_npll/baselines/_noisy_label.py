"""Learners from one noisy label a sample, the annotator's best, and distillation."""

from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F

from .._compat import Interval
from .._evidence import annotator_shares
from .._inputs import NOTHING_TO_LEARN, check_problem
from .._neural._base import NeuralClassifier
from .._neural._docs import learner
from .._neural._pair import PairClassifier
from ..coreg._losses import soft_cross_entropy
from ..coreg._net import CoRegNet
from ..coreg._options import OPTIONS_OFF
from ._aggregation import best_labels
from ._net import LABEL_FREE_SCORES, NoiseRateMixin, RuleNet
from ._rules import (
    elr_loss,
    elr_target,
    forget_rate,
    generalised_cross_entropy,
    small_loss_rows,
    symmetric_cross_entropy,
)


class SingleLabelMixin:
    """For a classifier that learns from one label a sample: the annotator's best candidate."""

    def _check_problem(self, X, y):
        problem = check_problem(X, y, full=True)
        # a later fit, or another process, must draw the same labels
        seed = self.random_state if isinstance(self.random_state, Integral) else 0
        best = best_labels(problem.labels(None, coded=True), seed)
        problem.candidates = np.ones_like(problem.candidates)
        # their label is trained on like any other; in a new array, as the old one is the caller's
        problem.known = np.zeros_like(problem.known)
        labelled = best >= 0
        if not labelled.any():
            raise ValueError(NOTHING_TO_LEARN)
        problem.candidates[labelled] = np.eye(len(problem.classes), dtype=bool)[best[labelled]]
        return problem


class SingleLabelNet(RuleNet):
    """A `RuleNet` that sees the label of each row."""

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        return self.label_loss(self.logits(data, rows), data.candidates[rows].int().argmax(1), rows)

    def label_loss(self, logits, label, rows):
        """Return the loss of logits of rows with labels."""
        return F.cross_entropy(logits, label)

    def label_distributions(self, proba, data):
        """Return the predictions."""
        return proba


@learner
class CEClassifier(SingleLabelMixin, NeuralClassifier):
    """Cross-entropy on the annotator's best label, as if it were true.

    The best label is the candidate with the highest score, or with the most votes where there are
    no scores, or a random candidate.

    Parameters
    ----------
    {shared_parameters}

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn_npll.baselines import CEClassifier
    >>> X, y = make_blobs(300, centers=3, random_state=0)
    >>> CEClassifier(max_epochs=10, lr=0.05, random_state=0).fit(X, y).score(X, y) > 0.85
    True
    """

    _net_class = SingleLabelNet


class GCENet(SingleLabelNet):
    """Trains with the generalised cross-entropy."""

    def label_loss(self, logits, label, rows):
        """Return the loss of logits of rows with labels."""
        return generalised_cross_entropy(logits, label, self.method.q)


@learner
class GCEClassifier(SingleLabelMixin, NeuralClassifier):
    """Generalised cross-entropy on the annotator's best label.

    Parameters
    ----------
    {shared_parameters}
    q : float in (0, 1], default=0.7
        Between cross-entropy, near 0, and mean absolute error, at 1.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] Z. Zhang, M. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks
       with Noisy Labels", NeurIPS 2018.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "q": [Interval(Real, 0, 1, closed="right")],
    }
    _net_class = GCENet

    q: float = 0.7


class SCENet(SingleLabelNet):
    """Trains with the symmetric cross-entropy."""

    def label_loss(self, logits, label, rows):
        """Return the loss of logits of rows with labels."""
        return symmetric_cross_entropy(logits, label, self.method.alpha, self.method.beta)


@learner
class SCEClassifier(SingleLabelMixin, NeuralClassifier):
    """Symmetric cross-entropy on the annotator's best label.

    Parameters
    ----------
    {shared_parameters}
    alpha, beta : float, default=1.0
        Weights of the cross-entropy and of the reverse cross-entropy.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] Y. Wang, X. Ma, Z. Chen, Y. Luo, J. Yi, J. Bailey, "Symmetric Cross Entropy for Robust
       Learning with Noisy Labels", ICCV 2019.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left")],
    }
    _net_class = SCENet

    alpha: float = 1.0
    beta: float = 1.0


class ELRNet(SingleLabelNet):
    """Trains with a pull towards each row's earlier predictions."""

    def start(self, data):
        """Begin with no earlier predictions."""
        return {"target": torch.zeros(data.candidates.shape, device=self.device)}

    def label_loss(self, logits, label, rows):
        """Return the loss of logits of rows with labels."""
        proba = logits.detach().softmax(1)
        target = elr_target(self.memory_["target"][rows], proba, self.method.target_momentum)
        self.memory_["target"][rows] = target
        return elr_loss(logits, target, label, self.method.weight)


@learner
class ELRClassifier(SingleLabelMixin, NeuralClassifier):
    """Early-learning regularisation on the annotator's best label.

    Parameters
    ----------
    {shared_parameters}
    weight : float, default=3.0
        Weight of the regulariser; the paper takes 3 for CIFAR-10 and 7 for CIFAR-100.
    target_momentum : float, default=0.7
        Share of the old target in the moving average; 0.7 and 0.9 in the paper.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] S. Liu, J. Niles-Weed, N. Razavian, C. Fernandez-Granda, "Early-Learning Regularization
       Prevents Memorization of Noisy Labels", NeurIPS 2020.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "weight": [Interval(Real, 0, None, closed="left")],
        "target_momentum": [Interval(Real, 0, 1, closed="left")],
    }
    _net_class = ELRNet

    weight: float = 3.0
    target_momentum: float = 0.7


class CoTeachingNet(NoiseRateMixin, SingleLabelNet):
    """Trains each of two networks on the rows that the other finds easy."""

    def batch_loss(self, data, rows):
        """Return the sum of both networks' losses."""
        label = data.candidates[rows].int().argmax(1)
        inputs = data.views.strong(rows)
        logits = [self.classify(k, self.embed(k, inputs)) for k in (0, 1)]
        self.remember(data, rows, sum(logits).softmax(1))
        losses = [F.cross_entropy(z, label, reduction="none") for z in logits]
        rate = forget_rate(self.epoch_, self.memory_["noise_rate"], max(1, self.method.warm_up))
        easy = [small_loss_rows(loss.detach(), rate) for loss in losses]
        return losses[0][easy[1]].mean() + losses[1][easy[0]].mean()


@learner
class CoTeachingClassifier(SingleLabelMixin, PairClassifier):
    """Co-teaching on the annotator's best label: each network picks small losses for the other.

    Parameters
    ----------
    {shared_parameters}
    deploy : {"ensemble", "single"}, default="ensemble"
        Whether predictions come from both networks or from the first.
    warm_up : int, default=10
        Epochs in which the share of samples left out grows from 0 to the noise rate.
    {eta_parameter}

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}
    {eta_attributes}

    References
    ----------
    .. [1] B. Han, Q. Yao, X. Yu, G. Niu, M. Xu, W. Hu, I. Tsang, M. Sugiyama, "Co-teaching: Robust
       Training of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018.
    """

    _parameter_constraints = {
        **PairClassifier._parameter_constraints,
        "warm_up": [Interval(Integral, 0, None, closed="left")],
        "eta": [Interval(Real, 0, 1, closed="left"), None],
    }
    _net_class = CoTeachingNet
    _samples_per_row = 2

    warm_up: int = 10
    eta: float | None = None


class DivideMixNet(CoRegNet):
    """Co-Reg without prototypes, contrast and alignment, with a pull to a uniform mean prediction.

    On single labels, Eq. 5-7 of Co-Reg are DivideMix's co-refinement and co-guessing.
    """

    def _self_training_loss(self, logits, target, n_partial, ramp, weight=None):
        loss = super()._self_training_loss(logits, target, n_partial, ramp, weight)
        mean = logits.softmax(1).mean(0)
        return loss - (mean.clamp(min=1e-8) * mean.shape[0]).log().mean()


@learner
class DivideMixClassifier(SingleLabelMixin, PairClassifier):
    """DivideMix on the annotator's best label: divide by a mixture of the losses, then MixMatch.

    Parameters
    ----------
    {shared_parameters}
    deploy : {"ensemble", "single"}, default="ensemble"
        Whether predictions come from both networks or from the first.
    warm_up : int, default=10
        Epochs on the labels alone, with the penalty on confident predictions that the paper takes
        for asymmetric noise.
    clean_threshold : float, default=0.5
        Clean probability above which a sample keeps its label.
    n_weak_views : int, default=2
        Weak views whose predictions are averaged in the targets.
    temperature : float, default=0.5
        Sharpening temperature.
    unlabelled_weight : float, default=25.0
        Weight of the squared error on samples that lost their label.
    mixup_alpha : float or None, default=4.0
        Parameter of the Beta distribution of MixUp; None for no MixUp.
    loss_window : int, default=1
        Epochs over which losses are averaged; the paper takes 5 under heavy noise.

    Attributes
    ----------
    {shared_attributes}
    history_ : list of dict
        As of `CoRegClassifier`.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Refined and guessed labels of the training samples.
    clean_probability_ : ndarray of shape (n_samples,)
        Probability that the label is right.

    Notes
    -----
    It trains on strong views towards targets from weak ones, as everything here does, and takes the
    losses to divide by from a weak view; the authors use weak views throughout. Labels a human
    vouched for are treated like the others.

    References
    ----------
    .. [1] J. Li, R. Socher, S. Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised
       Learning", ICLR 2020.
    """

    _parameter_constraints = {
        **PairClassifier._parameter_constraints,
        "warm_up": [Interval(Integral, 0, None, closed="left")],
        "clean_threshold": [Interval(Real, 0, 1, closed="left")],
        "n_weak_views": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "unlabelled_weight": [Interval(Real, 0, None, closed="left")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither"), None],
        "loss_window": [Interval(Integral, 1, None, closed="left")],
    }
    _net_class = DivideMixNet
    _samples_per_row = None  # the split decides
    _fixed = {
        **OPTIONS_OFF,
        "co_labelling": "peer",
        "n_mixed_views": 2,
        "use_unlabelled": True,
        "unlabelled_sampling": "equal",
        "unlabelled_loss": "release",
        "prototype_weight": 0.0,
        "contrastive": "none",
        "contrastive_start": 0,
    }

    warm_up: int = 10
    clean_threshold: float = 0.5
    n_weak_views: int = 2
    temperature: float = 0.5
    unlabelled_weight: float = 25.0
    mixup_alpha: float | None = 4.0
    loss_window: int = 1


class DistillationNet(RuleNet):
    """Trains towards the annotator's probabilities."""

    def training_rows(self, data):
        """Return all rows: each has probabilities."""
        return torch.arange(len(data), device=self.device)

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        return soft_cross_entropy(self.logits(data, rows), data.scores[rows])

    def label_distributions(self, proba, data):
        """Return the predictions."""
        return proba


@learner
class DistillationClassifier(NeuralClassifier):
    """Knowledge distillation: cross-entropy to the annotator's probabilities.

    With the mean probabilities of many templates it is what the Co-Reg paper calls KD*, with those
    of one template ("simple") KD.

    Parameters
    ----------
    {shared_parameters}

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network",
       arXiv:1503.02531.
    """

    _net_class = DistillationNet

    def _check_problem(self, X, y):
        return check_problem(X, y, full=True)

    def _make_training(self, problem, views, device):
        training = super()._make_training(problem, views, device)
        if self.early_stopping in LABEL_FREE_SCORES and training.candidates.all():
            raise ValueError(
                f"early_stopping={self.early_stopping!r} compares predictions with candidates, but "
                "in every row all classes are candidates; use 'accuracy' with an eval_set, or None"
            )
        if problem.scores is None:
            raise ValueError(
                "DistillationClassifier learns from the annotator's probabilities, but there are no"
                " scores: give a PartialLabels that has them"
            )
        shares = annotator_shares(problem.scores, None, len(problem.classes))
        training.scores = torch.tensor(shares, dtype=torch.float32, device=device)
        return training

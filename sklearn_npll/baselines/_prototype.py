"""Learners with class prototypes and a contrastive loss: PiCO, PiCO+ and ALIM."""

from numbers import Integral, Real

import torch
from torch.nn.functional import one_hot

from .._compat import Interval, StrOptions
from .._neural._base import NeuralClassifier
from .._neural._docs import learner
from .._neural._net import mix_up
from ..coreg._division import rescale_candidates, update_prototypes
from ..coreg._losses import (
    contrastive_group,
    contrastive_loss,
    contrastive_masks,
    prototype_logits,
    soft_cross_entropy,
)
from ._net import ContrastiveRuleNet, NoiseRateMixin
from ._rules import (
    alim_target,
    alim_weight,
    nearest_share,
    neighbour_contrast,
    uniform_confidence,
    weighted_cross_entropy,
)


class PiCONet(ContrastiveRuleNet):
    """Trains with prototype-made pseudo-labels and a supervised contrastive loss."""

    def start(self, data):
        """Begin with equal confidence in each candidate."""
        return {"confidence": uniform_confidence(data.candidates)}

    def encode(self, data, rows):
        """Pass a strong view of a batch through the network."""
        inputs = data.views.strong(rows)
        embedding = self.embed(0, inputs)
        logits = self.classify(0, embedding)
        query = self.project(self.networks_[0], embedding)
        proba = rescale_candidates(logits.detach().softmax(1), data.candidates[rows])
        return inputs, logits, query, proba.argmax(1)

    def similarity(self, query):
        """Return the similarity (n, C) of projections to the prototypes."""
        return prototype_logits(query.detach(), self.prototypes_, 1.0)

    def pseudo_label(self, query, candidates):
        """Return the one-hot candidate whose prototype is nearest."""
        nearest = self.similarity(query).masked_fill(~candidates, -torch.inf).argmax(1)
        return one_hot(nearest, candidates.shape[1]).float()

    def update_confidence(self, rows, target):
        """Move the confidences of a batch towards new targets, faster as the training goes on."""
        first, last = self.method.confidence_momentum
        momentum = first + (last - first) * self.epoch_ / self.max_epochs
        confidence = self.memory_["confidence"]
        confidence[rows] = torch.lerp(target, confidence[rows], momentum)

    def update_prototypes(self, query, label):
        """Move the prototypes towards the projections of a batch."""
        momentum = self.method.prototype_momentum
        self.prototypes_ = update_prototypes(self.prototypes_, query.detach(), label, momentum)

    def contrast(self, query, own, label, reliable, entries, group, mode):
        """Return the contrastive loss of queries, whose own keys are the entries `own`."""
        masks = contrastive_masks(label, reliable, len(self.prototypes_), mode)
        temperature = self.method.contrastive_temperature
        return contrastive_loss(query, entries, group, own, *masks, temperature)

    def entries(self, key, label, reliable):
        """Return the keys of a batch and of the queue with their groups, and push the batch."""
        entries, *described = self.queues_[0].entries(key, label, reliable)
        self.queues_[0].push(key, label, reliable)
        return entries, contrastive_group(*described)

    def contrastive_term(self, data, rows, query, label, mode):
        """Return the weighted contrastive loss of a batch in which every row counts."""
        if not self.needs_keys:
            return 0.0
        key = self.encode_keys(0, data.views.strong(rows))
        own = torch.arange(len(rows), device=label.device)
        everywhere = torch.ones_like(label, dtype=torch.bool)
        found = self.entries(key, label, everywhere)
        return self.method.contrastive_weight * self.contrast(
            query, own, label, everywhere, *found, mode
        )

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        candidates = data.candidates[rows]
        _, logits, query, label = self.encode(data, rows)
        if not self.warming_up:
            self.update_confidence(rows, self.pseudo_label(query, candidates))
        self.update_prototypes(query, label)
        loss = weighted_cross_entropy(logits, self.memory_["confidence"][rows], candidates)
        mode = "moco" if self.warming_up else "supcon"
        return loss + self.contrastive_term(data, rows, query, label, mode)

    def label_distributions(self, proba, data):
        """Return the confidences after the last epoch, and predictions of rows without a label."""
        unlabelled = data.candidates.all(1, keepdim=True)
        return torch.where(unlabelled, proba, self.memory_["confidence"])


@learner
class PiCOClassifier(NeuralClassifier):
    """Contrastive label disambiguation: pseudo-labels from prototypes, clusters from contrast.

    Parameters
    ----------
    {shared_parameters}
    warm_up : int, default=1
        Epochs before pseudo-labels follow the prototypes.
    confidence_momentum : tuple of two float, default=(0.95, 0.8)
        Share of the old pseudo-label that is kept, in the first and in the last epoch.
    prototype_momentum : float, default=0.99
        Share of a prototype that a sample leaves in place.
    contrastive_weight : float, default=0.5
        Weight of the contrastive loss.
    contrastive_temperature : float, default=0.07
        Its temperature.
    queue_size : int, default=8192
        Keys that are remembered, at most one a sample.
    key_momentum : float, default=0.999
        Share of the key encoder that a step leaves in place.
    projection_dim : int, default=128
        Dimension of the projections.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    References
    ----------
    .. [1] H. Wang, R. Xiao, Y. Li, L. Feng, G. Niu, G. Chen, J. Zhao, "PiCO: Contrastive Label
       Disambiguation for Partial Label Learning", ICLR 2022.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "warm_up": [Interval(Integral, 0, None, closed="left")],
        "confidence_momentum": [tuple, list],
        "prototype_momentum": [Interval(Real, 0, 1, closed="left")],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "contrastive_temperature": [Interval(Real, 0, None, closed="neither")],
        "queue_size": [Interval(Integral, 0, None, closed="left")],
        "key_momentum": [Interval(Real, 0, 1, closed="both")],
        "projection_dim": [Interval(Integral, 1, None, closed="left")],
    }
    _net_class = PiCONet

    warm_up: int = 1
    confidence_momentum: tuple = (0.95, 0.8)
    prototype_momentum: float = 0.99
    contrastive_weight: float = 0.5
    contrastive_temperature: float = 0.07
    queue_size: int = 8192
    key_momentum: float = 0.999
    projection_dim: int = 128

    def _check_options(self, eval_set):
        super()._check_options(eval_set)
        shares = self.confidence_momentum
        if len(shares) != 2 or not all(isinstance(s, Real) and 0 <= s <= 1 for s in shares):
            raise ValueError(
                "confidence_momentum must be two shares between 0 and 1, of the first and the last "
                f"epoch; got {shares!r}"
            )


class PiCOPlusNet(NoiseRateMixin, PiCONet):
    """PiCO that trusts the rows near their prototype, and guesses the labels of the others."""

    needs_keys = True  # the losses of the other rows have a weight of their own

    def start(self, data):
        """Begin with trust in every row."""
        n = len(data)
        return {
            **super().start(data),
            "similarity": torch.ones(n, device=self.device),
            "label": torch.zeros(n, dtype=torch.long, device=self.device),
            "reliable": torch.ones(n, dtype=torch.bool, device=self.device),
        }

    def begin_epoch(self, data):
        """Select the rows whose prototype is near."""
        super().begin_epoch(data)
        memory = self.memory_
        if not self.warming_up:
            rows = self.training_rows(data)
            share = 1 - memory["noise_rate"]
            nearest = nearest_share(memory["similarity"][rows], memory["label"][rows], share)
            memory["reliable"][rows] = nearest

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        memory, method, candidates = self.memory_, self.method, data.candidates[rows]
        inputs, logits, query, label = self.encode(data, rows)
        key = self.encode_keys(0, data.views.strong(rows))
        self.remember(data, rows, logits.detach().softmax(1))

        similarity = self.similarity(query)
        memory["label"][rows] = label
        memory["similarity"][rows] = similarity.gather(1, label[:, None])[:, 0]
        if not self.warming_up:
            self.update_confidence(rows, self.pseudo_label(query, candidates))
        self.update_prototypes(query, label)

        target, reliable = memory["confidence"][rows], memory["reliable"][rows]
        guess = (similarity / method.guess_temperature).softmax(1)
        own = torch.arange(len(rows), device=label.device)
        found = self.entries(key, label, reliable)
        if self.warming_up:
            loss = weighted_cross_entropy(logits, target, candidates)
            return loss + method.contrastive_weight * self.contrast(
                query, own, label, reliable, *found, "moco"
            )

        loss = 0.0
        if reliable.any():
            parts = (part[reliable] for part in (query, own, label, reliable))
            clean = soft_cross_entropy(logits[reliable], target[reliable])
            clean = clean + method.contrastive_weight * self.contrast(
                *parts, *found, "noise_tolerant"
            )
            loss = loss + 2 * clean
        noisy = ~reliable
        if noisy.any():
            parts = (part[noisy] for part in (query, own, guess.argmax(1), reliable))
            rest = soft_cross_entropy(logits[noisy], guess[noisy])
            rest = rest + self.contrast(*parts, *found, "supcon")
            rest = rest + neighbour_contrast(
                query[noisy], found[0], own[noisy], method.n_neighbors,
                method.contrastive_temperature,
            )  # fmt: skip
            loss = loss + method.noisy_weight * rest
        mixed_target = torch.where(reliable[:, None], target, guess)
        inputs, other, share = mix_up(inputs, mixed_target, method.mixup_alpha)
        mixed_target = share * mixed_target + (1 - share) * other
        return loss + soft_cross_entropy(self.classify(0, self.embed(0, inputs)), mixed_target)


@learner
class PiCOPlusClassifier(PiCOClassifier):
    """PiCO for noisy partial labels: samples far from their prototype lose their candidates.

    Parameters
    ----------
    {shared_parameters}
    warm_up : int, default=10
        Epochs before samples are selected and pseudo-labels follow the prototypes.
    confidence_momentum : tuple of two float, default=(0.95, 0.8)
        Share of the old pseudo-label that is kept, in the first and in the last epoch.
    prototype_momentum : float, default=0.99
        Share of a prototype that a sample leaves in place.
    contrastive_weight : float, default=0.5
        Weight of the contrastive loss among the selected samples.
    contrastive_temperature : float, default=0.07
        Its temperature.
    queue_size : int, default=8192
        Keys that are remembered, at most one a sample.
    key_momentum : float, default=0.999
        Share of the key encoder that a step leaves in place.
    projection_dim : int, default=128
        Dimension of the projections.
    {eta_parameter}
    n_neighbors : int, default=16
        Nearest keys that attract a sample that was not selected.
    guess_temperature : float, default=0.07
        Temperature of its guessed label, a softmax over the prototypes.
    noisy_weight : float, default=0.1
        Weight of the losses of these samples.
    mixup_alpha : float, default=4.0
        Parameter of the Beta distribution of MixUp.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}
    {eta_attributes}

    References
    ----------
    .. [1] H. Wang, R. Xiao, Y. Li, L. Feng, G. Niu, G. Chen, J. Zhao, "PiCO+: Contrastive Label
       Disambiguation for Robust Partial Label Learning", TPAMI 2023.
    """

    _parameter_constraints = {
        **PiCOClassifier._parameter_constraints,
        "eta": [Interval(Real, 0, 1, closed="left"), None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "guess_temperature": [Interval(Real, 0, None, closed="neither")],
        "noisy_weight": [Interval(Real, 0, None, closed="left")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither")],
    }
    _net_class = PiCOPlusNet

    warm_up: int = 10
    eta: float | None = None
    n_neighbors: int = 16
    guess_temperature: float = 0.07
    noisy_weight: float = 0.1
    mixup_alpha: float = 4.0

    def gradient_samples_per_epoch(self, n_samples: int) -> int | None:
        """Return how many rows an epoch trains on in the mean: twice as many after the warm-up.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        int
        """
        waiting = min(max(1, self.warm_up), self.max_epochs)  # the first epoch always waits
        return round(n_samples * (2 - waiting / self.max_epochs))


class ALIMNet(NoiseRateMixin, PiCONet):
    """PiCO whose pseudo-labels may leave the candidates, with a weight that adapts to the noise."""

    @property
    def needs_keys(self):
        """Whether the loss has a contrastive term; if not, no keys are made."""
        return self.method.confidence == "prototype" and super().needs_keys

    def start(self, data):
        """Begin without trust in the classes that are no candidates."""
        return {**super().start(data), "weight": 0.0}

    def begin_epoch(self, data):
        """Set the weight of the classes that are no candidates."""
        super().begin_epoch(data)
        memory = self.memory_
        if not self.warming_up:
            memory["weight"] = alim_weight(memory["proba"], data.candidates, memory["noise_rate"])

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        method, candidates = self.method, data.candidates[rows]
        inputs = data.views.strong(rows)
        embedding = self.embed(0, inputs)
        logits = self.classify(0, embedding)
        loss = 0.0
        if method.confidence == "prototype":
            query = self.project(self.networks_[0], embedding)
            label = rescale_candidates(logits.detach().softmax(1), candidates).argmax(1)
            proba = (self.similarity(query) / method.prototype_temperature).softmax(1)
            self.update_prototypes(query, label)
            mode = "moco" if self.epoch_ == 0 else "supcon"
            loss = self.contrastive_term(data, rows, query, label, mode)
        else:
            proba = logits.detach().softmax(1)
        self.remember(data, rows, proba)
        if self.epoch_:
            weight = self.memory_["weight"]
            target = alim_target(proba, candidates, weight, method.scaling, method.temperature)
            self.update_confidence(rows, target)
        target = self.memory_["confidence"][rows]
        loss = loss + soft_cross_entropy(logits, target)
        if method.mixup_alpha is None:
            return loss
        inputs, other, share = mix_up(inputs, target, method.mixup_alpha)
        mixed_target = share * target + (1 - share) * other
        return loss + soft_cross_entropy(self.classify(0, self.embed(0, inputs)), mixed_target)


@learner
class ALIMClassifier(PiCOClassifier):
    """Adjusting the label importance mechanism: other classes count a little as candidates do.

    Predictions are weighted by 1 for candidates and by a factor below 1 for other classes. The
    factor is set in every epoch so that the share of samples that leaves its candidates is the
    noise rate.

    Parameters
    ----------
    {shared_parameters}
    scaling : {"onehot", "scale"}, default="onehot"
        Whether the pseudo-label is the likeliest class or the weighted prediction.
    temperature : float, default=1.0
        Sharpens the weighted prediction, below 1.
    {eta_parameter}
    confidence : {"prototype", "prediction"}, default="prototype"
        What is weighted: similarities to the prototypes as in PiCO, with its contrastive loss; or
        the predictions, without it.
    prototype_temperature : float, default=0.3
        Temperature of the softmax over these similarities.
    warm_up : int, default=10
        Epochs in which only candidates count; the paper takes 80 of 1000.
    confidence_momentum : tuple of two float, default=(0.95, 0.8)
        Share of the old pseudo-label that is kept, in the first and in the last epoch.
    prototype_momentum : float, default=0.99
        Share of a prototype that a sample leaves in place.
    contrastive_weight : float, default=0.5
        Weight of the contrastive loss.
    contrastive_temperature : float, default=0.07
        Its temperature.
    queue_size : int, default=8192
        Keys that are remembered, at most one a sample.
    key_momentum : float, default=0.999
        Share of the key encoder that a step leaves in place.
    projection_dim : int, default=128
        Dimension of the projections.
    mixup_alpha : float or None, default=4.0
        Parameter of the Beta distribution of MixUp; None for no MixUp.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}
    {eta_attributes}

    References
    ----------
    .. [1] M. Xu, Z. Lian, L. Feng, B. Liu, J. Tao, "ALIM: Adjusting Label Importance Mechanism for
       Noisy Partial Label Learning", NeurIPS 2023.
    """

    _parameter_constraints = {
        **PiCOClassifier._parameter_constraints,
        "scaling": [StrOptions({"onehot", "scale"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "eta": [Interval(Real, 0, 1, closed="left"), None],
        "confidence": [StrOptions({"prototype", "prediction"})],
        "prototype_temperature": [Interval(Real, 0, None, closed="neither")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither"), None],
    }
    _net_class = ALIMNet
    _samples_per_row = 2

    scaling: str = "onehot"
    temperature: float = 1.0
    eta: float | None = None
    confidence: str = "prototype"
    prototype_temperature: float = 0.3
    warm_up: int = 10
    mixup_alpha: float | None = 4.0

    def gradient_samples_per_epoch(self, n_samples: int) -> int | None:
        """Return how many rows an epoch passes forward to train on: twice that with MixUp.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        int
        """
        return n_samples * (1 if self.mixup_alpha is None else 2)

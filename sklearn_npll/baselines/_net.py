"""The training loop of the rivals that train networks: a loss for each batch of rows."""

import torch

from .._neural._contrastive import ContrastiveNet
from .._neural._net import EpochNet, even_chunks
from ..coreg._division import rescale_candidates
from ..metrics import approximated_accuracy, covering_rate
from ._rules import estimate_noise_rate, uniform_confidence

LABEL_FREE_SCORES = {
    "covering_rate": lambda proba, S: covering_rate(proba.argmax(1), S),
    "approximated_accuracy": approximated_accuracy,
}


class RuleNet(EpochNet):
    """Trains networks with a loss of each batch; a method is its `start` and `batch_loss`.

    `memory_` holds what a method remembers between batches: a dict of tensors, lists and numbers.
    """

    def initialize(self):
        """Make the module, the optimiser and an empty memory."""
        super().initialize()
        self.memory_ = {}
        return self

    def start(self, data):
        """Return what the method remembers before the first epoch."""
        return {}

    def begin_epoch(self, data):
        """Do what the method does once an epoch, before its batches."""

    def batch_loss(self, data, rows):
        """Return the loss of a batch of rows."""
        raise NotImplementedError

    def after_step(self, data, rows):
        """Do what the method does after each gradient step."""

    def training_rows(self, data):
        """Return the rows that are trained on: those with a label."""
        return (~data.candidates.all(1)).nonzero()[:, 0]

    def train_epoch(self, data):
        """Train on batches of shuffled rows."""
        in_warm_up = self.epoch_ < getattr(self.method, "warm_up", 0)
        self.history.record("phase", "warm_up" if in_warm_up else "training")
        self._ensure_memory(data)
        self.begin_epoch(data)
        for network in self.networks_:
            network.train()
        rows = self.training_rows(data)
        if len(rows) == 1:  # batch normalisation needs two, and two views differ
            rows = rows.repeat(2)
        rows = rows[torch.randperm(len(rows), device=rows.device)]
        for batch in even_chunks(rows, self.batch_size):
            loss = self.batch_loss(data, batch)
            self.collect(train=loss)
            self.descend(loss, batch)
            self.after_step(data, batch)
        score = LABEL_FREE_SCORES.get(self.method.early_stopping)
        if score is not None:
            proba = self.predict_views(None, data.views.plain, len(data)).cpu().numpy()
            value = score(proba, data.candidates.cpu().numpy())
            self.history.record(self.method.early_stopping, float(value))

    def _ensure_memory(self, data):
        if not self.memory_:
            self.memory_ = {"since": self.epoch_, **self.start(data)}

    @property
    def warming_up(self):
        """Whether the rule waits: in the warm-up, and in the first epoch on the present rows."""
        return self.epoch_ < max(self.method.warm_up, self.memory_["since"] + 1)

    def logits(self, data, rows, k=0):
        """Return network k's logits of one strong view of each row."""
        return self.classify(k, self.embed(k, data.views.strong(rows)))

    def ramp(self, share):
        """Grow from 0 to 1 over the given share of the epochs."""
        return min(1.0, self.epoch_ / max(1.0, share * self.max_epochs))

    def label_distributions(self, proba, data):
        """Return labels (n, C) of the training rows, given predictions of them as they are."""
        return rescale_candidates(proba, data.candidates)

    def final_labels(self, data):
        """Return the labels of the training rows after the last epoch."""
        self._ensure_memory(data)  # a warm start on other rows may have no epoch left
        proba = self.predict_views(None, data.views.plain, len(data))
        return {"label_distributions_": self.label_distributions(proba, data)}

    def method_state(self):
        """Return the memory besides what a base class keeps."""
        return {**super().method_state(), "memory": self.memory_}

    def load_method_state(self, state, data):
        """Restore what `method_state` returned."""
        super().load_method_state(state, data)
        self.memory_ = state["memory"]

    @staticmethod
    def forget_rows(state):
        """Return a state whose memory is empty."""
        return {**state, "memory": {}}

    def forget_training(self):
        """Drop what only the training needs."""
        super().forget_training()
        self.memory_ = None


class NoiseRateMixin:
    """For a `RuleNet` whose rule needs the noise rate: given as ``eta``, or estimated.

    The estimate of an epoch comes from the predictions that `remember` noted in the last one; there
    are none before the first, in which it is 0.
    """

    def begin_epoch(self, data):
        """Set the noise rate of the epoch."""
        super().begin_epoch(data)
        rate = self.method.eta
        if rate is None and "proba" in self.memory_:
            seed = self.seed + self.epoch_
            rate = estimate_noise_rate(self.memory_["proba"], data.candidates, seed)
        self.memory_["noise_rate"] = float(rate or 0)

    def remember(self, data, rows, proba):
        """Note the predictions (n, C) of a batch."""
        if "proba" not in self.memory_:
            self.memory_["proba"] = uniform_confidence(data.candidates)
        self.memory_["proba"][rows] = proba.detach()

    def final_labels(self, data):
        """Return the labels of the training rows and the noise rate that was used last."""
        return {
            **super().final_labels(data),
            "noise_rate_": self.memory_.get("noise_rate", float(self.method.eta or 0)),
            "noise_rate_source_": "estimated" if self.method.eta is None else "oracle",
        }


class ContrastiveRuleNet(RuleNet, ContrastiveNet):
    """A `RuleNet` with prototypes, a key encoder and a queue."""

    @property
    def needs_keys(self):
        """Whether the loss has a contrastive term; if not, no keys are made."""
        return self.method.contrastive_weight > 0

    def begin_epoch(self, data):
        """Make prototypes, key encoder and queue when they are first needed."""
        super().begin_epoch(data)
        self.prepare_prototypes(data)
        if self.needs_keys:
            self.prepare_keys(0, data)

    def after_step(self, data, rows):
        """Move the key encoder."""
        super().after_step(data, rows)
        if self.needs_keys:
            self.update_key_encoder(0)

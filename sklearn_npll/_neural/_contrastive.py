"""What contrastive methods add to the training loop: prototypes, key encoders, queues of keys."""

import copy

import torch

from ._net import EpochNet


class ContrastiveNet(EpochNet):
    """An `EpochNet` with prototypes of the classes, key encoders and queues of their keys."""

    def initialize(self):
        """Make the module and the optimiser; the rest is made when it is first needed."""
        super().initialize()
        self.prototypes_ = None
        self.key_encoders_ = [None] * len(self.networks_)
        self.queues_ = [None] * len(self.networks_)
        return self

    def prepare_prototypes(self, data):
        """Make prototypes of zeros unless there are some."""
        if self.prototypes_ is None:
            shape = data.candidates.shape[1], self.method.projection_dim
            self.prototypes_ = torch.zeros(shape, device=self.device)

    def prepare_keys(self, k, data, reset=False):
        """Make network k's key encoder and queue unless there are some."""
        method = self.method
        if self.key_encoders_[k] is None or reset:
            encoder = copy.deepcopy(self.networks_[k])
            self.key_encoders_[k] = encoder.train().requires_grad_(False)
        if self.queues_[k] is None:
            size = min(method.queue_size, len(data))
            self.queues_[k] = KeyQueue(size, method.projection_dim, self.device)

    def encode_keys(self, k, inputs):
        """Return projections of a batch by network k's key encoder."""
        encoder = self.key_encoders_[k]
        with torch.no_grad(), self.autocast():
            return encoder.project(encoder.embed(inputs))

    def update_key_encoder(self, k):
        """Move network k's key encoder a little towards the network."""
        with torch.no_grad():
            pairs = zip(
                self.key_encoders_[k].parameters(), self.networks_[k].parameters(), strict=True
            )
            for key, query in pairs:
                key.lerp_(query, 1 - self.method.key_momentum)

    def method_state(self):
        """Return prototypes, key encoders and queues."""
        return {
            **super().method_state(),
            "prototypes": self.prototypes_,
            "keys": [e and e.state_dict() for e in self.key_encoders_],
            "queues": [q and vars(q) for q in self.queues_],
        }

    def load_method_state(self, state, data):
        """Restore prototypes, key encoders and queues."""
        super().load_method_state(state, data)
        self.prototypes_ = state["prototypes"]
        for k, (key, queue) in enumerate(zip(state["keys"], state["queues"])):
            if key is not None:
                self.prepare_keys(k, data)
                self.key_encoders_[k].load_state_dict(key)
                vars(self.queues_[k]).update(queue)

    def forget_training(self):
        """Drop what only the training needs."""
        super().forget_training()
        self.prototypes_ = self.key_encoders_ = self.queues_ = None


class KeyQueue:
    """The last keys with their pseudo-labels, a ring buffer that starts empty.

    Parameters
    ----------
    size : int
        Number of keys that are kept.
    n_features : int
        Dimension of a key.
    device : torch.device
    """

    def __init__(self, size, n_features, device):
        self.key = torch.zeros(size, n_features, device=device)
        self.label = torch.zeros(size, dtype=torch.long, device=device)
        self.in_partial = torch.zeros(size, dtype=torch.bool, device=device)
        self.n_seen = 0

    def entries(self, key, label, in_partial):
        """Return the given batch followed by what the queue holds."""
        filled = min(self.n_seen, len(self.key))
        return (
            torch.cat([key, self.key[:filled]]),
            torch.cat([label, self.label[:filled]]),
            torch.cat([in_partial, self.in_partial[:filled]]),
        )

    def push(self, key, label, in_partial):
        """Write a batch over the oldest entries."""
        if not len(self.key):
            return
        key, label, in_partial = (t[-len(self.key) :] for t in (key, label, in_partial))
        where = (self.n_seen + torch.arange(len(key), device=key.device)) % len(self.key)
        self.key[where], self.label[where], self.in_partial[where] = key, label, in_partial
        self.n_seen += len(key)

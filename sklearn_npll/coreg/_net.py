"""The training of Co-Reg as a skorch net: one epoch divides the data and trains both networks."""

import copy
import itertools
import math
import time
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from ._checkpoint import map_tensors, plain_row
from ._division import (
    KeyQueue,
    align_distribution,
    clean_probability,
    division_loss,
    min_max_scale,
    partial_target,
    rescale_candidates,
    sharpen,
    update_prototypes,
)
from ._losses import (
    contrastive_loss,
    contrastive_masks,
    kl_divergence,
    prototype_logits,
    soft_cross_entropy,
    squared_error,
    warm_up_loss,
)

RAMP_UP_EPOCHS = 16
MIN_LR_SHARE = 1e-3


@dataclass
class TrainingData:
    """What Co-Reg trains on.

    Parameters
    ----------
    views : ImageViews or FeatureViews
        Gives plain, weak and strong views of rows.
    candidates : bool Tensor of shape (n, C)
    known : bool Tensor of shape (n,)
        Rows whose label a human vouched for.
    prior : Tensor of shape (C,), "estimated" or None
        Shares of the classes that predictions are aligned to.
    eval_views : ImageViews, FeatureViews or None
    eval_labels : int ndarray or None
        Class indices of the evaluation rows.
    """

    views: object
    candidates: torch.Tensor
    known: torch.Tensor
    prior: object = None
    eval_views: object = None
    eval_labels: object = None

    def __len__(self):
        return len(self.candidates)


@dataclass
class Division:
    """One network's view of the data: the outcome of steps 3a to 3c.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
        Aligned predictions.
    rescaled : Tensor of shape (n, C)
        Candidate-restricted predictions q, Eq. 5.
    clean : Tensor of shape (n,)
        Clean probability w; 1 for known rows, 0 for rows without a label.
    means : ndarray of shape (2,)
        Means of the mixture.
    """

    proba: torch.Tensor
    rescaled: torch.Tensor
    clean: torch.Tensor
    means: np.ndarray

    def purified(self, threshold):
        """Label distributions before sharpening: Eq. 6 in the partial split, else predictions."""
        target = partial_target(self.clean, self.rescaled, self.proba)
        return torch.where((self.clean > threshold)[:, None], target, self.proba)


def cosine_factor(epoch, max_epochs):
    """Share of the learning rate in an epoch, from 0: a cosine from 1 towards `MIN_LR_SHARE`."""
    progress = epoch / max_epochs
    return MIN_LR_SHARE + (1 - MIN_LR_SHARE) * (1 + math.cos(math.pi * progress)) / 2


def even_chunks(rows, batch_size):
    """Split rows into ceil(n / batch_size) chunks of nearly equal size, none of a single row.

    Batch normalisation cannot be trained on one row.
    """
    n_chunks = min(math.ceil(len(rows) / batch_size), len(rows) // 2)
    return rows.tensor_split(max(1, n_chunks))


def endless_batches(rows, batch_size):
    """Yield batches from ever new permutations of the rows."""
    while True:
        yield from even_chunks(rows[torch.randperm(len(rows), device=rows.device)], batch_size)


def mix_up(inputs, target, alpha):
    """Mix rows with a permutation of them, by one factor l = max(b, 1 - b), b ~ Beta(alpha, alpha).

    Returns
    -------
    inputs, other_target : Tensors
        Mixed inputs, and the targets of the permuted rows.
    share : float
        l, the share of each row's own target.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    share = max(share, 1 - share)
    order = torch.randperm(len(inputs), device=inputs.device)
    return share * inputs + (1 - share) * inputs[order], target[order], share


class ProgressLine(Callback):
    """Prints a line an epoch if the net is verbose."""

    def on_epoch_end(self, net, **kwargs):
        """Print the line of the epoch."""
        if net.verbose:
            print(progress_line(net.history[-1], net.max_epochs), flush=True)


def progress_line(row, max_epochs):
    """Describe one row of the history in a line, with what it has."""
    figures = [
        ("loss", "loss_warm_up", "7.4f"),
        ("loss", "loss_partial", "7.4f"),
        ("partial", "partial_share", "6.1%"),
        ("changed", "label_change_rate", "6.1%"),
        ("covering", "covering_rate", "6.1%"),
        ("eval", "eval_accuracy", "6.1%"),
        ("lr", "lr", ".5f"),
    ]
    shown = [
        f"{name} {row[key]:{style}}" for name, key, style in figures if row.get(key) is not None
    ]
    epoch = f"epoch {row['epoch']:{len(str(max_epochs))}d}/{max_epochs}"
    return "  ".join([epoch, f"{row['phase']:18}", *shown, f"{row['seconds']:.1f} s"])


class CoRegNet(NeuralNet):
    """skorch net that trains a `CoRegModule`.

    Each call of `run_single_epoch` is one epoch of the method, in the documented order: divide with
    both networks, train network 1, train network 2, record. All randomness comes from torch's
    global generator, seeded from `seed` and the epoch, so that an epoch depends on nothing but the
    state before it.

    Parameters
    ----------
    module : class
        `CoRegModule`.
    method : SimpleNamespace
        Parameters of the method, under the names of `CoRegClassifier`.
    seed : int
    **kwargs
        Parameters of `skorch.NeuralNet`.
    """

    def __init__(self, module, *, method, seed, **kwargs):
        # the losses are functions that differ between phases, so the criterion is never called
        super().__init__(module, criterion=nn.Identity, **kwargs)
        self.method = method
        self.seed = seed

    @property
    def _default_callbacks(self):
        return [("progress_line", ProgressLine())]

    def initialize(self):
        """Make the module, the optimiser and an empty training state."""
        super().initialize()
        window = self.method.loss_window
        self.losses_ = [deque(maxlen=window), deque(maxlen=window)]
        self.mean_proba_ = [deque(maxlen=window), deque(maxlen=window)]
        self.prototypes_ = None
        self.key_encoders_ = [None, None]
        self.queues_ = [None, None]
        self.labels_ = None
        self.clean_ = None
        self.stopped_ = False
        return self

    def get_dataset(self, X, y=None):
        """Return the training data as they are."""
        return X

    def get_iterator(self, dataset, training=False):
        """Return the training data as they are: an epoch draws its own batches."""
        return dataset

    def notify(self, method_name, **cb_kwargs):
        """Call a hook of every callback.

        A callback ends the training, as skorch's own do, by a KeyboardInterrupt at an epoch's end;
        at any other time that is the user's and goes through.
        """
        if method_name != "on_epoch_end":
            return super().notify(method_name, **cb_kwargs)
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            self.stopped_ = True

    @property
    def epoch_(self):
        """Index of the current epoch, from 0."""
        return len(self.history) - 1

    def on_epoch_begin(self, net, **kwargs):
        """Seed the epoch and set its learning rate, before any callback."""
        super().on_epoch_begin(net, **kwargs)
        torch.manual_seed(self.seed + self.epoch_)
        for group in self.optimizer_.param_groups:
            group["lr"] = self.lr * cosine_factor(self.epoch_, self.max_epochs)

    # -- one epoch ---------------------------------------------------------------------------

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one epoch and record it in the history."""
        if not training or iterator is None:
            return
        data, method, start = iterator, self.method, time.perf_counter()
        self.terms_ = {}
        warming_up = self.epoch_ < method.warm_up
        self.history.record("phase", "warm_up" if warming_up else "co_regularisation")
        if warming_up:
            for k in (0, 1):
                self._warm_up(k, data)
        else:
            divisions = [self.divide(k, data) for k in (0, 1)]
            self.clean_ = [division.clean for division in divisions]
            for k in (0, 1):
                peer = 1 - k if method.co_labelling == "peer" else k
                self._train_network(k, data, divisions[peer])
            self._record_division(data, divisions)
        for name in ("warm_up", "partial", "unlabelled", "prototype", "contrastive"):
            values = self.terms_.get(name)
            mean = torch.stack(values).mean().item() if values else None
            self.history.record(f"loss_{name}", mean)
        if data.eval_views is not None:
            self._record_evaluation(data)
        self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
        self.history.record("seconds", time.perf_counter() - start)
        # batches would pile up over a long training, but callbacks look at the last
        del self.history[-1]["batches"][:-1]

    def _warm_up(self, k, data):
        network = self.module_.networks[k].train()
        rows = torch.randperm(len(data), device=data.candidates.device)
        for batch in even_chunks(rows, 2 * self.batch_size):
            inputs = data.views.strong(batch)
            with self._autocast():
                logits = network(inputs).float()
            loss = warm_up_loss(logits, data.candidates[batch])
            self._collect(warm_up=loss)
            self._descend(loss, batch)

    def _predict_aligned(self, k, data, view):
        """Predict the training rows with network k and align the predictions, step 3a."""
        proba = self.predict_views(k, view, len(data))
        prior = data.prior
        if prior is None:
            return proba
        self.mean_proba_[k].append(proba.mean(0))
        if isinstance(prior, str):
            prior = rescale_candidates(proba, data.candidates).mean(0)
        return align_distribution(proba, torch.stack(list(self.mean_proba_[k])).mean(0), prior)

    def divide(self, k, data):
        """Divide the data with network k, steps 3a to 3c.

        Parameters
        ----------
        k : {0, 1}
        data : TrainingData

        Returns
        -------
        Division
        """
        candidates = data.candidates
        proba = self._predict_aligned(k, data, data.views.weak)
        loss = division_loss(proba, candidates)
        unlabelled = candidates.all(1)
        judged = ~(unlabelled | data.known)
        if judged.any():
            loss[judged] = min_max_scale(loss[judged])
        self.losses_[k].append(loss)
        mean_loss = torch.stack(list(self.losses_[k])).mean(0)
        clean = torch.where(unlabelled, 0.0, 1.0)
        posterior, means = clean_probability(
            mean_loss[judged].double().cpu().numpy(), self.seed + self.epoch_
        )
        clean[judged] = torch.from_numpy(posterior).to(clean.device)
        return Division(proba, rescale_candidates(proba, candidates), clean, means)

    def _train_network(self, k, data, division):
        method, network = self.method, self.module_.networks[k]
        in_partial = division.clean > method.clean_threshold
        partial = in_partial.nonzero()[:, 0]
        if len(partial) < 2:  # nothing to trust yet, and batch normalisation needs two rows
            self._warm_up(k, data)
            return
        contrast = self.epoch_ >= method.warm_up + method.contrastive_start and (
            method.contrastive != "none" or method.prototype_weight > 0
        )
        if contrast:
            self._prepare_contrast(k, data)
        network.train()
        self.module_.networks[1 - k].eval()
        chunks = even_chunks(
            partial[torch.randperm(len(partial), device=partial.device)], self.batch_size
        )
        unlabelled = (~in_partial).nonzero()[:, 0]
        if method.use_unlabelled and len(unlabelled):
            batches = endless_batches(unlabelled, len(chunks[0]))
        else:
            batches = itertools.repeat(unlabelled[:0])
        elapsed = self.epoch_ - method.warm_up
        for step, (rows_p, rows_u) in enumerate(zip(chunks, batches)):
            ramp = min((elapsed + step / len(chunks)) / RAMP_UP_EPOCHS, 1.0)
            self._train_step(k, data, division, rows_p, rows_u, ramp, contrast)

    def _train_step(self, k, data, division, rows_p, rows_u, ramp, contrast):
        method, network = self.method, self.module_.networks[k]
        rows, n_partial = torch.cat([rows_p, rows_u]), len(rows_p)
        target, projection = self._targets(k, data, division, rows, n_partial, contrast)
        first, second = data.views.strong(rows), data.views.strong(rows)

        # order: two views of the partial batch, then two of the unlabelled batch
        inputs = torch.cat(
            [first[:n_partial], second[:n_partial], first[n_partial:], second[n_partial:]]
        )
        targets = torch.cat([target[:n_partial]] * 2 + [target[n_partial:]] * 2)
        other, share = targets, 1.0
        if method.mixup_alpha is not None:
            inputs, other, share = mix_up(inputs, targets, method.mixup_alpha)
        with self._autocast():
            embedding = network.embed(inputs)
            logits = network.classifier(embedding).float()
        loss = self._self_training_loss(
            logits, share * targets + (1 - share) * other, 2 * n_partial, ramp
        )
        if contrast:
            loss = loss + self._prototype_and_contrastive_loss(
                k, division, rows, n_partial, target, projection, first, second,
                mixed=(embedding, targets, other, share),
            )  # fmt: skip
        self._descend(loss, rows)
        if contrast and method.contrastive != "none":
            with torch.no_grad():
                pairs = zip(self.key_encoders_[k].parameters(), network.parameters(), strict=True)
                for key, query in pairs:
                    key.lerp_(query, 1 - method.key_momentum)

    def _targets(self, k, data, division, rows, n_partial, contrast):
        """Sharpened targets (n, C) of a batch, Eq. 6 and 7, and projections of its weak views."""
        method = self.method
        network, peer = self.module_.networks[k], self.module_.networks[1 - k]
        weak = data.views.weak(rows.repeat(method.n_weak_views))
        with torch.no_grad(), self._autocast():
            embedding = network.embed(weak)
            proba = network.classifier(embedding).float().softmax(1)
            proba = proba.view(method.n_weak_views, len(rows), -1).mean(0)
            projection = network.project(embedding[:n_partial]) if contrast else None
            on_partial, on_unlabelled = proba[:n_partial], proba[n_partial:]
            if len(rows) > n_partial and method.co_labelling == "peer":
                weak = weak.view(method.n_weak_views, len(rows), *weak.shape[1:])[:, n_partial:]
                second = peer(weak.flatten(0, 1)).float().softmax(1)
                second = second.view(method.n_weak_views, *on_unlabelled.shape).mean(0)
                on_unlabelled = (on_unlabelled + second) / 2
        rows_p = rows[:n_partial]
        target = partial_target(division.clean[rows_p], division.rescaled[rows_p], on_partial)
        return sharpen(torch.cat([target, on_unlabelled]), method.temperature), projection

    def _self_training_loss(self, logits, target, n_partial, ramp):
        """Eq. 8: cross-entropy on the partial rows, squared error on the rest."""
        method = self.method
        loss = soft_cross_entropy(logits[:n_partial], target[:n_partial])
        self._collect(partial=loss)
        if len(logits) == n_partial:
            return loss
        paper = method.unlabelled_loss == "paper"
        error = squared_error(logits[n_partial:], target[n_partial:], "sum" if paper else "mean")
        self._collect(unlabelled=error)
        return loss + method.unlabelled_weight * (1.0 if paper else ramp) * error

    def _prototype_and_contrastive_loss(
        self, k, division, rows, n_partial, target, projection, first, second, mixed
    ):
        method, network = self.method, self.module_.networks[k]
        label = target.argmax(1)
        loss = 0.0
        if method.contrastive != "none" or method.prototype_views == "strong":
            query = self._project(network, first)
        if method.prototype_weight:
            self.prototypes_ = update_prototypes(
                self.prototypes_, projection, label[:n_partial], method.prototype_momentum
            )
            if method.prototype_views == "strong":
                pieces = [(query, target, n_partial, 1.0)]
            else:
                embedding, targets, other, share = mixed
                with self._autocast():
                    z = network.project(embedding)
                pieces = [(z, targets, 2 * n_partial, share)]
                if share < 1:
                    pieces.append((z, other, 2 * n_partial, 1 - share))
            term = sum(share * self._prototype_loss(*piece) for *piece, share in pieces)
            self._collect(prototype=term)
            loss = loss + method.prototype_weight * term
        if method.contrastive != "none":
            with torch.no_grad():
                key = self._project(self.key_encoders_[k], second)
            in_partial = torch.arange(len(rows), device=label.device) < n_partial
            queue = self.queues_[k]
            entries, entry_label, entry_partial = queue.entries(key, label, in_partial)
            masks = contrastive_masks(
                label, in_partial, entry_label, entry_partial, method.contrastive
            )
            term = contrastive_loss(query, entries, *masks, method.contrastive_temperature)
            queue.push(key, label, in_partial)
            self._collect(contrastive=term)
            loss = loss + method.contrastive_weight * term
        return loss

    def _project(self, network, inputs):
        with self._autocast():
            return network.project(network.embed(inputs))

    def _prototype_loss(self, projection, target, n_partial):
        """Eq. 10: divergence on the partial rows, squared error on the rest."""
        method = self.method
        logits = prototype_logits(projection, self.prototypes_, method.prototype_temperature)
        loss = kl_divergence(logits[:n_partial], target[:n_partial])
        if len(logits) > n_partial:
            reduction = "sum" if method.unlabelled_loss == "paper" else "mean"
            loss = loss + squared_error(logits[n_partial:], target[n_partial:], reduction)
        return loss

    def _prepare_contrast(self, k, data):
        """Make the prototypes, the key encoder and the queue when they are first needed."""
        method, device = self.method, data.candidates.device
        if self.prototypes_ is None:
            shape = data.candidates.shape[1], method.projection_dim
            self.prototypes_ = torch.zeros(shape, device=device)
        if method.contrastive == "none":
            return
        if self.key_encoders_[k] is None or method.reset_keys:
            encoder = copy.deepcopy(self.module_.networks[k])
            self.key_encoders_[k] = encoder.train().requires_grad_(False)
        if self.queues_[k] is None:
            self.queues_[k] = KeyQueue(
                min(method.queue_size, len(data)), method.projection_dim, device
            )

    # -- parts shared by the phases ------------------------------------------------------------

    def _autocast(self):
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.method.precision == "bf16")

    def _collect(self, **terms):
        for name, value in terms.items():
            self.terms_.setdefault(name, []).append(value.detach())

    def _descend(self, loss, batch):
        """Make one gradient step, with skorch's hooks around it."""
        self.history.new_batch()
        self.notify("on_batch_begin", batch=batch, training=True)
        self.optimizer_.zero_grad(set_to_none=True)
        loss.backward()
        self.notify(
            "on_grad_computed",
            named_parameters=self.module_.named_parameters(),
            batch=batch,
            training=True,
        )
        # parameters of the other network have no gradient, so the optimiser leaves them alone
        self.optimizer_.step()
        self.notify("on_batch_end", batch=batch, training=True)

    def predict_views(self, k, view, n):
        """Predict n rows with network k, or the ensemble if k is None, on views of them.

        Parameters
        ----------
        k : {0, 1} or None
        view : callable
            Maps row indices to a batch of inputs.
        n : int

        Returns
        -------
        Tensor of shape (n, C)
            Probabilities.
        """
        model = (self.module_ if k is None else self.module_.networks[k]).eval()
        rows = torch.arange(n, device=self.device)
        size = max(256, 2 * self.batch_size)
        parts = []
        with torch.inference_mode():
            for batch in rows.split(size):
                inputs = view(batch)
                with self._autocast():
                    parts.append(model(inputs).float().softmax(1))
        return torch.cat(parts)

    # -- records -------------------------------------------------------------------------------

    def final_purified(self, data):
        """Return the label distributions (n, C) after the last epoch, and the clean probabilities.

        The clean probabilities are those of the last division; the predictions are made anew, on
        the samples as they are.
        """
        if self.clean_ is None:  # the training ended in the warm-up
            torch.manual_seed(self.seed + len(self.history))
            self.clean_ = [self.divide(k, data).clean for k in (0, 1)]
        divisions = []
        for k in (0, 1):
            proba = self._predict_aligned(k, data, data.views.plain)
            rescaled = rescale_candidates(proba, data.candidates)
            divisions.append(Division(proba, rescaled, self.clean_[k], None))
        return self.purify(divisions), torch.stack(self.clean_).mean(0)

    def forget_training(self):
        """Drop what only the training needs, so that a pickle holds what predicts."""
        self.losses_ = self.mean_proba_ = self.prototypes_ = self.key_encoders_ = None
        self.queues_ = self.labels_ = self.clean_ = self.terms_ = self.optimizer_ = None
        self.module__module = self.module__init = self.callbacks = None
        self.callbacks_ = []
        self.method = SimpleNamespace(precision=self.method.precision)
        for network in self.module_.networks:
            network.projector = None

    def purify(self, divisions):
        """Return the purified label distributions (n, C): the mean over both networks."""
        threshold = self.method.clean_threshold
        return sum(division.purified(threshold) for division in divisions) / 2

    def _record_division(self, data, divisions):
        """Record what the division found, averaged over the two networks."""
        labels = self.purify(divisions).argmax(1)
        changed = None
        if self.labels_ is not None:
            changed = (labels != self.labels_).float().mean().item()
        self.labels_ = labels
        clean = torch.stack(self.clean_)
        in_partial = clean > self.method.clean_threshold
        size = in_partial.sum().item() / 2
        proba = sum(d.proba for d in divisions) / 2
        predicted = proba.argmax(1)
        rescaled = rescale_candidates(proba, data.candidates)
        inside, best = (m.gather(1, predicted[:, None])[:, 0] for m in (data.candidates, rescaled))
        labelled = ~data.candidates.all(1)
        row = {
            "partial_size": size,
            "partial_share": size / len(data),
            "partial_clean_probability": clean[in_partial].mean().item() if size else None,
            "mixture_means": np.mean([d.means for d in divisions], 0).tolist(),
            "label_change_rate": changed,
            "covering_rate": inside[labelled].float().mean().item(),
            "approximated_accuracy": best[labelled].mean().item(),
        }
        for name, value in row.items():
            self.history.record(name, value)

    def _record_evaluation(self, data):
        """Record the accuracy on the evaluation set, of the ensemble and of the first network."""
        truth = torch.as_tensor(data.eval_labels, device=self.device)
        n = len(data.eval_labels)
        logits = [self.predict_views(k, data.eval_views.plain, n).log() for k in (0, 1)]
        for name, score in (("", logits[0] + logits[1]), ("_single", logits[0])):
            accuracy = (score.argmax(1) == truth).float().mean().item()
            self.history.record(f"eval_accuracy{name}", accuracy)

    # -- interruption --------------------------------------------------------------------------

    def training_state(self):
        """Return everything the next epoch depends on, as tensors, lists and numbers."""
        return {
            "module": self.module_.state_dict(),
            "optimizer": self.optimizer_.state_dict(),
            "history": [plain_row(row) for row in self.history],
            "losses": [list(q) for q in self.losses_],
            "mean_proba": [list(q) for q in self.mean_proba_],
            "prototypes": self.prototypes_,
            "keys": [e and e.state_dict() for e in self.key_encoders_],
            "queues": [q and vars(q) for q in self.queues_],
            "labels": self.labels_,
            "clean": self.clean_,
        }

    def load_training_state(self, state, data):
        """Continue from what `training_state` returned, which stays as it is."""
        # copies, as momentum, prototypes and queues are changed in place
        state = map_tensors(lambda t: t.to(self.device, copy=True), state)
        self.module_.load_state_dict(state["module"])
        # the momentum buffers of then, the settings of now
        momentum = state["optimizer"]["state"]
        self.optimizer_.load_state_dict({**self.optimizer_.state_dict(), "state": momentum})
        self.history.clear()
        self.history.extend(state["history"])
        for queues, values in (
            (self.losses_, state["losses"]),
            (self.mean_proba_, state["mean_proba"]),
        ):
            for queue, value in zip(queues, values, strict=True):
                queue.extend(value)
        self.labels_, self.clean_ = state["labels"], state["clean"]
        if state["prototypes"] is not None:
            self.prototypes_ = state["prototypes"]
            for k in (0, 1):
                if state["keys"][k] is not None and self.method.contrastive != "none":
                    self._prepare_contrast(k, data)
                    self.key_encoders_[k].load_state_dict(state["keys"][k])
                    vars(self.queues_[k]).update(state["queues"][k])

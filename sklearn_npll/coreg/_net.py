"""The training of Co-Reg as a skorch net: one epoch divides the data and trains both networks."""

import itertools

import torch

from .._neural._net import endless_batches, even_chunks, mix_up
from ._dividing_net import DividingNet
from ._division import partial_target, sharpen, update_prototypes
from ._losses import (
    contrastive_group,
    contrastive_loss,
    contrastive_masks,
    kl_divergence,
    prototype_logits,
    score_cross_entropy,
    soft_cross_entropy,
    squared_error,
    warm_up_loss,
)
from ._options import (
    blend_by_popularity,
    confident_target,
    doubly_robust_correction,
    elr_regulariser,
)

RAMP_UP_EPOCHS = 16


@torch.no_grad()
def update_average(average, network, momentum):
    """Move the averaged weights and statistics of a network, in place: ``m a + (1 - m) w``."""
    current = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - momentum)
        else:  # the counter of batch normalisation
            value.copy_(current[name])


def by_split(views, n_partial):
    """Return the first rows of all views, and then the others of all; a single view as it is."""
    if len(views) == 1:
        return views[0]
    return torch.cat([v[:n_partial] for v in views] + [v[n_partial:] for v in views])


class CoRegNet(DividingNet):
    """Trains two networks by Co-Reg.

    An epoch, in this order: divide with both networks, train network 1, train network 2, record.
    With ``co_labelling="average"`` network 1 is the moving average of network 2: only the former
    divides, only the latter is trained.
    """

    terms = ("warm_up", "partial", "unlabelled", "prototype", "contrastive")

    def _teacher(self, k):
        """Index of the network whose predictions of its own network k is trained on."""
        return 0 if self.is_averaging_ else k

    def descend(self, loss, batch):
        """Make one gradient step, and move the average after the weights."""
        super().descend(loss, batch)
        if self.is_averaging_:
            # the first step is taken over, as there is nothing to average yet
            seen = self.n_averaged_ / (self.n_averaged_ + 1)
            update_average(*self.networks_, min(self.method.average_momentum, seen))
            self.n_averaged_ += 1

    # -- one epoch ---------------------------------------------------------------------------

    def train_epoch(self, data):
        """Warm up, or divide and co-regularise."""
        method = self.method
        # a warm-up that has ended stays ended, even if a warm start makes it longer
        warming_up = self.epoch_ < method.warm_up and self.n_divided_ == 0
        self.history.record("phase", "warm_up" if warming_up else "co_regularisation")
        if warming_up:
            for k in self.trained_:
                self._warm_up(k, data)
            return
        divisions = [self.divide(k, data) for k in self.dividing_]
        self.clean_ = [division.clean for division in divisions]
        if method.co_labelling == "peer":
            divisions = divisions[::-1]
        for k, division in zip(self.trained_, divisions, strict=True):
            self._train_network(k, data, division)
        self._record_division(data, divisions)

    def _warm_up(self, k, data):
        """Learn from the annotator's scores if there are any, else from the candidates."""
        self.networks_[k].train()
        rows = torch.randperm(len(data), device=data.candidates.device)
        batch_size = 2 * self.batch_size if data.scores is None else self.batch_size
        for batch in even_chunks(rows, batch_size):
            inputs = data.views.strong(batch)
            logits = self.classify(k, self.embed(k, inputs))
            if data.scores is None:
                loss = warm_up_loss(logits, data.candidates[batch])
            else:
                loss = score_cross_entropy(logits, data.scores[batch])
            self.collect(warm_up=loss)
            self.descend(loss, batch)

    def _train_network(self, k, data, division):
        method, network = self.method, self.networks_[k]
        in_partial = division.clean > method.clean_threshold
        partial = in_partial.nonzero()[:, 0]
        if len(partial) < 2:  # nothing to trust yet, and batch normalisation needs two rows
            self._warm_up(k, data)
            return
        elapsed = self.n_divided_ - 1
        contrast = elapsed >= method.contrastive_start and (
            method.contrastive != "none" or method.prototype_weight > 0
        )
        if contrast:
            self.prepare_prototypes(data)
            if method.contrastive != "none":
                self.prepare_keys(k, data, method.reset_keys)
        network.train()
        self.networks_[1 - k].eval()
        chunks = even_chunks(
            partial[torch.randperm(len(partial), device=partial.device)], self.batch_size
        )
        unlabelled = (~in_partial).nonzero()[:, 0]
        if not (method.use_unlabelled and len(unlabelled)):
            batches = itertools.repeat(unlabelled[:0])
        elif method.unlabelled_sampling == "once":
            order = unlabelled[torch.randperm(len(unlabelled), device=unlabelled.device)]
            batches = [rows[: len(chunks[0])] for rows in order.tensor_split(len(chunks))]
        else:
            batches = endless_batches(unlabelled, len(chunks[0]))
        if method.doubly_robust:
            known = endless_batches(data.known.nonzero()[:, 0], len(chunks[0]))
        else:
            known = itertools.repeat(())
        for step, (rows_p, rows_u, rows_known) in enumerate(zip(chunks, batches, known)):
            ramp = min((elapsed + step / len(chunks)) / RAMP_UP_EPOCHS, 1.0)
            self._train_step(k, data, division, rows_p, rows_u, ramp, contrast, rows_known)

    def _train_step(self, k, data, division, rows_p, rows_u, ramp, contrast, rows_known=()):
        method, memory = self.method, self.memory_[k]
        rows, n_partial = torch.cat([rows_p, rows_u]), len(rows_p)
        target, projection = self._targets(k, data, division, rows, n_partial, contrast)
        if method.confidence_weight:
            weight = ramp * method.confidence_weight * ~data.known[rows_p, None]
            hard = self.hard_labels_[self._teacher(k)][rows_p]
            target[:n_partial] = confident_target(target[:n_partial], hard, weight)
        with_keys = contrast and method.contrastive != "none"
        drawn = [data.views.strong(rows) for _ in range(max(method.n_mixed_views, 1 + with_keys))]

        # order: the views of the partial batch, then those of the unlabelled batch
        n_views = method.n_mixed_views
        views, n_mixed = drawn[-n_views:], n_views * n_partial
        inputs = by_split(views, n_partial)
        # what the options remember of a row is mixed as its target is
        columns = {"target": target, **memory.columns(rows)}
        targets = by_split([torch.cat(list(columns.values()), 1)] * n_views, n_partial)
        other, share = targets, 1.0
        if method.mixup_alpha is not None:
            inputs, other, share = mix_up(inputs, targets, method.mixup_alpha)
        mixed = (share * targets + (1 - share) * other).split(
            [column.shape[1] for column in columns.values()], 1
        )
        mixed = dict(zip(columns, mixed, strict=True))
        targets, other = (t[:, : target.shape[1]] for t in (targets, other))
        if len(rows_known):
            inputs = torch.cat([inputs, data.views.strong(rows_known)])
        embedding, of_known = self.embed(k, inputs).tensor_split([len(targets)])
        logits = self.classify(k, embedding)
        weight = mixed["weight"][n_mixed:, 0] if "weight" in mixed else None
        loss = self._self_training_loss(logits, mixed["target"], n_mixed, ramp, weight=weight)
        if "early_target" in mixed:
            regulariser = elr_regulariser(logits[:n_mixed], mixed["early_target"][:n_mixed])
            loss = loss + method.elr_weight * regulariser
        if len(rows_known):
            loss = loss + self._doubly_robust_term(k, data, division, rows_known, of_known)
        if contrast:
            loss = loss + self._prototype_and_contrastive_loss(
                k, division, rows, n_partial, target, projection, drawn[0], drawn[-1],
                mixed=(embedding, targets, other, n_mixed, share),
            )  # fmt: skip
        self.descend(loss, rows)
        if with_keys:
            self.update_key_encoder(k)

    def _doubly_robust_term(self, k, data, division, rows, embedding):
        """Correct the loss of the pseudo-labels by the known rows (n,), more and more."""
        teacher = self.networks_[self._teacher(k)]
        training = teacher.training
        teacher.eval()  # a few rows are no statistics for batch normalisation
        pseudo_label, _ = self._targets(k, data, division, rows, len(rows), False)
        teacher.train(training)
        label = data.candidates[rows].float()
        correction = doubly_robust_correction(self.classify(k, embedding), label, pseudo_label)
        return (self.epoch_ + 1) / self.max_epochs * correction

    def _targets(self, k, data, division, rows, n_partial, contrast):
        """Sharpened targets (n, C) of a batch, Eq. 6 and 7, and projections of its weak views."""
        method = self.method
        network, peer = self.networks_[self._teacher(k)], self.networks_[1 - k]
        weak = data.views.weak(rows.repeat(method.n_weak_views))
        with torch.no_grad(), self.autocast():
            embedding = network.embed(weak)
            proba = network.classifier(embedding).float().softmax(1)
            proba = proba.view(method.n_weak_views, len(rows), -1).mean(0)
            projection = network.project(embedding[:n_partial]) if contrast else None
            on_partial, on_unlabelled = proba[:n_partial], proba[n_partial:]
            second = on_unlabelled
            if len(rows) > n_partial and method.co_labelling == "peer":
                weak = weak.view(method.n_weak_views, len(rows), *weak.shape[1:])[:, n_partial:]
                second = peer(weak.flatten(0, 1)).float().softmax(1)
                second = second.view(method.n_weak_views, *on_unlabelled.shape).mean(0)
                on_unlabelled = (on_unlabelled + second) / 2
            if method.prototype_blend and contrast and self.prototypes_.any():
                z = network.project(embedding[n_partial : len(rows)])
                semantic = prototype_logits(z, self.prototypes_, method.prototype_temperature)
                on_unlabelled = blend_by_popularity(
                    on_unlabelled, semantic.float().softmax(1), division.popularity,
                    method.prototype_blend,
                )  # fmt: skip
        self.memory_[k].note_predictions(data, rows, proba, second, on_unlabelled)
        rows_p = rows[:n_partial]
        clean = division.clean[rows_p]
        if method.doubly_robust:  # known rows learn from what they are predicted, like any other
            clean = clean.masked_fill(data.known[rows_p], 0)
        target = partial_target(clean, division.rescaled[rows_p], on_partial)
        return sharpen(torch.cat([target, on_unlabelled]), method.temperature), projection

    def _self_training_loss(self, logits, target, n_partial, ramp, weight=None):
        """Eq. 8: cross-entropy on the partial rows, squared error on the rest, maybe weighted."""
        method = self.method
        loss = soft_cross_entropy(logits[:n_partial], target[:n_partial])
        self.collect(partial=loss)
        if len(logits) == n_partial:
            return loss
        paper = method.unlabelled_loss == "paper"
        reduction = "sum" if paper else "mean"
        error = squared_error(logits[n_partial:], target[n_partial:], reduction, weight)
        self.collect(unlabelled=error)
        return loss + method.unlabelled_weight * (1.0 if paper else ramp) * error

    def _prototype_and_contrastive_loss(
        self, k, division, rows, n_partial, target, projection, first, second, mixed
    ):
        method, network = self.method, self.networks_[k]
        label = target.argmax(1)
        loss = 0.0
        if method.contrastive != "none" or method.prototype_views == "strong":
            query = self.project(network, self.embed(k, first))
        if method.prototype_weight:
            self.prototypes_ = update_prototypes(
                self.prototypes_, projection, label[:n_partial], method.prototype_momentum
            )
            if method.prototype_views == "strong":
                pieces = [(query, target, n_partial, 1.0)]
            else:
                embedding, targets, other, n_mixed, share = mixed
                z = self.project(network, embedding)
                pieces = [(z, targets, n_mixed, share)]
                if share < 1:
                    pieces.append((z, other, n_mixed, 1 - share))
            term = sum(share * self._prototype_loss(*piece) for *piece, share in pieces)
            self.collect(prototype=term)
            loss = loss + method.prototype_weight * term
        if method.contrastive != "none":
            key = self.encode_keys(k, second)
            own = torch.arange(len(rows), device=label.device)
            in_partial = own < n_partial
            queue = self.queues_[k]
            entries, entry_label, entry_partial = queue.entries(key, label, in_partial)
            group = contrastive_group(entry_label, entry_partial)
            masks = contrastive_masks(label, in_partial, target.shape[1], method.contrastive)
            term = contrastive_loss(
                query, entries, group, own, *masks, method.contrastive_temperature
            )
            queue.push(key, label, in_partial)
            self.collect(contrastive=term)
            loss = loss + method.contrastive_weight * term
        return loss

    def _prototype_loss(self, projection, target, n_partial):
        """Eq. 10: divergence on the partial rows, squared error on the rest."""
        method = self.method
        logits = prototype_logits(projection, self.prototypes_, method.prototype_temperature)
        loss = kl_divergence(logits[:n_partial], target[:n_partial])
        if len(logits) > n_partial:
            reduction = "sum" if method.unlabelled_loss == "paper" else "mean"
            loss = loss + squared_error(logits[n_partial:], target[n_partial:], reduction)
        return loss

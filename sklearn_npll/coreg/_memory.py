"""What the options of Co-Reg remember of rows and classes from one batch to the next."""

import torch

from ._options import (
    class_clusters,
    class_thresholds,
    moving_average,
    pseudo_label_weights,
    update_candidates,
)

# Share of the old in the moving averages: of a row's predictions, as in early-learning
# regularisation, and of the mean prediction of the classes, as in JointMatch.
ROW_MOMENTUM, CLASS_MOMENTUM = 0.7, 0.9
# Threshold of the class that is learnt best, as in JointMatch.
CLASS_THRESHOLD = 0.98
# Probability from which a prediction expands a candidate set.
CONFIDENT = 0.5


class OptionMemory:
    """The memory of one network. What no option that is on needs is never made.

    Parameters
    ----------
    method : SimpleNamespace
        Parameters of the method.

    Attributes
    ----------
    state : dict of str to Tensor
        ``early_target`` (n, C), moving averages of the predictions; ``weight`` (n, 1), of the
        pseudo-labels; ``class_status`` (C,); ``candidates`` and ``mean_proba`` (n, C), the
        updated sets and what they shrink by.
    """

    def __init__(self, method):
        self.method = method
        self.state = {}

    @property
    def weighs(self):
        """Whether pseudo-labels have weights."""
        return (
            self.method.pseudo_label_threshold is not None or self.method.disagreement_weight > 0.5
        )

    def columns(self, rows):
        """Return what is mixed with the targets of rows, of the early targets and the weights."""
        wanted = {"early_target": self.method.elr_weight > 0, "weight": self.weighs}
        return {name: self.state[name][rows] for name, is_wanted in wanted.items() if is_wanted}

    def note_predictions(self, data, rows, own, peer, pseudo_label):
        """Note what has been predicted for a batch.

        Parameters
        ----------
        data : TrainingData
        rows : int Tensor of shape (n,)
        own : Tensor of shape (n, C)
            Predictions of the network itself.
        peer, pseudo_label : Tensor of shape (m, C)
            The other network's predictions of the last m rows, the unlabelled ones, and their
            pseudo-labels.
        """
        if self.method.elr_weight:
            early = self.state.setdefault("early_target", torch.zeros_like(data.candidates.float()))
            early[rows] = moving_average(early[rows], own, ROW_MOMENTUM)
        if self.weighs:
            weight = self.state.setdefault("weight", own.new_ones(len(data), 1))
            weight[rows] = 1.0
            if len(peer):
                disagree = own[-len(peer) :].argmax(1) != peer.argmax(1)
                weight[rows[-len(peer) :], 0] = self._weights(pseudo_label, disagree)

    def _weights(self, pseudo_label, disagree):
        n_classes = pseudo_label.shape[1]
        threshold = self.method.pseudo_label_threshold
        if threshold == "class":
            status = self.state.get("class_status")
            if status is None:
                status = pseudo_label.new_full((n_classes,), 1 / n_classes)
            status = moving_average(status, pseudo_label.mean(0), CLASS_MOMENTUM)
            self.state["class_status"] = status
            thresholds = class_thresholds(status, CLASS_THRESHOLD)
        else:
            thresholds = pseudo_label.new_full((n_classes,), float(threshold or 0))
        weight = float(self.method.disagreement_weight)  # torch.where takes no scalar of numpy
        return pseudo_label_weights(pseudo_label, thresholds, disagree, weight)

    def candidates(self, data):
        """Return the candidates (n, C) as they have been updated."""
        return self.state.get("candidates", data.candidates)

    def update_candidates(self, data, proba, doubted):
        """Expand and shrink the sets of doubted rows, whose labels are not known.

        Parameters
        ----------
        data : TrainingData
        proba : Tensor of shape (n, C)
            Predictions of all rows.
        doubted : bool Tensor of shape (n,)
        """
        before = self.candidates(data)
        mean = moving_average(self.state.get("mean_proba", proba), proba, ROW_MOMENTUM)
        updated = update_candidates(
            before, proba, mean, class_clusters(data.candidates, proba), CONFIDENT,
            floor=1 / proba.shape[1],
        )  # fmt: skip
        changes = doubted & ~data.known & ~data.candidates.all(1)
        self.state["candidates"] = torch.where(changes[:, None], updated, before)
        self.state["mean_proba"] = mean

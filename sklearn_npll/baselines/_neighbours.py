"""A learner that takes pseudo-labels from the candidates of nearest neighbours: PALS."""

from numbers import Integral, Real

import torch
from torch.nn.functional import normalize, one_hot

from .._compat import Interval
from .._neural._base import NeuralClassifier
from .._neural._docs import learner
from .._neural._net import mix_up
from ..coreg._division import rescale_candidates
from ..coreg._losses import soft_cross_entropy
from ._net import RuleNet
from ._rules import knn_label_votes, label_smoothing, reliable_rows, uniform_confidence

_ELEMENTS = 2**24  # of a block of similarities: 64 MB


def nearest_neighbours(embedding, n_neighbors):
    """Return cosine similarities and indices (n, k) of the nearest rows, each row's own included.

    Parameters
    ----------
    embedding : Tensor of shape (n, d)
    n_neighbors : int

    Returns
    -------
    similarity, neighbours : Tensors of shape (n, k)
    """
    embedding = normalize(embedding, dim=1)
    k, size = min(n_neighbors, len(embedding)), max(1, _ELEMENTS // len(embedding))
    parts = [(part @ embedding.T).topk(k) for part in embedding.split(size)]
    return tuple(torch.cat(part) for part in zip(*parts))


class PALSNet(RuleNet):
    """Trains on the rows whose neighbours agree most, with smoothed labels."""

    def start(self, data):
        """Begin with the given candidates."""
        n, n_classes = data.candidates.shape
        return {
            "candidates": data.candidates.clone(),
            "target": uniform_confidence(data.candidates),
            "reliable": torch.ones(n, dtype=torch.bool, device=self.device),
        }

    def begin_epoch(self, data):
        """Vote with the neighbours in the network's embedding, and select rows."""
        memory, method = self.memory_, self.method
        if self.warming_up:
            return
        embedding, proba = self._embed_all(data)
        rows = self.training_rows(data)
        similarity, neighbours = nearest_neighbours(embedding[rows], method.n_neighbors)
        weights = uniform_confidence(memory["candidates"][rows])
        votes = knn_label_votes(similarity, neighbours, weights)
        n_classes = votes.shape[1]
        memory["target"][rows] = label_smoothing(one_hot(votes.argmax(1), n_classes), method.smooth)
        memory["reliable"][rows] = reliable_rows(votes, method.reliable_share)
        # a prediction that is very sure joins the candidates
        best, label = proba[rows].max(1)
        sure = best > method.confident
        memory["candidates"][rows[sure], label[sure]] = True

    def _embed_all(self, data):
        network = self.networks_[0].eval()
        rows = torch.arange(len(data), device=self.device)
        parts = []
        with torch.no_grad(), self.autocast():
            for batch in rows.split(max(256, 2 * self.batch_size)):
                embedding = network.embed(data.views.plain(batch))
                parts.append((embedding.float(), network.classifier(embedding).float().softmax(1)))
        return tuple(torch.cat(part) for part in zip(*parts))

    def batch_loss(self, data, rows):
        """Return the loss of a batch."""
        memory, method = self.memory_, self.method
        target, reliable = memory["target"][rows], memory["reliable"][rows]
        first, second = data.views.strong(rows), data.views.strong(rows)
        inputs, share = first, 1.0
        other, other_reliable = target, reliable
        if method.mixup_alpha is not None:
            # what is mixed carries both targets and the flags
            packed = torch.cat([target, reliable[:, None].float()], 1)
            inputs, packed, share = mix_up(first, packed, method.mixup_alpha)
            other, other_reliable = packed[:, :-1], packed[:, -1] > 0
        logits = self.classify(0, self.embed(0, inputs))
        weight = share * reliable + (1 - share) * other_reliable
        mixed = share * reliable[:, None] * target + (1 - share) * other_reliable[:, None] * other
        loss = -(mixed * logits.log_softmax(1)).sum() / weight.sum().clamp(min=1e-8)
        if not method.consistency_weight:
            return loss
        with torch.no_grad(), self.autocast():
            network = self.networks_[0]
            guess = network.classifier(network.embed(data.views.weak(rows))).float().softmax(1)
        strong = self.classify(0, self.embed(0, second))
        return loss + method.consistency_weight * soft_cross_entropy(strong, guess)

    def label_distributions(self, proba, data):
        """Return the predictions restricted to the grown candidates."""
        return rescale_candidates(proba, self.memory_["candidates"])


@learner
class PALSClassifier(NeuralClassifier):
    """Weighted nearest neighbours vote on pseudo-labels; the clearest of each class are trained on.

    After a warm-up on equal confidence in each candidate, the candidates of the nearest samples in
    the network's embedding vote for each sample's label, weighted by similarity. The samples with
    the clearest votes of each class are trained on, with strong label smoothing, MixUp and
    consistency between views; a very sure prediction joins the candidates.

    Parameters
    ----------
    {shared_parameters}
    warm_up : int, default=10
        Epochs on equal confidence in each candidate.
    n_neighbors : int, default=15
        Neighbours that vote, the sample itself included.
    reliable_share : float in (0, 1], default=0.75
        Share of the samples of each voted class that is trained on.
    smooth : float in [0, 1), default=0.5
        Label smoothing.
    confident : float in [0, 1], default=0.9
        Probability above which a prediction joins the candidates.
    mixup_alpha : float or None, default=4.0
        Parameter of the Beta distribution of MixUp; None for no MixUp.
    consistency_weight : float, default=1.0
        Weight of the cross-entropy of a strong view to the prediction of a weak one.

    Attributes
    ----------
    {shared_attributes}
    {rule_attributes}

    Notes
    -----
    The authors' defaults could not be verified, so this is a learner in the manner of PALS.

    References
    ----------
    .. [1] D. Saravanan, N. Manwani, V. Gandhi, "Pseudo-labelling meets Label Smoothing for Noisy
       Partial Label Learning", CVPR Workshops 2025, arXiv:2402.04835.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "warm_up": [Interval(Integral, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "reliable_share": [Interval(Real, 0, 1, closed="right")],
        "smooth": [Interval(Real, 0, 1, closed="left")],
        "confident": [Interval(Real, 0, 1, closed="both")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither"), None],
        "consistency_weight": [Interval(Real, 0, None, closed="left")],
    }
    _net_class = PALSNet

    warm_up: int = 10
    n_neighbors: int = 15
    reliable_share: float = 0.75
    smooth: float = 0.5
    confident: float = 0.9
    mixup_alpha: float | None = 4.0
    consistency_weight: float = 1.0

    def gradient_samples_per_epoch(self, n_samples):
        """Return how many rows an epoch trains on: twice as many with consistency.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        int
        """
        return n_samples * (2 if self.consistency_weight else 1)

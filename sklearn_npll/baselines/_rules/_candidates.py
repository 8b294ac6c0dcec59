"""Rules of learners that trust the candidates: confidences in them, and losses."""

import torch
import torch.nn.functional as F

from ._parts import labelled_mean, power_loss


def uniform_confidence(candidates):
    """Equal confidence in each candidate, where the confidences of Lv et al. (ICML 2020) start.

    Parameters
    ----------
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n, C)
    """
    return candidates / candidates.sum(1, keepdim=True)


def weighted_cross_entropy(logits, confidence, candidates):
    """Mean cross-entropy weighted by label confidences: PRODEN (Lv et al., ICML 2020) and RC.

    RC is of Feng et al. (NeurIPS 2020).

    Parameters
    ----------
    logits, confidence : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
        Says which rows are labelled; the confidence may lie outside the candidates.

    Returns
    -------
    Tensor of shape ()
    """
    return labelled_mean(-(confidence * logits.log_softmax(1)).sum(1), candidates)


@torch.no_grad()
def leveraged_weights(logits, candidates):
    """Weights of the leveraged weighted loss, Wen et al. (ICML 2021).

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n, C)
        Predictions renormalised over the candidates and, separately, over the other classes.
    """
    inside = logits.masked_fill(~candidates, -torch.inf).softmax(1)
    # NaN in rows of all candidates, none of whose values is taken
    outside = logits.masked_fill(candidates, -torch.inf).softmax(1)
    return torch.where(candidates, inside, outside)


def leveraged_loss(logits, weights, candidates, beta, loss="sigmoid"):
    """Leveraged weighted loss, Wen et al. (ICML 2021).

    Parameters
    ----------
    logits, weights : Tensor of shape (n, C)
        See `leveraged_weights`.
    candidates : bool Tensor of shape (n, C)
    beta : float
        Weight of the classes that are no candidates.
    loss : {"sigmoid", "cross_entropy"}
        Loss of a class: ``sigmoid(-z)`` for a candidate and ``sigmoid(z)`` for another class
        (LWS), or ``-log p`` and ``-log(1 - p)`` (LWC).

    Returns
    -------
    Tensor of shape ()
    """
    if loss == "sigmoid":
        inside, outside = (-logits).sigmoid(), logits.sigmoid()
    else:
        inside, outside = -logits.log_softmax(1), -_log_complement(logits)
    cost = weights * torch.where(candidates, inside, beta * outside)
    return labelled_mean(cost.sum(1), candidates)


def class_activation_label(logits, candidates):
    """Candidate with the largest class activation value ``z |1 - z|``, Zhang et al. (ICLR 2022).

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    int Tensor of shape (n,)
    """
    value = logits * (1 - logits).abs()
    return value.masked_fill(~candidates, -torch.inf).argmax(1)


def average_based_loss(logits, candidates, loss="mae", q=0.7):
    """Bounded loss averaged over the candidates, Lv et al. (TPAMI 2023).

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    loss : {"mae", "gce"}
        Loss of a candidate: ``2 (1 - p)`` or ``(1 - p^q) / q``.
    q : float, default=0.7
        Exponent of "gce".

    Returns
    -------
    Tensor of shape ()
    """
    log_proba = logits.log_softmax(1)
    # the absolute error to a one-hot label, 2 (1 - p), is twice the power loss of exponent 1
    cost = 2 * power_loss(log_proba, 1) if loss == "mae" else power_loss(log_proba, q)
    return labelled_mean((uniform_confidence(candidates) * cost).sum(1), candidates)


def complementary_loss(logits, candidates):
    """Negative log probability of being none of the other classes, Wu et al. (ICML 2022).

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape ()
    """
    return labelled_mean(-(_log_complement(logits) * ~candidates).sum(1), candidates)


@torch.no_grad()
def consistent_confidence(log_probas, candidates):
    """Geometric mean of the views on the candidates, renormalised, Wu et al. (ICML 2022).

    Parameters
    ----------
    log_probas : Tensor of shape (V, n, C)
        Finite logarithms of the predictions of each view.
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n, C)
    """
    return log_probas.mean(0).masked_fill(~candidates, -torch.inf).softmax(1)


def consistency_loss(logits, confidence, candidates):
    """Divergence of all views from one confidence, Wu et al. (ICML 2022).

    Parameters
    ----------
    logits : Tensor of shape (V, n, C)
    confidence : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape ()
        ``KL(confidence || p)``: the sum over views and the mean over labelled rows.
    """
    target = confidence.expand_as(logits)
    divergence = F.kl_div(logits.log_softmax(2), target, reduction="none")
    return labelled_mean(divergence.sum((0, 2)), candidates)


def _log_complement(logits):
    """``log(1 - p)`` of shape (n, C), finite for any logits."""
    log_proba = logits.log_softmax(1)
    top = logits.argmax(1, keepdim=True)
    # only the largest p can be near 1, where 1 - p cancels: there it is the sum of the others
    others = torch.log1p(-log_proba.exp().scatter(1, top, 0.0))
    rest = log_proba.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    return others.scatter(1, top, rest)

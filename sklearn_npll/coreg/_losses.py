"""The losses of Co-Reg: pure functions of tensors, one for each equation of the paper.

Shapes: ``n`` rows of a batch, ``C`` classes, ``m`` entries that a query is contrasted with, ``p``
dimensions of the projection. Equation numbers are those of Wang et al. (AAAI 2025).
"""

import torch
import torch.nn.functional as F


def candidate_nll(logits, candidates):
    """Negative log of the probability mass on the candidates, the first term of Eq. 1.

    Rows in which every class is a candidate carry no label and are left out of the mean.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
        At least one candidate in each row.

    Returns
    -------
    Tensor of shape ()
    """
    log_proba = logits.log_softmax(1)
    mass = log_proba.masked_fill(~candidates, -torch.inf).logsumexp(1)
    labelled = ~candidates.all(1)
    return -(mass * labelled).sum() / labelled.sum().clamp(min=1)


def negative_entropy(logits):
    """Mean negative entropy of the predictions, Eq. 2; its minimum is the uniform prediction.

    Parameters
    ----------
    logits : Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape ()
    """
    log_proba = logits.log_softmax(1)
    return (log_proba.exp() * log_proba).sum(1).mean()


def warm_up_loss(logits, candidates):
    """Loss of the warm-up, Eq. 3: `candidate_nll` plus `negative_entropy`."""
    return candidate_nll(logits, candidates) + negative_entropy(logits)


def soft_cross_entropy(logits, target):
    """Mean cross-entropy to a soft target, the first term of Eq. 8.

    Parameters
    ----------
    logits, target : Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape ()
    """
    return -(target * logits.log_softmax(1)).sum(1).mean()


def squared_error(logits, target, reduction):
    """Squared error of the predictions to a soft target, the second term of Eq. 8.

    Parameters
    ----------
    logits, target : Tensor of shape (n, C)
    reduction : {"sum", "mean"}
        Over classes: "sum" as the paper writes it, "mean" (C times smaller) as it was released.
        Over rows it is always the mean.

    Returns
    -------
    Tensor of shape ()
    """
    error = (logits.softmax(1) - target).square()
    return (error.sum(1) if reduction == "sum" else error.mean(1)).mean()


def prototype_logits(projection, prototypes, temperature):
    """Scaled similarity of projections (n, p) to prototypes (C, p), Eq. 9: its softmax is ``s``."""
    return projection @ prototypes.T / temperature


def kl_divergence(logits, target):
    """Mean Kullback-Leibler divergence KL(target || softmax(logits)), Eq. 10 on the partial split.

    Parameters
    ----------
    logits, target : Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape ()
    """
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")


def contrastive_masks(label, in_partial, entry_label, entry_in_partial, mode):
    """Which entries attract a query and which enter the denominator, Eq. 11.

    Parameters
    ----------
    label, in_partial : Tensor of shape (n,)
        Pseudo-label of each query, and whether it lies in the partial split.
    entry_label, entry_in_partial : Tensor of shape (m,)
        The same of the entries; the first n entries are the queries' own keys, in order.
    mode : {"noise_tolerant", "supcon", "moco"}
        - "noise_tolerant": a pair with the same pseudo-label attracts when both are in the partial
          split and is ignored otherwise;
        - "supcon": a pair with the same pseudo-label always attracts;
        - "moco": only the own key attracts.

    Returns
    -------
    positive, counted : bool Tensors of shape (n, m)
    """
    own = torch.eye(len(label), len(entry_label), dtype=torch.bool, device=label.device)
    if mode == "moco":
        return own, torch.ones_like(own)
    same = label[:, None] == entry_label
    if mode == "supcon":
        return same | own, torch.ones_like(own)
    positive = (same & in_partial[:, None] & entry_in_partial) | own
    return positive, positive | ~same


def contrastive_loss(query, entries, positive, counted, temperature):
    """Noise-tolerant supervised contrastive loss, Eq. 11.

    Parameters
    ----------
    query : Tensor of shape (n, p)
        L2-normalised projections.
    entries : Tensor of shape (m, p)
        L2-normalised keys.
    positive, counted : bool Tensor of shape (n, m)
        See `contrastive_masks`; each row has a positive, and positives are counted.
    temperature : float

    Returns
    -------
    Tensor of shape ()
    """
    query = query / temperature
    normaliser = (query @ entries.T).masked_fill(~counted, -torch.inf).logsumexp(1)
    # the mean similarity to the positives is the similarity to their mean
    attraction = (query * (positive.to(entries.dtype) @ entries)).sum(1) / positive.sum(1)
    return (normaliser - attraction).mean()

"""The losses of Co-Reg: pure functions of tensors, one for each equation of the paper.

Shapes: ``n`` rows of a batch, ``C`` classes, ``m`` entries that a query is contrasted with, ``p``
dimensions of the projection. Equation numbers are those of Wang et al. (AAAI 2025).
"""

import torch
import torch.nn.functional as F

# the exponential of a larger similarity, summed over many entries, might leave single precision
MAX_EXPONENT = 60


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


def score_cross_entropy(logits, scores):
    """Mean cross-entropy to the annotator's scores, in place of Eq. 3; not from the paper.

    Parameters
    ----------
    logits, scores : Tensor of shape (n, C)
        A row of scores that is 0 carries no label and is left out of the mean.

    Returns
    -------
    Tensor of shape ()
    """
    loss = -(scores * logits.log_softmax(1)).sum(1)
    return loss.sum() / scores.any(1).sum().clamp(min=1)


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


def squared_error(logits, target, reduction, weight=None):
    """Squared error of the predictions to a soft target, the second term of Eq. 8.

    Parameters
    ----------
    logits, target : Tensor of shape (n, C)
    reduction : {"sum", "mean"}
        Over classes: "sum" as the paper writes it, "mean" (C times smaller) as it was released.
        Over rows it is always the mean.
    weight : Tensor of shape (n,), default=None
        Weights of the rows, 1 by default; the mean is over the number of rows all the same.

    Returns
    -------
    Tensor of shape ()
    """
    error = (logits.softmax(1) - target).square()
    error = error.sum(1) if reduction == "sum" else error.mean(1)
    return (error if weight is None else weight * error).mean()


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


def contrastive_group(label, in_partial):
    """Number the groups of entries, by pseudo-label and split: 2 * label + in_partial.

    Parameters
    ----------
    label, in_partial : Tensor of shape (m,)
        Pseudo-label of each entry, and whether it lies in the partial split.

    Returns
    -------
    int Tensor of shape (m,)
    """
    return 2 * label + in_partial


def contrastive_masks(label, in_partial, n_classes, mode):
    """Which groups of entries attract a query and which enter the denominator, Eq. 11.

    All entries of a `contrastive_group` are alike to a query, except for its own key, which
    attracts in any mode and from any group. The masks do not tell it apart.

    Parameters
    ----------
    label, in_partial : Tensor of shape (n,)
        Pseudo-label of each query, and whether it lies in the partial split.
    n_classes : int
        C.
    mode : {"noise_tolerant", "supcon", "moco"}
        - "noise_tolerant": a pair with the same pseudo-label attracts when both are in the partial
          split and is ignored otherwise;
        - "supcon": a pair with the same pseudo-label always attracts;
        - "moco": only the own key attracts.

    Returns
    -------
    positive, counted : bool Tensors of shape (2 C, n)
    """
    group = torch.arange(2 * n_classes, device=label.device)[:, None]
    same = label == group // 2
    if mode == "moco":
        return torch.zeros_like(same), torch.ones_like(same)
    if mode == "supcon":
        return same, torch.ones_like(same)
    positive = same & in_partial & (group % 2 == 1)
    return positive, positive | ~same


def contrastive_loss(query, entries, group, own, positive, counted, temperature):
    """Noise-tolerant supervised contrastive loss, Eq. 11.

    Parameters
    ----------
    query : Tensor of shape (n, p)
        L2-normalised projections.
    entries : Tensor of shape (m, p)
        L2-normalised keys.
    group : int Tensor of shape (m,)
        See `contrastive_group`.
    own : int Tensor of shape (n,)
        Where the own key of each query is among the entries; it attracts and is counted.
    positive, counted : bool Tensor of shape (2 C, n)
        See `contrastive_masks`; positives are counted.
    temperature : float

    Returns
    -------
    Tensor of shape ()
    """
    query = query / temperature
    row = torch.arange(len(query), device=query.device)
    own_similarity = (query * entries[own]).sum(1)
    similarity = entries @ query.T
    # A mask of all pairs, a logarithm and a maximum of each would cost more than the similarities.
    if 1 / temperature < MAX_EXPONENT:
        mass = similarity.new_zeros(counted.shape).index_add(0, group, similarity.exp_())
        lacks_own = ~counted[group[own], row]
        normaliser = ((mass * counted).sum(0) + lacks_own * own_similarity.exp()).log()
    else:
        ignored = ~counted[group]
        ignored[own, row] = False
        normaliser = similarity.masked_fill(ignored, -torch.inf).logsumexp(0)
    # the mean similarity to the positives is the similarity to their mean
    key_sum = entries.new_zeros(len(positive), entries.shape[1]).index_add(0, group, entries)
    size = group.bincount(minlength=len(positive)).to(query.dtype)
    lacks_own = ~positive[group[own], row]
    positive = positive.T.to(query.dtype)
    attraction = (query * (positive @ key_sum)).sum(1) + lacks_own * own_similarity
    return (normaliser - attraction / (positive @ size + lacks_own)).mean()

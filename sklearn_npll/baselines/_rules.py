"""The rules of rival methods: pure functions of tensors, one for each rule of a paper.

Shapes: ``n`` rows of a batch, ``C`` classes (at least two), ``V`` views of a row, ``k`` neighbours.
Each row has at least one candidate. Rows in which every class is a candidate carry no label: the
losses leave them out of their mean, and no rule changes their candidates. Confidences, weights,
targets and new candidates carry no gradient.

The average over the candidates of Feng et al. (NeurIPS 2020, "CC") is `candidate_nll` of
`sklearn_npll.coreg._losses`; the confidence of PRODEN and RC is `rescale_candidates` of
`sklearn_npll.coreg._division`.
"""

import math

import torch
import torch.nn.functional as F

from ..coreg._division import clean_probability, division_loss, min_max_scale
from ..coreg._options import elr_regulariser

# Smallest normal float32: keeps logarithms and ratios finite without moving any other value.
TINY = torch.finfo(torch.float32).tiny
# What stands in for log 0 in the reverse cross-entropy.
LOG_ZERO = math.log(1e-4)


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
    return _labelled_mean(-(confidence * logits.log_softmax(1)).sum(1), candidates)


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
    return _labelled_mean(cost.sum(1), candidates)


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
    cost = 2 * _power_loss(log_proba, 1) if loss == "mae" else _power_loss(log_proba, q)
    return _labelled_mean((uniform_confidence(candidates) * cost).sum(1), candidates)


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
    return _labelled_mean(-(_log_complement(logits) * ~candidates).sum(1), candidates)


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
    return _labelled_mean(divergence.sum((0, 2)), candidates)


@torch.no_grad()
def alim_target(proba, candidates, weight, scaling="onehot", temperature=1.0):
    """Pseudo-label that discounts the other classes instead of ruling them out.

    This is ALIM, Xu et al. (NeurIPS 2023).

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    weight : float in [0, 1]
        Weight of the classes that are no candidates; see `alim_weight`.
    scaling : {"onehot", "scale"}
        Take the likeliest class, or raise to the power 1 / temperature and renormalise.
    temperature : float, default=1.0

    Returns
    -------
    Tensor of shape (n, C)
    """
    # in logarithms, as all powers of a row underflow at a low temperature
    trusted = candidates + weight * ~candidates
    log_target = proba.clamp(min=TINY).log() + trusted.log()
    if scaling == "scale":
        return (log_target / temperature).softmax(1)
    return F.one_hot(log_target.argmax(1), proba.shape[1]).to(proba.dtype)


def alim_weight(proba, candidates, eta):
    """Weight of the other classes at which a share ``eta`` of the rows leaves its candidates.

    This is the adaptive weight of ALIM, Xu et al. (NeurIPS 2023).

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    eta : float in [0, 1]
        Noise rate.

    Returns
    -------
    float
        The eta-quantile over labelled rows of the largest probability of a candidate divided by
        that of another class, at most 1; 1 where no row is labelled.
    """
    labelled = ~candidates.all(1)
    if not labelled.any():
        return 1.0
    inside = (proba * candidates).amax(1)
    outside = (proba * ~candidates).amax(1).clamp(min=TINY)
    return min(1.0, (inside / outside)[labelled].quantile(eta).item())


def estimate_noise_rate(proba, candidates, random_state):
    """Share of the labelled rows whose candidates a mixture of the losses holds to be wrong.

    The mixture is that of Co-Reg, Wang et al. (AAAI 2025); here it stands in for the noise rate
    that other methods take as known.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    random_state : int

    Returns
    -------
    float in [0, 1)
        0 where no row is labelled or the losses do not differ.
    """
    labelled = ~candidates.all(1)
    if not labelled.any():
        return 0.0
    loss = min_max_scale(division_loss(proba[labelled], candidates[labelled]))
    clean, _ = clean_probability(loss.cpu().numpy(), random_state)
    return max(0.0, 1 - clean.mean(dtype=float).item())


def fredis_loss(logits, confidence, candidates, consistency_weight, complement_weight):
    """Loss of FREDIS, Qiao et al. (ICML 2023): `consistency_loss` plus `complementary_loss`.

    Parameters
    ----------
    logits, confidence : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    consistency_weight, complement_weight : float

    Returns
    -------
    Tensor of shape ()
    """
    return consistency_weight * consistency_loss(
        logits[None], confidence, candidates
    ) + complement_weight * complementary_loss(logits, candidates)


def fredis_refine(proba, candidates, theta, delta, max_added=500):
    """Add likely classes to the candidates and remove unlikely ones, Qiao et al. (ICML 2023).

    The gap of a class is the largest probability of its row minus its own. Classes with a gap
    below ``theta`` are added, the smallest gaps first and at most ``max_added``. Candidates with
    a gap above ``delta`` are removed, the largest gaps first and at most ``2 * max_added``; where
    they are fewer than two for each class added, ``delta`` is lowered until they are not.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    theta, delta : float
    max_added : int, default=500

    Returns
    -------
    bool Tensor of shape (n, C)
        The new candidates. The likeliest one of a row is never removed.
    """
    labelled = ~candidates.all(1, keepdim=True)
    gap = proba.amax(1, keepdim=True) - proba
    added = _smallest(gap, ~candidates & (gap < theta), max_added)
    refined = candidates | added
    likeliest = gap.masked_fill(~refined, torch.inf).argmin(1, keepdim=True)
    removable = (candidates & labelled).scatter(1, likeliest, False)
    n_removed = max(int((removable & (gap > delta)).sum()), 2 * int(added.sum()))
    return refined & ~_smallest(-gap, removable, min(n_removed, 2 * max_added))


def purify_candidates(mean_confidence, candidates, threshold):
    """Drop candidates much less likely than the likeliest one of the row: POP.

    Xu et al. (ICML 2023).

    Parameters
    ----------
    mean_confidence : Tensor of shape (n, C)
        Mean of the confidences in the last epochs.
    candidates : bool Tensor of shape (n, C)
    threshold : float in [0, 1]
        Smallest confidence of a candidate relative to the largest of its row.

    Returns
    -------
    bool Tensor of shape (n, C)
    """
    largest = (mean_confidence * candidates).amax(1, keepdim=True)
    kept = candidates & (mean_confidence >= threshold * largest)
    return kept | candidates.all(1, keepdim=True)


def knn_label_votes(similarity, neighbours, label_weights):
    """Mean of the neighbours' labels, weighted by similarity: SARI and PALS (CVPRW 2025).

    Parameters
    ----------
    similarity : Tensor of shape (n, k)
        Negative ones count as 0; where none is positive, all neighbours count the same.
    neighbours : int Tensor of shape (n, k)
        Rows of ``label_weights``.
    label_weights : Tensor of shape (m, C)
        What each neighbour votes for, such as its `uniform_confidence`.

    Returns
    -------
    Tensor of shape (n, C)
    """
    weights = similarity.clamp(min=0)
    weights = torch.where(weights.any(1, keepdim=True), weights, 1.0)
    weights = weights / weights.sum(1, keepdim=True)
    # the weighted sum of the neighbours' rows, without an array of shape (n, k, C)
    return F.embedding_bag(neighbours, label_weights, mode="sum", per_sample_weights=weights)


def reliable_rows(votes, share):
    """Rows with the clearest votes of each class: SARI and PALS (CVPRW 2025).

    Parameters
    ----------
    votes : Tensor of shape (n, C)
        See `knn_label_votes`.
    share : float in [0, 1]
        Share of the rows that vote for a class to keep, rounded down, but at least one.

    Returns
    -------
    bool Tensor of shape (n,)
    """
    vote, label = votes.max(1)
    return _top_share(vote, label, share)


def nearest_share(similarity, label, share):
    """Rows closest to the prototype of their predicted class: PiCO+, Wang et al. (TPAMI 2023).

    Parameters
    ----------
    similarity : Tensor of shape (n,)
        Similarity of each row to the prototype of its class.
    label : int Tensor of shape (n,)
        Predicted candidate.
    share : float in [0, 1]
        Share of the rows of a class to keep, rounded down, but at least one.

    Returns
    -------
    bool Tensor of shape (n,)
    """
    return _top_share(similarity, label, share)


def neighbour_contrast(query, entries, own, n_neighbors, temperature):
    """Contrastive loss in which the most similar entries attract, and the own key (PiCO+).

    Parameters
    ----------
    query : Tensor of shape (n, p)
        L2-normalised projections.
    entries : Tensor of shape (m, p)
        L2-normalised keys.
    own : int Tensor of shape (n,)
        Where the own key of each query is among the entries.
    n_neighbors : int
        Number of entries that attract; all of them if there are no more.
    temperature : float

    Returns
    -------
    Tensor of shape ()
    """
    similarity = query @ entries.T / temperature
    near = similarity.detach().topk(min(n_neighbors, len(entries)))[1]
    attracts = torch.zeros_like(similarity).scatter_(1, near, 1.0).scatter_(1, own[:, None], 1.0)
    attraction = (similarity * attracts).sum(1) / attracts.sum(1)
    return (similarity.logsumexp(1) - attraction).mean()


def generalised_cross_entropy(logits, label, q=0.7):
    """Mean of ``(1 - p^q) / q``, Zhang and Sabuncu (NeurIPS 2018).

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    label : int Tensor of shape (n,)
    q : float, default=0.7
        From towards 0, the cross-entropy, to 1, half the absolute error.

    Returns
    -------
    Tensor of shape ()
    """
    return _power_loss(_label_log_proba(logits, label), q).mean()


def symmetric_cross_entropy(logits, label, alpha=1.0, beta=1.0, log_zero=LOG_ZERO):
    """Cross-entropy plus reverse cross-entropy, Wang et al. (ICCV 2019).

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    label : int Tensor of shape (n,)
    alpha, beta : float, default=1.0
        Weights of the cross-entropy and of the reverse one.
    log_zero : float, default=log(1e-4)
        What stands in for the logarithm of 0 in the reverse cross-entropy.

    Returns
    -------
    Tensor of shape ()
    """
    log_proba = _label_log_proba(logits, label)
    # log 1 is 0 at the label, and the other classes share the mass 1 - p
    reverse = -log_zero * _power_loss(log_proba, 1)
    return (beta * reverse - alpha * log_proba).mean()


def elr_loss(logits, target, label, weight):
    """Cross-entropy plus early-learning regularisation, Liu et al. (NeurIPS 2020).

    Parameters
    ----------
    logits, target : Tensor of shape (n, C)
        The target is the moving average of the predictions, see `elr_target`.
    label : int Tensor of shape (n,)
    weight : float
        Weight of ``log(1 - <target, p>)``.

    Returns
    -------
    Tensor of shape ()
    """
    return F.cross_entropy(logits, label) + weight * elr_regulariser(logits, target)


@torch.no_grad()
def elr_target(target, proba, momentum):
    """Moving average of the predictions, Liu et al. (NeurIPS 2020).

    Parameters
    ----------
    target, proba : Tensor of shape (n, C)
        The target is 0 at first.
    momentum : float

    Returns
    -------
    Tensor of shape (n, C)
    """
    return momentum * target + (1 - momentum) * proba


def small_loss_rows(loss, forget_rate):
    """Rows with the smallest losses, which the other network learns from: Co-teaching.

    Han et al. (NeurIPS 2018).

    Parameters
    ----------
    loss : Tensor of shape (n,)
    forget_rate : float in [0, 1]
        Share of the rows to leave out; see `forget_rate`. At least one row is kept.

    Returns
    -------
    bool Tensor of shape (n,)
    """
    one_class = torch.zeros(len(loss), dtype=torch.long, device=loss.device)
    return _top_share(-loss, one_class, 1 - forget_rate)


def forget_rate(epoch, noise_rate, n_gradual):
    """Share of rows that Co-teaching leaves out, Han et al. (NeurIPS 2018).

    Parameters
    ----------
    epoch : int
        From 0.
    noise_rate : float
    n_gradual : int
        Epochs in which the share grows from 0 to the noise rate; at least 1.

    Returns
    -------
    float
    """
    return min(noise_rate * epoch / n_gradual, noise_rate)


def label_smoothing(onehot, amount):
    """Mix labels with the uniform distribution, Szegedy et al. (CVPR 2016).

    Parameters
    ----------
    onehot : Tensor of shape (n, C)
    amount : float in [0, 1]
        Weight of the uniform distribution.

    Returns
    -------
    Tensor of shape (n, C)
    """
    return (1 - amount) * onehot + amount / onehot.shape[1]


def _labelled_mean(cost, candidates):
    """Mean of the costs (n,) over the rows that carry a label; 0 where none does."""
    labelled = ~candidates.all(1)
    return (cost * labelled).sum() / labelled.sum().clamp(min=1)


def _label_log_proba(logits, label):
    """Log probability of each row's label, of shape (n,)."""
    return logits.log_softmax(1).gather(1, label[:, None])[:, 0]


def _power_loss(log_proba, q):
    """``(1 - p^q) / q``, whose gradient is finite where p underflows."""
    return -torch.expm1(q * log_proba) / q


def _log_complement(logits):
    """``log(1 - p)`` of shape (n, C), finite for any logits."""
    log_proba = logits.log_softmax(1)
    top = logits.argmax(1, keepdim=True)
    # only the largest p can be near 1, where 1 - p cancels: there it is the sum of the others
    others = torch.log1p(-log_proba.exp().scatter(1, top, 0.0))
    rest = log_proba.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    return others.scatter(1, top, rest)


def _smallest(value, eligible, count):
    """Mark the ``count`` eligible entries with the smallest values, or all if they are fewer."""
    count = min(count, int(eligible.sum()))
    value = value.masked_fill(~eligible, torch.inf)
    marked = torch.zeros_like(eligible).flatten()
    marked[value.flatten().topk(count, largest=False).indices] = True
    return marked.view_as(eligible)


def _top_share(score, label, share):
    """Mark the given share of each label's rows with the largest scores, at least one."""
    if not len(score):
        return torch.zeros_like(label, dtype=torch.bool)
    # sorted by label, and by score within it
    order = score.sort(descending=True, stable=True).indices
    order = order[label[order].sort(stable=True).indices]
    count = label.bincount()
    # 0.29 * 100 is a little less than 29 in floating point
    n_kept = torch.tensor([max(1, int(share * c + 1e-6)) for c in count.tolist()]).to(label)
    rank = torch.arange(len(label)).to(label) - (count.cumsum(0) - count)[label[order]]
    kept = torch.zeros_like(label, dtype=torch.bool)
    kept[order] = rank < n_kept[label[order]]
    return kept

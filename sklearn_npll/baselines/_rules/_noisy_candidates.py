"""Rules of learners that doubt the candidates: other classes may be true, too."""

import torch
import torch.nn.functional as F

from ...coreg._division import clean_probability, division_loss, min_max_scale
from ._candidates import complementary_loss, consistency_loss

# Smallest normal float32: keeps logarithms and ratios finite without moving any other value.
TINY = torch.finfo(torch.float32).tiny


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


def _smallest(value, eligible, count):
    """Mark the ``count`` eligible entries with the smallest values, or all if they are fewer."""
    count = min(count, int(eligible.sum()))
    value = value.masked_fill(~eligible, torch.inf)
    marked = torch.zeros_like(eligible).flatten()
    marked[value.flatten().topk(count, largest=False).indices] = True
    return marked.view_as(eligible)

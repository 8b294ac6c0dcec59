"""The equations of DeFT: pure functions of tensors, for candidate sets of any size.

Shapes: ``n`` rows of a batch and ``C`` classes. ``positive`` and ``negative`` are the scaled
cosines of the images with the class features of the positive and of the negative prompt. With one
candidate a row each function is that of Wei et al. (NeurIPS 2024); what it is for larger sets is
this package's.
"""

import torch
import torch.nn.functional as F

from ..coreg._losses import candidate_nll

# Smallest probability whose logarithm is taken, as in the authors' code.
MIN_PROBA = 1e-5


def prompt_margin(positive, negative):
    """Logit of the probability that a class is the image's: sg(positive) - negative.

    The positive logits are constants here, so that what is learnt from the margin is the negative
    prompt alone: a threshold for each image and class.

    Parameters
    ----------
    positive, negative : Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n, C)
        Its sigmoid is p_yes, the two-way softmax over a class's positive and negative prompt.
    """
    return positive.detach() - negative


def best_margin(margin, candidates):
    """Largest margin among the candidates of each row; with one candidate, that of the label.

    A set is right if any of its classes is, so that its answer is the surest "yes" within it.

    Parameters
    ----------
    margin : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n,)
    """
    return margin.masked_fill(~candidates, -torch.inf).amax(1)


def select_clean(margin, candidates, rule, threshold=0.5):
    """Tell which candidate sets hold the true class.

    Parameters
    ----------
    margin : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    rule : {"threshold", "threshold_argmax"}
        "threshold": the largest p_yes within the set exceeds the threshold. "threshold_argmax":
        besides, no class outside the set has a larger one.
    threshold : float, default=0.5

    Returns
    -------
    bool Tensor of shape (n,)
    """
    best = best_margin(margin, candidates)
    clean = best.sigmoid() > threshold
    # Margins are compared, as probabilities of 1 are equal.
    return clean & (best >= margin.amax(1)) if rule == "threshold_argmax" else clean


def complement_weights(candidates, complement, generator=None):
    """Weights of the classes that the negative prompt is to call wrong.

    Parameters
    ----------
    candidates : bool Tensor of shape (n, C)
        Not all classes of a row.
    complement : {"random", "all"}
        Whether a row's weight is on one class outside its set, drawn, or spread over all of them.
    generator : torch.Generator, default=None
        For "random".

    Returns
    -------
    Tensor of shape (n, C)
        Rows of sum 1.
    """
    outside = (~candidates).float()
    if complement == "all":
        return outside / outside.sum(1, keepdim=True)
    drawn = torch.multinomial(outside, 1, generator=generator)
    return torch.zeros_like(outside).scatter_(1, drawn, 1.0)


def target_weights(positive, candidates, selected, relabel=True):
    """Weights of the classes that the negative prompt is to call right.

    Parameters
    ----------
    positive : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    selected : bool Tensor of shape (n,)
        Rows taken for clean. Their weights are the probabilities by the positive prompt within the
        set: 1 for a single candidate.
    relabel : bool, default=True
        Whether the others have the class most probable by the positive prompt; or else nothing.

    Returns
    -------
    Tensor of shape (n, C)
        Without gradient; rows of sum 1 or 0.
    """
    positive = positive.detach()
    within = positive.masked_fill(~candidates, -torch.inf).softmax(1)
    guess = F.one_hot(positive.argmax(1), positive.shape[1]) * float(relabel)
    return torch.where(selected[:, None], within, guess)


def dual_prompt_loss(margin, target, complement):
    """L_dp: mean of -log p_no of the complement and -log p_yes of the target.

    Parameters
    ----------
    margin : Tensor of shape (n, C)
    target, complement : Tensor of shape (n, C)
        Weights of `target_weights` and `complement_weights`.

    Returns
    -------
    Tensor of shape ()
        Its gradient reaches the negative prompt only.
    """
    yes = margin.sigmoid()
    nll = target * yes.clamp(min=MIN_PROBA).log()
    nll = nll + complement * (1 - yes).clamp(min=MIN_PROBA).log()
    return -nll.sum(1).mean()


def similarity_loss(positive, candidates, selected):
    """L_sim: mean of -log of the probability of the candidates, by the positive prompt.

    Parameters
    ----------
    positive : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)
    selected : bool Tensor of shape (n,)
        The rows to average over; if there are none the loss is 0.

    Returns
    -------
    Tensor of shape ()
        With one candidate a row, the cross-entropy. Its gradient reaches the positive prompt and
        the image tower.
    """
    return candidate_nll(positive[selected], candidates[selected])

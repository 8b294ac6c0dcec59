"""Rules of learners from one noisy label a row."""

import math

import torch
import torch.nn.functional as F

from ...coreg._options import elr_regulariser
from ._parts import power_loss, top_share

# What stands in for log 0 in the reverse cross-entropy.
LOG_ZERO = math.log(1e-4)


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
    return power_loss(_label_log_proba(logits, label), q).mean()


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
    reverse = -log_zero * power_loss(log_proba, 1)
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
    return top_share(-loss, one_class, 1 - forget_rate)


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


def _label_log_proba(logits, label):
    """Log probability of each row's label, of shape (n,)."""
    return logits.log_softmax(1).gather(1, label[:, None])[:, 0]

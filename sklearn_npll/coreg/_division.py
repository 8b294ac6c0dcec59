"""Dividing the data and purifying the labels: the steps of Co-Reg between two gradient steps.

Shapes: ``n`` rows, ``C`` classes, ``p`` dimensions of the projection. Equation numbers are those of
Wang et al. (AAAI 2025).
"""

import threading
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from .._evidence import largest_columns
from .._neural._sparse_rows import reduce_rows

EPS = 1e-8
# Rows from which a class has a mixture of its own.
MIN_ROWS = 20
# Warnings are filtered for all threads at once: two that overlap would leave the filter behind.
_FILTER_LOCK = threading.Lock()


@dataclass
class Division:
    """One network's view of the data: the outcome of steps 3a to 3c.

    Parameters
    ----------
    proba : Tensor or SparseRows of shape (n, C)
        Aligned predictions, or those of the candidates and the most probable classes.
    rescaled : Tensor or MappedRows of shape (n, C)
        Candidate-restricted predictions q, Eq. 5.
    clean : Tensor of shape (n,)
        Clean probability w; 1 for known rows, 0 for rows without a label.
    means : ndarray of shape (2,)
        Means of the mixture; NaN where there was none.
    """

    proba: torch.Tensor
    rescaled: torch.Tensor
    clean: torch.Tensor
    means: np.ndarray

    @cached_property
    def popularity(self):
        """Share of the rows that are predicted as each class, of shape (C,)."""
        n, n_classes = self.proba.shape
        predicted = reduce_rows(lambda proba: proba.argmax(1), self.proba)
        return predicted.bincount(minlength=n_classes) / n

    def purified(self, threshold, rows=slice(None)):
        """Label distributions before sharpening: Eq. 6 in the partial split, else predictions."""
        clean, proba = self.clean[rows], self.proba[rows]
        target = partial_target(clean, self.rescaled[rows], proba)
        return torch.where((clean > threshold)[:, None], target, proba)


def align_distribution(proba, mean_proba, prior, rounds=1):
    """Divide predictions by the ratio of their running mean to a prior, and renormalise.

    A row that predicts only classes whose prior is 0 stays as it is.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    mean_proba : Tensor of shape (C,)
        Running mean of the predictions.
    prior : Tensor of shape (C,)
        Shares that the classes should have.
    rounds : int, default=1
        Each round after the first divides by the ratio of what the mean has become to the prior:
        Sinkhorn's iteration, at whose end the mean is the prior.

    Returns
    -------
    Tensor of shape (n, C)
    """
    for i in range(rounds):
        if i > 0:
            mean_proba = proba.mean(0)
        aligned = proba * (prior / mean_proba.clamp(min=EPS))
        mass = aligned.sum(1, keepdim=True)
        proba = torch.where(mass > EPS, aligned / mass.clamp(min=EPS), proba)
    return proba


def rescale_candidates(proba, candidates):
    """Candidate-restricted and renormalised predictions ``q``, Eq. 5.

    A row whose prediction puts no mass on its candidates becomes uniform over them.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n, C)
    """
    kept = proba * candidates
    mass = kept.sum(1, keepdim=True)
    return torch.where(
        mass > EPS, kept / mass.clamp(min=EPS), candidates / candidates.sum(1, keepdim=True)
    )


def annotator_evidence(scores, mean_scores, prior, weight):
    """Annotator's scores as factors for predictions: aligned to a prior, then raised to a power.

    Parameters
    ----------
    scores : Tensor of shape (n, C)
        Rows of sum 1; 0 where the annotator prefers no class.
    mean_scores : Tensor of shape (C,)
        Their mean over all rows.
    prior : Tensor of shape (C,), "estimated" or None
        Shares that the classes should have; scores are only aligned to a tensor.
    weight : float
        The power.

    Returns
    -------
    Tensor of shape (n, C)
        Rows with a largest factor of 1, and none below ``1e-6 ** weight`` of it; ones where the
        annotator prefers no class.
    """
    silent = ~scores.any(1, keepdim=True)
    scores = scores.clamp(min=1e-6)
    if torch.is_tensor(prior):
        scores = align_distribution(scores, mean_scores, prior).clamp(min=1e-6)
    return torch.where(silent, 1.0, (scores / scores.amax(1, keepdim=True)) ** weight)


def weigh_by_evidence(proba, evidence):
    """Multiply predictions by the annotator's evidence, and renormalise.

    Parameters
    ----------
    proba, evidence : Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n, C)
        A row without common mass stays as it is predicted.
    """
    joint = proba * evidence
    mass = joint.sum(1, keepdim=True)
    return torch.where(mass > 0, joint / mass.clamp(min=torch.finfo(mass.dtype).tiny), proba)


def division_loss(proba, candidates):
    """Negative log of the largest candidate probability, Eq. 4.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    candidates : bool Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n,)
        Finite: probabilities are clipped from below at 1e-8.
    """
    return -(proba * candidates).amax(1).clamp(min=EPS).log()


def min_max_scale(loss):
    """Scale to [0, 1]; constant values become 0."""
    low, high = loss.min(), loss.max()
    return (loss - low) / (high - low).clamp(min=EPS)


def fit_loss_mixture(loss, random_state):
    """Fit a mixture of two Gaussians to losses.

    Parameters
    ----------
    loss : ndarray of shape (n,)
        Scaled losses.
    random_state : int, RandomState instance or None

    Returns
    -------
    GaussianMixture
    """
    mixture = GaussianMixture(2, max_iter=50, tol=1e-3, reg_covar=5e-4, random_state=random_state)
    with _FILTER_LOCK, warnings.catch_warnings():
        # a mixture that still moves after 50 rounds is good enough to split by
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(loss[:, None])


def clean_probability(loss, random_state):
    """Posterior of the low-mean component of a two-component Gaussian mixture on the losses.

    Parameters
    ----------
    loss : ndarray of shape (n,)
        Scaled division losses.
    random_state : int

    Returns
    -------
    probability : ndarray of shape (n,)
        All ones where the losses do not differ or are fewer than two.
    means : ndarray of shape (2,)
        Means of the components, the lower first; NaN where nothing was fitted.
    """
    if len(loss) < 2 or np.ptp(loss) < EPS:
        return np.ones(len(loss), dtype=np.float32), np.full(2, np.nan)
    mixture = fit_loss_mixture(loss, random_state)
    posterior = mixture.predict_proba(loss[:, None])
    order = mixture.means_[:, 0].argsort()
    return posterior[:, order[0]].astype(np.float32), mixture.means_[order, 0]


def clean_probability_by_class(loss, random_state, label):
    """Posterior as by `clean_probability`, with a mixture of its own for each frequent class.

    Parameters
    ----------
    loss : ndarray of shape (n,)
        Scaled division losses.
    random_state : int
    label : ndarray of int of shape (n,)
        Most probable candidate of each row. The rows of a class with fewer than `MIN_ROWS` are
        judged by the mixture of all rows.

    Returns
    -------
    probability : ndarray of shape (n,)
    means : ndarray of shape (2,)
        Means of the mixture of all rows.
    """
    probability, means = clean_probability(loss, random_state)
    for j in np.flatnonzero(np.bincount(label) >= MIN_ROWS):
        rows = label == j
        probability[rows], _ = clean_probability(loss[rows], random_state)
    return probability, means


def sharpen(proba, temperature):
    """Raise to the power 1 / temperature and renormalise, Eq. 7.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    temperature : float

    Returns
    -------
    Tensor of shape (n, C)
    """
    # in logarithms, as all powers of a row underflow at a low temperature
    return (proba.clamp(min=EPS).log() / temperature).softmax(1)


def partial_target(clean, rescaled, own_proba):
    """Target of the partial split before sharpening, Eq. 6: ``w q + (1 - w) mean prediction``.

    Parameters
    ----------
    clean : Tensor of shape (n,)
        Clean probability w from the dividing network.
    rescaled : Tensor of shape (n, C)
        Re-scaled candidates q of the dividing network.
    own_proba : Tensor of shape (n, C)
        Mean prediction of the trained network over the weak views.

    Returns
    -------
    Tensor of shape (n, C)
    """
    return clean[:, None] * rescaled + (1 - clean[:, None]) * own_proba


def update_prototypes(prototypes, projection, label, momentum):
    """Moving average of the projections of each class, row after row, then L2-normalised.

    Equals ``o[c] = momentum * o[c] + (1 - momentum) * z`` applied to one row after another.

    Parameters
    ----------
    prototypes : Tensor of shape (C, p)
        A class never seen is 0 and stays so.
    projection : Tensor of shape (n, p)
    label : int Tensor of shape (n,)
    momentum : float

    Returns
    -------
    Tensor of shape (C, p)
    """
    onehot = torch.nn.functional.one_hot(label, len(prototypes)).to(projection.dtype)
    count = onehot.sum(0)
    still_to_come = (count - onehot.cumsum(0)).gather(1, label[:, None])
    weighted = (1 - momentum) * momentum**still_to_come * projection
    updated = momentum ** count[:, None] * prototypes + onehot.T @ weighted
    return torch.nn.functional.normalize(updated, dim=1)


def agree_with_mask(score, mask, threshold):
    """Bring clean scores to the side of a threshold on which a detector's mask has them.

    A detector may decide by another rule than its score, such as by the most probable class.

    Parameters
    ----------
    score : ndarray of float32 of shape (n,)
        In [0, 1].
    mask : bool ndarray of shape (n,)
    threshold : float
        In [0, 1).

    Returns
    -------
    ndarray of float32 of shape (n,)
        The scores, but in rows of the mask at least the next number above the threshold, and at
        most the threshold in the others.
    """
    threshold = np.float32(threshold)
    above = np.nextafter(threshold, np.float32(1))
    return np.where(mask, np.maximum(score, above), np.minimum(score, threshold))


def detected_clean_probability(detector, problem, threshold):
    """Return the clean probabilities by a clone of a detector, fitted to a checked problem.

    Parameters
    ----------
    detector : estimator
    problem : Problem
    threshold : float
        What the probabilities of the rows that the detector believes exceed.

    Returns
    -------
    ndarray of float32 of shape (n_samples,)
        The detector's scores, in agreement with its mask.

    Raises
    ------
    ValueError
        If it leaves no ``clean_score_`` in [0, 1] or no bool ``clean_mask_`` for each row.
    """
    classes = problem.classes
    if -1 in classes.tolist():  # the negative class of two, which PartialLabels do not take
        X, y = problem.data, classes[largest_columns(problem.candidates)]
    else:
        X, y = problem.labels(problem.data), None
    with config_context(skip_parameter_validation=False):  # the detector's are the user's
        detector = clone(detector).fit(X, y)
    n_samples = len(problem.known)
    score = np.asarray(getattr(detector, "clean_score_", None), dtype=np.float32)
    mask = np.asarray(getattr(detector, "clean_mask_", None))
    are_scores = score.shape == (n_samples,) and ((score >= 0) & (score <= 1)).all()
    if not are_scores or mask.shape != (n_samples,) or mask.dtype != bool:
        raise ValueError(
            f"division={type(detector).__name__} must be a detector whose fit leaves clean_score_, "
            f"a probability, and clean_mask_, a bool, for each of {n_samples} rows"
        )
    believed = np.count_nonzero((mask | problem.known) & problem.labelled)
    if believed < 2:
        warnings.warn(
            f"division={type(detector).__name__} believes {believed} of {n_samples} rows, too few "
            "for a partial split, so every epoch trains as in the warm-up",
            UserWarning,
            stacklevel=5,  # the caller of fit
        )
    return agree_with_mask(score, mask, threshold)

"""The rules of Co-Reg's options, which come from elsewhere: pure functions of tensors.

Shapes: ``n`` rows, ``C`` classes. Where a rule is ours and not that of the source, it says so.
"""

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components

EPS = 1e-8
# The options as they are when they are off, for a method that has none of them.
OPTIONS_OFF = {
    "alignment_rounds": 1,
    "neighbor_weight": 0.0,
    "division": "mixture",
    "elr_weight": 0.0,
    "pseudo_label_threshold": None,
    "disagreement_weight": 0.5,
    "candidate_update": None,
    "doubly_robust": False,
    "prototype_blend": 0.0,
    "confidence_weight": 0.0,
}
# Falling temperatures at which predictions are hardened, and rounds at each: most of the way is
# made while they are soft.
TRANSPORT_TEMPERATURES = (1.0, 0.3, 0.1, 0.03)
TRANSPORT_ROUNDS = 20


def elr_regulariser(logits, target):
    """Mean of ``log(1 - <target, p>)``, Liu et al. (NeurIPS 2020).

    Parameters
    ----------
    logits, target : Tensor of shape (n, C)
        The target is a moving average of the predictions, see `moving_average`.

    Returns
    -------
    Tensor of shape ()
        It falls as the predictions agree with the target.
    """
    agreement = (target * logits.softmax(1)).sum(1)
    # at 1e-4 the pull towards the target ends: log 0 would outweigh everything else
    return (1 - agreement).clamp(min=1e-4).log().mean()


@torch.no_grad()
def moving_average(average, new, momentum):
    """Exponential moving average ``momentum * average + (1 - momentum) * new`` of tensors."""
    return momentum * average + (1 - momentum) * new


def class_thresholds(status, threshold):
    """Class-wise confidence thresholds of JointMatch, Zou and Caragea (EMNLP 2023).

    Parameters
    ----------
    status : Tensor of shape (C,)
        How well each class is learnt: a moving average of the mean predictions.
    threshold : float
        Threshold of the class that is learnt best.

    Returns
    -------
    Tensor of shape (C,)
        ``threshold * status / max(status)``.
    """
    return threshold * status / status.max()


def pseudo_label_weights(proba, thresholds, disagree, disagreement_weight):
    """Weights of pseudo-labels: 0 below the threshold, more where two networks disagree.

    The weights are w and 1 - w in JointMatch, Zou and Caragea (EMNLP 2023); here they are twice
    that, so that w = 1/2 leaves a pseudo-label as it is.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
        The pseudo-labels.
    thresholds : Tensor of shape (C,)
        Confidence that each class needs.
    disagree : bool Tensor of shape (n,)
        Rows for which the networks predict different classes.
    disagreement_weight : float
        w.

    Returns
    -------
    Tensor of shape (n,)
    """
    confidence, label = proba.max(1)
    weight = torch.where(disagree, disagreement_weight, 1 - disagreement_weight)
    return 2 * weight * (confidence >= thresholds[label])


def class_clusters(candidates, proba):
    """Cluster the classes by their confusion between candidates and predictions.

    The confusion of two classes is the mean prediction of one over the sets with the other, in both
    directions; a set counts for each of its classes in equal shares. Each class is joined to the
    one that it is most confused with, and what hangs together is a cluster. The rule is ours.

    Parameters
    ----------
    candidates : bool Tensor of shape (n, C)
        Rows of all classes are left out.
    proba : Tensor of shape (n, C)

    Returns
    -------
    int Tensor of shape (C,)
        Number of each class's cluster.
    """
    labelled = ~candidates.all(1)
    shares = candidates[labelled] / candidates[labelled].sum(1, keepdim=True)
    confusion = shares.T @ proba[labelled] / shares.sum(0).clamp(min=EPS)[:, None]
    confusion = (confusion + confusion.T).fill_diagonal_(0)
    nearest = confusion.argmax(1)
    graph = torch.zeros_like(confusion, dtype=torch.bool)
    graph[torch.arange(len(graph), device=graph.device), nearest] = confusion.amax(1) > 0
    _, cluster = connected_components(graph.cpu().numpy(), directed=False)
    return torch.from_numpy(cluster.astype(np.int64)).to(proba.device)


def update_candidates(candidates, proba, mean_proba, cluster, confidence, floor):
    """Expand and shrink candidate sets, after the expansion and shrinkage of soft labels in SoC.

    SoC is of Duan et al. (AAAI 2024); the rule is ours. A row predicted with confidence gains the
    classes of the predicted class's cluster. Then every row loses the classes whose mean
    probability is below a floor, but for the most probable one of its set.

    Parameters
    ----------
    candidates : bool Tensor of shape (n, C)
    proba, mean_proba : Tensor of shape (n, C)
        Predictions of now, and their average over time.
    cluster : int Tensor of shape (C,)
        See `class_clusters`.
    confidence : float
        Probability from which a prediction is confident.
    floor : float

    Returns
    -------
    bool Tensor of shape (n, C)
        At least one candidate in each row.
    """
    top, label = proba.max(1)
    near = cluster == cluster[label][:, None]
    expanded = candidates | (near & (top >= confidence)[:, None])
    best = mean_proba.masked_fill(~expanded, -1).argmax(1, keepdim=True)
    return (expanded & (mean_proba >= floor)).scatter(1, best, True)


def doubly_robust_correction(logits, label, pseudo_label):
    """Mean cross-entropy to true labels less that to pseudo-labels, Zhu et al. (NeurIPS 2023).

    It is added to the loss to the pseudo-labels of all rows, with a weight that grows to 1.

    Parameters
    ----------
    logits, label, pseudo_label : Tensor of shape (n, C)
        Rows whose label is known, and their distributions.

    Returns
    -------
    Tensor of shape ()
    """
    return ((pseudo_label - label) * logits.log_softmax(1)).sum(1).mean()


def blend_by_popularity(linear, semantic, popularity, amount):
    """Blend predictions of a linear and a prototype classifier: DASO, Oh et al. (CVPR 2022).

    Parameters
    ----------
    linear, semantic : Tensor of shape (n, C)
    popularity : Tensor of shape (C,)
        Share of the rows that are predicted as each class.
    amount : float
        Largest share of the prototype classifier, ours; it is 1 in DASO.

    Returns
    -------
    Tensor of shape (n, C)
        ``(1 - v) linear + v semantic``, where v is the amount times the popularity of the class
        that is predicted linearly, over the largest popularity.
    """
    share = amount * popularity / popularity.max()
    share = share[linear.argmax(1)][:, None]
    return (1 - share) * linear + share * semantic


def balanced_labels(proba, prior):
    """Label each row by the class that exceeds its threshold most, so that classes have shares.

    Burns et al. (2023) set one threshold so that half the rows of two classes lie above it. For
    more classes the rule is ours: an optimal transport by Sinkhorn's iteration, in which the
    threshold of each class divides its probabilities.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    prior : Tensor of shape (C,) or None
        Shares of the classes. None takes the most probable class.

    Returns
    -------
    int Tensor of shape (n,)
    """
    if prior is None:
        return proba.argmax(1)
    # no coarser bound, as rows that lie on it could not be told apart
    log_proba = proba.clamp(min=torch.finfo(proba.dtype).tiny).log()
    prior = (prior / prior.sum()).clamp(min=EPS)
    log_threshold = torch.zeros_like(prior)
    for temperature in TRANSPORT_TEMPERATURES:
        for _ in range(TRANSPORT_ROUNDS):
            shares = ((log_proba - log_threshold) / temperature).softmax(1).mean(0)
            log_threshold += temperature * (shares.clamp(min=EPS) / prior).log()
    return (log_proba - log_threshold).argmax(1)


def confident_target(target, label, weight):
    """Targets mixed with hardened predictions: the loss of Burns et al. (2023) in one target.

    Cross-entropy is linear in the target, so this is ``(1 - a) CE(f, target) + a CE(f, label)``.

    Parameters
    ----------
    target : Tensor of shape (n, C)
    label : int Tensor of shape (n,)
    weight : float or Tensor of shape (n, 1)
        a.

    Returns
    -------
    Tensor of shape (n, C)
    """
    hard = torch.nn.functional.one_hot(label, target.shape[1]).to(target.dtype)
    return (1 - weight) * target + weight * hard

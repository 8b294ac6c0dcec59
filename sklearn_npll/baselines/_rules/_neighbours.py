"""Rules that compare embeddings: votes of neighbours, prototypes and contrast."""

import torch
import torch.nn.functional as F

from ._parts import top_share


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
    return top_share(vote, label, share)


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
    return top_share(similarity, label, share)


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

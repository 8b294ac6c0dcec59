"""Neighbours in the space of a network, as evidence on the labels of a row."""

from numbers import Integral

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from sklearn.base import clone
from sklearn.neighbors import KNeighborsTransformer


def neighbour_graph(embeddings, neighbors):
    """Weigh the nearest other rows of each row equally.

    Parameters
    ----------
    embeddings : ndarray of shape (n, d)
    neighbors : int or estimator
        How many by the Euclidean distance, at most n - 1; or a transformer with scikit-learn's
        interface of neighbours, whose ``fit_transform`` returns a sparse graph (n, n).

    Returns
    -------
    csr_array of float32 of shape (n, n)
        Rows of sum 1, or empty ones of rows without a neighbour.
    """
    n = len(embeddings)
    if isinstance(neighbors, Integral):
        neighbors = KNeighborsTransformer(n_neighbors=min(neighbors, n - 1))
    graph = coo_array(clone(neighbors).fit_transform(embeddings))
    if graph.shape != (n, n):
        raise ValueError(
            f"neighbors={neighbors!r} must return a graph of shape {(n, n)}, not {graph.shape}"
        )
    # whatever it weighs an edge by, also a distance of 0, counts the same
    rows, columns = (index[graph.row != graph.col] for index in (graph.row, graph.col))
    weights = 1 / np.bincount(rows, minlength=n)[rows]
    return csr_array((weights.astype(np.float32), (rows, columns)), shape=(n, n))


def smooth(proba, graph, weight):
    """Mix each row's prediction with the mean of its neighbours' predictions.

    Parameters
    ----------
    proba : Tensor of shape (n, C)
    graph : csr_array of shape (n, n)
        See `neighbour_graph`. A row without neighbours keeps its prediction.
    weight : float in [0, 1]
        Share of the neighbours.

    Returns
    -------
    Tensor of shape (n, C)
    """
    mean = torch.from_numpy(graph @ proba.cpu().numpy()).to(proba.device)
    alone = torch.from_numpy(np.diff(graph.indptr) == 0).to(proba.device)
    return torch.where(alone[:, None], proba, (1 - weight) * proba + weight * mean)

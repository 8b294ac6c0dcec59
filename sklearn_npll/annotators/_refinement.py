"""Transductive refinement: zero-shot scores of many images improved by looking at all of them."""

from functools import wraps

import numpy as np
from scipy import sparse as sp
from scipy.sparse.linalg import cg
from scipy.special import log_softmax, softmax
from sklearn.neighbors import NearestNeighbors

_TEMPERATURE = 0.01  # of CLIP's softmax
_TINY = 1e-12  # what is added before a logarithm or a division


def _of_seen_rows(method):
    """Let a method see checked input, and only the images that have an embedding."""

    @wraps(method)
    def refine(image_embeddings, text_embeddings, scores=None, **options):
        images = _unit(image_embeddings, "image_embeddings")
        text = _unit(text_embeddings, "text_embeddings")
        if images.shape[1] != text.shape[1]:
            raise ValueError(
                f"image_embeddings have {images.shape[1]} dimensions, but text_embeddings"
                f" {text.shape[1]}; both must come from the same model."
            )
        shape = len(images), len(text)
        if scores is None:
            scores = softmax(images @ text.T / _TEMPERATURE, axis=1)
        scores = np.array(scores, dtype=np.float64)
        if scores.shape != shape:
            raise ValueError(f"scores have shape {scores.shape}; expected {shape}.")
        seen = images.any(axis=1)
        scores[~seen] = 1 / len(text)
        if seen.any():
            scores[seen] = method(images[seen], text, scores[seen], **options)
        return scores

    return refine


@_of_seen_rows
def zlap(
    image_embeddings,
    text_embeddings,
    scores=None,
    *,
    n_neighbors=5,
    gamma=5.0,
    alpha=0.3,
    max_iter=50,
    tol=1e-6,
):
    links = text_links(image_embeddings, text_embeddings, n_neighbors, gamma)
    graph = neighbour_graph(image_embeddings, n_neighbors)
    return propagate(graph, links, alpha, max_iter, tol)


def neighbour_graph(embeddings, n_neighbors):
    n = len(embeddings)
    n_neighbors = min(n_neighbors, n - 1)
    if n_neighbors == 0:
        return sp.csr_array((n, n))
    # Between vectors of length one, the order of distances is that of cosines.
    neighbours = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(embeddings)
    distances, columns = neighbours.kneighbors()
    cosines = np.clip(1 - distances**2 / 2, 0, 1)
    return sp.csr_array(
        (cosines.ravel(), columns.ravel(), np.arange(0, n * n_neighbors + 1, n_neighbors)),
        shape=(n, n),
    )


def text_links(images, text, n_neighbors, gamma):
    links = np.clip(images @ text.T, 0, None).astype(np.float64) ** gamma
    if n_neighbors < links.shape[1]:
        order = np.argsort(-links, axis=1, kind="stable")
        np.put_along_axis(links, order[:, n_neighbors:], 0, axis=1)
    return sp.csr_array(links)


def propagate(graph, links, alpha, max_iter, tol):
    n, n_classes = links.shape
    W = sp.block_array([[None, links.T], [links, graph + graph.T]], format="csr")
    degrees = W.sum(axis=0)
    scale = sp.diags_array(1 / np.sqrt(np.where(degrees > 0, degrees, 1)))
    system = sp.eye_array(n + n_classes) - alpha * (scale @ W @ scale)
    reached = np.empty((n, n_classes))
    for c in range(n_classes):
        start = np.zeros(n + n_classes)
        start[c] = 1
        reached[:, c] = cg(system.tocsr(), start, maxiter=max_iter, rtol=tol)[0][n_classes:]
    return _shares(reached)


def _shares(values):
    values = np.clip(values, 0, None) + _TINY
    return values / values.sum(axis=1, keepdims=True)


@_of_seen_rows
def transclip(
    image_embeddings,
    text_embeddings,
    scores=None,
    *,
    n_neighbors=3,
    n_confident=8,
    prior_weight=1.0,
    temperature=50.0,
    max_iter=10,
    n_inner=5,
    trace=None,
):
    W = neighbour_graph(image_embeddings, n_neighbors)
    W = (W + W.T) / (2 * n_neighbors)
    images = image_embeddings.astype(np.float64)
    log_prior = prior_weight * np.log(scores + _TINY)
    means = confident_means(images, scores, n_confident)
    variances = np.full(images.shape[1], 1 / images.shape[1])
    Z = scores
    for _ in range(max_iter):
        fixed = log_prior + log_likelihood(images, means, variances) / temperature
        for _ in range(n_inner):
            Z = softmax(fixed + W @ Z, axis=1)
            if trace is not None: trace.append((Z, means, variances))
        means, variances = gaussians(images, Z, means)
        if trace is not None: trace.append((Z, means, variances))
    return Z


def confident_means(images, scores, n_confident):
    top = np.argsort(-scores, axis=0, kind="stable")[:n_confident]
    return images[top].mean(axis=0)


def log_likelihood(images, means, variances):
    squares = (images**2 / variances).sum(axis=1)[:, None] - 2 * images @ (means / variances).T
    squares += (means**2 / variances).sum(axis=1)
    return -(squares + np.log(variances).sum()) / 2


def gaussians(images, Z, means):
    sizes = Z.sum(axis=0)[:, None]
    means = np.where(sizes > 1e-6, Z.T @ images / np.maximum(sizes, 1e-6), means)
    var = (images**2).sum(axis=0) - 2 * ((Z.T @ images) * means).sum(axis=0) + (sizes * means**2).sum(axis=0)
    return means, np.maximum(var / len(images), 1e-8)


@_of_seen_rows
def inmap(
    image_embeddings,
    text_embeddings,
    scores=None,
    *,
    temperature=0.04,
    threshold=0.6,
    n_sinkhorn=0,
    learning_rate=10.0,
    max_iter=2000,
    tol=1e-6,
):
    targets = harden(sinkhorn(scores, n_sinkhorn), threshold).astype(image_embeddings.dtype)
    proxies, last = text_embeddings, np.inf
    step = learning_rate / (len(image_embeddings) * temperature)
    for it in range(max_iter):
        proba = softmax(image_embeddings @ proxies.T / temperature, axis=1)
        gradient = (proba - targets).T @ image_embeddings
        norm = np.linalg.norm(gradient)
        if norm > last:
            step /= 2
        last = norm
        new = _normalise(proxies - step * gradient)
        moved = np.abs(new - proxies).max()
        proxies = new
        if moved < tol:
            break
    return softmax(image_embeddings.astype(float) @ proxies.T / temperature, axis=1)


def sinkhorn(proba, n_iter):
    n, n_classes = proba.shape
    for _ in range(n_iter):
        proba = proba / proba.sum(axis=0) * (n / n_classes)
        proba = proba / proba.sum(axis=1, keepdims=True)
    return proba


def harden(proba, threshold):
    sure = proba.max(axis=1, keepdims=True) > threshold
    return np.where(sure, np.eye(proba.shape[1])[proba.argmax(axis=1)], proba)


def _normalise(vectors):
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def _unit(embeddings, name):
    embeddings = np.asarray(embeddings)
    return _normalise(embeddings.astype(np.float32))

"""Transductive refinement: zero-shot probabilities improved by the embeddings of all images.

A method takes image embeddings (n_samples, n_dimensions) and class embeddings (n_classes,
n_dimensions), all of length one, and zero-shot probabilities (n_samples, n_classes), and returns
better ones. Its hyper-parameters are keywords with the defaults of its authors. One that needs the
nearest neighbours of the images takes their graph too, so that one graph serves all templates.
"""

import inspect
from numbers import Integral, Real

import numpy as np
from scipy import sparse as sp
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors

from .._compat import Interval, validate_parameter_constraints
from .._messages import did_you_mean
from ._encoding import template_probabilities

_TINY = 1e-12  # keeps logarithms finite, and an image that nothing reaches uniform
_SMALLEST_VARIANCE = 1e-8  # of images that are all equal


def refined_probabilities(embeddings, text, logit_scale, method, params=None):
    """Yield the refined zero-shot probabilities of one template after the other.

    Parameters
    ----------
    embeddings : ndarray of float32 of shape (n_samples, n_dimensions)
        Normalised image embeddings; a row of zeros stands for an image that could not be read.
    text : ndarray of float32 of shape (n_templates, n_classes, n_dimensions)
        Normalised class embeddings.
    logit_scale : float
        Factor of the cosines.
    method : {"zlap", "transclip", "inmap"}
        The method.
    params : dict, default=None
        Its hyper-parameters, where they are not to be the defaults.

    Yields
    ------
    ndarray of float32 of shape (n_samples, n_classes)
        Rows of sum 1. An image that could not be read stays uniform, and has no influence.
    """
    refine, params = REFINEMENTS[method], params or {}
    seen = embeddings.any(axis=1)
    images = embeddings[seen]
    arguments = inspect.signature(refine).parameters
    if "graph" in arguments and len(images):
        n_neighbors = params.get("n_neighbors", arguments["n_neighbors"].default)
        params = {**params, "graph": neighbour_graph(images, n_neighbors)}
    for prompts in text:
        proba = template_probabilities(embeddings, prompts[None], logit_scale)[:, 0]
        if len(images):
            proba[seen] = refine(images, prompts, proba[seen], **params)
        yield proba


def refine_and_average(embeddings, text, logit_scale, weights=None, *, method, params=None):
    """Do what `vote_and_average` does, with refined probabilities.

    Returns
    -------
    votes : ndarray of int of shape (n_samples, n_templates)
        The most probable class by each template; -1 for an image that could not be read.
    scores : ndarray of float64 of shape (n_samples, n_classes)
        The weighted mean probabilities over templates.
    """
    n_templates, n_classes, _ = text.shape
    weights = np.full(n_templates, 1 / n_templates) if weights is None else weights
    votes = np.empty((len(embeddings), n_templates), dtype=np.min_scalar_type(-n_classes))
    scores = np.zeros((len(embeddings), n_classes))
    refined = refined_probabilities(embeddings, text, logit_scale, method, params)
    for template, proba in enumerate(refined):
        votes[:, template] = proba.argmax(axis=1)
        scores += weights[template] * proba
    votes[~embeddings.any(axis=1)] = -1
    return votes, scores


def check_refinement(method, params):
    """Raise a ValueError if a method cannot use the hyper-parameters given for it.

    Parameters
    ----------
    method : {"zlap", "transclip", "inmap"} or None
        The method.
    params : dict or None
        Its hyper-parameters.

    Examples
    --------
    >>> check_refinement("zlap", {"alpha": 0.5})
    >>> check_refinement("zlap", {"aplha": 0.5})
    Traceback (most recent call last):
    ...
    ValueError: refine_params has 'aplha', which is no parameter of zlap. Did you mean 'alpha'?
    """
    if method is None:
        if params:
            raise ValueError(f"refine_params={params!r} needs a method, but refine is None.")
        return
    if method not in REFINEMENTS:
        hint, known = did_you_mean(method, REFINEMENTS), ", ".join(map(repr, REFINEMENTS))
        raise ValueError(f"Unknown refine={method!r}.{hint} The methods are {known}, or None.")
    constraints = _CONSTRAINTS[method]
    for name in params or ():
        if name not in constraints:
            known = ", ".join(map(repr, constraints))
            hint = did_you_mean(name, constraints) or f" They are {known}."
            raise ValueError(
                f"refine_params has {name!r}, which is no parameter of {method}.{hint}"
            )
    validate_parameter_constraints(constraints, params or {}, caller_name=method)


def neighbour_graph(images, n_neighbors):
    """Link each image to its nearest neighbours, by the cosine.

    Parameters
    ----------
    images : ndarray of shape (n_samples, n_dimensions)
        Normalised embeddings.
    n_neighbors : int
        Number of neighbours; all others if there are fewer.

    Returns
    -------
    csr_array of shape (n_samples, n_samples)
        Cosines, 0 where they are negative, with the neighbours of an image in its row. No image
        is its own neighbour, but equal ones are each other's.

    Examples
    --------
    >>> import numpy as np
    >>> neighbour_graph(np.array([[1, 0], [0.8, 0.6], [0, 1]]), 1).toarray().round(2)
    array([[0. , 0.8, 0. ],
           [0.8, 0. , 0. ],
           [0. , 0.6, 0. ]])
    """
    n = len(images)
    k = min(n_neighbors, n - 1)
    if k == 0:
        return sp.csr_array((n, n))
    # Of vectors of length one the nearest have the largest cosine, and this search needs no block
    # of all distances.
    distances, columns = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(images).kneighbors()
    cosines = np.clip(1 - distances**2 / 2, 0, None)
    return sp.csr_array((cosines.ravel(), columns.ravel(), np.arange(n + 1) * k), shape=(n, n))


# -- ZLaP --------------------------------------------------------------------------------------


def zlap(
    images,
    text,
    proba=None,
    *,
    n_neighbors=5,
    gamma=5.0,
    alpha=0.3,
    max_iter=50,
    tol=1e-6,
    graph=None,
):
    """Label propagation from classes to images over a graph of both, ZLaP [1]_.

    Parameters
    ----------
    images : ndarray of shape (n_samples, n_dimensions)
    text : ndarray of shape (n_classes, n_dimensions)
    proba : Ignored
        Not used, present so that all methods are called alike.
    n_neighbors : int, default=5
        Other images, and classes, that an image is linked to. The authors' five neighbours count
        the image itself as one.
    gamma : float, default=5
        Power of the cosines of images and classes, which vary less than those of images.
    alpha : float in (0, 1), default=0.3
        Weight of the neighbours.
    max_iter : int, default=50
        Most steps of the conjugate gradients.
    tol : float, default=1e-6
        Residual at which they stop.
    graph : csr_array of shape (n_samples, n_samples), default=None
        The `neighbour_graph`, if it is known.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        What reaches an image from each class, as shares.

    References
    ----------
    .. [1] V. Stojnić, Y. Kalantidis, G. Tolias, "Label Propagation for Zero-shot Classification
       with Vision-Language Models", CVPR 2024, arXiv:2404.04072.
    """
    graph = neighbour_graph(images, n_neighbors) if graph is None else graph
    system = propagation_system(graph, text_links(images, text, n_neighbors, gamma), alpha)
    classes = np.eye(len(text) + len(images), len(text))
    reached = conjugate_gradients(system, classes, max_iter, tol)[len(text) :]
    reached = np.clip(reached, 0, None) + _TINY
    return reached / reached.sum(axis=1, keepdims=True)


def text_links(images, text, n_neighbors, gamma):
    """Link each image to its nearest classes, by a power of the cosine; 0 if it is negative."""
    links = np.clip(images @ text.T, 0, None).astype(np.float64) ** gamma
    far = np.argsort(-links, axis=1, kind="stable")[:, n_neighbors:]
    np.put_along_axis(links, far, 0, axis=1)
    return sp.csr_array(links)


def propagation_system(graph, links, alpha):
    """Matrix ``I - alpha D^-1/2 W D^-1/2`` of a graph whose first nodes are the classes."""
    W = sp.bmat([[None, links.T], [links, graph + graph.T]], format="csr")
    degrees = np.asarray(W.sum(axis=0)).ravel()
    scale = sp.diags(1 / np.sqrt(np.where(degrees > 0, degrees, 1)))
    return (sp.identity(len(degrees)) - alpha * (scale @ W @ scale)).tocsr()


def conjugate_gradients(A, B, max_iter, tol):
    """Solve ``A X = B`` for a symmetric positive definite A, all columns of B at once.

    Examples
    --------
    >>> import numpy as np
    >>> conjugate_gradients(np.array([[2, 1], [1, 2]]), np.eye(2) * 3, 10, 1e-9).round(6)
    array([[ 2., -1.],
           [-1.,  2.]])
    """
    X, residual = np.zeros_like(B), B
    direction, size = B, (B**2).sum(axis=0)
    goal = tol**2 * size
    for _ in range(max_iter):
        if (size <= goal).all():
            break
        image = A @ direction
        step = _ratio(size, (direction * image).sum(axis=0))
        X = X + step * direction
        residual = residual - step * image
        last, size = size, (residual**2).sum(axis=0)
        direction = residual + _ratio(size, last) * direction
    return X


def _ratio(numerator, denominator):
    """Quotient that is 0 where a column is solved exactly."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


# -- TransCLIP ---------------------------------------------------------------------------------


def transclip(
    images,
    text,
    proba,
    *,
    n_neighbors=3,
    n_confident=8,
    prior_weight=1.0,
    temperature=50.0,
    max_iter=10,
    n_inner=5,
    graph=None,
):
    """Expectation maximisation of Gaussians, near the zero-shot ones and smooth, TransCLIP [1]_.

    Each class is a Gaussian of the image embeddings, all with the same diagonal covariance. The
    probabilities, means and variances in turn maximise the sum of likelihood, agreement of
    neighbours, closeness to the prior, and entropy.

    Parameters
    ----------
    images : ndarray of shape (n_samples, n_dimensions)
    text : Ignored
        Not used, present so that all methods are called alike.
    proba : ndarray of shape (n_samples, n_classes)
    n_neighbors : int, default=3
        Neighbours that an image should agree with.
    n_confident : int, default=8
        Number of most probable images of a class whose mean its Gaussian starts from.
    prior_weight : float, default=1
        Weight of the zero-shot probabilities.
    temperature : float, default=50
        What the log-likelihoods are divided by.
    max_iter : int, default=10
        Updates of the Gaussians.
    n_inner : int, default=5
        Updates of the probabilities before each of these.
    graph : csr_array of shape (n_samples, n_samples), default=None
        The `neighbour_graph`, if it is known.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Probabilities.

    References
    ----------
    .. [1] M. Zanella, B. Gérin, I. Ben Ayed, "Boosting Vision-Language Models with Transduction",
       NeurIPS 2024, arXiv:2406.01837.
    """
    graph = neighbour_graph(images, n_neighbors) if graph is None else graph
    affinity = mutual_affinity(graph, n_neighbors)
    images = images.astype(np.float64)
    prior = prior_weight * np.log(proba.astype(np.float64) + _TINY)
    means = confident_means(images, proba, n_confident)
    variances = np.full(images.shape[1], 1 / images.shape[1])
    Z = proba
    for _ in range(max_iter):
        evidence = prior + log_likelihood(images, means, variances) / temperature
        for _ in range(n_inner):
            Z = softmax(evidence + affinity @ Z, axis=1)
        means, variances = gaussians(images, Z, means)
    return Z


def mutual_affinity(graph, n_neighbors):
    """Symmetric affinity of the images, whose rows sum to about one."""
    return (graph + graph.T) / (2 * n_neighbors)


def confident_means(images, proba, n_confident):
    """Mean of the images that are the most probable for each class, (n_classes, n_dimensions)."""
    best = np.argsort(-proba, axis=0, kind="stable")[:n_confident]
    return images[best].mean(axis=0)


def log_likelihood(images, means, variances):
    """Log-densities (n_samples, n_classes) of Gaussians of one covariance, but for a constant."""
    squares = (images**2 @ (1 / variances))[:, None] - 2 * images @ (means / variances).T
    squares += (means**2 / variances).sum(axis=1)
    return -(squares + np.log(variances).sum()) / 2


def gaussians(images, Z, means):
    """Means and variances that maximise the likelihood; a class without images keeps its mean."""
    sizes = Z.sum(axis=0)[:, None]
    sums = Z.T @ images
    means = np.where(sizes > _TINY, sums / np.maximum(sizes, _TINY), means)
    squares = images**2
    variances = squares.sum(axis=0) + (sizes * means**2 - 2 * sums * means).sum(axis=0)
    return means, np.maximum(variances / len(images), _SMALLEST_VARIANCE)


# -- InMaP -------------------------------------------------------------------------------------


def inmap(
    images,
    text,
    proba,
    *,
    temperature=0.04,
    threshold=0.6,
    n_sinkhorn=0,
    learning_rate=10.0,
    max_iter=2000,
    tol=1e-5,
):
    """Learn a proxy of each class among the images from zero-shot pseudo-labels, InMaP [1]_.

    Parameters
    ----------
    images : ndarray of shape (n_samples, n_dimensions)
    text : ndarray of shape (n_classes, n_dimensions)
        Where the proxies start.
    proba : ndarray of shape (n_samples, n_classes)
    temperature : float, default=0.04
        What cosines of images and proxies are divided by.
    threshold : float, default=0.6
        Probability above which a pseudo-label is made hard.
    n_sinkhorn : int, default=0
        Steps that make the classes equally frequent in the pseudo-labels. The authors take 20; but
        not all data are so.
    learning_rate : float, default=10
        Step of the gradient descent, halved whenever the gradient grows.
    max_iter : int, default=2000
        Most steps.
    tol : float, default=1e-5
        Largest change of a coordinate of a proxy at which to stop.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Probabilities by the proxies.

    References
    ----------
    .. [1] Q. Qian, Y. Xu, J. Hu, "Intra-Modal Proxy Learning for Zero-Shot Visual Categorization
       with CLIP", NeurIPS 2023, arXiv:2310.19752.
    """
    targets = harden(sinkhorn(proba, n_sinkhorn), threshold)
    proxies, last = text, np.inf
    step = learning_rate / (len(images) * temperature)
    for _ in range(max_iter):
        gradient = (softmax(images @ proxies.T / temperature, axis=1) - targets).T @ images
        size = np.linalg.norm(gradient)
        step, last = step / 2 if size > last else step, size
        before, proxies = proxies, proxies - step * gradient
        proxies /= np.maximum(np.linalg.norm(proxies, axis=1, keepdims=True), _TINY)
        if np.abs(proxies - before).max() < tol:
            break
    return softmax(images @ proxies.T / temperature, axis=1)


def sinkhorn(proba, n_iter):
    """Scale columns to equal sums, and rows to sum 1, in turn.

    Examples
    --------
    >>> sinkhorn(np.array([[0.8, 0.2], [0.6, 0.4]]), 1).round(3)
    array([[0.632, 0.368],
           [0.391, 0.609]])
    """
    for _ in range(n_iter):
        proba = proba / (proba.sum(axis=0) + _TINY)
        proba = proba / proba.sum(axis=1, keepdims=True)
    return proba


def harden(proba, threshold):
    """Make rows one-hot whose largest probability exceeds a threshold."""
    sure = proba.max(axis=1, keepdims=True) > threshold
    one_hot = np.eye(proba.shape[1], dtype=proba.dtype)[proba.argmax(axis=1)]
    return np.where(sure, one_hot, proba)


REFINEMENTS = {"zlap": zlap, "transclip": transclip, "inmap": inmap}

_COUNT = [Interval(Integral, 1, None, closed="left")]
_POSITIVE = [Interval(Real, 0, None, closed="neither")]
_NOT_NEGATIVE = [Interval(Real, 0, None, closed="left")]
_CONSTRAINTS = {
    "zlap": {
        "n_neighbors": _COUNT,
        "gamma": _POSITIVE,
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "max_iter": _COUNT,
        "tol": _NOT_NEGATIVE,
    },
    "transclip": {
        "n_neighbors": _COUNT,
        "n_confident": _COUNT,
        "prior_weight": _POSITIVE,
        "temperature": _POSITIVE,
        "max_iter": _COUNT,
        "n_inner": _COUNT,
    },
    "inmap": {
        "temperature": _POSITIVE,
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "n_sinkhorn": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": _POSITIVE,
        "max_iter": _COUNT,
        "tol": _NOT_NEGATIVE,
    },
}

"""Refinement methods against hand-computed values, and at their limits."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from scipy.special import softmax, xlogy
from scipy.stats import multivariate_normal
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_npll.annotators._refinement import (
    REFINEMENTS,
    check_refinement,
    confident_means,
    conjugate_gradients,
    gaussians,
    harden,
    inmap,
    log_likelihood,
    mutual_affinity,
    neighbour_graph,
    propagation_system,
    refine_and_average,
    refined_probabilities,
    sinkhorn,
    text_links,
    transclip,
    zlap,
)

each_method = pytest.mark.parametrize("method", sorted(REFINEMENTS))


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def planted(n=300, n_classes=3, n_dimensions=8, seed=0):
    """Clustered images, and class embeddings that point somewhat beside the clusters."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(n_classes, n_dimensions)))
    y = rng.integers(n_classes, size=n)
    images = unit(centres[y] + 0.15 * rng.normal(size=(n, n_dimensions)))
    text = unit(centres + 0.35 * rng.normal(size=(4, n_classes, n_dimensions)))
    return images.astype(np.float32), text.astype(np.float32), y


def on_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)])


# -- the graph ---------------------------------------------------------------------------------


def test_neighbour_graph_by_hand():
    graph = neighbour_graph(on_circle(0, 60, 90, 180), 2).toarray()
    half, root = 0.5, np.sqrt(0.75)
    # The second neighbour of the last image is at 120 degrees: a negative cosine counts nothing.
    expected = [[0, half, 0, 0], [half, 0, root, 0], [0, root, 0, 0], [0, 0, 0, 0]]
    assert_allclose(graph, expected, atol=1e-7)


def test_neighbour_graph_of_equal_few_and_single_images():
    equal = np.tile([[0.6, 0.8]], (3, 1))
    assert_allclose(neighbour_graph(equal, 5).toarray(), 1 - np.eye(3), atol=1e-7)
    assert neighbour_graph(equal[:1], 5).nnz == 0


# -- ZLaP --------------------------------------------------------------------------------------


def test_text_links_keep_the_nearest_classes():
    images, text = on_circle(0, 100), on_circle(0, 60, -60, 180)
    links = text_links(images, text, 2, 3).toarray()
    # cosines: 1, .5, .5, -1 and cos(100) < 0, cos(40), cos(160) < 0, cos(80)
    near = np.cos(np.deg2rad([40, 80])) ** 3
    assert_allclose(links, [[1, 0.125, 0, 0], [0, near[0], 0, near[1]]], atol=1e-12)


def test_zlap_of_one_image_in_closed_form():
    """An image that is linked to two classes by a and b gets shares like their square roots.

    Its degree is a + b, so the normalised links are sqrt(a / (a + b)) and sqrt(b / (a + b)), and
    solving two equations gives alpha / (1 - alpha^2) times these.
    """
    cosines = np.cos(np.deg2rad([20, 50]))
    proba = zlap(on_circle(0), on_circle(20, 50), gamma=3, alpha=0.4)
    roots = cosines**1.5
    assert_allclose(proba, [roots / roots.sum()], rtol=1e-9)


def test_zlap_solves_the_system():
    images, text, _ = planted(40, 6)
    graph, links = neighbour_graph(images, 4), text_links(images, text[0], 4, 2.0)
    W = np.zeros((46, 46))
    for image in range(40):
        for k in range(40):
            W[6 + image, 6 + k] = graph.toarray()[image, k] + graph.toarray()[k, image]
        for c in range(6):
            W[6 + image, c] = W[c, 6 + image] = links.toarray()[image, c]
    root = np.sqrt(W.sum(axis=1))
    system = np.eye(46) - 0.7 * W / np.outer(root, root)
    assert_allclose(propagation_system(graph, links, 0.7).toarray(), system, atol=1e-9)
    reached = np.linalg.inv(system)[6:, :6]
    expected = reached / reached.sum(axis=1, keepdims=True)
    proba = zlap(images, text[0], n_neighbors=4, gamma=2.0, alpha=0.7, tol=1e-10)
    assert_allclose(proba, expected, rtol=1e-6)


def test_conjugate_gradients():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(20, 20))
    A = A @ A.T + np.eye(20)
    B = rng.normal(size=(20, 3))
    B[:, 1] = 0  # solved from the start
    solution = conjugate_gradients(sp.csr_array(A), B, 100, 1e-12)
    assert_allclose(solution, np.linalg.solve(A, B), atol=1e-8)
    assert np.abs(conjugate_gradients(A, B, 2, 1e-12) - solution).max() > 1e-3
    assert_allclose(conjugate_gradients(np.eye(20), B, 100, 0.0), B)


# -- TransCLIP ---------------------------------------------------------------------------------


def test_confident_means_by_hand():
    images = np.array([[1.0, 0], [0, 1], [3, 0], [5, 5]])
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    assert_array_equal(confident_means(images, proba, 2), [[2, 0], [2.5, 3]])
    assert_array_equal(confident_means(images, proba, 8), [[2.25, 1.5]] * 2)


def test_log_likelihood_is_that_of_gaussians():
    rng = np.random.default_rng(0)
    images, means, variances = rng.normal(size=(5, 3)), rng.normal(size=(2, 3)), [0.1, 2.0, 0.5]
    logs = log_likelihood(images, means, np.array(variances))
    expected = [multivariate_normal(mean, np.diag(variances)).logpdf(images) for mean in means]
    assert_allclose(logs - 1.5 * np.log(2 * np.pi), np.transpose(expected))


def test_gaussians_by_hand():
    images = np.array([[0.0, 1], [2, 1], [5, 1]])
    Z = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]])
    means, variances = gaussians(images, Z, np.full((3, 2), 7.0))
    # sizes 1.5, 1.5 and 0; the third class has no images and stays where it was
    assert_allclose(means, [[2 / 3, 1], [4, 1], [7, 7]])
    # first: 1 * (2/3)^2 + .5 * (4/3)^2 = 4/3; second: .5 * 2^2 + 1 * 1^2 = 3; of 3 images
    assert_allclose(variances, [(4 / 3 + 3) / 3, 1e-8])


def test_transclip_update_by_hand():
    """One image, one step: the prior times the likelihood's root, and no neighbours."""
    image, proba = np.array([[1.0, 0]]), np.array([[0.6, 0.4]])
    # Both Gaussians start at the only image, so that the likelihoods are equal.
    assert_allclose(transclip(image, None, proba, max_iter=1, n_inner=1), proba)
    squared = np.array([[0.36, 0.16]]) / 0.52
    Z = transclip(image, None, proba, max_iter=1, n_inner=1, prior_weight=2)
    assert_allclose(Z, squared)


def transclip_objective(Z, means, variances, images, proba, affinity):
    """Likelihood, agreement of neighbours, closeness to the prior, and entropy."""
    gain = log_likelihood(images, means, variances) / 50 + (affinity @ Z) / 2
    gain += np.log(proba + 1e-12)
    return float((Z * gain).sum() - xlogy(Z, Z).sum())


def test_transclip_climbs_its_objective():
    images, text, _ = planted(120)
    images = images.astype(np.float64)
    proba = softmax(5 * images @ text[0].T, axis=1)
    affinity = mutual_affinity(neighbour_graph(images, 3), 3)
    assert_allclose(affinity.toarray(), affinity.toarray().T)
    Z, means, variances = proba, confident_means(images, proba, 8), np.full(8, 1 / 8)
    values = []

    def climb():
        values.append(transclip_objective(Z, means, variances, images, proba, affinity))

    climb()
    for _ in range(10):
        evidence = np.log(proba + 1e-12) + log_likelihood(images, means, variances) / 50
        for _ in range(5):
            Z = softmax(evidence + affinity @ Z, axis=1)
            climb()
        means, variances = gaussians(images, Z, means)
        climb()
    assert np.diff(values).min() > -1e-9
    assert values[-1] > values[1] + 1
    assert_allclose(transclip(images, None, proba), Z, rtol=1e-10)
    # A step away from the last probabilities is a step down.
    other = softmax(np.log(Z + 1e-12) + 0.1 * np.eye(3)[0], axis=1)
    last = transclip_objective(other, means, variances, images, proba, affinity)
    assert last < values[-1]


# -- InMaP -------------------------------------------------------------------------------------


def test_inmap_step_by_hand():
    """Images and proxies are both axes: p = sigmoid(1), and a step of 1 adds 1 - p and p - 1."""
    axes = np.eye(2)
    p = 1 / (1 + np.exp(-1))
    proxy = unit([1 + (1 - p), -(1 - p)])
    expected = softmax([proxy, proxy[::-1]], axis=1)
    proba = inmap(axes, axes, axes, temperature=1.0, learning_rate=2.0, max_iter=1)
    assert_allclose(proba, expected)


def test_inmap_finds_proxies_that_explain_the_pseudo_labels():
    images, text, y = planted(200)
    zero_shot = softmax(10 * images @ text[1].T, axis=1)
    targets = harden(zero_shot, 0.6)

    def cross_entropy(max_iter):
        proba = inmap(images, text[1], zero_shot, temperature=0.1, max_iter=max_iter)
        return -(targets * np.log(proba)).sum()

    losses = [cross_entropy(n) for n in (1, 10, 100, 1000)]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert_array_equal(
        inmap(images, text[1], zero_shot, tol=10.0), inmap(images, text[1], zero_shot, max_iter=1)
    )


def test_sinkhorn_makes_classes_equally_frequent():
    proba = softmax(np.random.default_rng(0).normal(size=(50, 3)) + [2, 0, 0], axis=1)
    balanced = sinkhorn(proba, 50)
    assert_allclose(balanced.sum(axis=0), [50 / 3] * 3, rtol=1e-6)
    assert_allclose(balanced.sum(axis=1), 1)
    assert sinkhorn(proba, 0) is proba
    nobody = np.array([[1.0, 0], [1, 0]])
    assert_array_equal(sinkhorn(nobody, 3), nobody)


def test_harden_is_strict():
    proba = np.array([[0.6, 0.4], [0.39, 0.61], [0.5, 0.5]])
    assert_array_equal(harden(proba, 0.6), [[0.6, 0.4], [0, 1], [0.5, 0.5]])


# -- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params"), [("zlap", {}), ("transclip", {}), ("inmap", {"n_sinkhorn": 20})]
)
def test_refinement_helps_where_images_form_clusters(method, params):
    images, text, y = planted(n_classes=5, seed=1)
    zero_shot = softmax(20 * images @ text[1].T, axis=1)
    before = np.mean(zero_shot.argmax(axis=1) == y)
    refined = REFINEMENTS[method](images, text[1], zero_shot, **params)
    assert np.mean(refined.argmax(axis=1) == y) > before + 0.02
    assert_allclose(refined.sum(axis=1), 1, rtol=1e-5)


@each_method
def test_graph_is_made_once_and_changes_nothing(method, monkeypatch):
    images, text, _ = planted(50)
    calls = []
    make = neighbour_graph
    monkeypatch.setattr(
        "sklearn_npll.annotators._refinement.neighbour_graph",
        lambda *args: calls.append(args) or make(*args),
    )
    params = {} if method == "inmap" else {"n_neighbors": 7}
    refined = list(refined_probabilities(images, text, 20.0, method, params))
    assert len(refined) == 4 and len(calls) == (method != "inmap")
    zero_shot = softmax(20 * images @ text[2].T, axis=1)
    alone = REFINEMENTS[method](images, text[2], zero_shot, **params)
    assert_allclose(refined[2], alone, atol=1e-5)
    assert refined[2].dtype == np.float32
    if params:
        assert calls[0][1] == 7


@each_method
def test_unreadable_images_stay_uniform_and_have_no_influence(method):
    images, text, _ = planted(30)
    with_gaps = np.zeros((33, 8), dtype=np.float32)
    kept = np.delete(np.arange(33), [0, 5, 32])
    with_gaps[kept] = images
    votes, scores = refine_and_average(images, text, 20.0, method=method)
    gap_votes, gap_scores = refine_and_average(with_gaps, text, 20.0, method=method)
    assert_allclose(gap_scores[kept], scores, atol=1e-5)
    assert_array_equal(gap_votes[kept], votes)
    assert_array_equal(gap_votes[[0, 5, 32]], -1)
    assert_allclose(gap_scores[[0, 5, 32]], 1 / 3, rtol=1e-6)
    nothing = refine_and_average(np.zeros_like(images), text, 20.0, method=method)
    assert_allclose(nothing[1], 1 / 3, rtol=1e-6)


@each_method
@pytest.mark.parametrize("n", [1, 2, 4, "equal"])
def test_few_and_equal_images(method, n):
    images, text, _ = planted(4)
    images = np.tile(images[:1], (20, 1)) if n == "equal" else images[:n]
    votes, scores = refine_and_average(images, text, 20.0, method=method)
    assert np.isfinite(scores).all() and (scores >= 0).all()
    assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    if n == "equal":
        assert (votes == votes[0]).all()
        # Which of the equal images are neighbours is arbitrary.
        assert_allclose(scores, scores[:1].repeat(20, axis=0), atol=1e-3)


@each_method
def test_same_result_again_and_nothing_else_changed(method):
    images, text, _ = planted(60)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    before = images.copy(), text.copy()
    first = refine_and_average(images, text, 20.0, method=method)
    second = refine_and_average(images, text, 20.0, method=method)
    assert_array_equal(first[1], second[1])
    assert_array_equal(images, before[0])
    assert_array_equal(text, before[1])
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_weights_of_the_mean():
    images, text, _ = planted(40)
    weights = np.array([0.5, 0, 0.25, 0.25])
    each = np.stack(list(refined_probabilities(images, text, 20.0, "zlap")))
    votes, scores = refine_and_average(images, text, 20.0, weights, method="zlap")
    assert_allclose(scores, np.tensordot(weights, each, axes=1), rtol=1e-6)
    assert_array_equal(votes, each.argmax(axis=2).T)
    equal = refine_and_average(images, text, 20.0, method="zlap")[1]
    assert_allclose(equal, each.mean(axis=0), rtol=1e-6)


@each_method
def test_no_array_of_all_pairs_of_images(method):
    images, text, _ = planted(4000)
    params = {"max_iter": 5}
    tracemalloc.start()
    refine_and_average(images, text[:1], 20.0, method=method, params=params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000**2  # bytes: a quarter of such an array of float32


def test_check_refinement_names_what_is_wrong():
    check_refinement(None, None)
    check_refinement("inmap", {"n_sinkhorn": 20, "max_iter": np.int64(5)})
    with pytest.raises(ValueError, match="needs a method, but refine is None"):
        check_refinement(None, {"alpha": 0.5})
    with pytest.raises(ValueError, match="'gama'.* of zlap. Did you mean 'gamma'"):
        check_refinement("zlap", {"gama": 3})
    with pytest.raises(ValueError, match="'graph'.* of transclip. They are 'n_neighbors', "):
        check_refinement("transclip", {"graph": None})
    for method, params in (
        ("zlap", {"alpha": 1.0}),
        ("zlap", {"n_neighbors": 0}),
        ("transclip", {"temperature": 0}),
        ("inmap", {"threshold": 1.5}),
    ):
        with pytest.raises(InvalidParameterError, match=f"'{next(iter(params))}' parameter of"):
            check_refinement(method, params)

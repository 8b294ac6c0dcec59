"""Neighbours as evidence: the graph and the mean by hand, and what they do to a training."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import make_blobs
from sklearn.neighbors import KNeighborsTransformer

from sklearn_npll import CoRegClassifier
from sklearn_npll.coreg._neighbours import neighbour_graph, smooth

LINE = np.array([[0.0], [1.0], [3.0], [3.5]])
close = torch.testing.assert_close


@pytest.mark.parametrize("neighbors", [1, KNeighborsTransformer(n_neighbors=1)])
def test_graph_by_hand(neighbors):
    graph = neighbour_graph(LINE, neighbors)
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    np.testing.assert_array_equal(graph.toarray(), expected)


def test_every_neighbour_counts_the_same_and_no_row_is_its_own():
    twins = np.array([[0.0], [0.0], [0.0], [5.0]])
    graph = neighbour_graph(twins, KNeighborsTransformer(n_neighbors=3))
    np.testing.assert_allclose(graph.toarray(), (1 - np.eye(4)) / 3)
    np.testing.assert_allclose(neighbour_graph(twins, 99).toarray(), (1 - np.eye(4)) / 3)


def test_smooth_by_hand():
    proba = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    graph = csr_array([[0, 0.5, 0.5, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], dtype="float32")
    mixed = smooth(proba, graph, 0.5)
    # (0.8 + 0.45) / 2, (0.4 + 0.8) / 2, alone, (0.1 + 0.5) / 2
    close(mixed[:, 0], torch.tensor([0.625, 0.6, 0.5, 0.3]))
    close(mixed.sum(1), torch.ones(4))
    close(smooth(proba, graph, 1.0)[:, 0], torch.tensor([0.45, 0.8, 0.5, 0.5]))


class Wrong(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return csr_array((len(X), 3))


def noisy_blobs():
    X, y = make_blobs(300, centers=3, cluster_std=0.5, random_state=0)
    candidates = np.eye(3, dtype=int)[y]
    wrong = np.random.default_rng(0).choice(300, 90, replace=False)
    candidates[wrong] = np.roll(candidates[wrong], 1, axis=1)
    return X, y, candidates


def fit(X, candidates, **params):
    params = {"max_epochs": 12, "warm_up": 8, "lr": 0.05, "batch_size": 16, **params}
    return CoRegClassifier(random_state=0, **params).fit(X, candidates)


def test_purified_labels_are_those_of_the_neighbours():
    X, y, candidates = noisy_blobs()
    # with an average one network alone divides, so that its clean probabilities are known
    clf = fit(X, candidates, neighbor_weight=0.7, neighbors=5, prior=None, co_labelling="average")
    network, w = clf.net_.networks_[0].eval(), clf.clean_probability_[:, None]
    with torch.no_grad():
        embedding = network.embed(torch.from_numpy(X).float())
        own = network.classifier(embedding).softmax(1)
    z = torch.nn.functional.normalize(embedding, dim=1)
    nearest = (z @ z.T).fill_diagonal_(-2).topk(5, dim=1).indices
    proba = (0.3 * own + 0.7 * own[nearest].mean(1)).numpy()
    q = proba * candidates / (proba * candidates).sum(1, keepdims=True)
    expected = np.where(w > 0.5, w * q + (1 - w) * proba, proba)
    np.testing.assert_allclose(clf.label_distributions_, expected, atol=1e-5)
    assert 0.3 < np.mean(w > 0.5) < 1
    assert np.mean(clf.transduction_ == y) > 0.7  # as many as are right from the start


def test_a_transformer_of_exact_neighbours_changes_nothing():
    X, _, candidates = noisy_blobs()
    fits = [
        fit(X, candidates, neighbor_weight=0.5, neighbors=neighbors)
        for neighbors in (5, KNeighborsTransformer(n_neighbors=5))
    ]
    np.testing.assert_array_equal(*(clf.predict_proba(X) for clf in fits))
    one = fit(X, candidates, neighbor_weight=0.5, neighbors=1)
    assert not np.array_equal(one.predict_proba(X), fits[0].predict_proba(X))


def test_approximate_neighbours_at_scale():
    pynndescent = pytest.importorskip("pynndescent")
    X, _, candidates = noisy_blobs()
    neighbors = pynndescent.PyNNDescentTransformer(n_neighbors=10, random_state=0)
    exact = fit(X, candidates, neighbor_weight=0.5)
    near = fit(X, candidates, neighbor_weight=0.5, neighbors=neighbors)
    assert np.mean(near.predict(X) == exact.predict(X)) > 0.95


def test_a_graph_of_another_shape_is_refused():
    X, _, candidates = noisy_blobs()
    with pytest.raises(ValueError, match=r"must return a graph of shape \(300, 300\)"):
        fit(X, candidates, neighbor_weight=0.5, neighbors=Wrong())

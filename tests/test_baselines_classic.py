"""The classic partial-label learners: their rules by hand, and as estimators."""

import pickle
import warnings
from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse as sp
from scipy.io import loadmat
from scipy.optimize import approx_fprime
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels
from sklearn_npll._distributions import project_simplex, restrict
from sklearn_npll.baselines import (
    CLPLClassifier,
    IPALClassifier,
    PLKNeighborsClassifier,
    PLSVMClassifier,
    SUREClassifier,
    _ipal,
)
from sklearn_npll.baselines._clpl import clpl_objective
from sklearn_npll.baselines._ipal import (
    correct_class_mass,
    explained_by_class,
    ipal_weights,
    propagate,
)
from sklearn_npll.baselines._pl_knn import pl_knn_votes
from sklearn_npll.baselines._pl_svm import pl_svm_margin, pl_svm_step
from sklearn_npll.baselines._sure import sure_assign

ESTIMATORS = [
    PLKNeighborsClassifier(),
    IPALClassifier(),
    CLPLClassifier(),
    PLSVMClassifier(random_state=0),
    SUREClassifier(),
]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)

NAMES = np.array(["ant", "bee", "cat", "dog"])
X, T = make_blobs(200, n_features=8, centers=4, cluster_std=3, random_state=0)
rng = np.random.default_rng(0)
Y = np.eye(4, dtype=int)[T]
Y[np.arange(200), rng.integers(4, size=200)] = 1  # often a wrong class besides the true one
Y[::10] = np.roll(Y[::10], 1, axis=1)  # and sometimes the true class missing


def candidates(*rows):
    return np.array(rows, dtype=bool)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of five steps
@parametrize_with_checks(ESTIMATORS)
def test_common_checks(estimator, check):
    check(estimator)


# -- rules -------------------------------------------------------------------------------------


def test_pl_knn_votes():
    sets = candidates([1, 0, 1], [0, 1, 1], [1, 0, 0])
    distances = np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 0.0]])
    votes = pl_knn_votes(distances, np.array([[0, 1], [1, 2], [0, 2]]), sets)
    assert_allclose(votes, [[0.75, 0.25, 1], [0.5, 0.5, 0.5], [2, 0, 1]])
    assert_allclose(pl_knn_votes(np.array([[3.0]]), np.array([[1]]), sets), [[0, 1, 1]])


def test_ipal_weights():
    data = np.array([[1.0, 0], [0, 2], [-1, 0]])
    weights = ipal_weights(np.array([[0.5, 1.0], [-3, -1]]), np.array([[0, 1], [2, 1]]), data)
    assert_allclose(weights, [[0.5, 0.5], [3, 0]])
    assert ipal_weights(data, np.zeros((3, 0), dtype=int), data).shape == (3, 0)


def test_weights_where_scipy_gives_up(monkeypatch):
    def cycles(A, b, maxiter):
        raise RuntimeError

    monkeypatch.setattr(_ipal, "nnls", cycles)
    data = np.array([[1.0, 0], [0, 2]])
    assert_allclose(ipal_weights(np.array([[0.5, 1]]), np.array([[0, 1]]), data), [[0.5, 0.5]])


def test_propagate():
    # Sample 1 passes its label on to sample 0; sample 2 listens to no one.
    sets = candidates([1, 1, 0], [0, 1, 0], [1, 0, 1])
    neighbors, weights = np.array([[1], [0], [0]]), np.array([[2.0], [1.0], [0.0]])
    distributions, n_iter = propagate(weights, neighbors, sets, alpha=0.5, max_iter=1)
    assert_allclose(distributions, [[0.25, 0.75, 0], [0, 1, 0], [0.5, 0, 0.5]])
    assert n_iter == 1
    distributions, n_iter = propagate(weights, neighbors, sets, alpha=0.5, max_iter=9)
    assert_allclose(distributions[0], [0.25, 0.75, 0])  # where it stays
    assert n_iter == 2
    distributions, _ = propagate(np.zeros((3, 0)), np.zeros((3, 0), dtype=int), sets)
    assert_allclose(distributions, [[0.5, 0.5, 0], [0, 1, 0], [0.5, 0, 0.5]])


def test_correct_class_mass():
    sets = candidates([1, 1, 0], [1, 1, 0])
    # mass 1.5 and 0.5, expected 1 and 1: factors 2/3 and 2
    corrected = correct_class_mass(np.array([[0.9, 0.1, 0], [0.6, 0.4, 0]]), sets)
    assert_allclose(corrected, [[0.75, 0.25, 0], [1 / 3, 2 / 3, 0]])


def test_explained_by_class():
    data = np.array([[1.0, 0], [0, 1], [1, 1]])
    x, weights, neighbors = np.array([[2.0, 3]]), np.array([[1.0, 2, 1]]), np.array([[0, 1, 2]])
    labels = np.array([0, 1, 0])
    explained = explained_by_class(x, weights, neighbors, data, labels, 3)
    # class 0 reconstructs (2, 1), class 1 (0, 2): squared errors 4 and 5 of the length 13
    assert_allclose(explained, [[9, 8, 0]])


def test_clpl_objective():
    x, sets = np.array([[2.0]]), candidates([1, 1, 0])
    coef = np.array([[0.5, 0], [0.25, -0.5], [0.5, -1.5]])  # scores 1, 0, -0.5
    value, gradient = clpl_objective(coef.ravel(), x, sets, C=2.0)
    # (1 - 0.5)^2 + (1 - 0.5)^2 + (0.25 + 0.0625 + 0.25) / (2 * 2)
    assert value == pytest.approx(0.5 + 0.5625 / 4)
    by_intercept = np.array([-0.5, -0.5, 1])
    assert_allclose(
        gradient.reshape(3, 2),
        np.column_stack([2 * by_intercept + coef[:, 0] / 2, by_intercept]),
    )


def test_clpl_gradient_is_that_of_the_value():
    coef = rng.normal(size=4 * 9)
    arguments = X[:30] / 5, Y[:30].astype(bool), 0.1
    numeric = approx_fprime(coef, lambda c: clpl_objective(c, *arguments)[0], 1e-7)
    assert_allclose(clpl_objective(coef, *arguments)[1], numeric, atol=1e-5)


def test_pl_svm_margin():
    scores = np.array([[3.0, 1, 2], [0, 4, 1]])
    margin, candidate, other = pl_svm_margin(scores, candidates([0, 1, 1], [1, 1, 0]))
    assert_allclose(margin, [-1, 3])
    assert_array_equal(candidate, [2, 1])
    assert_array_equal(other, [0, 2])


def test_pl_svm_step():
    coef = np.array([[0.1, 0], [0, 0.2], [0, 0]])
    batch, sets = np.array([[1.0, 0], [0, 50]]), candidates([0, 1, 1], [0, 1, 0])
    # Only the first row, of margin -0.1, moves: from class 0 to class 1.
    stepped = pl_svm_step(coef, batch, sets, alpha=0.5, step=2)
    assert_allclose(stepped, [[0.05 - 0.5, 0], [0.5, 0.1], [0, 0]])
    # The first step forgets the start, and ends in a ball of radius 1 / sqrt(alpha).
    stepped = pl_svm_step(coef, 100 * batch, sets, alpha=0.25, step=1)
    assert_allclose(stepped, np.array([[-1, 0], [1, 0], [0, 0]]) * np.sqrt(2))


def test_pl_svm_direction_is_that_of_the_loss():
    sets, x = Y[:30].astype(bool), X[:30] / 5
    coef, alpha, step = rng.normal(size=(4, 8)) / 10, 0.001, 1000

    def objective(coef):
        coef = coef.reshape(4, 8)
        hinge = np.maximum(0, 1 - pl_svm_margin(x @ coef.T, sets)[0])
        return hinge.mean() + alpha / 2 * (coef**2).sum()

    numeric = approx_fprime(coef.ravel(), objective, 1e-8).reshape(4, 8)
    moved = pl_svm_step(coef, x, sets, alpha, step) - coef
    assert_allclose(moved, -numeric / (alpha * step), atol=1e-5)


def test_sure_assign():
    outputs, sets = np.array([[0.5, 0.3, 0.9]]), candidates([1, 1, 0])
    assert_allclose(sure_assign(outputs, sets, 0.0), [[0.6, 0.4, 0]])
    # project (0.7, 0.3), then (1.5, 0.3), on the simplex
    assert_allclose(sure_assign(outputs, sets, 0.4), [[0.7, 0.3, 0]])
    assert_allclose(sure_assign(outputs, sets, 2.0), [[1, 0, 0]])
    assert_allclose(outputs, [[0.5, 0.3, 0.9]])


def test_sure_assign_finds_the_best_of_all_classes():
    outputs, sets = rng.normal(size=(100, 4)) / 2, Y[:100].astype(bool)

    def objective(p):
        return 0.3 * p.max(axis=1) - (np.where(sets, p - outputs, 0) ** 2).sum(axis=1)

    found = objective(sure_assign(outputs, sets, 0.3))
    for j in range(4):  # whichever class is to have the largest probability
        assert (
            objective(project_simplex(outputs + 0.15 * np.eye(4)[j], sets)) <= found + 1e-12
        ).all()
    for p in rng.exponential(size=(50, 100, 4)):
        assert (objective(restrict(p, sets)) <= found + 1e-12).all()


# -- estimators --------------------------------------------------------------------------------


@each_estimator
def test_learns(estimator):
    train, test = train_test_split(np.arange(200), random_state=0)
    clf = clone(estimator).fit(X[train], Y[train])
    assert clf.score(X[test], T[test]) > 0.85
    assert np.mean(clf.transduction_ == T[train]) > 0.75  # a tenth of the sets miss the truth
    proba = clf.predict_proba(X[test])
    assert proba.dtype == np.float64
    assert_allclose(proba.sum(axis=1), 1)
    assert (proba >= 0).all()


@each_estimator
def test_distributions_are_over_the_candidates(estimator):
    clf = clone(estimator).fit(X, Y)
    distributions = clf.label_distributions_
    assert distributions.dtype == np.float64
    assert_allclose(distributions.sum(axis=1), 1)
    assert (distributions >= 0).all()
    assert_array_equal(distributions[Y == 0], 0)
    assert_array_equal(clf.transduction_, distributions.argmax(axis=1))


@each_estimator
def test_rows_without_label_do_not_matter(estimator):
    free = rng.normal(size=(40, 8)) * 3
    both, sets = np.vstack([free, X]), np.vstack([np.ones((40, 4), dtype=int), Y])
    clf = clone(estimator).set_params(standardize=False).fit(both, sets)
    without = clone(clf).fit(X, Y)
    assert_array_equal(clf.predict_proba(X), without.predict_proba(X))
    assert_array_equal(clf.label_distributions_[40:], without.label_distributions_)
    assert_allclose(clf.label_distributions_[:40], without.predict_proba(free), atol=1e-12)


@each_estimator
def test_kinds_of_input_agree(estimator):
    expected = clone(estimator).fit(X, Y).predict_proba(X)
    labels = PartialLabels(X, NAMES, Y)
    for data, y in [(X, sp.csr_matrix(Y)), (X.tolist(), Y.astype(bool).tolist()), (X, labels)]:
        assert_array_equal(clone(estimator).fit(data, y).predict_proba(X), expected)
    clf = clone(estimator).fit(labels, T)  # true labels beside a PartialLabels do not train
    assert_array_equal(clf.predict_proba(labels), expected)
    assert_array_equal(clf.classes_, NAMES)
    assert_array_equal(clf.predict(X), NAMES[expected.argmax(axis=1)])
    assert clf.n_features_in_ == 8


@each_estimator
def test_single_labels(estimator):
    y = NAMES[T].astype(object)
    y[::3] = -1
    sets = np.eye(4, dtype=int)[T]
    sets[::3] = 1
    clf = clone(estimator).fit(X, y)
    assert_array_equal(clf.classes_, NAMES)
    assert_array_equal(clf.predict_proba(X), clone(estimator).fit(X, sets).predict_proba(X))


@each_estimator
def test_scores(estimator):
    labels = PartialLabels(X, NAMES, Y)
    clf = clone(estimator).fit(labels)
    predicted = clf.predict(X)
    accuracy = np.mean(predicted == NAMES[T])
    assert clf.score(X, NAMES[T]) == pytest.approx(accuracy)
    some = NAMES[T].astype(object)
    some[50:] = -1
    assert clf.score(X, some) == pytest.approx(np.mean(predicted[:50] == NAMES[T[:50]]))
    assert clf.score(X, labels) == np.mean(labels.contains(predicted))
    assert 0 < clf.score(labels) <= clf.score(X, labels)
    with pytest.raises(ValueError, match="score needs y"):
        clf.score(X)


@each_estimator
def test_same_again_and_after_pickling(estimator):
    clf = clone(estimator).fit(X, Y)
    again = clone(clf).fit(X, Y)
    for other in (again, pickle.loads(pickle.dumps(clf))):
        assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
        assert_array_equal(other.label_distributions_, clf.label_distributions_)


def test_seed_of_pl_svm_matters():
    one, two = (PLSVMClassifier(max_iter=2, random_state=i).fit(X, Y).coef_ for i in (0, 1))
    assert not np.allclose(one, two)


@each_estimator
def test_bad_input(estimator):
    clf = clone(estimator)
    with pytest.raises(NotFittedError):
        clf.predict(X)
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(np.where(X > 3, np.nan, X), Y)
    with pytest.raises(ValueError, match="row 3"):
        clf.fit(X, np.where(np.arange(200)[:, None] == 3, 0, Y))
    with pytest.raises(ValueError, match="one class"):
        clf.fit(X, ["ant"] * 200)
    with pytest.raises(ValueError, match="nothing to learn"):
        clf.fit(X, np.ones((200, 4)))
    with pytest.raises(ValueError, match="inconsistent"):
        clf.fit(X[:-1], Y)
    with pytest.raises(ValueError, match="carry no samples"):
        clf.fit(PartialLabels(None, NAMES, Y))
    with pytest.raises(ValueError, match="y is None"):
        clf.fit(X)
    clf.fit(X, Y)
    with pytest.raises(ValueError, match="7 features"):
        clf.predict(X[:, 1:])
    with pytest.raises(InvalidParameterError, match="standardize"):
        clf.set_params(standardize="maybe").fit(X, Y)


@each_estimator
@pytest.mark.parametrize(
    "images", [np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3)), ["a.png", "b.png"] * 2]
)
def test_images_are_pointed_to_embeddings(estimator, images):
    with pytest.raises(ValueError, match=r'VLMPartialAnnotator\(output="embeddings"\)'):
        clone(estimator).fit(images, [0, 1, 0, 1])


@each_estimator
def test_few_rows(estimator):
    sets = [[1, 0, 0], [0, 1, 0], [1, 1, 1]]
    clf = clone(estimator).fit([[0.0, 1], [4, 0], [5, 1]], sets)
    assert_array_equal(clf.predict([[0.0, 1.1], [4.1, 0]]), [0, 1])
    # One row with a label, and a class that is nowhere a candidate.
    clf = clone(estimator).fit([[0.0, 1], [4, 0]], [[0, 1, 1], [1, 1, 1]])
    assert_allclose(clf.label_distributions_[0].sum(), 1)
    assert np.isfinite(clf.predict_proba([[0.0, 1], [4, 0]])).all()


@each_estimator
def test_duplicates_and_constant_features(estimator):
    same = np.repeat([[0.0, 0, 7], [1, 2, 7]], 20, axis=0)
    y = np.repeat([[1, 0, 1], [0, 1, 0]], 20, axis=0)
    y[:5, 2] = 0
    clf = clone(estimator).fit(same, y)
    assert_array_equal(clf.predict(same[[0, -1]]), [0, 1])


@each_estimator
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of plain features
def test_standardize(estimator):
    scaled = X * [1, 10, 100, 1, 1, 1, 1, 1] + 5
    proba = clone(estimator).fit(X, Y).predict_proba(X)
    assert_allclose(clone(estimator).fit(scaled, Y).predict_proba(scaled), proba, atol=1e-3)
    plain = clone(estimator).set_params(standardize=False)
    pipeline = make_pipeline(StandardScaler(), plain).fit(scaled, Y)
    assert_allclose(pipeline.predict_proba(scaled), proba, atol=1e-3)
    assert not np.allclose(plain.fit(scaled, Y).predict_proba(scaled), proba, atol=1e-3)


def test_grid_search():
    search = GridSearchCV(PLKNeighborsClassifier(), {"n_neighbors": [1, 10]}, cv=3)
    search.fit(PartialLabels(X, NAMES, Y), NAMES[T])
    assert search.best_params_ == {"n_neighbors": 10}


def test_ipal_options():
    iris, y = load_iris(return_X_y=True)
    sets = np.eye(3, dtype=int)[y]
    sets[::2, 1] = 1
    fits = [
        IPALClassifier(**params).fit(iris, sets).label_distributions_
        for params in ({}, {"class_mass": False}, {"unit_length": False}, {"alpha": 0.0})
    ]
    for one, two in combinations(fits, 2):
        assert not np.allclose(one, two)


def test_ipal_where_nothing_explains():
    # The test sample points away from all others: their classes vote.
    clf = IPALClassifier(n_neighbors=3, standardize=False)
    clf.fit([[1.0, 0], [1, 0.1], [1, -0.1]], [0, 0, 1])
    assert_allclose(clf.predict_proba([[-1.0, 0]]), [[2 / 3, 1 / 3]])


@pytest.mark.parametrize("estimator", [CLPLClassifier(), SUREClassifier()])
def test_warns_where_the_limit_comes_first(estimator):
    estimator = clone(estimator).set_params(max_iter=2)
    with pytest.warns(
        ConvergenceWarning, match="max_iter=2 before it met tol=.*raise max_iter"
    ) as w:
        estimator.fit(X, Y)
    assert w[0].filename == __file__
    assert estimator.n_iter_ == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.set_params(tol=100.0).fit(X, Y)


@each_estimator
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_defaults_reach_their_tolerance(estimator, share):
    for data, y in (load_iris(return_X_y=True), load_digits(return_X_y=True)):
        sets = np.random.default_rng(0).random((len(y), y.max() + 1)) < share
        sets[np.arange(len(y)), y] = True
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            clone(estimator).fit(data, sets)


@pytest.mark.parametrize("estimator", [IPALClassifier(), PLSVMClassifier(random_state=0)])
def test_a_fixed_number_of_steps_is_no_failure(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clone(estimator).set_params(max_iter=1).fit(X, Y).n_iter_ == 1


def test_clpl_comes_as_near_as_tol_asks():
    sizes = []
    for tol in (1e-3, 1e-5):
        clf = CLPLClassifier(tol=tol, standardize=False).fit(X, Y)
        coef = np.column_stack([clf.coef_, clf.intercept_]).ravel()
        labelled = ~Y.all(axis=1)
        gradient = clpl_objective(coef, X[labelled], Y[labelled] == 1, 0.1)[1]
        sizes.append(np.abs(gradient).max())
        assert sizes[-1] <= tol
    assert sizes[0] > 1e-5


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of one step
def test_sure_solves_the_regression():
    clf = SUREClassifier(max_iter=1, gamma=0.1, standardize=False).fit(X, Y)
    kernel = np.exp(-0.1 * ((X[:, None] - X) ** 2).sum(axis=2))
    share = Y / Y.sum(axis=1, keepdims=True)

    def objective(dual, intercept):
        error = kernel @ dual + intercept - share
        return (error**2).sum() + 0.05 * np.sum(dual * (kernel @ dual))

    best = objective(clf._dual_coef, clf._intercept)
    for _ in range(20):
        step = rng.normal(size=(200, 4)) * 1e-3, rng.normal(size=4) * 1e-3
        assert objective(clf._dual_coef + step[0], clf._intercept) >= best
        assert objective(clf._dual_coef, clf._intercept + step[1]) >= best


# -- real data ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, least",  # the mean of ten folds less about ten points, as folds differ by 3 to 5
    [("lost", [0.30, 0.62, 0.65, 0.65, 0.67]), ("MSRCv2", [0.34, 0.42, 0.29, 0.35, 0.35])],
)
def test_real_partial_labels(shared_data, name, least):
    parts = loadmat(shared_data / "pll" / f"{name}.mat")
    parts = {k: parts[k] for k in ("data", "partial_target", "target")}
    parts = {k: v.toarray() if sp.issparse(v) else v for k, v in parts.items()}
    sets, truth = parts["partial_target"].T, parts["target"].argmax(axis=0)
    train, test = train_test_split(np.arange(len(truth)), test_size=0.1, random_state=0)
    for estimator, expected in zip(ESTIMATORS, least):
        clf = clone(estimator).fit(parts["data"][train], sets[train])
        assert clf.score(parts["data"][test], truth[test]) > expected, estimator
        assert np.mean(clf.transduction_ == truth[train]) > expected, estimator

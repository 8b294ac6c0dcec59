"""What `score` says of labels that the classifier does not know."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from sklearn_npll.baselines import PLKNeighborsClassifier

NAMES = np.array(["cat", "dog", "fox"])


@pytest.fixture
def blobs():
    return make_blobs(60, centers=3, cluster_std=0.3, random_state=0)


def test_unknown_labels_count_as_wrong_and_are_named(blobs):
    X, y = blobs
    clf = PLKNeighborsClassifier().fit(X, NAMES[y])
    true = NAMES[y].astype(object)
    true[y == 2] = "foxx"
    true[np.flatnonzero(y == 0)[:10]] = -1  # no label: 50 are left, of which 20 are unknown
    with pytest.warns(UserWarning, match=r"know: 'foxx'. .* 40.0% .* Did you mean 'fox'") as said:
        assert clf.score(X, true) == 0.6
    assert said[0].filename == __file__


def test_known_labels_are_no_reason_to_warn(blobs):
    X, y = blobs
    clf = PLKNeighborsClassifier().fit(X, NAMES[y])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clf.score(X, NAMES[np.where(y == 2, 1, y)]) == pytest.approx(2 / 3)
        assert clf.score(X, np.where(y == 2, "-1", NAMES[y])) == 1


@pytest.mark.parametrize("names", [NAMES, np.arange(3), np.arange(3.0)])
def test_names_are_not_compared_with_numbers(names, blobs):
    X, y = blobs
    clf = PLKNeighborsClassifier().fit(X, names[y])
    other = y if names is NAMES else y.astype(str)
    with pytest.raises(ValueError, match="compare names with names, or numbers with numbers"):
        clf.score(X, other)


def test_sets_are_no_true_labels(blobs):
    X, y = blobs
    clf = PLKNeighborsClassifier().fit(X, y)
    for wrong in ([{0}] * 60, [[0], [0, 1]] * 30, [0, {1}] * 30):
        with pytest.raises(ValueError, match="y is a list of sets"):
            clf.score(X, wrong)
    with pytest.raises(TypeError, match="y of type generator is no list or array"):
        clf.score(X, (label for label in y))

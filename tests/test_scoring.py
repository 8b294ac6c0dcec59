"""What `score` says of labels that the classifier does not know, and which labels are accepted."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV, cross_val_score

from sklearn_npll import PartialLabels
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


def test_labels_that_mix_names_and_numbers(blobs):
    X, y = blobs
    with pytest.raises(ValueError, match="y mixes names and numbers, such as 'dog' and [02]:"):
        PLKNeighborsClassifier().fit(X, np.array([0, "dog", 2], dtype=object)[y])
    mixed_with_none = np.array(["cat", "dog", -1], dtype=object)[y]
    assert PLKNeighborsClassifier().fit(X, mixed_with_none).classes_.tolist() == ["cat", "dog"]


def test_whole_numbers_as_floats_go_through_scikit_learn(blobs):
    X, y = blobs
    labels = PartialLabels(X, [1.0, np.float32(2), 3], np.eye(3, dtype=bool)[y])
    clf = PLKNeighborsClassifier()
    assert cross_val_score(clf, labels, y + 1.0).min() == 1
    assert cross_val_score(clf, labels, y + 1).min() == 1
    search = GridSearchCV(clf, {"n_neighbors": [1, 3]}).fit(labels, y + 1.0)
    assert search.best_score_ == 1
    assert search.predict(X).tolist() == (y + 1).tolist()

"""What X and y may be, and what is said where they are something else."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV, cross_val_score

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll.baselines import PLKNeighborsClassifier

LEARNERS = [CoRegClassifier(max_epochs=1), PLKNeighborsClassifier()]


@pytest.fixture
def blobs():
    return make_blobs(60, centers=3, cluster_std=0.3, random_state=0)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("y", [3, "cat", {0, 1}, {0: 1}, iter([0, 1])])
def test_y_without_rows(y, learner, blobs):
    with pytest.raises(TypeError, match=f"y of type {type(y).__name__} is no list or array"):
        learner.fit(blobs[0], y)


@pytest.mark.parametrize("learner", LEARNERS)
def test_samples_without_rows(learner, blobs):
    X, y = blobs
    learner.fit(X, y)
    for wrong in ({1, 2}, {"a": X}, iter(X)):
        with pytest.raises(TypeError, match=f"X of type {type(wrong).__name__} has no numbered"):
            learner.fit(wrong, y)
        with pytest.raises(TypeError, match="has no numbered samples"):
            learner.predict(wrong)
    with pytest.raises(ValueError, match="X is None, or PartialLabels that carry no samples"):
        learner.predict(None)


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


def test_a_number_is_no_string_in_a_hint(blobs):
    X, y = blobs
    with pytest.raises(ValueError, match=r"unknown class 20\. Did you mean 2\?"):
        CoRegClassifier(max_epochs=1).fit(X, y, eval_set=(X, np.where(y == 2, 20, y)))

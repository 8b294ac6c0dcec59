"""The warning of classes that the annotator never or hardly ever names."""

import warnings

import numpy as np
import pytest
from scipy import sparse as sp
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sklearn_npll import CoRegClassifier, PartialLabels
from sklearn_npll._inputs import check_problem
from sklearn_npll._unnamed import unnamed_classes
from sklearn_npll.baselines import PLKNeighborsClassifier, PseudoLabelClassifier
from sklearn_npll.exceptions import UnnamedClassWarning

X, Y = make_blobs(200, centers=4, cluster_std=0.3, random_state=0)
NAMES = ["ant", "bee", "cow", "dog"]
NAMED = np.where(Y == 3, 0, Y)  # dogs are taken for ants
EYE = np.eye(4)


def labels_of(codes, **parts):
    return PartialLabels(X, NAMES, EYE[codes] > 0, **parts)


def found(labels):
    return unnamed_classes(check_problem(labels, None, full=True)).tolist()


def scores_with(n_rows):
    """Scores that prefer dogs in so many rows."""
    codes = NAMED.copy()
    codes[np.flatnonzero(Y == 3)[:n_rows]] = 3
    return EYE[codes] * 0.9 + 0.025


def test_hardly_ever_is_less_than_a_tenth_of_an_equal_share():
    # an equal share is 50 rows of 200
    assert found(labels_of(Y, scores=scores_with(4))) == [3]
    assert found(labels_of(Y, scores=scores_with(5))) == []
    assert found(labels_of(NAMED, scores=sp.csr_array(scores_with(4)))) == [3]


def test_a_class_that_is_always_second_is_not_preferred():
    scores = EYE[NAMED] + [0, 0, 0, 0.5]
    labels = PartialLabels.from_scores(scores, "topk", 2, X, NAMES)
    assert labels.candidates[:, 3].all()
    assert found(labels) == [3]
    with pytest.warns(UnnamedClassWarning, match="hardly ever prefers .* to others.*'dog'"):
        PLKNeighborsClassifier().fit(labels)


def test_votes_of_any_prompt_count():
    votes = np.stack([NAMED, NAMED, np.full(200, -1)], axis=1)
    assert found(labels_of(NAMED, votes=votes)) == [3]
    votes[Y == 3, 1] = 3
    assert found(labels_of(NAMED, votes=votes)) == []


def test_of_sets_only_a_class_that_is_in_none():
    candidates = EYE[NAMED] > 0
    assert found(PartialLabels(X, NAMES, candidates)) == [3]
    candidates[Y == 3] = True  # no labels
    assert found(PartialLabels(X, NAMES, candidates)) == [3]
    candidates[0, 3] = True
    candidates[0, NAMED[0] - 1] = False
    assert found(PartialLabels(X, NAMES, candidates)) == []


def test_what_prefers_no_class_does_not_count():
    scores = scores_with(0)
    scores[:50] = 0.25
    candidates = EYE[NAMED] > 0
    candidates[:50] = True
    assert found(PartialLabels(X, NAMES, candidates, scores=scores)) == [3]
    # 39 rows are left for four classes
    scores[:161] = 0.25
    assert found(PartialLabels(X, NAMES, candidates, scores=scores)) == []


def test_known_labels_are_not_what_the_annotator_names():
    known = np.where(Y == 3, 3, -1)
    labels = labels_of(NAMED, scores=scores_with(0)).with_known(np.array([*NAMES, "-1"])[known])
    assert found(labels) == [3]


@pytest.mark.parametrize(
    "learner",
    [
        CoRegClassifier(max_epochs=1),
        PLKNeighborsClassifier(),
        PseudoLabelClassifier(LogisticRegression()),
    ],
)
def test_learners_warn(learner):
    with pytest.warns(UnnamedClassWarning, match=r"learned: 'dog'\. .*doubly_robust=True") as said:
        learner.fit(labels_of(NAMED))
    assert [str(w.filename) for w in said] == [__file__]


def test_no_warning_where_the_class_is_learned_all_the_same():
    labels = labels_of(NAMED, scores=scores_with(0))
    some = np.full(200, "-1", dtype=object)
    some[np.flatnonzero(Y == 0)[:8]] = "ant"
    robust = CoRegClassifier(max_epochs=1, doubly_robust=True)
    with pytest.warns(UnnamedClassWarning, match="'dog'"):
        robust.fit(labels.with_known(some))
    some[np.flatnonzero(Y == 3)[:8]] = "dog"
    with pytest.warns(UnnamedClassWarning, match="'dog'"):
        CoRegClassifier(max_epochs=1).fit(labels.with_known(some))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnnamedClassWarning)
        robust.fit(labels.with_known(some))
        PseudoLabelClassifier(LogisticRegression(), labels="known").fit(labels.with_known(some))


def test_labels_of_ones_own_are_no_annotator():
    rare = np.where(np.arange(200) < 199, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnnamedClassWarning)
        PLKNeighborsClassifier().fit(X, rare)


def test_nothing_is_said_in_a_search_where_all_are_named():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = GridSearchCV(PLKNeighborsClassifier(), {"n_neighbors": [1, 3]})
        search.fit(labels_of(Y), np.take(NAMES, Y))

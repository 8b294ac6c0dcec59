"""Changed copies of partial labels: parts exchanged, and labels that are known."""

import numpy as np
import pytest
from scipy import sparse as sp

from sklearn_npll import CoRegClassifier, PartialLabels

NAMES = np.array(["cat", "dog", "fox"])
SETS = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=bool)
SCORES = np.array([[0.6, 0.4, 0], [0, 0.5, 0.5], [0.1, 0, 0.9], [1, 0, 0]], dtype=np.float32)
VOTES = np.array([[0, 1], [1, 2], [2, 2], [0, 0]])


def make(**parts):
    parts = {"scores": SCORES, "votes": VOTES, **parts}
    return PartialLabels(list("abcd"), NAMES, SETS, **parts)


def test_replace_keeps_what_is_not_named():
    labels = make(known=[False, False, True, False])
    changed = labels.replace(data=list("wxyz"), votes=None)
    assert changed.data == list("wxyz")
    assert changed.votes is None
    np.testing.assert_array_equal(changed.scores, SCORES)
    np.testing.assert_array_equal(changed.toarray(), SETS)
    np.testing.assert_array_equal(changed.known, [False, False, True, False])
    assert labels.data == list("abcd")
    np.testing.assert_array_equal(labels.votes, VOTES)


def test_replace_asks_the_plan_once():
    asked = []

    def plan(data):
        asked.append(len(data))
        return {"candidates": SETS, "scores": SCORES}

    changed = PartialLabels(list("abcd"), NAMES, plan=plan).replace(scores=None)
    np.testing.assert_array_equal(changed.toarray(), SETS)
    assert changed.scores is None
    assert asked == [4]


def test_replace_does_not_take_samples_that_are_exchanged():
    class Unreadable(list):
        def __getitem__(self, rows):
            raise AssertionError("taken")

    labels = PartialLabels(Unreadable("abcd"), NAMES, SETS)[[0, 2]]
    assert labels.replace(data=["y", "z"]).data == ["y", "z"]
    with pytest.raises(AssertionError, match="taken"):
        labels.replace(votes=None)


@pytest.mark.parametrize(
    "parts, error, message",
    [
        ({"classes": NAMES}, TypeError, "no classes; it takes data, candidates"),
        ({"data": ["a"]}, ValueError, "data has 1 samples but candidates has 4 rows"),
        ({"candidates": SETS[:2]}, ValueError, "4"),
        ({"candidates": SETS * 0}, ValueError, "no candidate"),
    ],
)
def test_replace_refuses(parts, error, message):
    with pytest.raises(error, match=message):
        make().replace(**parts)


def test_with_known_by_hand():
    labels = make(known=[False, False, True, False])
    changed = labels.with_known(["fox", "-1", "-1", -1])
    expected = SETS.copy()
    expected[0] = [0, 0, 1]  # the truth was outside of the set
    np.testing.assert_array_equal(changed.toarray(), expected)
    np.testing.assert_array_equal(changed.known, [True, False, True, False])
    np.testing.assert_array_equal(changed.scores, SCORES)
    np.testing.assert_array_equal(labels.toarray(), SETS)
    again = changed.with_known(["cat", "-1", "-1", "-1"])
    assert again[0].tolist() == [True, False, False]


def test_with_known_of_many_classes_stays_sparse():
    candidates = sp.csr_array(np.eye(100, dtype=bool))
    labels = PartialLabels.from_csr(candidates).with_known(np.r_[7, np.full(99, -1)])
    assert sp.issparse(labels.candidates)
    assert labels.candidates[[0]].indices.tolist() == [7]
    assert labels.known.sum() == 1


def test_with_known_refuses_other_names_and_lengths():
    with pytest.raises(ValueError, match="'dgo', which is not a class. Did you mean 'dog'"):
        make().with_known(["dgo", "-1", "-1", "-1"])
    with pytest.raises(ValueError, match="one class for each of 4 samples"):
        make().with_known(["dog"])


def test_a_learner_trusts_them():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=80)
    X = rng.normal(size=(80, 2)) + 4 * y[:, None]
    wrong = PartialLabels.from_candidates(np.eye(2)[np.where(np.arange(80) < 20, 1 - y, y)], X)
    known = np.where(np.arange(80) < 20, y, -1)
    clf = CoRegClassifier(max_epochs=5, random_state=0).fit(wrong.with_known(known))
    np.testing.assert_array_equal(clf.transduction_[:20], y[:20])
    assert (clf.clean_probability_[:20] == 1).all()

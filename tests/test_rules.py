"""Candidate rules against hand-computed sets."""

import numpy as np
import pytest

from sklearn_npll import PartialLabels
from sklearn_npll._rules import (
    candidates_from_scores,
    check_rule,
    cpl_candidates,
    cumulative_candidates,
    ratio_candidates,
    threshold_candidates,
    topk_candidates,
    union_candidates,
)

PROBA = np.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.9, 0.05, 0.0], [0.25, 0.25, 0.25, 0.25]])


def sets(candidates):
    """The candidates as sets of column indices, which are easy to write down by hand."""
    return [set(np.flatnonzero(row)) for row in candidates]


@pytest.mark.parametrize("sparse", [False, True])
def test_union_takes_every_vote_and_all_classes_when_no_prompt_votes(sparse):
    votes = [[3, 0, 3], [-1, 2, -1], [-1, -1, -1], [1, 1, 1]]
    candidates = union_candidates(votes, 4, sparse=sparse)
    if sparse:
        assert candidates.has_canonical_format and candidates.nnz == 2 + 1 + 4 + 1
        candidates = candidates.toarray()
    assert candidates.dtype == bool
    assert sets(candidates) == [{0, 3}, {2}, {0, 1, 2, 3}, {1}]


@pytest.mark.parametrize(("row", "vote"), [(1, 4), (2, -2)])
def test_union_names_the_vote_that_is_no_class(row, vote):
    votes = np.zeros((3, 2), dtype=int)
    votes[row, 1] = vote
    with pytest.raises(ValueError, match=rf"votes\[{row}, 1\] is {vote}; .* 0 to 3, or -1"):
        union_candidates(votes, 4)


def test_union_rejects_probabilities():
    with pytest.raises(ValueError, match="integers of shape .*float64"):
        union_candidates(PROBA, 4)


def test_topk_takes_the_first_of_equal_scores():
    assert sets(topk_candidates(PROBA, 2)) == [{0, 1}, {0, 1}, {0, 1}]
    assert sets(topk_candidates(-PROBA, 1)) == [{3}, {3}, {0}]


def test_threshold_is_inclusive_and_falls_back_to_the_largest():
    assert sets(threshold_candidates(PROBA, 0.3)) == [{0, 1}, {1}, {0}]
    assert sets(threshold_candidates(PROBA, 0.15)) == [{0, 1, 2}, {1}, {0, 1, 2, 3}]
    assert sets(threshold_candidates(PROBA.astype(np.float32), 0.3)) == [{0, 1}, {1}, {0}]


def test_ratio_is_relative_to_the_largest():
    assert sets(ratio_candidates(PROBA, 0.6)) == [{0, 1}, {1}, {0, 1, 2, 3}]
    assert sets(ratio_candidates(PROBA, 0.3)) == [{0, 1, 2}, {1}, {0, 1, 2, 3}]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cumulative_takes_no_more_than_needed(dtype):
    proba = PROBA.astype(dtype)
    assert sets(cumulative_candidates(proba, 0.8)) == [{0, 1}, {1}, {0, 1, 2, 3}]
    assert sets(cumulative_candidates(proba, 0.9)) == [{0, 1, 2}, {1}, {0, 1, 2, 3}]
    assert sets(cumulative_candidates(proba, 0.75)) == [{0, 1}, {1}, {0, 1, 2}]
    assert sets(cumulative_candidates(proba, 1.0)) == [{0, 1, 2, 3}, {0, 1, 2}, {0, 1, 2, 3}]


CONFIDENCE = np.array(
    [
        [0.50, 0.30, 0.20],
        [0.45, 0.35, 0.20],
        [0.40, 0.30, 0.30],
        [0.90, 0.05, 0.05],
        [0.80, 0.15, 0.05],
    ]
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cpl_intersects_what_is_probable_in_the_row_and_in_the_class(dtype):
    proba = CONFIDENCE.astype(dtype)
    # The largest are .4 .45 .5 .8 .9 with the median .5, so rows sum to .5: {0}, {0, 1}, {0, 1},
    # {0}, {0}. The quantiles 1/2 of the classes are .5, .3 and .2.
    assert sets(cpl_candidates(proba, (0.5, 0.5))) == [{0}, {1}, {1}, {0}, {0}]
    # The quantiles 3/4 are .8, .3 and .2: row 0 has none left and keeps its best.
    assert sets(cpl_candidates(proba, (0.5, 0.75))) == [{0}, {1}, {1}, {0}, {0}]
    # Rows sum to the largest of all, .9; every class passes the quantile 0.
    everything = [{0, 1, 2}, {0, 1, 2}, {0, 1, 2}, {0}, {0, 1}]
    assert sets(cpl_candidates(proba, (1, 0))) == everything
    assert sets(cpl_candidates(proba, (0, 0))) == [{0}] * 5
    assert sets(cpl_candidates(proba, (1, 1))) == [{0}, {1}, {2}, {0}, {0}]


def test_cpl_needs_all_rows_at_once():
    together = cpl_candidates(CONFIDENCE, (0.5, 0.5))
    assert (cpl_candidates(CONFIDENCE[:3], (0.5, 0.5)) != together[:3]).any()
    assert cpl_candidates(CONFIDENCE[:0]).shape == (0, 3)
    assert sets(cpl_candidates(CONFIDENCE[:1])) == [{0}]
    assert sets(cpl_candidates(np.full((4, 3), 1 / 3))) == [{0}] * 4


def test_cpl_makes_partial_labels():
    labels = PartialLabels.from_scores(CONFIDENCE, "cpl", (0.5, 0.5), classes=["a", "b", "c"])
    np.testing.assert_array_equal(labels.candidates, cpl_candidates(CONFIDENCE, (0.5, 0.5)))
    assert sets(PartialLabels.from_scores(CONFIDENCE, "cpl").candidates) == sets(
        cpl_candidates(CONFIDENCE, (0.6, 0.9))
    )


@pytest.mark.parametrize("quantiles", [0.5, (0.5,), (0.5, 1.1), (-0.1, 0.5), ("a", "b"), None])
def test_cpl_names_quantiles_it_cannot_use(quantiles):
    with pytest.raises(ValueError, match="quantiles are .* two numbers in .0, 1., alpha and beta"):
        cpl_candidates(CONFIDENCE, quantiles)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("topk", [{0, 1, 2}, {0, 1, 2}, {0, 1, 2}]),
        ("threshold", [{0, 1, 2}, {1}, {0, 1, 2, 3}]),
        ("ratio", [{0, 1}, {1}, {0, 1, 2, 3}]),
        ("cumulative", [{0, 1, 2}, {1}, {0, 1, 2, 3}]),
        ("cpl", [{0}, {1}, {2}]),
    ],
)
def test_defaults_of_the_rules(rule, expected):
    assert sets(candidates_from_scores(PROBA, rule)) == expected


def test_default_of_topk_with_two_classes_is_both():
    assert candidates_from_scores([[0.1, 0.9]], "topk").all()


def test_errors_suggest_the_rule_or_name_the_row():
    with pytest.raises(ValueError, match="Unknown rule 'treshold'. Did you mean 'threshold'?"):
        check_rule("treshold")
    with pytest.raises(ValueError, match="from_votes"):
        candidates_from_scores(PROBA, "union")
    with pytest.raises(ValueError, match="k is 5; .* 1 to n_classes=4"):
        topk_candidates(PROBA, 5)
    with pytest.raises(ValueError, match=r"threshold is 1.5; .* \(0, 1\]"):
        threshold_candidates(PROBA, 1.5)
    logits = PROBA.copy()
    logits[1, 2] = -3
    with pytest.raises(ValueError, match="not probabilities in row 1 .*softmax"):
        ratio_candidates(logits, 0.5)
    with pytest.raises(ValueError, match="do not sum to one in rows 0, 2"):
        cpl_candidates(PROBA * [[0.9], [1], [0.5]])
    with pytest.raises(ValueError, match="do not sum to one in rows 0, 2"):
        cumulative_candidates(PROBA * [[0.9], [1], [0.5]], 0.5)
    logits[2, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in row 2"):
        topk_candidates(logits, 1)

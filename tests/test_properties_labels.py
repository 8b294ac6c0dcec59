"""Properties of candidate sets in all their forms, of candidate rules and of metrics."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from strategies import (
    FORMS,
    candidate_matrices,
    few,
    label_forms,
    partial_labels,
    probabilities,
    sizes,
    untied_probabilities,
)

from sklearn_npll import PartialLabels
from sklearn_npll._inputs import check_problem
from sklearn_npll._rules import candidates_from_scores, union_candidates
from sklearn_npll.annotators._conformal import (
    aps_scores,
    conformal_quantile,
    conformal_sets,
    lac_scores,
    min_calibration_size,
)
from sklearn_npll.datasets import make_candidates
from sklearn_npll.metrics import (
    ambiguity_score,
    approximated_accuracy,
    coverage_score,
    covering_rate,
    noise_detection_auc,
    noise_detection_f1,
)
from sklearn_npll.model_selection import choose_rule_value

# -- the container -----------------------------------------------------------------------------


def assert_same(one, other):
    """Compare two containers part by part, dtypes included."""
    assert_array_equal(one.classes, other.classes)
    assert type(one.candidates) is type(other.candidates)
    assert one.candidates.dtype == other.candidates.dtype == bool
    assert_array_equal(one.toarray(), other.toarray())
    for name in ("scores", "votes", "known", "data"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert type(mine) is type(theirs), name
        if mine is not None:
            assert_array_equal(mine, theirs, strict=not isinstance(mine, list))


@given(candidates=candidate_matrices(), form=st.sampled_from(list(FORMS)))
def test_every_form_of_candidates_is_the_same(candidates, form):
    labels = PartialLabels.from_candidates(FORMS[form](candidates))
    assert_array_equal(labels.toarray(), candidates)
    assert labels.shape == candidates.shape
    assert_array_equal(labels.tocsr().toarray(), candidates)
    assert_array_equal(labels.set_sizes, candidates.sum(axis=1))


@given(candidates=candidate_matrices(n_classes=sizes(4)), form=st.sampled_from(list(FORMS)))
def test_dense_and_sparse_storage_say_the_same(candidates, form):
    wide = np.hstack([candidates, np.zeros((len(candidates), 64 - candidates.shape[1]), bool)])
    dense = PartialLabels.from_candidates(FORMS[form](candidates))
    sparse = PartialLabels.from_candidates(FORMS[form](wide))
    assert not isinstance(sparse.candidates, np.ndarray)
    y = candidates.argmax(axis=1)
    y[::2] = 0
    assert_array_equal(sparse.contains(y), dense.contains(y))
    assert_array_equal(sparse.set_sizes, dense.set_sizes)
    assert sparse.coverage(y) == dense.coverage(y)


@given(labels=partial_labels(), data=st.data())
def test_a_selection_of_rows_selects_every_part(labels, data):
    n = len(labels)
    rows = data.draw(
        st.one_of(
            st.lists(st.integers(-n, n - 1), max_size=12).map(lambda r: np.array(r, dtype=int)),
            hnp.arrays(bool, n),
            st.slices(n),
        )
    )
    order = np.arange(n)[rows]
    part = labels[rows]
    assert len(part) == len(order)
    assert_array_equal(part.toarray(), labels.toarray()[order])
    for name in ("scores", "votes", "known"):
        if getattr(labels, name) is not None:
            assert_array_equal(getattr(part, name), getattr(labels, name)[order], strict=True)
    if labels.data is not None:
        assert_array_equal(np.asarray(part.data), np.asarray(labels.data)[order])
    back = np.arange(len(part))[::-1]
    assert_same(part[back], labels[order[::-1]])


@given(labels=partial_labels(), cut=st.integers(0, 10))
def test_parts_joined_again_are_the_whole(labels, cut):
    cut = min(cut, len(labels))
    assert_same(PartialLabels.concatenate([labels[:cut], labels[cut:]]), labels)


@given(labels=partial_labels(n_samples=sizes(8, smallest=0)))
def test_a_file_and_a_pickle_bring_back_the_same(labels):
    with tempfile.TemporaryDirectory() as folder:
        labels.save(Path(folder, "labels"))
        assert_same(PartialLabels.load(Path(folder, "labels")), labels)
    assert_same(pickle.loads(pickle.dumps(labels)), labels)


@given(labels=partial_labels(n_samples=sizes(8)))
def test_sets_of_names_give_back_the_candidates(labels):
    names = labels.classes.tolist()
    sets = [[names[c] for c in np.flatnonzero(row)] for row in labels.toarray()]
    assert_array_equal(PartialLabels.from_sets(sets, labels.classes).toarray(), labels.toarray())


@given(labels=partial_labels())
def test_summary_is_made_of_shares(labels):
    summary = labels.summary(labels.classes[labels.toarray().argmax(axis=1)])
    assert summary["coverage"] == 1 and summary["noise_rate"] == 0
    assert 1 <= summary["mean_set_size"] <= summary["n_classes"]
    for name in ("single_share", "unlabelled_share", "agreement"):
        assert summary[name] is None or 0 <= summary[name] <= 1


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan, np.inf, "yes"])
@given(candidates=candidate_matrices(), data=st.data())
def test_a_value_that_is_no_indicator_is_named(value, candidates, data):
    row = data.draw(st.integers(0, len(candidates) - 1))
    column = data.draw(st.integers(0, candidates.shape[1] - 1))
    wrong = candidates.astype(object if isinstance(value, str) else float)
    wrong[row, column] = value
    with pytest.raises(ValueError, match=f"value {value!r}.* in row {row}"):
        PartialLabels.from_candidates(wrong)


@given(candidates=candidate_matrices(), form=st.sampled_from(list(FORMS)), data=st.data())
def test_an_empty_row_is_named(candidates, form, data):
    candidates = candidates.copy()
    row = data.draw(st.integers(0, len(candidates) - 1))
    candidates[row] = False
    with pytest.raises(ValueError, match=f"row {row} of candidates have no candidate"):
        PartialLabels.from_candidates(FORMS[form](candidates))


# -- inputs ------------------------------------------------------------------------------------


@given(
    codes=hnp.arrays(np.int64, sizes(12, smallest=4), elements=st.integers(-1, 4)),
    form=st.sampled_from(list(label_forms(np.array([0])))),
)
def test_labels_of_every_kind_are_the_same_problem(codes, form):
    codes[:3] = [0, 1, 2]  # with fewer classes -1 may be one
    X = np.zeros((len(codes), 2))
    problem = check_problem(X, label_forms(codes)[form])
    present = np.unique(codes[codes >= 0])
    expected = np.where((codes < 0)[:, None], True, codes[:, None] == present)
    assert_array_equal(problem.candidates, expected, strict=True)
    assert not problem.known.any()


@given(candidates=candidate_matrices(sizes(6, 2), sizes(6, 2)), form=st.sampled_from(list(FORMS)))
def test_candidates_of_every_form_are_the_same_problem(candidates, form):
    assume(not candidates.all())
    y = FORMS[form](candidates)
    problem = check_problem(np.zeros((len(candidates), 2)), y)
    assert_array_equal(problem.candidates, candidates, strict=True)
    assert_array_equal(problem.classes, np.arange(candidates.shape[1]))


# -- candidate rules ---------------------------------------------------------------------------

RULE_VALUES = {
    "topk": st.integers(1, 5),
    "threshold": st.floats(1e-3, 1),
    "ratio": st.floats(1e-3, 1),
    "cumulative": st.floats(1e-3, 1),
    "cpl": st.tuples(st.floats(0, 1), st.floats(0, 1)),
}
score_rules = pytest.mark.parametrize("rule", RULE_VALUES)
score_matrices = probabilities((6, 5))


@score_rules
@given(scores=score_matrices, data=st.data())
def test_every_rule_keeps_the_favourite_or_another_class(rule, scores, data):
    candidates = candidates_from_scores(scores, rule, data.draw(RULE_VALUES[rule]))
    assert candidates.shape == scores.shape and candidates.dtype == bool
    assert candidates.any(axis=1).all()
    if rule != "cpl":  # whose classes must be probable for their column, too
        best = scores.max(axis=1, keepdims=True)
        assert (candidates & (scores == best)).any(axis=1).all()


@score_rules
@given(scores=score_matrices, data=st.data())
def test_rules_do_not_depend_on_the_order_of_rows(rule, scores, data):
    value, order = data.draw(RULE_VALUES[rule]), data.draw(st.permutations(range(6)))
    assert_array_equal(
        candidates_from_scores(scores[order], rule, value),
        candidates_from_scores(scores, rule, value)[order],
    )


@pytest.mark.parametrize("rule", ["topk", "threshold", "ratio", "cumulative"])
@given(scores=untied_probabilities(6, 5), data=st.data())
def test_rules_do_not_depend_on_the_order_of_classes(rule, scores, data):
    value, order = data.draw(RULE_VALUES[rule]), data.draw(st.permutations(range(5)))
    assert_array_equal(
        candidates_from_scores(scores[:, order], rule, value),
        candidates_from_scores(scores, rule, value)[:, order],
    )


@pytest.mark.parametrize("rule", ["topk", "threshold", "ratio", "cumulative"])
@given(scores=score_matrices, data=st.data())
def test_sets_are_nested_in_the_value_of_the_rule(rule, scores, data):
    small, large = sorted(data.draw(st.tuples(*[RULE_VALUES[rule]] * 2)))
    if rule in ("threshold", "ratio"):
        small, large = large, small
    inner = candidates_from_scores(scores, rule, small)
    outer = candidates_from_scores(scores, rule, large)
    assert not (inner & ~outer).any()


@pytest.mark.parametrize("rule", ["topk", "threshold", "ratio", "cumulative"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@given(data=st.data())
def test_the_value_chosen_reaches_the_coverage(rule, dtype, data):
    scores = data.draw(hnp.arrays(np.float64, (6, 5), elements=st.floats(0.01, 1)))
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(dtype)
    y = data.draw(hnp.arrays(np.int64, 6, elements=st.integers(0, 4)))
    coverage = data.draw(st.floats(0.01, 1))
    value = choose_rule_value(scores, y, rule, coverage=coverage)
    labels = PartialLabels.from_scores(scores, rule, value)
    assert labels.coverage(y) >= coverage - 1e-9


@given(
    votes=hnp.arrays(np.int64, st.tuples(sizes(8), sizes(4)), elements=st.integers(-1, 4)),
    data=st.data(),
)
def test_the_union_of_votes_does_not_depend_on_prompts_or_storage(votes, data):
    order = data.draw(st.permutations(range(votes.shape[1])))
    candidates = union_candidates(votes, 5)
    assert_array_equal(union_candidates(votes[:, order], 5, sparse=True).toarray(), candidates)
    silent = (votes < 0).all(axis=1)
    assert candidates[silent].all()
    sizes = [len(set(row) - {-1}) for row in votes[~silent].tolist()]
    assert_array_equal(candidates[~silent].sum(axis=1), sizes)


@pytest.mark.parametrize("score", [lac_scores, aps_scores])
@given(proba=probabilities((12, 4)), coverage=st.floats(0.05, 0.9), data=st.data())
def test_conformal_sets_cover_the_labels_they_are_calibrated_on(score, proba, coverage, data):
    y = data.draw(hnp.arrays(np.int64, 12, elements=st.integers(0, 3)))
    assume(min_calibration_size(coverage) <= 12)
    scores = score(proba)
    assert not np.isnan(scores).any() and (scores >= 0).all()
    quantile = conformal_quantile(scores[np.arange(12), y], coverage)
    sets = conformal_sets(scores, quantile)
    assert sets.any(axis=1).all()
    assert sets[np.arange(12), y].mean() >= coverage
    assert not (sets & ~conformal_sets(scores, quantile + 0.5)).any()


# -- synthetic candidates ----------------------------------------------------------------------


@few()
@pytest.mark.parametrize("protocol", ["uniform", "pico", "fredis", "instance"])
@given(
    y=hnp.arrays(np.int64, sizes(10), elements=st.integers(0, 4)),
    q=st.floats(0, 1),
    eta=st.floats(0, 0.9),
    seed=st.integers(0, 100),
)
def test_drawn_candidates_are_sets_and_follow_the_seed(protocol, y, q, eta, seed):
    options = {"protocol": protocol, "q": q, "eta": eta, "classes": range(5)}
    if protocol == "instance":
        options["proba"] = np.random.default_rng(seed).dirichlet(np.full(5, 0.1), len(y))
    candidates = make_candidates(y, **options, random_state=seed)
    assert candidates.shape == (len(y), 5) and candidates.dtype == bool
    assert candidates.any(axis=1).all()
    assert_array_equal(make_candidates(y, **options, random_state=seed), candidates)
    if eta == 0 and protocol in ("uniform", "instance"):
        assert candidates[np.arange(len(y)), y].all()


def test_nothing_is_drawn_for_no_labels():
    for protocol in ("uniform", "pico", "fredis"):
        empty = make_candidates(np.zeros(0, dtype=int), protocol=protocol, classes=range(3))
        assert empty.shape == (0, 3)


# -- metrics -----------------------------------------------------------------------------------


@st.composite
def scored_problems(draw):
    """Candidates, true labels (-1 for unlabelled), predictions and clean probabilities."""
    candidates = draw(candidate_matrices(sizes(10, 2), sizes(6, 2)))
    n, n_classes = candidates.shape
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(-1, n_classes - 1)))
    y[0] = 0  # someone is labelled
    candidates = candidates.copy()
    candidates[0] = np.arange(n_classes) < n_classes - 1  # and some set says something
    clean = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])))
    return candidates, y, draw(probabilities((n, n_classes))), clean


METRICS = {
    "coverage": lambda c, y, proba, clean: coverage_score(y, c),
    "ambiguity": lambda c, y, proba, clean: ambiguity_score(c),
    "ambiguity of wrong classes": lambda c, y, proba, clean: ambiguity_score(c, y),
    "covering rate": lambda c, y, proba, clean: covering_rate(proba, c),
    "approximated accuracy": lambda c, y, proba, clean: approximated_accuracy(proba, c),
    "F1": lambda c, y, proba, clean: noise_detection_f1(y, c, clean),
    "F1 of the clean": lambda c, y, proba, clean: noise_detection_f1(y, c, clean, positive="clean"),
}
metrics = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


@metrics
@given(problem=scored_problems(), form=st.sampled_from(list(FORMS)), data=st.data())
def test_metrics_are_shares_whatever_the_form_and_order_of_rows(metric, problem, form, data):
    candidates, *rest = problem
    value = metric(candidates, *rest)
    assert isinstance(value, float) and 0 <= value <= 1
    assert metric(FORMS[form](candidates), *rest) == value
    order = data.draw(st.permutations(range(len(candidates))))
    permuted = metric(candidates[order], *(part[order] for part in rest))
    assert permuted == pytest.approx(value, rel=1e-12)


@metrics
@given(problem=scored_problems(), data=st.data())
def test_metrics_do_not_depend_on_the_order_of_classes(metric, problem, data):
    candidates, y, _, clean = problem
    proba = data.draw(untied_probabilities(*candidates.shape))
    order = np.array(data.draw(st.permutations(range(candidates.shape[1]))))
    place = np.append(np.argsort(order), -1)  # -1 stays -1
    value = metric(candidates, y, proba, clean)
    permuted = metric(candidates[:, order], place[y], proba[:, order], clean)
    assert permuted == pytest.approx(value, rel=1e-12)


@given(problem=scored_problems())
def test_a_larger_set_covers_more(problem):
    candidates, y, proba, clean = problem
    larger = candidates | np.roll(candidates, 1, axis=1)
    larger[0] = candidates[0]
    assert coverage_score(y, larger) >= coverage_score(y, candidates)
    assert ambiguity_score(larger) >= ambiguity_score(candidates)
    hits = candidates[np.arange(len(y)), proba.argmax(axis=1)][~candidates.all(axis=1)]
    assert covering_rate(proba, candidates) == pytest.approx(hits.mean())


@given(problem=scored_problems())
def test_the_auc_depends_on_the_order_of_scores_alone(problem):
    candidates, y, _, clean = problem
    judged = (y >= 0) & ~candidates.all(axis=1)
    valid = candidates[np.arange(len(y)), y][judged]
    assume(valid.any() and not valid.all())
    auc = noise_detection_auc(y, candidates, clean)
    assert 0 <= auc <= 1
    assert noise_detection_auc(y, candidates, clean**3 * 1e300) == auc
    assert noise_detection_auc(y, candidates, -clean) == pytest.approx(1 - auc)


def test_metrics_of_a_single_class_are_undefined():
    for y in (None, [0, 0]):
        with pytest.warns(UserWarning, match="no wrong one, so the metric is NaN"):
            assert np.isnan(ambiguity_score([[1], [1]], y))
    assert coverage_score([0, 0], [[1], [1]]) == 1


def test_negative_numbers_are_no_probabilities():
    for metric in (approximated_accuracy, covering_rate):
        with pytest.raises(ValueError, match="probabilities are negative in row 1"):
            metric([[0.5, 0.5], [2.0, -1.5]], [[1, 0], [1, 0]])

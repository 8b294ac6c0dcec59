"""Learners on degenerate problems: they learn, or they say what is wrong with the problem."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from strategies import FORMS, candidate_matrices, few, read_only, sizes
from zoo import CASES, blobs

from sklearn_npll import PartialLabels

# Those that learn from features and candidates; the rest need an annotator or its answers.
OTHERS = {
    "AnnotatorClassifier",
    "ChatPartialAnnotator",
    "CLIPCleanerDetector",
    "ConfidentLearningDetector",
    "ConformalPartialAnnotator",
    "CoRegClassifier, images",
    "DawidSkeneClassifier",
    "DeFTClassifier",
    "DeFTDetector",
    "DeFTDetector, alone",
    "DistillationClassifier",
    "EnsemblePartialAnnotator",
    "LabelMatchDetector",
    "LabelModelClassifier",
    "VLMPartialAnnotator",
    "VLMPartialAnnotator, refined",
}
LEARNERS = {name: clone(case.estimator) for name, case in CASES.items() if name not in OTHERS}
for learner in LEARNERS.values():
    if hasattr(learner, "to_module"):
        learner.set_params(max_epochs=2, batch_size=16)
# One of each kind of code, for what takes many examples.
SELECTED = [
    "PLKNeighborsClassifier",
    "CLPLClassifier",
    "SUREClassifier",
    "PRODENClassifier",
    "CoRegClassifier",
    "NeighborVoteDetector",
]

X, Y = blobs(24)
ONE_HOT = np.eye(3, dtype=bool)[Y]
SETS = ONE_HOT | (np.random.default_rng(0).random((24, 3)) < 0.2)
SETS[5] = True
RARE = np.eye(2, dtype=bool)[(np.arange(24) == 3).astype(int)]
FULL = np.ones((24, 3), dtype=bool)
ONE_ROW = FULL.copy()
ONE_ROW[0] = [True, False, False]
TWO_ROWS = ONE_ROW.copy()
TWO_ROWS[1] = [False, True, False]
MANY = np.zeros((24, 2000), dtype=bool)
MANY[np.arange(24), 83 * Y] = True
MANY[::2, 1999] = True

WELL_POSED = {
    "all clean": (X, ONE_HOT),
    "all noisy": (X, np.roll(ONE_HOT, 1, axis=1)),
    "an empty class": (X, np.hstack([SETS, np.zeros((24, 2), dtype=bool)])),
    "a class of one row": (X, RARE),
    "the same set everywhere": (X, np.tile([True, True, False], (24, 1))),
    "duplicated rows": (np.repeat(X[:3], 8, axis=0), SETS),
    "constant features": (np.ones_like(X), SETS),
    "a constant feature": (np.column_stack([X, np.full(24, 7.0)]), SETS),
    "one feature": (X[:, :1], SETS),
    "an outlier": (np.where(np.arange(96).reshape(24, 4) == 9, 1e6, X), SETS),
    "large features": (X * 1e25, SETS),
    "small features": (X * 1e-30, SETS),
    "fewer rows than a batch": (X[:7], ONE_HOT[:7]),
    "two classes": (X, np.eye(2, dtype=bool)[Y % 2]),
    "2,000 classes": (X, MANY),
}
# Problems that some can learn from; the others say why not.
TOO_LITTLE = {
    "one candidate everywhere": (X, np.tile([False, True, False], (24, 1)), "one class"),
    "one labelled row": (X, ONE_ROW, "one class|cannot split|at least 2 rows"),
    "two labelled rows": (X, TWO_ROWS, "cannot split"),
    "two rows": (X[:2], ONE_HOT[:2], "cannot split"),
    "three rows": (X[:3], ONE_HOT[:3], "cannot split"),
}
ILL_POSED = {
    "all candidates everywhere": (X, FULL, "nothing to learn"),
    "one class": (X, sp.csr_array(np.ones((24, 1))), "at least 2 classes"),
    "one label": (X, np.full(24, 3), "at least 2 classes"),
    "no row": (X[:0], SETS[:0], "at least 2 samples"),
    "one row": (X[:1], SETS[:1], "at least 2 samples"),
    "no feature": (X[:, :0], SETS, "0 feature"),
    "NaN": (np.where(np.arange(96).reshape(24, 4) == 9, np.nan, X), SETS, "NaN"),
    "infinity": (np.where(np.arange(96).reshape(24, 4) == 9, -np.inf, X), SETS, "infinity"),
    "an empty set": (X, ONE_HOT & (np.arange(24) != 5)[:, None], "row 5 .* no candidate"),
    "too few sets": (X, SETS[:20], "24.*20|inconsistent"),
    "soft labels": (X, SETS * 0.5, "value 0.5 in row 0"),
    "text": (X.astype(str).astype(object) + "a", SETS, "could not convert"),
}
# What each learner should see again only when there is time.
SELDOM = {
    "a constant feature",
    "one feature",
    "an outlier",
    "large features",
    "small features",
    "two classes",
    "2,000 classes",
}
PAIRS = [
    pytest.param(
        learner,
        *problem,
        id=f"{name}-{kind}",
        marks=[pytest.mark.slow] if kind in SELDOM and name not in SELECTED else [],
    )
    for name, learner in LEARNERS.items()
    for kind, problem in WELL_POSED.items()
]
learners = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)


def fit_and_ask(learner, X, y):
    """Fit, with the warnings of what learns inside left to it; check all that is predicted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The least populated class|The number of unique classes")
        fitted = clone(learner).fit(X, y)
        proba = fitted.predict_proba(X)
    n_classes = len(fitted.classes_)
    assert proba.shape == (len(proba), n_classes)
    assert (proba >= 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    if hasattr(fitted, "predict"):
        assert_array_equal(fitted.predict(X), fitted.classes_[proba.argmax(axis=1)])
        target = fitted.label_distributions_
        assert target.shape == proba.shape and (target >= 0).all()
        np.testing.assert_allclose(target.sum(axis=1), 1, atol=1e-4)
    else:
        assert ((fitted.clean_score_ >= 0) & (fitted.clean_score_ <= 1)).all()
        assert fitted.clean_mask_.dtype == bool and fitted.clean_mask_.shape == (len(proba),)
    return fitted


@pytest.mark.parametrize("learner, X, y", PAIRS)
def test_learns_from_degenerate_problems(learner, X, y):
    before = X.copy(), y.copy()
    fit_and_ask(learner, X, y)
    assert_array_equal(X, before[0])
    assert_array_equal(y, before[1])


@learners
@pytest.mark.parametrize("X, y, reason", TOO_LITTLE.values(), ids=TOO_LITTLE)
def test_learns_from_very_little_or_says_why_not(learner, X, y, reason):
    try:
        fit_and_ask(learner, X, y)
    except ValueError as error:
        assert type(learner).__name__ in ("PseudoLabelClassifier", "SmallLossDetector") or (
            type(learner).__name__ == "NeighborVoteDetector" and "at least 2 rows" in str(error)
        )
        with pytest.raises(ValueError, match=reason):
            raise


@learners
@pytest.mark.parametrize("X, y, reason", ILL_POSED.values(), ids=ILL_POSED)
def test_names_what_is_wrong(learner, X, y, reason):
    if type(learner).__name__ == "PseudoLabelClassifier":
        reason = reason.replace("nothing to learn", "nothing to learn|no row with a label")
    with pytest.raises(ValueError, match=reason):
        clone(learner).fit(X, y)


@pytest.mark.parametrize("name", SELECTED)
def test_features_too_large_to_compute_with_are_named(name):
    far = X.astype(float)
    far[4, 2] = -1e37 if hasattr(LEARNERS[name], "max_epochs") else -1e200
    if name == "NeighborVoteDetector":
        pytest.skip("compares cosines, which scikit-learn scales")
    with pytest.raises(ValueError, match=r"X is -1e\+\d+ in row 4, column 2, too large"):
        clone(LEARNERS[name]).fit(far, SETS)
    with pytest.raises(ValueError, match=r"in row 4, column 2, too large"):
        clone(LEARNERS[name]).fit(X, SETS).predict_proba(far)


FEATURE_FORMS = {
    "float64": lambda X: X.astype(np.float64),
    "fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "reversed": lambda X: X[::-1].copy()[::-1],
    "read-only": read_only,
    "list": lambda X: X.tolist(),
    "data frame": lambda X: pd.DataFrame(X.astype(np.float64)),
}


@few()
@pytest.mark.parametrize("name", SELECTED)
@given(form=st.sampled_from(list(FEATURE_FORMS)), y_form=st.sampled_from(list(FORMS)))
def test_the_form_of_features_and_candidates_does_not_matter(name, form, y_form):
    # numbers that single precision holds exactly, and so does each form
    X = np.round(blobs(24)[0] * 8) / 8
    expected = clone(LEARNERS[name]).fit(X, SETS).predict_proba(X)
    given_X = FEATURE_FORMS[form](X)
    found = clone(LEARNERS[name]).fit(given_X, FORMS[y_form](SETS)).predict_proba(given_X)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@few()
@pytest.mark.parametrize("name", SELECTED)
@given(
    candidates=candidate_matrices(sizes(9, 4), sizes(5, 2)),
    seed=st.integers(0, 99),
    duplicated=st.booleans(),
)
def test_learns_from_any_candidates(name, candidates, seed, duplicated):
    X = np.random.default_rng(seed).normal(size=(len(candidates), 3))
    X[1 : 3 if duplicated else 1] = X[0]
    learner = LEARNERS[name]
    if candidates.all():
        with pytest.raises(ValueError, match="nothing to learn"):
            clone(learner).fit(X, candidates)
    elif name == "NeighborVoteDetector" and (~candidates.all(axis=1)).sum() < 2:
        with pytest.raises(ValueError, match="at least 2 rows"):
            clone(learner).fit(X, candidates)
    else:
        fitted = fit_and_ask(learner, X, candidates)
        names = np.array([f"class {i}" for i in range(candidates.shape[1])])
        again = clone(learner).fit(PartialLabels.from_candidates(candidates, X, names))
        assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        assert_array_equal(again.classes_, names)


@few()
@pytest.mark.parametrize("name", ["PLKNeighborsClassifier", "CLPLClassifier", "SUREClassifier"])
@given(order=st.permutations(range(24)), classes=st.permutations(range(3)))
def test_classic_learners_do_not_depend_on_the_order_of_rows_and_classes(name, order, classes):
    expected = clone(LEARNERS[name]).fit(X, SETS).predict_proba(X)
    found = clone(LEARNERS[name]).fit(X[order], SETS[order][:, classes]).predict_proba(X)
    np.testing.assert_allclose(found, expected[:, classes], atol=1e-4)


@pytest.mark.parametrize("name", SELECTED)
def test_features_are_no_sparse_matrix(name):
    with pytest.raises(TypeError, match="[Ss]parse"):
        clone(LEARNERS[name]).fit(sp.csr_array(X), SETS)


# No images, and none who only reads the annotator's answers.
WITH_FEATURES = [
    name
    for name, case in CASES.items()
    if np.ndim(case.new) == 2
    and name not in ("AnnotatorClassifier", "DawidSkeneClassifier", "LabelModelClassifier")
]


@pytest.mark.parametrize("name", WITH_FEATURES)
def test_rows_that_are_not_finite_are_named(name):
    case = CASES[name]
    damaged = blobs()[0]
    damaged[[3, 20], 1] = np.nan
    damaged[5, 0] = np.inf
    message = r"^Input X contains NaN: rows 3, 20; infinity or a value too large for .*: row 5"
    wrong = case.X.replace(data=damaged) if isinstance(case.X, PartialLabels) else damaged
    with pytest.raises(ValueError, match=message):
        clone(case.estimator).fit(wrong, case.y, **case.fit_params)
    fitted = case.fit()
    ask = fitted.predict if hasattr(fitted, "predict") else fitted.predict_proba
    with pytest.raises(ValueError, match=message):
        ask(damaged)


def test_a_row_is_named_whatever_the_features_of_an_earlier_fit():
    learner = clone(LEARNERS["PLKNeighborsClassifier"]).fit(X[:, :2], SETS)
    with pytest.raises(ValueError, match="Input X contains NaN: row 7"):
        learner.fit(np.where(np.arange(24)[:, None] == 7, np.nan, X), SETS)


def test_missing_values_of_pandas_are_named():
    frame = pd.DataFrame({"a": X[:, 0], "b": pd.array([None, *range(23)], dtype="Int64")})
    with pytest.raises(ValueError, match="Input X contains NaN: row 0"):
        clone(LEARNERS["PLKNeighborsClassifier"]).fit(frame, SETS)


def test_only_values_too_large_for_the_type_in_use_are_named():
    features = X.astype(np.float64)
    features[2], features[3] = np.inf, 1e60  # more than a float32 holds
    with pytest.raises(ValueError, match="infinity or a value too large for .*: row 2\\b(?!,)"):
        clone(LEARNERS["NeighborVoteDetector"]).fit(features, SETS)

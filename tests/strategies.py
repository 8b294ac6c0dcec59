"""What property tests draw: candidates, probabilities, logits, features and labels of all kinds.

Runs are the same every time. ``SKLEARN_NPLL_EXAMPLES=1000`` draws new examples, and as many.
"""

import os

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse as sp

from sklearn_npll import PartialLabels

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("npll", derandomize=True, max_examples=10, database=None, **_COMMON)
if n_examples := os.environ.get("SKLEARN_NPLL_EXAMPLES"):
    settings.register_profile("npll", max_examples=int(n_examples), **_COMMON)
settings.load_profile("npll")

# Numbers at which logarithms, quotients and exponentials go wrong, smallest first.
SMALL = [0.0, 5e-324, 1e-310, 1e-45, 1e-38, 1e-12, 1e-8, 1e-4]


def few():
    """Settings for a slow test: half as many examples as others have."""
    return settings(max_examples=max(1, settings().max_examples // 2))


def sizes(largest=10, smallest=1):
    return st.integers(smallest, largest)


FEW_ROWS, FEW_CLASSES = sizes(10), sizes(8)


@st.composite
def candidate_matrices(draw, n_samples=FEW_ROWS, n_classes=FEW_CLASSES):
    """Bool arrays with a candidate in each row; among them one everywhere, all everywhere."""
    n, n_classes = draw(n_samples), draw(n_classes)
    kind = draw(st.sampled_from(["any", "any", "any", "one", "all", "same"]))
    if kind == "all":
        return np.ones((n, n_classes), dtype=bool)
    column = st.integers(0, n_classes - 1)
    sure = draw(hnp.arrays(np.intp, n, elements=column))
    if kind == "same":
        sure[:] = sure[:1]
    candidates = np.eye(n_classes, dtype=bool)[sure]
    if kind == "any":
        candidates |= draw(hnp.arrays(bool, (n, n_classes)))
    return candidates


# The same candidates in every form that is accepted. A sum of duplicates would not be one of them.
FORMS = {
    "bool": lambda c: c,
    "int": lambda c: c.astype(np.int64),
    "uint8": lambda c: c.astype(np.uint8),
    "float32": lambda c: c.astype(np.float32),
    "object": lambda c: c.astype(object),
    "list": lambda c: c.astype(int).tolist(),
    "fortran": np.asfortranarray,
    "strided": lambda c: np.repeat(c, 2, axis=0)[::2],
    "reversed": lambda c: c[::-1].copy()[::-1],
    "read-only": lambda c: read_only(c),
    "csr": lambda c: sp.csr_array(c),
    "csr_matrix": lambda c: sp.csr_matrix(c.astype(float)),
    "csc": lambda c: sp.csc_array(c.astype(np.uint8)),
    "coo": lambda c: sp.coo_array(c.astype(int)),
    "explicit zeros": lambda c: sp.csr_array(
        (c.ravel().astype(int), np.indices(c.shape).reshape(2, -1)), shape=c.shape
    ),
}


def read_only(array):
    array = np.array(array)
    array.setflags(write=False)
    return array


@st.composite
def probabilities(draw, shape):
    """Float64 rows of sum 1: uniform, one-hot, tied, and with entries that vanish."""
    weight = st.one_of(st.sampled_from(SMALL), st.floats(1e-3, 1), st.just(1.0))
    proba = draw(hnp.arrays(np.float64, shape, elements=weight))
    proba[proba.sum(axis=1) < 1e-3] = 1.0
    return proba / proba.sum(axis=1, keepdims=True)


@st.composite
def untied_probabilities(draw, n_samples, n_classes):
    """Float64 rows of sum 1 without equal entries, from flat to next to one-hot."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return rng.dirichlet(np.full(n_classes, draw(st.sampled_from([0.05, 1, 50]))), n_samples)


def logits(shape, huge=1e30):
    """Float32 logits from ordinary to huge ones."""
    value = st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 88.0, -104.0, 1e4, -1e4, huge, -huge]),
        st.floats(-30, 30, width=32),
    )
    return hnp.arrays(np.float32, shape, elements=value)


@st.composite
def partial_labels(draw, n_samples=FEW_ROWS, n_classes=FEW_CLASSES):
    """Containers with any of samples, scores, votes and known rows, on either side of CSR."""
    candidates = draw(candidate_matrices(n_samples, n_classes))
    if draw(st.booleans()):  # many classes are stored sparsely
        candidates = np.hstack([candidates, np.zeros((len(candidates), 64), dtype=bool)])
    n, n_classes = candidates.shape
    classes = draw(
        st.sampled_from(
            [
                np.arange(n_classes),
                np.array([f"class {i}" for i in range(n_classes)]),
                np.arange(n_classes)[::-1] * 2.0,
            ]
        )
    )
    data = draw(
        st.sampled_from(
            [
                None,
                np.arange(3.0 * n).reshape(n, 3),
                np.zeros((n, 2, 2), dtype=np.uint8),
                [f"{i}.jpg" for i in range(n)],
            ]
        )
    )
    votes = scores = known = None
    if draw(st.booleans()):
        votes = draw(hnp.arrays(np.int64, (n, 3), elements=st.integers(-1, n_classes - 1)))
    if draw(st.booleans()):
        scores = draw(probabilities((n, n_classes)))
    if draw(st.booleans()):
        known = draw(hnp.arrays(bool, n)) & (candidates.sum(axis=1) == 1)
    return PartialLabels(data, classes, candidates, scores=scores, votes=votes, known=known)


def label_forms(codes):
    """The same class indices as labels of every accepted kind; -1 is unlabelled in each."""
    names = np.array(["ant", "bee", "cow", "dog", "eel"])
    as_names = np.where(codes < 0, "-1", names[codes])
    return {
        "int": codes,
        "int8": codes.astype(np.int8),
        "float": codes.astype(float),
        "list": codes.tolist(),
        "str": as_names,
        "object": as_names.astype(object),
        "mixed": np.array([-1 if c < 0 else str(names[c]) for c in codes], dtype=object),
    }

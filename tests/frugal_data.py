"""Samples of many classes, and a limit that makes them a large problem."""

import numpy as np
import pytest

from sklearn_npll import CoRegClassifier, PartialLabels, _inputs
from sklearn_npll._neural import _sparse_rows
from sklearn_npll.datasets import make_candidates

N, N_CLASSES = 240, 30

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(N_CLASSES, 8)) * 2
T = RNG.integers(N_CLASSES, size=N)
X = (CENTRES[T] + RNG.normal(size=(N, 8))).astype(np.float32)
CANDIDATES = make_candidates(T, q=0.05, eta=0.2, classes=np.arange(N_CLASSES), random_state=0)
CANDIDATES[:5] = True
SCORES = np.exp(X @ CENTRES.T / 4)
SCORES = (SCORES / SCORES.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture
def large(monkeypatch):
    """Let every problem be a large one, in blocks of few rows."""
    monkeypatch.setattr(_inputs, "SPARSE_FROM", 0)
    monkeypatch.setattr(_sparse_rows, "BLOCK_CELLS", 50 * N_CLASSES)


def classifier(**params):
    defaults = {"max_epochs": 4, "warm_up": 2, "lr": 0.05, "contrastive_start": 0, "batch_size": 60}
    return CoRegClassifier(random_state=0, **{**defaults, **params})


def make_labels(**parts):
    known = np.zeros(N, dtype=bool)
    known[np.flatnonzero(CANDIDATES.sum(1) == 1)[0]] = True
    return PartialLabels(X, np.arange(N_CLASSES), CANDIDATES, known=known, **parts)

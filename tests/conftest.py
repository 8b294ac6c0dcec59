"""Fixtures and settings shared by all tests."""

import os
from pathlib import Path

# Before anything imports them: no windows, and no test waits for a model hub.
os.environ.setdefault("MPLBACKEND", "Agg")
if not os.environ.get("SKLEARN_NPLL_WEIGHTS"):
    os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch

from sklearn_npll import PartialLabels

# So that what they assert shows its values, as in a test.
pytest.register_assert_rewrite("cli_runs", "coreg_fits")


def pytest_configure(config):
    # Small tensors are fastest on one thread, and sums come out the same on any machine.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if os.environ.get("SKLEARN_NPLL_WEIGHTS"):
        return
    skip = pytest.mark.skip(reason="loads real weights from a hub: set SKLEARN_NPLL_WEIGHTS")
    for item in items:
        if "weights" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the development data, from SKLEARN_NPLL_DATA; skips the test without it."""
    folder = os.environ.get("SKLEARN_NPLL_DATA")
    if not folder:
        pytest.skip("needs the development data: set SKLEARN_NPLL_DATA to its folder")
    if not Path(folder).is_dir():
        pytest.fail(f"SKLEARN_NPLL_DATA names {folder}, which is not a folder")
    return Path(folder)


@pytest.fixture(autouse=True)
def seeded_torch():
    """Give every test the same random numbers of torch, whatever ran before."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def labels():
    """Four samples of three classes, with all that PartialLabels may have."""
    candidates = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)
    return PartialLabels(
        np.arange(4) * 10,
        ["cat", "dog", "fox"],
        candidates,
        scores=candidates / candidates.sum(axis=1, keepdims=True),
        votes=[[0, 0, 0], [0, 1, 0], [1, 2, -1], [2, -1, -1]],
        known=[True, False, False, False],
    )

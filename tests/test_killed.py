"""Work that is killed, works in two processes, or runs out of disk."""

import contextlib
import os
import sqlite3
import sys
import warnings

import numpy as np
import pytest
from killing import LABELS, annotate, ask, finish, kill_at_random, learn, n_logged, save, start
from numpy.testing import assert_array_equal

from sklearn_npll import PartialLabels
from sklearn_npll._neural._checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes and kills them")

UNITS = {annotate: 48, ask: 48, learn: 24, save: 12}
LOST = {annotate: 4, ask: 4, learn: 1, save: 12}  # units that a kill may cost: those in flight


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = {}

    def run(job):
        if job not in results:
            folder = tmp_path_factory.mktemp(job.__name__)
            finish(start(job, folder))
            assert n_logged(folder) == UNITS[job]
            results[job] = np.load(folder / "result.npy")
        return results[job]

    return run


def check_whole(path):
    """Raise if a file is not what was once written completely."""
    if path.suffix == ".db":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    elif path.suffix == ".pt":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_checkpoint(path, "cpu")["history"]
    else:
        assert path.name == "labels.npz"
        data = PartialLabels.load(path).data
        assert any(np.array_equal(data, labels.data) for labels in LABELS)


@pytest.mark.parametrize("n_kills", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("job", UNITS, ids=lambda job: job.__name__)
def test_killed_at_random_moments(job, n_kills, tmp_path, uninterrupted):
    rng = np.random.default_rng(n_kills)
    most = max(1, UNITS[job] // (n_kills + 1) - LOST[job]) if job is not save else 6
    kept, n_killed = tmp_path / "kept", 0
    for _ in range(n_kills):
        n_killed += kill_at_random(job, tmp_path, rng, int(rng.integers(1, most + 1)))
        for path in kept.iterdir() if kept.exists() else ():
            if path.suffix not in (".tmp", ".db-journal"):
                check_whole(path)
    assert n_killed == n_kills
    assert not (tmp_path / "result.npy").exists()

    partial = list(kept.glob("*.tmp"))
    assert len(partial) <= n_kills
    for path in partial:  # of an attempt long ago
        os.utime(path, (1, 1))
    finish(start(job, tmp_path))
    assert_array_equal(np.load(tmp_path / "result.npy"), uninterrupted(job))
    assert UNITS[job] <= n_logged(tmp_path) <= UNITS[job] + n_kills * LOST[job]
    assert len(list(kept.iterdir())) == 1


@pytest.mark.parametrize("job", [annotate, ask, learn, save], ids=lambda job: job.__name__)
def test_two_processes_at_once(job, tmp_path, uninterrupted):
    both = [start(job, tmp_path), start(job, tmp_path)]
    finish(*both)
    assert_array_equal(np.load(tmp_path / "result.npy"), uninterrupted(job))
    (path,) = (tmp_path / "kept").iterdir()
    check_whole(path)
    before = n_logged(tmp_path)
    finish(start(job, tmp_path))
    assert n_logged(tmp_path) == before + (UNITS[job] if job is save else 0)

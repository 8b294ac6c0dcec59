"""Work that is killed, works in two processes, or runs out of disk."""

import contextlib
import errno
import os
import re
import sqlite3
import sys
import warnings

import numpy as np
import pytest
from fakes import ColourVLM
from killing import LABELS, annotate, ask, finish, kill_at_random, learn, n_logged, save, start
from numpy.testing import assert_array_equal

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll._neural._checkpoint import load_checkpoint, save_checkpoint
from sklearn_npll.annotators import ChatPartialAnnotator

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
            assert load_checkpoint(path)["history"]
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


# Disks that are full or cannot be written to


@pytest.mark.parametrize("job, max_bytes", [(annotate, 16384), (ask, 8192), (learn, 100_000)])
def test_file_that_cannot_grow(job, max_bytes, tmp_path, uninterrupted):
    expected = uninterrupted(job)
    finish(start(job, tmp_path, max_bytes))
    assert_array_equal(np.load(tmp_path / "result.npy"), expected)
    (message,) = (tmp_path / "warnings").read_text().splitlines()
    assert re.search("cannot be (used|written) .* goes on", message)
    for path in (tmp_path / "kept").iterdir():
        check_whole(path)
    finish(start(job, tmp_path))  # the disk has room again, and what was kept is used
    assert_array_equal(np.load(tmp_path / "result.npy"), expected)
    assert (tmp_path / "warnings").read_text() == ""
    assert n_logged(tmp_path) <= 2 * UNITS[job]


PIXELS = np.random.default_rng(0).integers(0, 256, size=(9, 4, 4, 3), dtype=np.uint8)


def colours(cache_dir):
    vlm = ColourVLM()
    return VLMPartialAnnotator(["red", "green"], vlm=vlm, batch_size=2, cache_dir=cache_dir), vlm


class Redder:
    """Says whether images are red, and counts them."""

    cache_key = "redder"
    n_images = 0

    def __call__(self, images, prompt):
        self.n_images += len(images)
        return ["red" if np.asarray(i)[..., 0].mean() > 128 else "green" for i in images]


def questions(cache_dir):
    backend = Redder()
    annotator = ChatPartialAnnotator(["red", "green"], backend=backend, questions="simple")
    return annotator.set_params(batch_size=2, cache_dir=cache_dir), backend


def refuse(error):
    def makedirs(path, *args, **kwargs):
        raise OSError(error, os.strerror(error), str(path))

    return makedirs


def read_only(path, **options):
    """What SQLite does of a file on a read-only disk."""
    return CONNECT(f"file:{path}?mode=ro", uri=True, **options)


def full(path, **options):
    connection = CONNECT(path, **options)
    connection.execute("PRAGMA max_page_count = 1")
    return connection


CONNECT = sqlite3.connect


@pytest.mark.parametrize("make", [colours, questions])
@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_no_place_for_a_cache(make, error, tmp_path, monkeypatch):
    expected = make(None)[0].fit_transform(PIXELS)
    monkeypatch.setattr(os, "makedirs", refuse(error))
    annotator, model = make(tmp_path / "cache")
    with pytest.warns(UserWarning, match=rf"cache .*{os.strerror(error)}.* goes on, but") as caught:
        labels = annotator.fit_transform(PIXELS)
    assert len(caught) == 1
    assert_array_equal(labels.scores, expected.scores)
    assert model.n_images == len(PIXELS)


@pytest.mark.parametrize("make", [colours, questions])
@pytest.mark.parametrize("connect, n_kept", [(read_only, 5), (full, 0)])
def test_cache_that_cannot_be_written(make, connect, n_kept, tmp_path, monkeypatch):
    expected = make(None)[0].fit_transform(PIXELS)
    before = None
    if n_kept:
        make(tmp_path)[0].fit_transform(PIXELS[:n_kept])
        (path,) = tmp_path.iterdir()
        before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        annotator, model = make(tmp_path)
        with pytest.warns(UserWarning, match="(readonly|is full).* goes on, but new") as caught:
            labels = annotator.fit_transform(PIXELS)
    assert len(caught) == 1
    assert_array_equal(labels.scores, expected.scores)
    assert model.n_images == len(PIXELS) - n_kept
    assert before is None or path.read_bytes() == before
    for n_images in (len(PIXELS) - n_kept, 0):  # there is room again
        annotator, model = make(tmp_path)
        assert_array_equal(annotator.fit_transform(PIXELS).scores, expected.scores)
        assert model.n_images == n_images


@pytest.mark.parametrize("make", [colours, questions])
def test_file_in_place_of_the_cache_folder(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        make(tmp_path / "file")[0].fit(PIXELS)


def test_checkpoints_that_cannot_be_written(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    y = np.arange(20) % 2
    clf = CoRegClassifier(max_epochs=4, random_state=0).fit(X, y)
    expected = clf.predict_proba(X)
    clf.set_params(checkpoint_dir=tmp_path, checkpoint_every=1)

    labels = PartialLabels.from_candidates(np.eye(2))
    labels.save(tmp_path / "labels")

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.warns(UserWarning, match="cannot be written .*No space.* goes on") as caught:
        clf.fit(X, y)
    assert len(caught) == 1
    assert_array_equal(clf.predict_proba(X), expected)
    with pytest.raises(OSError, match="No space"):
        labels[:1].save(tmp_path / "labels")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.npz"]
    assert len(PartialLabels.load(tmp_path / "labels")) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        clf.set_params(checkpoint_dir=tmp_path / "file").fit(X, y)

    frame = save_checkpoint({}, tmp_path / "state").__traceback__.tb_frame
    frame.f_locals["buffer"].close()  # an error if a view of it were left

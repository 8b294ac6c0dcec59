"""ChatPartialAnnotator: interruptions, and its cache of answers."""

import os
import signal
import subprocess
import sys
import threading
import time

import chat_painter
import numpy as np
import pytest
from chat_painter import N, Painter, X, hosted
from chat_server import NAMES
from numpy.testing import assert_array_equal
from PIL import Image

# Fixtures, which pytest finds by their names here.
painter = chat_painter.painter
annotator = chat_painter.annotator
server = chat_painter.server


# Interruptions


@pytest.fixture
def ctrl_c():
    """Have it raise KeyboardInterrupt, also in a process that was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


no_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT")


@no_signals
def test_ctrl_c(server, tmp_path, ctrl_c):
    def interrupt(handler):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        handler.behave("green")  # already under way, and paid for

    server.script = ["red", interrupt]
    annotator = hosted(server, cache_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        annotator.fit_transform(X)
    assert len(server.requests) == 2
    labels = annotator.fit_transform(X)
    assert labels.votes.ravel().tolist() == [2, 1, 0, 2, 0]
    assert len(server.requests) == N


@no_signals
def test_ctrl_c_does_not_wait_for_retries(server, tmp_path, ctrl_c):
    def interrupt(handler):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        handler.behave((500, "", {}))

    server.script = [interrupt]
    annotator = hosted(server, backoff=100)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        annotator.fit_transform(X)
    assert time.monotonic() - start < 5
    assert len(server.requests) == 1


def test_a_killed_process_pays_nothing_twice(server, tmp_path):
    np.save(tmp_path / "X.npy", X)
    script = f"""
import numpy as np
from sklearn_npll.annotators import ChatPartialAnnotator, OpenAIChat
backend = OpenAIChat("painter", base_url={server.url!r}, max_concurrency=1, timeout=5.0)
ChatPartialAnnotator(
    {NAMES}, backend=backend, questions="simple", cache_dir={str(tmp_path / "cache")!r}
).fit_transform(np.load({str(tmp_path / "X.npy")!r}))
"""
    process = []

    def kill(handler):
        process[0].kill()
        process[0].wait()

    server.script = ["red", "green", kill]
    process.append(subprocess.Popen([sys.executable, "-c", script]))
    process[0].wait(60)
    assert len(server.requests) == 3
    annotator = hosted(server, cache_dir=tmp_path / "cache")
    assert annotator.fit_transform(X).votes.ravel().tolist() == [2, 1, 0, 2, 0]
    assert len(server.requests) == 3 + 3
    assert annotator.usage_["cached"] == 2


def test_an_interrupted_function(annotator, painter, tmp_path):
    class Weary(Painter):
        def __call__(self, images, prompt):
            if self.n_answers >= 3:
                raise KeyboardInterrupt
            return super().__call__(images, prompt)

    annotator.set_params(batch_size=1, cache_dir=tmp_path, backend=Weary())
    with pytest.raises(KeyboardInterrupt):
        annotator.fit_transform(X)
    annotator.set_params(backend=painter).fit_transform(X)
    assert painter.n_answers == 3 * N - 3


# Cache


def test_a_cache_knows_images_by_content(server, tmp_path):
    paths = []
    for i, image in enumerate(X):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    annotator = hosted(server, cache_dir=tmp_path / "cache")
    expected = annotator.fit_transform(X)
    pil = [Image.fromarray(image) for image in X]
    for samples in (paths, [path.read_bytes() for path in paths], pil, X[::-1]):
        annotator.fit_transform(samples)
    assert len(server.requests) == N
    assert_array_equal(annotator.fit_transform(paths).scores, expected.scores)
    changed = X.copy()
    changed[2, 0, 0] = 9
    annotator.fit_transform(changed)
    assert len(server.requests) == N + 1


@pytest.mark.parametrize(
    "params",
    [
        {"backend__model": "other"},
        {"backend__max_image_size": 2},
        {"backend__image_format": "png"},
        {"backend__extra_body": {"seed": 1}},
        {"max_tokens": 7},
        {"temperature": 1.0},
        {"questions": "Which of {classes}?"},
        {"allow_several": False},
        {"random_state": 1},
    ],
    ids=str,
)
def test_other_settings_are_other_answers(server, tmp_path, params):
    annotator = hosted(server, cache_dir=tmp_path)
    annotator.fit_transform(X[:1])
    annotator.set_params(backend__max_retries=0, backend__timeout=3, batch_size=1)
    annotator.set_params(
        max_tokens=np.int64(64), temperature=0, backend__max_image_size=np.int64(512)
    )
    annotator.fit_transform(X[:1])
    assert len(server.requests) == 1
    annotator.set_params(**params).fit_transform(X[:1])
    assert len(server.requests) == 2


def test_a_function_needs_a_cache_key(annotator, tmp_path):
    annotator.set_params(backend=lambda images, prompt: [], cache_dir=tmp_path)
    with pytest.raises(ValueError, match="needs backend.cache_key"):
        annotator.fit(X)


def test_a_damaged_cache_is_named(annotator, tmp_path):
    annotator.set_params(cache_dir=tmp_path).fit(X)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match=rf"{path.name} cannot be used .* delete it"):
        annotator.fit_transform(X)

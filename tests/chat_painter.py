"""A function and a stand-in server that name colours of images when asked."""

import numpy as np
import pytest
from chat_server import NAMES, running_server

from sklearn_npll.annotators import ChatPartialAnnotator, OpenAIChat

KEY = "sk-very-secret-0123456789"
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 190, 0], [120, 0, 130]], np.uint8)
X = np.tile(RGB[:, None, None, :], (1, 4, 4, 1))
Y = np.array(["red", "green", "blue", "red", "blue"])
N = len(X)


class Painter:
    """Names the colours of images by brightness, the likeliest first; counts what it is asked.

    A question with "doubt" in it gets two colours, one with "blind" a refusal.
    """

    cache_key = "painter"

    def __init__(self):
        self.n_answers = 0
        self.prompts = []

    def __call__(self, images, prompt):
        self.n_answers += len(images)
        self.prompts.append(prompt)
        assert all(image.mode == "RGB" for image in images)
        order = [np.asarray(image).mean(axis=(0, 1)).argsort()[::-1] for image in images]
        if "blind" in prompt:
            return ["I cannot see colours, neither red nor blue."] * len(images)
        n = 2 if "doubt" in prompt else 1
        return [" or ".join(NAMES[k] for k in own[:n]) for own in order]


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def annotator(painter):
    questions = ["Which of {classes}?", "In doubt, which?\n{options}", "blind: {classes}"]
    return ChatPartialAnnotator(NAMES, backend=painter, questions=questions)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running_server() as server:
        yield server


def hosted(server, *, questions="simple", cache_dir=None, on_error="raise", **params):
    """An annotator that asks the stand-in server, and waits for nothing."""
    params = {"backoff": 0.001, "max_concurrency": 1, "timeout": 5.0, **params}
    backend = OpenAIChat("painter", base_url=server.url, **params)
    return ChatPartialAnnotator(
        NAMES, backend=backend, questions=questions, cache_dir=cache_dir, on_error=on_error
    )


class TellSign:
    """Classes by the first column."""

    def __call__(self, rows, prompt):
        return [NAMES[int(row[0] > 0)] for row in rows]

    def __repr__(self):  # in the names of tests, which must be the same in every process
        return "TellSign()"


tell_sign = TellSign()

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from chat_server import NAMES, completion, drip, hang, image_of, running_server
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_npll import PartialLabels
from sklearn_npll._images import ImageReadError
from sklearn_npll.annotators import ChatError, ChatPartialAnnotator, OpenAIChat
from sklearn_npll.annotators._chat_http import parse_retry_after, retry_delay
from sklearn_npll.annotators._questions import option_order, resolve_questions, write_prompt
from sklearn_npll.baselines import AnnotatorClassifier, PseudoLabelClassifier

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


# What it computes


def test_votes_scores_and_candidates_by_hand(annotator):
    labels = annotator.fit_transform(X[[0, 3]] + np.arange(3, dtype=np.uint8) * 2)
    # (255, 2, 4) is red, or blue; (200, 192, 4) red, or green
    assert labels.classes.tolist() == ["blue", "green", "red"]
    assert_array_equal(labels.votes, [[2, 2, -1], [2, 2, -1]])
    assert_array_equal(labels.candidates, [[True, False, True], [False, True, True]])
    assert_allclose(labels.scores, [[1 / 6, 0, 5 / 6], [0, 1 / 6, 5 / 6]], rtol=1e-6)
    assert labels.scores.dtype == np.float32
    assert_array_equal(annotator.predict(X), Y)
    assert_allclose(annotator.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_score_asks_about_labelled_samples_only(annotator, painter):
    annotator.set_params(questions="simple").fit(X)
    assert annotator.score(X, ["red", -1, "red", -1, -1]) == 0.5
    assert painter.n_answers == 2


def test_where_all_abstain_all_classes_are_candidates(annotator):
    annotator.set_params(questions=["blind: {classes}", "also blind: {options}"])
    with pytest.warns(UserWarning, match="10 of 10 answers name no class .* 'I cannot see"):
        labels = annotator.fit_transform(X)
    assert_array_equal(labels.votes, np.full((N, 2), -1))
    assert labels.toarray().all()
    assert_allclose(labels.scores, 1 / 3, rtol=1e-6)


def test_synonyms_are_recognised_and_the_first_name_is_shown(painter):
    annotator = ChatPartialAnnotator(
        {7: "red", 3: ["lime", "green"], 5: "blue"}, backend=painter, questions="simple"
    )
    assert_array_equal(annotator.fit(X).predict(X), [7, 3, 5, 7, 5])
    assert "lime" in annotator.prompts_[0] and "green" not in annotator.prompts_[0]
    assert annotator.score(X, [7, 3, 5, 7, 3]) == 0.8


def test_letters_are_read_by_the_order_that_was_shown():
    def first(images, prompt):
        return ["(A)"] * len(images)

    annotator = ChatPartialAnnotator(NAMES, backend=first, questions=["Which?\n{options}"])
    labels = annotator.set_params(random_state=3).fit_transform(X)
    shown = annotator.prompts_[0].split("\n")[1]
    assert shown == f"(A) {labels.classes[labels.votes[0, 0]]}"


def test_embeddings_of_answers(painter):
    def rosy(images, prompt):
        return ["a rosy hue"] * len(images)

    def embed(texts):
        return np.array([[t.count("r"), t.count("g") + t.count("b")] for t in texts]) + 0.1

    annotator = ChatPartialAnnotator(NAMES, backend=rosy, questions="simple", embed=embed)
    assert_array_equal(annotator.fit_transform(X).votes, np.full((N, 1), 2))
    with pytest.warns(UserWarning, match="name no class"):
        annotator.set_params(embed=None).fit_transform(X)


def test_many_classes_are_stored_sparsely():
    names = [f"kind {i}" for i in range(70)]
    annotator = ChatPartialAnnotator(
        names, backend=lambda images, _: ["kind 69"] * len(images), questions="simple"
    )
    labels = annotator.fit_transform(X)
    assert sklearn.utils.validation.sp.issparse(labels.candidates)
    assert labels.classes[labels.toarray().all(axis=0)].tolist() == ["kind 69"]


def test_answers_are_kept_as_they_were(annotator):
    answers = annotator.fit(X).answers(X)
    assert answers.shape == (N, 3)
    assert answers[0].tolist()[::2] == ["red", "I cannot see colours, neither red nor blue."]


# Questions


def test_prompts():
    assert len(resolve_questions("general-4")) == 4
    assert resolve_questions("Which of {classes}?") == ["Which of {classes}?"]
    prompt = write_prompt("Which of {classes}?", NAMES, [2, 0, 1], False)
    assert prompt.text.startswith("Which of blue, red, green? Answer with one name only")
    prompt = write_prompt("Pick: {options}", ["{classes}", "{options}"], [1, 0], True)
    assert prompt.text.startswith("Pick: (A) {options}\n(B) {classes}\nAnswer with the name only")
    many = write_prompt("{options}", [f"kind {i}" for i in range(30)], range(29, -1, -1), None)
    assert many.options["1"] == 29 and many.options["30"] == 0


def test_options_are_not_labelled_by_names_of_classes():
    letters = list("ABCDEFGHIJ")

    def ask(images, prompt):  # the truth is C
        return [re.search(r"^\((\w+)\) C$", prompt, re.M)[0][:3]] * len(images)

    annotator = ChatPartialAnnotator(letters, backend=ask, questions="Which?\n{options}").fit(X)
    assert re.findall(r"^\((\w+)\)", annotator.prompts_[0], re.M) == [str(i) for i in range(1, 11)]
    assert_array_equal(annotator.transform(X[:1]), [np.array(letters) == "C"])
    # neither letters nor numbers
    annotator.set_params(classes=["C", "1", "2", "x", "y"]).fit(X)
    assert re.findall(r"^\((\w)\)", annotator.prompts_[0], re.M) == list("ABDEF")
    assert_array_equal(annotator.predict(X[:1]), ["C"])
    annotator.set_params(classes=[*letters, *map(str, range(30))])
    with pytest.raises(ValueError, match="Ask with {classes} instead, or give .* longer names"):
        annotator.fit(X)
    annotator.set_params(questions="Which of {classes}?").fit(X)


def test_options_are_shuffled_by_question_and_seed():
    orders = {tuple(option_order(q, 10, seed)) for q in ("a", "b") for seed in (0, 1)}
    assert len(orders) == 4
    assert sorted(orders.pop()) == list(range(10))


def test_a_question_does_not_depend_on_the_others(annotator, tmp_path, painter):
    annotator.set_params(cache_dir=tmp_path).fit_transform(X)
    n, painter.n_answers = painter.n_answers, 0
    annotator.set_params(questions=annotator.questions[:0:-1]).fit_transform(X)
    assert (n, painter.n_answers) == (3 * N, 0)


def test_random_state(annotator):
    annotator.set_params(questions="general-4")
    prompts = annotator.fit(X).prompts_
    assert clone(annotator).fit(X).prompts_ == prompts
    assert clone(annotator).set_params(random_state=1).fit(X).prompts_ != prompts
    plain = clone(annotator).set_params(shuffle_options=False, allow_several=None).fit(X)
    assert plain.prompts_[0] == "What does this image show? Choose from: blue, green, red."
    state = np.random.RandomState(0)
    assert annotator.set_params(random_state=state).fit(X).prompts_ == prompts
    assert annotator.fit(X).prompts_ != prompts


def test_global_generators_are_untouched(annotator):
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    annotator.fit_transform(X)
    assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


# When it asks


def test_transform_is_lazy_and_equals_fit_transform(annotator, painter):
    now = annotator.fit_transform(X)
    assert now.is_materialized and painter.n_answers == 3 * N
    later = annotator.transform(X)
    assert later.data is X
    assert (later.shape, painter.n_answers) == ((N, 3), 3 * N)
    annotator.set_params(classes=["green", "blue"], questions="simple")
    annotator.fit(X)
    assert_array_equal(later, now)  # settled when it was made
    assert_array_equal(later.votes, now.votes)
    assert_array_equal(later.scores, now.scores)
    assert painter.n_answers == 6 * N


def test_a_lazy_slice_asks_about_its_rows_only(annotator, painter):
    labels = annotator.fit(X).transform(X)[[3, 1]]
    assert_array_equal(labels.votes[:, 0], [2, 1])
    assert painter.n_answers == 2 * 3


def test_equal_questions_are_put_in_one_call(annotator, painter):
    annotator.set_params(batch_size=3).fit_transform(X)
    assert painter.prompts == [p for _ in range(2) for p in annotator.prompts_]


def test_equal_images_are_asked_about_once_a_batch(annotator, painter):
    labels = annotator.fit_transform(np.repeat(X, 3, axis=0))
    assert painter.n_answers == 3 * N
    assert_array_equal(labels.votes[::3], labels.votes[2::3])
    assert annotator.usage_["cached"] == 2 * 3 * N


def test_threads_that_share_an_annotator_count_together(annotator):
    annotator.fit(X[:1])
    before, interval = annotator.usage_["requests"], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: np.asarray(annotator.transform(X))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert annotator.usage_["requests"] - before == 8 * N * len(annotator.questions_)


def test_in_a_pipeline_and_a_search(annotator, painter, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(30, 4, 4, 3), dtype=np.uint8)
    y = np.array(NAMES)[images.mean(axis=(1, 2)).argmax(axis=1)]
    annotator.set_params(cache_dir=tmp_path)
    # labels and features travel in one container, so the learner is given the annotator's own
    search = GridSearchCV(
        annotator,
        {"questions": [annotator.questions[:1], annotator.questions]},
        cv=3,
        error_score="raise",
    ).fit(images, y)
    assert search.best_score_ == 1
    assert painter.n_answers == 3 * 30
    pipe = make_pipeline(clone(annotator), AnnotatorClassifier()).fit(images)
    assert_array_equal(pipe[-1].transduction_, y)
    assert painter.n_answers == 3 * 30


def test_learning_from_the_answers():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    features = rng.normal(size=(60, 4)) + 4 * np.eye(3, 4)[y]

    def ask(rows, prompt):
        return [NAMES[int(row[:3].argmax())] for row in rows]

    pipe = make_pipeline(ChatPartialAnnotator(NAMES, backend=ask), PseudoLabelClassifier(SVC()))
    assert pipe.fit(features).score(features, np.array(NAMES)[y]) > 0.9


# What y means


@pytest.mark.parametrize("y", [Y, Y[::-1], None, np.arange(5)])
def test_y_is_ignored(annotator, y):
    expected = annotator.fit_transform(X).candidates
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = annotator.fit_transform(X, y)
    assert_array_equal(labels, expected)
    assert labels.known is None


def test_few_labels_are_not_ignored_silently(annotator):
    with pytest.warns(UserWarning, match="y contains -1.*set use_y=True") as caught:
        annotator.fit(X, ["red", -1, -1, -1, -1])
    assert caught[0].filename == __file__


def test_use_y_and_known_labels(annotator):
    free = annotator.fit_transform(X)
    annotator.set_params(use_y=True)
    labels = annotator.fit_transform(X, ["green", -1, "blue", -1, -1])
    assert labels.known.tolist() == [True, False, True, False, False]
    expected = free.toarray().copy()
    expected[[0, 2]] = [[False, True, False], [True, False, False]]
    assert_array_equal(labels, expected)
    assert_array_equal(labels.scores, free.scores)
    assert_array_equal(annotator.transform(X), free)
    labels = annotator.fit_transform(X, Y, known_labels=["green", -1, -1, -1, -1])
    assert labels.known.tolist() == [True, False, False, False, False]
    with pytest.raises(ValueError, match=r"y\[1\] is 'gren', .* Did you mean 'green'\?"):
        annotator.fit(X, ["red", "gren", "red", "red", "red"])


def test_score(annotator):
    annotator.fit(X)
    assert annotator.score(X, ["red", "red", -1, -1, -1]) == 0.5
    with pytest.warns(UndefinedMetricWarning, match="No sample in y is labelled"):
        assert np.isnan(annotator.score(X, [-1] * 5))


# A hosted model


def test_what_is_sent(server):
    annotator = hosted(
        server, max_image_size=6, image_format="png", extra_body={"seed": 1}
    ).set_params(max_tokens=9, temperature=0.5)
    wide = np.zeros((1, 4, 12, 3), np.uint8)
    annotator.fit_transform(wide)
    (request,), (headers,) = server.requests, server.headers
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("painter", 9, 0.5)
    assert request["seed"] == 1
    assert request["messages"][0]["content"][0] == {"type": "text", "text": annotator.prompts_[0]}
    assert image_of(request).size == (6, 2)
    assert headers["Authorization"] == f"Bearer {KEY}"
    annotator.set_params(
        temperature=None,
        backend__max_tokens_field="max_completion_tokens",
        backend__max_image_size=None,
        backend__image_format="jpeg",
        backend__api_key_env=None,
    )
    annotator.fit_transform(wide)
    assert "temperature" not in server.requests[1] and "max_tokens" not in server.requests[1]
    assert server.requests[1]["max_completion_tokens"] == 9
    assert (image_of(server.requests[1]).size, image_of(server.requests[1]).format) == (
        (12, 4),
        "JPEG",
    )
    assert "Authorization" not in server.headers[1]


def test_answers_of_a_server(server):
    annotator = hosted(server, questions="general-4", max_concurrency=4)
    labels = annotator.fit_transform(X)
    assert_array_equal(annotator.predict(X), Y)
    assert_array_equal(labels.votes, np.array([[2, 1, 0, 2, 0]] * 4).T)
    assert len(server.requests) == 2 * 4 * N


def test_requests_under_way_at_once(server):
    server.delay = 0.1
    hosted(server, questions="general-4", max_concurrency=3).fit_transform(X[:2])
    assert server.most_at_once == 3


def test_requests_per_minute(server):
    annotator = hosted(server, requests_per_minute=60 / 0.02, max_concurrency=4).fit(X)
    start = time.monotonic()
    np.asarray(annotator.transform(X[:2]))
    clone(annotator).fit_transform(X[2:])  # the server is the same, so the limit goes on
    assert time.monotonic() - start >= 4 * 0.02
    assert len(server.requests) == N


TRANSIENT = {
    "time-out": hang,
    "slow stream": drip,
    "429": (429, '{"error": {"message": "slow down"}}', {"Retry-After": "0.01"}),
    "500": (500, "oh", {}),
    "malformed JSON": (200, '{"choices": [', {}),
    "empty choices": {"choices": []},
    "no message": {"choices": [{}]},
    "a list": (200, "[]", {}),
    "half-sent": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
    "closed": b"",
    "not HTTP": b"SSH-2.0\r\n\r\n",
}


@pytest.mark.parametrize("behaviour", TRANSIENT.values(), ids=TRANSIENT)
def test_what_goes_wrong_is_tried_again(server, behaviour):
    server.script = [behaviour, behaviour]
    timeout = 0.2 if behaviour in (hang, drip) else 5.0
    annotator = hosted(server, timeout=timeout, price_per_million_input_tokens=10)
    annotator.set_params(backend__price_per_million_output_tokens=50)
    labels = annotator.fit_transform(X)
    assert labels.votes.ravel().tolist() == [2, 1, 0, 2, 0]
    assert len(server.requests) == N + 2
    usage = annotator.usage_
    assert (usage["requests"], usage["retries"], usage["failed"]) == (N, 2, 0)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (100 * N, 2 * N)
    assert usage["cost"] == pytest.approx((100 * N * 10 + 2 * N * 50) / 1e6)


@pytest.mark.parametrize("behaviour", [hang, drip], ids=["hang", "drip"])
def test_a_call_ends_in_time(server, behaviour):
    server.script = [behaviour]
    start = time.monotonic()
    with pytest.raises(ChatError, match=r"about image 0 .* no complete reply within 0\.1 s"):
        hosted(server, timeout=0.1, max_retries=0).fit_transform(X)
    assert 0.1 <= time.monotonic() - start < 5


def test_a_stopped_server(server):
    annotator = hosted(server, max_retries=1)
    annotator.set_params(backend__base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ChatError, match=r"ConnectionRefusedError.* \(attempt 2\)"):
        annotator.fit_transform(X)


@pytest.mark.parametrize("behaviour", [TRANSIENT["429"], TRANSIENT["500"]], ids=["429", "500"])
def test_a_question_that_always_fails(server, behaviour, tmp_path):
    server.script = ["red", behaviour, behaviour, behaviour]
    annotator = hosted(server, max_retries=2, cache_dir=tmp_path)
    with pytest.raises(
        ChatError, match=rf"image 1 .* HTTP {behaviour[0]} .*attempt 3.*call again"
    ) as error:
        annotator.fit_transform(X)
    assert error.value.index == 1
    assert pickle.loads(pickle.dumps(error.value)).index == 1
    assert len(server.requests) == 4
    assert annotator.usage_["requests"] == 2
    labels = annotator.fit_transform(X)  # goes on with image 1
    assert len(server.requests) == 4 + 4
    assert labels.votes.ravel().tolist() == [2, 1, 0, 2, 0]
    assert (annotator.usage_["cached"], annotator.usage_["requests"]) == (1, 4)


def test_skipping_what_fails(server, tmp_path):
    server.script = [TRANSIENT["500"]] * 4 + ["blue"]
    annotator = hosted(server, max_retries=1, cache_dir=tmp_path, on_error="skip")
    with pytest.warns(UserWarning, match=r"2 of 5 questions, about 2 of 5 images, .*image 0.*500"):
        labels = annotator.fit_transform(X)
    assert labels.votes.ravel().tolist() == [-1, -1, 0, 2, 0]
    assert labels.toarray()[:2].all()
    assert (annotator.usage_["failed"], annotator.usage_["retries"]) == (2, 2)
    assert annotator.answers(X)[0, 0] == "red"  # asked again, as nothing is known about it


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_what_no_image_can_change_is_an_error(server, on_error, status):
    server.script = [(status, '{"error": "no such thing"}', {"Location": "/elsewhere"})] * 9
    with pytest.raises(ChatError, match=rf"HTTP {status} no such thing\. .* check the model"):
        hosted(server, on_error=on_error).fit_transform(X)
    assert len(server.requests) == 1


def test_a_refused_image_is_not_asked_about_again(server):
    server.script = [(400, '{"error": {"message": "image too small"}}', {})]
    with pytest.warns(UserWarning, match="1 of 5 questions.*HTTP 400 image too small"):
        labels = hosted(server, on_error="skip").fit_transform(X)
    assert labels.votes.ravel().tolist() == [-1, 1, 0, 2, 0]
    assert len(server.requests) == N


def test_a_server_that_asks_for_too_long_a_pause(server):
    server.script = [(429, "come back tomorrow", {"Retry-After": "86400"})]
    with pytest.raises(ChatError, match="come back tomorrow; the server asks to wait 86400 s"):
        hosted(server).fit_transform(X)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "votes", "answer"),
    [
        (completion("a wrong label"), -1, "a wrong label"),
        (completion(None), -1, ""),
        (completion([{"type": "text", "text": "blue"}, {"type": "thinking"}]), 0, "blue"),
        ({"choices": [{"message": {"content": None, "refusal": "No."}}], "usage": []}, -1, "No."),
        ({"choices": [{"message": {"content": "red\ud800"}}], "usage": None}, 2, "red?"),
        ({"choices": [{"message": {"content": "red"}}], "usage": {"prompt_tokens": -1}}, 2, "red"),
    ],
)
def test_unusual_replies(server, reply, votes, answer, tmp_path):
    server.script = [reply]
    annotator = hosted(server, cache_dir=tmp_path)
    labels = annotator.fit_transform(X)
    assert labels.votes.ravel().tolist() == [votes, 1, 0, 2, 0]
    assert annotator.answers(X)[0, 0] == answer
    assert len(server.requests) == N


def test_an_answer_that_was_cut_off_before_it_began(server):
    reply = completion("", completion_tokens=64)
    reply["choices"][0]["finish_reason"] = "length"
    server.script = [reply]
    annotator = hosted(server)
    message = r"max_tokens ended it before its first word\. Set cache_dir, .* or on_error='skip'"
    with pytest.raises(ChatError, match=message):
        annotator.fit_transform(X)
    assert annotator.usage_["completion_tokens"] == 64  # which were paid for


def test_waiting():
    assert retry_delay(2, 0.5, None, jitter=0.5) == 0.75
    assert retry_delay(1, 0.0, 3.0, jitter=0.5) == 3.0
    assert parse_retry_after("-1") == 0
    assert parse_retry_after("nan") is None
    assert parse_retry_after("Wed, 21 Oct 2122 07:28:00 GMT") > 1e9


def test_https_goes_through_a_proxy(server, monkeypatch):
    proxy = server.url.removesuffix("/v1").replace("://", "://me:p%40ss@")
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    server.script = [b"HTTP/1.1 407 no\r\n\r\n"]
    lines = []
    monkeypatch.setattr(
        server.RequestHandlerClass,
        "do_CONNECT",
        lambda self: (
            lines.append((self.requestline, self.headers["Proxy-Authorization"]))
            or self.send_error(407)
        ),
    )
    annotator = hosted(server, max_retries=0)
    annotator.set_params(backend__base_url="https://example.org/v1")
    with pytest.raises(ChatError, match="407"):
        annotator.fit_transform(X)
    ((line, login),) = lines
    assert line.startswith("CONNECT example.org:443 ")
    assert login == "Basic bWU6cEBzcw=="


# Keys


def everything_of(error):
    """All that could be printed of an error: local variables, causes and contexts."""
    seen, trace = [], error.__traceback__.tb_next  # without the test's own frame
    while error is not None:
        report = traceback.TracebackException(type(error), error, trace, capture_locals=True)
        seen += [*report.format(), repr(error), str(vars(error))]
        error = error.__cause__ or error.__context__
        trace = error and error.__traceback__
    return "".join(seen)


@pytest.mark.parametrize(
    "script",
    [
        [(401, json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}}), {})],
        [(500, f"headers were Bearer {KEY}", {})] * 2,
        [(200, f"not JSON {KEY}", {})] * 2,
        [hang, hang],
        [f"my key is {KEY}, red"],
        [(200, json.dumps(completion(f"red {KEY}")).replace("-", "\\u002d"), {})],
        [],
    ],
)
def test_the_key_is_nowhere(server, script, tmp_path, capfd, caplog):
    server.script = list(script)
    annotator = hosted(server, cache_dir=tmp_path, max_retries=1, timeout=0.2)
    texts = []
    try:
        labels = annotator.fit_transform(X)
    except ChatError as error:
        texts.append(everything_of(error))
    else:
        texts += [repr(labels), str(annotator.answers(X).tolist())]
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    texts += [repr(annotator), annotator._repr_html_(), str(vars(annotator)), caplog.text]
    texts += capfd.readouterr()
    assert not any(KEY in text for text in texts)
    stored = [pickle.dumps(annotator), *(path.read_bytes() for path in tmp_path.iterdir())]
    assert len(stored) > 1
    assert not any(KEY.encode() in content for content in stored)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"api_key_env": KEY}, "not the name of an environment variable"),
        ({"base_url": f"https://me:{KEY}@example.org/v1"}, "base_url holds a login or a query"),
        ({"base_url": f"https://example.org/v1?key={KEY}"}, "base_url holds a login or a query"),
        ({"api_key_env": "BROKEN_KEY"}, "'BROKEN_KEY' holds no usable key"),
        ({"api_key_env": "SPACED_KEY"}, "'SPACED_KEY' holds no usable key"),
        ({"api_key_env": "ABSENT_KEY"}, "'ABSENT_KEY' holds no usable key"),
    ],
)
def test_misplaced_and_broken_keys_are_not_shown(server, params, message, monkeypatch):
    monkeypatch.setenv("BROKEN_KEY", f"{KEY}\r\nX-Other: 1")
    monkeypatch.setenv("SPACED_KEY", f"{KEY} {KEY}")
    with pytest.raises(ValueError, match=message) as caught:
        hosted(server).set_params(**{f"backend__{k}": v for k, v in params.items()}).fit(X)
    assert KEY not in str(caught.value)
    assert not server.requests


# The how-to


def test_the_how_to_runs(server, monkeypatch, tmp_path, capsys):
    text = (Path(__file__).parents[1] / "docs" / "chat.rst").read_text()
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, flags=re.M)
    assert len(blocks) == text.count("code-block") == 7
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(OpenAIChat.__init__.__kwdefaults__, "base_url", server.url)
    server.script = ["coat or shirt"] * 1000
    images = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
    names = {"images": images, "y": np.repeat(["Shirt", "Coat"], 12)}
    for block in blocks:
        exec(textwrap.dedent(block).replace("requests_per_minute=500,", ""), names)
    assert capsys.readouterr().out.startswith("{'requests': 80, 'retries': 0,")
    # four questions about all images, and two of its own about twenty
    assert len(server.requests) == 4 * 24 + 2 * 20
    assert names["labels"].mean_set_size == 2


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


# Pickling, cloning, scikit-learn


def test_pickling_and_cloning(server, annotator, painter):
    remote = hosted(server, max_retries=3).fit(X)
    again = pickle.loads(pickle.dumps(remote))
    assert again.backend.max_retries == 3
    assert_array_equal(again.predict(X), Y)
    copied = clone(remote)
    assert copied.backend is not remote.backend and copied.backend.model == "painter"
    assert repr(clone(remote.backend)) == repr(remote.backend)
    assert clone(annotator).backend is painter
    stored = pickle.loads(pickle.dumps(annotator.fit(X)))
    assert_array_equal(stored.transform(X), annotator.transform(X))
    lazy = annotator.transform(X)
    assert_array_equal(pickle.loads(pickle.dumps(lazy)).votes, annotator.fit_transform(X).votes)


def test_a_fitted_backend_does_not_change(server):
    annotator = hosted(server).fit(X)
    lazy = annotator.transform(X)
    annotator.set_params(backend__model="other")
    assert lazy.votes.ravel().tolist() == [2, 1, 0, 2, 0]
    assert server.requests[0]["model"] == "painter"


def test_clone_keeps_metadata_requests(annotator):
    with sklearn.config_context(enable_metadata_routing=True):
        annotator.set_fit_request(known_labels=True)
        assert clone(annotator).get_metadata_routing().fit.requests["known_labels"] is True


def test_set_output(annotator):
    assert annotator.set_output(transform="pandas") is annotator
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(annotator.fit(X).transform(X), PartialLabels)


def test_not_fitted(annotator):
    for method in ("transform", "predict", "predict_proba", "answers"):
        with pytest.raises(NotFittedError):
            getattr(annotator, method)(X)


class TellSign:
    """Classes by the first column."""

    def __call__(self, rows, prompt):
        return [NAMES[int(row[0] > 0)] for row in rows]

    def __repr__(self):  # in the names of tests, which must be the same in every process
        return "TellSign()"


tell_sign = TellSign()


@parametrize_with_checks([ChatPartialAnnotator(dict(enumerate(NAMES)), backend=tell_sign)])
def test_common_checks(estimator, check):
    check(estimator)


# Bad input


def test_images_that_cannot_be_read(annotator, painter, tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(N)]
    for path, image in zip(paths, X):
        Image.fromarray(image).save(path)
    os.remove(paths[1])
    with pytest.raises(ImageReadError, match=r"Image 1 .*1\.png") as error:
        annotator.fit_transform(paths)
    assert (error.value.index, painter.n_answers) == (1, 0)
    annotator.set_params(on_error="skip", batch_size=2)
    with pytest.warns(UserWarning, match=r"1 of 5 images cannot be read .*Image 1 .*1\.png"):
        labels = annotator.fit_transform(paths)
    assert labels.votes[:, 0].tolist() == [2, -1, 0, 2, 0]
    assert labels.toarray()[1].all()
    damaged = X.astype(float)
    damaged[2] = np.nan
    with pytest.warns(UserWarning, match="Image 2"):
        assert annotator.fit_transform(damaged).votes[:, 0].tolist() == [2, 1, -1, 2, 0]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"classes": ["red"]}, ValueError, "classes has 1 element"),
        ({"classes": ["red", "Red"]}, ValueError, "'Red' is used twice"),
        ({"classes": ["re-d", "red"]}, ValueError, "'red' has the same letters as .* 're-d'"),
        ({"questions": "genral-4"}, ValueError, "Did you mean 'general-4'"),
        ({"questions": []}, ValueError, "questions is empty"),
        ({"questions": None}, ValueError, "questions is None; give one string or a list"),
        ({"questions": ["Which?"]}, ValueError, r"questions\[0\] is 'Which\?'"),
        ({"questions": ["{classes}", "{classes}"]}, ValueError, r"\[1\] repeats questions\[0\]"),
        ({"allow_several": "yes"}, ValueError, "'allow_several' parameter"),
        ({"max_tokens": 0}, ValueError, "'max_tokens' parameter"),
        ({"temperature": -1}, ValueError, "'temperature' parameter"),
        ({"embed": 3}, ValueError, "'embed' parameter"),
        ({"embed_threshold": 2}, ValueError, "'embed_threshold' parameter"),
        ({"batch_size": 0}, ValueError, "'batch_size' parameter"),
        ({"on_error": "ignore"}, ValueError, "'on_error' parameter"),
        ({"backend": "gpt"}, TypeError, "backend is 'gpt'; give an OpenAIChat"),
        ({"backend": OpenAIChat}, TypeError, "give an OpenAIChat"),
        ({"backend": OpenAIChat(3)}, ValueError, "'model' parameter of OpenAIChat"),
        ({"backend": OpenAIChat("m", timeout=0)}, ValueError, "'timeout' parameter"),
        ({"backend": OpenAIChat("m", base_url="localhost:80")}, ValueError, "give an address"),
        ({"backend": OpenAIChat("m", extra_body={"a": {1}})}, ValueError, "extra_body cannot be"),
        ({"backend": OpenAIChat("m", base_url="http://h:p/v1")}, ValueError, "give an address"),
        ({"backend": OpenAIChat("m", base_url="http://[:")}, ValueError, "give an address"),
        ({"backend": lambda i, p: "red"}, TypeError, "backend returned str; it must return a list"),
        ({"backend": lambda i, p: ["red"]}, ValueError, "returned 1 answers for 5 images"),
        ({"backend": lambda i, p: [1] * 5}, TypeError, "backend returned 1 for one image"),
        ({"backend": lambda i, p: [None] * 5}, ChatError, "image 0 .* returned None"),
    ],
)
def test_bad_parameters(annotator, params, error, message, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(error, match=message):
        annotator.set_params(**params).fit_transform(X)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("photo.png", "single path"),
        ([], "Found array with 0 sample"),
        (np.zeros((0, 4, 4)), "Found array with 0 sample"),
        (np.zeros((2, 3, 8, 8)), "channels seem to come first"),
        (np.zeros((2, 0, 8)), r"an image has shape .* got \(0, 8, 1\)"),
        (np.full((2, 4, 4), 300), "Image 0 cannot be read: it has values from 300 to 300"),
    ],
    ids=str,
)
def test_bad_samples(annotator, samples, message):
    with pytest.raises(ValueError, match=message):
        annotator.fit_transform(samples)


def test_a_hosted_model_sees_images_only(server):
    with pytest.raises(ValueError, match="OpenAIChat sees images only"):
        hosted(server).fit(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="OpenAIChat sees images only"):
        hosted(server).fit(X).transform(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="X has 2 features, but ChatPartialAnnotator is expecting"):
        ChatPartialAnnotator(NAMES, backend=tell_sign).fit(np.ones((4, 3))).predict(np.ones((4, 2)))


def test_a_failed_fit_leaves_nothing_fitted(annotator):
    with pytest.raises(ValueError):
        annotator.set_params(questions="none").fit(X)
    with pytest.raises(NotFittedError):
        annotator.transform(X)

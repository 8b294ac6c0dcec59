"""ChatPartialAnnotator and a hosted model: requests, retries, errors and keys."""

import json
import pickle
import re
import textwrap
import time
import traceback
from pathlib import Path

import chat_painter
import numpy as np
import pytest
from chat_painter import KEY, N, X, Y, hosted, tell_sign
from chat_server import NAMES, completion, drip, hang, image_of
from numpy.testing import assert_array_equal
from sklearn.base import clone

from sklearn_npll.annotators import ChatError, ChatPartialAnnotator, OpenAIChat
from sklearn_npll.annotators._chat_http import parse_retry_after, retry_delay

# Fixtures, which pytest finds by their names here.
server = chat_painter.server


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
    assert parse_retry_after("Wed, 21 Oct 2122 07:28:00 -0000") > 1e9  # no zone is UTC, too


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


# Images only


def test_a_hosted_model_sees_images_only(server):
    with pytest.raises(ValueError, match="OpenAIChat sees images only"):
        hosted(server).fit(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="OpenAIChat sees images only"):
        hosted(server).fit(X).transform(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="X has 2 features, but ChatPartialAnnotator is expecting"):
        ChatPartialAnnotator(NAMES, backend=tell_sign).fit(np.ones((4, 3))).predict(np.ones((4, 2)))

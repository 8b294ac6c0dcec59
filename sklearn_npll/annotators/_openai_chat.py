"""Hosted chat models, through the interface that OpenAI's server has made common."""

import base64
import io
import json
import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from numbers import Integral, Real
from typing import Any
from urllib.parse import urlsplit

from .._compat import Interval, StrOptions
from ._chat_backends import ChatBackend, Reply
from ._chat_http import post, reserve_slot, retry_delay

_LONGEST_WAIT = 120  # seconds a server may ask for before its answer counts as failed
_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# No image will fare better: a redirect, or the key, the address or the model is wrong.
_NEVER = frozenset({*range(300, 400), 401, 403, 404})
_jitter = random.Random()  # not the global generator, which may be seeded


class OpenAIChat(ChatBackend):
    """A hosted chat model that sees images, through an OpenAI-compatible server.

    OpenAI's own server and those of most other providers are of this kind, and so are vLLM,
    Ollama, llama.cpp's server and LM Studio on a machine of your own.

    Parameters
    ----------
    model : str
        Name of the model, as the server knows it.
    base_url : str, default="https://api.openai.com/v1"
        Address of the server, up to and without "/chat/completions".
    api_key_env : str or None, default="OPENAI_API_KEY"
        Name of the environment variable that holds the key for this server. The key is read each
        time it is sent, and kept nowhere. None for a server that needs no key.
    timeout : float, default=60
        Seconds one attempt may take in all.
    max_retries : int, default=5
        Further attempts after a time-out, a lost connection, a damaged reply, or a status that
        asks to try again (such as 429 and 5xx).
    backoff : float, default=1
        Seconds to wait at most before the first of them, doubled for each other. If the server
        sends Retry-After, that long is waited at least; after more than 120 s of it the question
        fails.
    requests_per_minute : float, default=None
        Attempts a minute at most, of all annotators of this process that ask the same model at
        the same address together; None for no limit.
    max_concurrency : int, default=8
        Questions under way at once.
    max_image_size : int or None, default=512
        Pixels of the longer side that an image is reduced to; smaller ones are sent as they are.
        Servers charge larger images higher. None to send all as they are.
    image_format : {"jpeg", "png"}, default="jpeg"
        How images are sent: "png" is exact, "jpeg" (quality 90) is several times smaller.
    max_tokens_field : {"max_tokens", "max_completion_tokens"}, default="max_tokens"
        Under which name the server takes the length of an answer. OpenAI's reasoning models want
        the second.
    extra_body : dict, default=None
        Further fields of each request, such as ``{"reasoning_effort": "low"}`` or
        ``{"seed": 0}``.
    price_per_million_input_tokens, price_per_million_output_tokens : float, default=None
        Prices, in any currency; with both the annotator's ``usage_`` has a cost.

    See Also
    --------
    ChatPartialAnnotator : Uses it.
    TransformersChat : A model that runs in this process.

    Notes
    -----
    Images leave this machine, to the server at `base_url`, and so does the key: with another
    `base_url` give the `api_key_env` that belongs to it. Redirects are not followed.

    Examples
    --------
    >>> from sklearn_npll.annotators import OpenAIChat
    >>> OpenAIChat("llava", base_url="http://localhost:11434/v1", api_key_env=None)
    OpenAIChat(api_key_env=None, base_url='http://localhost:11434/v1', model='llava')
    """

    _parameter_constraints = {
        "model": [str],
        "base_url": [str],
        "api_key_env": [str, None],
        "timeout": [Interval(Real, 0, None, closed="neither")],
        "max_retries": [Interval(Integral, 0, None, closed="left")],
        "backoff": [Interval(Real, 0, None, closed="left")],
        "requests_per_minute": [Interval(Real, 0, None, closed="neither"), None],
        "max_concurrency": [Interval(Integral, 1, None, closed="left")],
        "max_image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_format": [StrOptions({"jpeg", "png"})],
        "max_tokens_field": [StrOptions({"max_tokens", "max_completion_tokens"})],
        "extra_body": [dict, None],
        "price_per_million_input_tokens": [Interval(Real, 0, None, closed="left"), None],
        "price_per_million_output_tokens": [Interval(Real, 0, None, closed="left"), None],
    }

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout: float = 60.0,
        max_retries: int = 5,
        backoff: float = 1.0,
        requests_per_minute: float | None = None,
        max_concurrency: int = 8,
        max_image_size: int | None = 512,
        image_format: str = "jpeg",
        max_tokens_field: str = "max_tokens",
        extra_body: dict[str, Any] | None = None,
        price_per_million_input_tokens: float | None = None,
        price_per_million_output_tokens: float | None = None,
    ) -> None:
        self.model = model
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.timeout = timeout
        self.max_retries = max_retries
        self.backoff = backoff
        self.requests_per_minute = requests_per_minute
        self.max_concurrency = max_concurrency
        self.max_image_size = max_image_size
        self.image_format = image_format
        self.max_tokens_field = max_tokens_field
        self.extra_body = extra_body
        self.price_per_million_input_tokens = price_per_million_input_tokens
        self.price_per_million_output_tokens = price_per_million_output_tokens

    def _check(self):
        """Raise if a parameter or the key is not usable; the server is not asked."""
        # Before scikit-learn, whose message would show the value.
        name = self.api_key_env
        if isinstance(name, str) and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise ValueError(
                "api_key_env is not the name of an environment variable, such as 'OPENAI_API_KEY'"
                " (capitals, digits, underscores). It must not be the key itself."
            )
        self._validate_params()
        try:
            json.dumps(self.extra_body)
        except (TypeError, ValueError) as error:
            raise ValueError(f"extra_body cannot be written as JSON: {error}.") from error
        if "@" in self.base_url or "?" in self.base_url:
            raise ValueError(
                "base_url holds a login or a query; keys belong in the environment variable that"
                " api_key_env names."
            )
        if not _is_address(self.base_url):
            raise ValueError(
                f"base_url is {self.base_url!r}; give an address such as 'https://api.openai.com/v1'."
            )
        if name is not None and _read_key(name) is None:
            raise ValueError(
                f"The environment variable {name!r} holds no usable key. Set it, or"
                " pass api_key_env=None to ask a server that needs none."
            )

    def _cost(self, prompt_tokens, completion_tokens):
        """Price of so many tokens, or None without both prices."""
        price_in = self.price_per_million_input_tokens
        price_out = self.price_per_million_output_tokens
        if price_in is None or price_out is None:
            return None
        return (prompt_tokens * price_in + completion_tokens * price_out) / 1e6

    def _cache_key(self, settings):
        """Name what the answers depend on besides image and prompt."""
        size = None if self.max_image_size is None else int(self.max_image_size)
        own = [self.base_url, self.model, size, self.image_format, self.extra_body]
        settings = [settings.max_tokens, settings.temperature]
        return json.dumps(["OpenAIChat", *own, *settings], sort_keys=True)

    def _ask(self, images, prompts, settings, keep):
        """Ask ``prompts[i]`` about ``images[i]``, and call ``keep({i: reply})`` on each reply.

        It is called at once, from the thread that asked. If it raises, or the main thread is
        interrupted, no further question is asked, and those under way are waited for and kept.
        """
        stop = threading.Event()

        def one(i):
            if stop.is_set():
                return
            reply = self._ask_one(images[i], prompts[i], settings, stop)
            try:
                if reply is not None:
                    keep({i: reply})
            except BaseException:
                stop.set()  # now, as this thread is about to take the next question
                raise

        with ThreadPoolExecutor(self.max_concurrency) as pool:
            try:
                for future in as_completed([pool.submit(one, i) for i in range(len(images))]):
                    future.result()
            except BaseException:
                stop.set()
                raise

    def _ask_one(self, image, prompt, settings, stop):
        """Ask until there is a reply to keep; None if stopped while waiting to ask."""
        body = json.dumps(self._request(image, prompt, settings)).encode()
        for attempt in range(1, self.max_retries + 2):
            if self.requests_per_minute is not None:
                server = self.base_url, self.model
                wait = reserve_slot(server, 60 / self.requests_per_minute, time.monotonic())
                if stop.wait(wait):
                    return None
            response = self._send(body)
            reply, again = read_response(response)
            reply = replace(
                reply,
                text=self._without_key(reply.text),
                reason=self._without_key(reply.reason),
                retries=attempt - 1,
            )
            asked = response.retry_after
            if reply.text is not None or not again:
                return reply
            if asked is not None and asked > _LONGEST_WAIT:
                wish = f"; the server asks to wait {asked:.0f} s"
                return replace(reply, reason=reply.reason + wish)
            if attempt > self.max_retries:
                return replace(reply, reason=f"{reply.reason} (attempt {attempt})")
            if stop.wait(retry_delay(attempt, self.backoff, asked, _jitter.random())):
                return None

    def _request(self, image, prompt, settings):
        request = {
            "model": self.model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": prompt},
                        {"type": "image_url", "image_url": {"url": self._data_url(image)}},
                    ],
                }
            ],
            self.max_tokens_field: settings.max_tokens,
            "temperature": settings.temperature,
        }
        request = {field: value for field, value in request.items() if value is not None}
        return {**request, **(self.extra_body or {})}

    def _data_url(self, image):
        image = image.copy()  # another thread may be asking about the same one
        if self.max_image_size is not None:
            image.thumbnail((self.max_image_size, self.max_image_size))
        buffer = io.BytesIO()
        image.save(buffer, self.image_format, quality=90)  # which PNG ignores
        content = base64.b64encode(buffer.getvalue()).decode()
        return f"data:image/{self.image_format};base64,{content}"

    def _send(self, body):
        """Send a request. Nothing is raised from here, where the key is at hand."""
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json", "User-Agent": "sklearn-npll"}
        key = None if self.api_key_env is None else _read_key(self.api_key_env)
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        response = post(url, body, headers=headers, timeout=self.timeout)
        return replace(response, body=self._without_key(response.body))

    def _without_key(self, text):
        """Blot out the key, which servers have been seen to quote in what they complain of."""
        key = None if self.api_key_env is None else _read_key(self.api_key_env)
        return text.replace(key, "***") if text and key else text


def _is_address(url):
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unclosed bracket, a port that is no number
        return False


def _read_key(name):
    """The key in an environment variable, None if there is none that can be sent."""
    key = os.environ.get(name, "").strip()
    return key if key and key.isascii() and key.isprintable() and " " not in key else None


def read_response(response):
    """Read what a server sent.

    Parameters
    ----------
    response : Response
        What it sent.

    Returns
    -------
    reply : Reply
        The answer, or why there is none.
    again : bool
        Whether another attempt may have an answer.

    Examples
    --------
    >>> from sklearn_npll.annotators._chat_http import Response
    >>> body = '{"choices": [{"message": {"content": "cat"}}], "usage": {"prompt_tokens": 9}}'
    >>> read_response(Response(200, body))[0].text
    'cat'
    >>> read_response(Response(503, "overloaded"))[1]
    True
    """
    if response.status != 200:
        status = "" if response.status is None else f"HTTP {response.status} "
        reason = f"{status}{' '.join(_error_message(response.body).split())[:300]}".strip()
        again = response.status is None or response.status in _TRY_AGAIN
        return Reply(None, reason=reason, fatal=response.status in _NEVER), again
    try:
        content = json.loads(response.body)
        choice = content["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        if isinstance(text, list):  # parts, of which some are no text
            text = "".join(part.get("text") or "" for part in text)
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        start = " ".join(response.body[:100].split())
        return Reply(None, reason=f"a damaged reply ({type(error).__name__}): {start!r}"), True
    usage = content.get("usage")
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    if not text and choice.get("finish_reason") == "length":
        return Reply(None, *counts, reason="max_tokens ended it before its first word"), False
    return Reply(text, *counts), False


def _error_message(body):
    """The message of an error in JSON, or else the text."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body


def _count(usage, name):
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else 0

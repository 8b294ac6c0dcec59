"""A local chat server that answers by the colour of the image, or misbehaves on demand."""

import base64
import io
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

NAMES = ["red", "green", "blue"]


def completion(text, prompt_tokens=100, completion_tokens=2):
    """A reply as OpenAI's server gives it."""
    return {
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


class ChatServer(ThreadingHTTPServer):
    """Answers each request by the next behaviour of `script`, and well once that is used up.

    A behaviour is a text to answer, a dictionary to send, a (status, body, headers), bytes to send
    as they are before closing, or a function of the handler.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.lock = threading.Lock()
        self.script = []
        self.requests = []  # the JSON of each
        self.headers = []
        self.at_once = self.most_at_once = 0
        self.delay = 0.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append({**request, "path": self.path})
            server.headers.append(dict(self.headers))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            behaviour = server.script.pop(0) if server.script else colour(request)
        time.sleep(server.delay)
        with server.lock:  # before the answer, on which the client may send the next request
            server.at_once -= 1
        try:
            self.behave(behaviour)
        except OSError:
            pass  # the client gave up

    do_CONNECT = do_GET = do_POST

    def behave(self, behaviour):
        if isinstance(behaviour, str):
            behaviour = completion(behaviour)
        if isinstance(behaviour, dict):
            behaviour = 200, json.dumps(behaviour), {}
        if isinstance(behaviour, bytes):
            self.wfile.write(behaviour)
            self.close_connection = True
        elif callable(behaviour):
            behaviour(self)
            self.close_connection = True
        else:
            status, body, headers = behaviour
            self.send_response(status)
            for name, value in {"Content-Length": len(body.encode()), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


def image_of(request):
    """The image of a request."""
    (url,) = [
        part["image_url"]["url"]
        for part in request["messages"][0]["content"]
        if part["type"] == "image_url"
    ]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def colour(request):
    """The name of the brightest colour."""
    return NAMES[int(np.asarray(image_of(request)).mean(axis=(0, 1)).argmax())]


def drip(handler):
    """Send a byte now and then, without end."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.005)


def hang(handler):
    """Say nothing until the client has gone."""
    handler.connection.recv(1)


@contextmanager
def running_server():
    """A server, in a thread of its own."""
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

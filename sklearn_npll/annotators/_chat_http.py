"""Requests to a chat server: one with a limit for the whole call, the pause before the next."""

import base64
import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_slots: dict[str, float] = {}  # server -> when the next request may start
_slots_lock = threading.Lock()


@dataclass(frozen=True)
class Response:
    """What a server sent, or why it sent nothing.

    Parameters
    ----------
    status : int or None
        HTTP status; None without a complete reply.
    body : str
        The reply, or the reason.
    retry_after : float or None
        Seconds the server asks to wait.
    """

    status: int | None
    body: str
    retry_after: float | None = None


def post(url, body, *, headers, timeout):
    """Send a POST request. Redirects are not followed, so that no header goes elsewhere.

    Parameters
    ----------
    url : str
        An http or https address; https goes through the proxy the environment names.
    body : bytes
        What to send.
    headers : dict of str to str
        Headers.
    timeout : float
        Seconds for the whole call, however steadily the server sends.

    Returns
    -------
    Response
        The reply. Failures of the network are no exception but a reason, as the traceback of an
        exception would hold the headers.
    """
    parts, late = urlsplit(url), threading.Event()
    start, connection, timer = time.monotonic(), None, None
    try:
        connection = _connection(parts, timeout)
        connection.connect()
        left = max(0.0, timeout - (time.monotonic() - start))
        timer = threading.Timer(left, _stop, [connection.sock, late])
        timer.daemon = True
        timer.start()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers)
        reply = connection.getresponse()
        text = reply.read().decode(errors="replace")
        if not late.is_set():
            return Response(reply.status, text, parse_retry_after(reply.headers["Retry-After"]))
    except TimeoutError:
        late.set()
    except (OSError, HTTPException, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        if timer is not None:
            timer.cancel()
        if connection is not None:
            connection.close()
    return Response(None, f"no complete reply within {timeout:g} s" if late.is_set() else reason)


def parse_retry_after(value):
    """Read a Retry-After header.

    Parameters
    ----------
    value : str or None
        Seconds or an HTTP date.

    Returns
    -------
    float or None
        Seconds from now; None without the header, or if it is neither.

    Examples
    --------
    >>> parse_retry_after("2"), parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT")
    (2.0, 0.0)
    >>> parse_retry_after("soon") is None
    True
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        seconds = (date - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None


def retry_delay(attempt, backoff, retry_after, jitter):
    """Seconds to wait before trying again.

    Parameters
    ----------
    attempt : int
        Number of attempts that have failed, from 1.
    backoff : float
        Longest first delay; it doubles with each attempt.
    retry_after : float or None
        What the server asks for, which is the least to wait.
    jitter : float in [0, 1]
        Random number that spreads clients which failed together over half of the delay.

    Returns
    -------
    float
        The delay.

    Examples
    --------
    >>> retry_delay(1, 1.0, None, jitter=1.0), retry_delay(3, 1.0, None, jitter=0.0)
    (1.0, 2.0)
    >>> retry_delay(1, 1.0, 5.0, jitter=0.5)
    5.75
    """
    delay = backoff * 2 ** (attempt - 1) * (1 + jitter) / 2
    return delay if retry_after is None else retry_after + delay


def reserve_slot(server, interval, now):
    """Take the next free slot of a server that is asked at most once an interval.

    Parameters
    ----------
    server : hashable
        The server. All who ask it from this process share its slots.
    interval : float
        Seconds between two slots.
    now : float
        The present time, in seconds.

    Returns
    -------
    float
        Seconds until the slot.

    Examples
    --------
    >>> [reserve_slot("a server", 2.0, now=t) for t in (10.0, 11.0, 11.0, 30.0)]
    [0.0, 1.0, 3.0, 0.0]
    """
    with _slots_lock:
        slot = max(now, _slots.get(server, now))
        _slots[server] = slot + interval
    return slot - now


def _stop(sock, late):
    late.set()
    # Wakes up the thread that reads from the socket, as closing would not; under TLS by the plain
    # socket, whose end the reader notices, while the TLS one would be gone under its hands.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _connection(parts, timeout):
    if parts.scheme == "http":
        return HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    proxy = None if proxy_bypass(parts.hostname) else getproxies().get("https")
    if not proxy:
        return HTTPSConnection(parts.hostname, parts.port, timeout=timeout)
    via = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    headers = {}
    if via.username:
        login = f"{unquote(via.username)}:{unquote(via.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    connection = HTTPSConnection(via.hostname, via.port, timeout=timeout)
    connection.set_tunnel(parts.hostname, parts.port, headers)
    return connection

"""Kept HTTP connections with little ceremony: a small answer over one that is open takes 0.1 ms.

Each thread has its own to each server or proxy. Every request has a time-out for each wait, a slowest pace and a
deadline; the deadline holds whatever the server does, since another thread cuts the connection then. (Only looking up a
host's name is left to the system's own time-out.) Certificates are verified. Redirects are not followed here, content
codings not undone, and the environment's proxies not asked: who needs that takes `ducc.transport`.
"""

import base64
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from ducc import USER_AGENT

_READ_SIZE = 1 << 20
_LOOK_SECONDS = 0.25  # how exactly deadlines are kept
_MOST_KEPT = 8  # connections of one thread
_PUT_OFF_BYTES, _PUT_OFF_SECONDS = 1 << 16, 600.0


class NoAnswer(Exception):
    """No answer, or not all of it. *reached*: was there at least a connection to whom was asked first?"""

    def __init__(self, reason: str, reached: bool) -> None:
        super().__init__(reason)
        self.reached = reached


class Patience(NamedTuple):
    """How long an answer may take: *wait_seconds* for a connection and for each piece, and all of it until *deadline*.

    The deadline is a time of `time.monotonic`; a long answer puts it off, by a second for each 64 KiB that it announces
    and by ten minutes at most. Slower than the slowest pace for the time of one wait counts as silent.
    """

    wait_seconds: float
    deadline: float
    slowest_bytes_per_second: float = 0


class Answer(NamedTuple):
    """What a server said, whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Connections:
    """For any number of threads."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._watch = _Watch()
        self._authorities: ssl.SSLContext | None = None

    def get(
        self,
        url: str,
        limit: int,
        patience: Patience,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for *url*, through *proxy* (a URL) if one is given. Raises `NoAnswer`, also beyond *limit* bytes."""
        target = urlsplit(url)
        sent = {"User-Agent": USER_AGENT, **(headers or {})}
        words = target.path + (f"?{target.query}" if target.query else "")
        if proxy and target.scheme == "http":
            words, sent = url, {**sent, **_credentials(urlsplit(proxy))}
        connection = self._connection(target, proxy, patience)
        was_open = connection.sock is not None
        try:
            return self._ask(connection, words, sent, limit, patience)
        except NoAnswer as error:
            connection.close()
            if not was_open or not isinstance(error.__cause__, ConnectionError):
                raise
        try:  # perhaps it had been closed before we asked
            return self._ask(connection, words, sent, limit, patience)
        except NoAnswer:
            connection.close()
            raise

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        words: str,
        headers: Mapping[str, str],
        limit: int,
        patience: Patience,
    ) -> Answer:
        line = _connected(connection, patience)
        with self._watch.over(line, patience.deadline):
            try:
                connection.request("GET", words, headers=dict(headers))
                response = connection.getresponse()
                self._watch.put_off(line, min((response.length or 0) / _PUT_OFF_BYTES, _PUT_OFF_SECONDS))
                line.settimeout(patience.wait_seconds)
                body = _body(response, limit, patience)
                response.close()  # else the connection could not be used again
            except TimeoutError as error:
                raise NoAnswer("silent for too long", True) from error
            except (http.client.HTTPException, OSError, ValueError) as error:
                late = time.monotonic() >= patience.deadline
                raise NoAnswer("took too long" if late else "the connection broke", True) from error
        return Answer(response.status, response.headers, body)

    def _connection(self, target: SplitResult, proxy: str | None, patience: Patience) -> http.client.HTTPConnection:
        """This thread's own; a forked process does not share its parent's."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.connections, self._local.process = {}, os.getpid()
        connections: dict[tuple[str, str | None], http.client.HTTPConnection] = self._local.connections
        key = ("" if proxy and target.scheme == "http" else f"{target.scheme}://{target.netloc}", proxy)
        connection = connections.pop(key, None) or self._new_connection(target, proxy)
        connections[key] = connection
        if len(connections) > _MOST_KEPT:
            connections.pop(next(iter(connections))).close()
        connection.timeout = max(0.001, min(patience.wait_seconds, patience.deadline - time.monotonic()))
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        return connection

    def _new_connection(self, target: SplitResult, proxy: str | None) -> http.client.HTTPConnection:
        first = urlsplit(proxy) if proxy else target
        host, port = first.hostname or "", first.port
        if target.scheme != "https":
            return http.client.HTTPConnection(host, port or 80)
        if self._authorities is None:
            self._authorities = _trusted_authorities()
        connection = http.client.HTTPSConnection(host, port or (80 if proxy else 443), context=self._authorities)
        if proxy:
            connection.set_tunnel(target.hostname or "", target.port or 443, _credentials(first))
        return connection


class _Watch:
    """Cuts lines whose time is up."""

    def __init__(self) -> None:
        self._running: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, line: socket.socket, deadline: float) -> Iterator[None]:
        with self._lock:
            self._running[line] = deadline
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="deadlines", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(line, None)

    def put_off(self, line: socket.socket, seconds: float) -> None:
        with self._lock:
            self._running[line] += seconds

    def _look(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                for line, deadline in self._running.items():
                    if deadline <= now:
                        with suppress(OSError):
                            line.shutdown(socket.SHUT_RDWR)
                idle_since = now if self._running else idle_since
                if now - idle_since > 1:
                    self._thread = None
                    return


def _trusted_authorities() -> ssl.SSLContext:
    """The system's, or those that the environment names."""
    return ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"))


def _connected(connection: http.client.HTTPConnection, patience: Patience) -> socket.socket:
    """The line to whom is asked first; it stays good while an answer is read, even if that is to be the last one."""
    if patience.deadline <= time.monotonic():
        raise NoAnswer("took too long", True)
    try:
        if connection.sock is None:
            connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise NoAnswer(
            "its certificate is not valid for it, or not signed by an authority known here", False
        ) from error
    except socket.gaierror as error:
        raise NoAnswer("the host name is not known", False) from error
    except TimeoutError as error:
        raise NoAnswer("no connection in time", False) from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NoAnswer(reason.lower(), False) from error
    line: socket.socket = connection.sock
    return line


def _body(response: http.client.HTTPResponse, limit: int, patience: Patience) -> bytes:
    length = response.length
    parts: list[bytes] = []
    received, seen, since = 0, 0, time.monotonic()
    while data := response.read1(_READ_SIZE):
        parts.append(data)
        received += len(data)
        if received > limit:
            raise http.client.HTTPException(f"longer than {limit} bytes")
        elapsed = time.monotonic() - since
        if elapsed >= patience.wait_seconds:
            if received - seen < elapsed * patience.slowest_bytes_per_second:
                raise TimeoutError
            seen, since = received, time.monotonic()
    if length is not None and received != length:
        raise http.client.IncompleteRead(b"", length - received)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    text = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(text.encode()).decode()}

"""Kept HTTP connections with little ceremony: a small answer over one that is open takes 0.1 ms.

Each thread has its own to each server or proxy. Every request has a time-out for each wait, a slowest pace and a
deadline; the deadline holds whatever the server does, since another thread cuts the connection then. (Only looking up a
host's name is left to the system's own time-out.) Certificates are verified. Redirects are not followed here, content
codings not undone, and the environment's proxies not asked: who needs that takes `ducc.transport`.
"""

import base64
import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from ducc import USER_AGENT
from ducc.storage.http1 import Answer, Incoming, read_answer

_LOOK_SECONDS = 0.25  # how exactly deadlines are kept
_MOST_KEPT = 8  # connections of one thread
_URL, _WORDS = re.compile("([A-Za-z]+)://([^/?#]*)([^#]*)"), re.compile("[!-~]+")
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
        scheme, place, words = _parts(url)
        said = headers or {}
        if proxy and scheme == "http":
            words, said = url, {**said, **_credentials(urlsplit(proxy))}
        connection = self._connection(scheme, place, proxy)
        was_open = connection.sock is not None
        question = _question(words, place, said)
        try:
            return self._ask(connection, question, limit, patience)
        except NoAnswer as error:
            if not was_open or not isinstance(error.__cause__, ConnectionError):
                raise
        return self._ask(connection, question, limit, patience)  # perhaps it had been closed before we asked

    def _ask(self, connection: http.client.HTTPConnection, question: bytes, limit: int, patience: Patience) -> Answer:
        """Ask, and leave the connection open only if it can be used again."""
        keeps = False
        try:
            line = _connected(connection, patience)
            self._watch.begin(line, patience.deadline)
            try:
                answer = self._exchange(line, question, limit, patience)
                keeps = answer.keeps
            finally:
                self._watch.end(line)
        except TimeoutError as error:
            raise NoAnswer("silent for too long", True) from error
        except (OSError, ValueError) as error:
            late = time.monotonic() >= patience.deadline
            raise NoAnswer("took too long" if late else "the connection broke", True) from error
        finally:
            if not keeps:
                connection.close()
        return answer

    def _exchange(self, line: socket.socket, question: bytes, limit: int, patience: Patience) -> Answer:
        line.sendall(question)
        incoming = Incoming(line, patience.wait_seconds, patience.slowest_bytes_per_second)
        return read_answer(
            incoming, limit, lambda size: self._watch.put_off(line, min(size / _PUT_OFF_BYTES, _PUT_OFF_SECONDS))
        )

    def _connection(self, scheme: str, place: str, proxy: str | None) -> http.client.HTTPConnection:
        """This thread's own; a forked process does not share its parent's."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.connections, self._local.process = {}, os.getpid()
        connections: dict[tuple[str, str, str | None], http.client.HTTPConnection] = self._local.connections
        key = ("", "", proxy) if proxy and scheme == "http" else (scheme, place, proxy)
        connection = connections.pop(key, None) or self._new_connection(f"{scheme}://{place}", proxy)
        connections[key] = connection
        if len(connections) > _MOST_KEPT:
            connections.pop(next(iter(connections))).close()
        return connection

    def _new_connection(self, target: str, proxy: str | None) -> http.client.HTTPConnection:
        first, last = urlsplit(proxy or target), urlsplit(target)
        host, port = first.hostname or "", first.port
        if last.scheme != "https":
            return http.client.HTTPConnection(host, port or 80)
        if self._authorities is None:
            self._authorities = _trusted_authorities()
        connection = http.client.HTTPSConnection(host, port or (80 if proxy else 443), context=self._authorities)
        if proxy:
            connection.set_tunnel(last.hostname or "", last.port or 443, _credentials(first))
        return connection


class _Watch:
    """Cuts lines whose time is up."""

    def __init__(self) -> None:
        self._running: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, line: socket.socket, deadline: float) -> None:
        with self._lock:
            self._running[line] = deadline
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="deadlines", daemon=True)
                self._thread.start()

    def end(self, line: socket.socket) -> None:
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


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, host with its port, and what to ask there for. Raises `NoAnswer`."""
    parts = _URL.match(url)
    if parts is None:
        raise NoAnswer("not a URL", False)
    scheme, place, words = parts.groups()
    return scheme.lower(), place, words if words.startswith("/") else f"/{words}"


def _question(words: str, place: str, headers: Mapping[str, str]) -> bytes:
    """All of a request. Raises `NoAnswer` if it would not be what it should be."""
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    text = (
        f"GET {words} HTTP/1.1\r\nHost: {place.rpartition('@')[2]}\r\nUser-Agent: {USER_AGENT}\r\n"
        f"Accept-Encoding: identity\r\n{said}\r\n"
    )
    if not _WORDS.fullmatch(words) or not text.isascii():
        raise NoAnswer("its name can't be asked for", False)
    return text.encode()


def _connected(connection: http.client.HTTPConnection, patience: Patience) -> socket.socket:
    """The line to whom is asked first, which waits as long for each piece as *patience* says."""
    left = patience.deadline - time.monotonic()
    if left <= 0:
        raise NoAnswer("took too long", True)
    if connection.sock is None:
        connection.timeout = min(patience.wait_seconds, left)
        _connect(connection)
    line: socket.socket = connection.sock
    if line.gettimeout() != patience.wait_seconds:
        line.settimeout(patience.wait_seconds)
    return line


def _connect(connection: http.client.HTTPConnection) -> None:
    try:
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


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    text = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(text.encode()).decode()}

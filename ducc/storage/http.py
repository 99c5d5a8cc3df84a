"""A store that can only be read, behind an HTTP server: `http://host:port/cvmfs/<fqrn>/`.

A missing object is a definite answer; anything else that goes wrong is the server's or the network's, and passes.

Whoever starts a program from a mount waits for a thousand small answers in a row, so plain ones (http, no proxy, whole,
200 or 404) come over a kept connection of the thread with little ceremony: 0.1 ms instead of 0.5. Whatever is not plain
is asked for again through `Transport`, which knows redirects, proxies, certificates, retries and what to say.
"""

import http.client
import os
import threading
import urllib.request
from collections.abc import Container
from urllib.parse import urlsplit

from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError
from ducc.storage.base import REFLOG, ObjectMissing, StoreUnavailable
from ducc.transport import USER_AGENT, Transport

_LARGEST_OBJECT = 1 << 30  # stored bytes; what the stock publisher allows for a file
_LARGEST_PLAIN = 1 << 25
_LARGEST_ROOT_FILE = 1 << 20
_LARGEST_REFLOG = 1 << 28
_FOUND, _GONE = 200, (404, 410)

# Somebody waits for every answer, so it comes soon or not at all. Two tries at most, the plain one included.
_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 10.0


class HttpStore:
    """A `ReadableStore` at *url*, for any number of threads."""

    def __init__(self, url: str, transport: Transport | None = None) -> None:
        self._url = url.rstrip("/")
        self._plain = _PlainConnections(self._url) if _is_plain(self._url) else None
        self._transport = transport or Transport(
            connect_seconds=_CONNECT_SECONDS, idle_seconds=_IDLE_SECONDS, attempts=1 if self._plain else 2
        )

    def get(self, name: ObjectName) -> bytes:
        body = self._fetch(name.path, _LARGEST_OBJECT)
        if body is None:
            raise ObjectMissing(str(name))
        return body

    def read_file(self, name: str) -> bytes | None:
        return self._fetch(name, _LARGEST_REFLOG if name == REFLOG else _LARGEST_ROOT_FILE)

    def _fetch(self, path: str, limit: int) -> bytes | None:
        """The answer's bytes; None if the server has nothing of that name."""
        if self._plain and (answer := self._plain.ask(path, min(limit, _LARGEST_PLAIN))):
            status, body = answer
        else:
            status, body = self._ask_properly(path, limit, (_FOUND, *_GONE))
        return body if status == _FOUND else None

    def _ask_properly(self, path: str, limit: int, accept: Container[int]) -> tuple[int, bytes]:
        try:
            reply = self._transport.fetch(f"{self._url}/{path}", limit=limit, accept=accept)
        except DuccError as error:
            raise StoreUnavailable(str(error)) from error
        return reply.status, reply.body


class _PlainConnections:
    """A kept connection for each thread, to one server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._base = parts.hostname or "", parts.port or 80, parts.path
        self._local = threading.local()

    def ask(self, path: str, limit: int) -> tuple[int, bytes] | None:
        """Status and body of a plain answer; None for any other, or none."""
        connection = self._connection()
        try:
            connection.request("GET", f"{self._base}/{path}", headers={"User-Agent": USER_AGENT})
            response = connection.getresponse()
            if not _is_plain_answer(response, limit):
                connection.close()
                return None
            return response.status, response.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            return None

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's own; a forked process does not share its parent's."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.connection = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_SECONDS)
            self._local.process = os.getpid()
        connection: http.client.HTTPConnection = self._local.connection
        return connection


def _is_plain_answer(response: http.client.HTTPResponse, limit: int) -> bool:
    """Does it say what it is and how long, in words that need no further thought?"""
    known = response.status == _FOUND or response.status in _GONE
    coded = response.getheader("Content-Encoding") or response.getheader("Transfer-Encoding")
    return known and not coded and response.length is not None and response.length <= limit


def _is_plain(url: str) -> bool:
    """May we talk to the server directly and in the open?"""
    parts = urlsplit(url)
    proxied = "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname or "")
    return parts.scheme == "http" and parts.username is None and not parts.query and not proxied

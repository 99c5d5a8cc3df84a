"""A store that can only be read, behind an HTTP server: `http://host:port/cvmfs/<fqrn>/`.

A missing object is a definite answer; anything else that goes wrong is the server's or the network's, and passes.

Whoever starts a program from a mount waits for a thousand small answers in a row, so plain ones (http, no proxy, whole,
200 or 404) come over kept connections with little ceremony. Whatever is not plain is asked for again through
`Transport`, which knows redirects, proxies, certificates, retries and what to say.
"""

import time
import urllib.request
from collections.abc import Container
from urllib.parse import urlsplit

from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError
from ducc.storage.base import REFLOG, ObjectMissing, StoreUnavailable
from ducc.storage.connections import Answer, Connections, NoAnswer, Patience
from ducc.transport import Transport

_LARGEST_OBJECT = 1 << 30  # stored bytes; what the stock publisher allows for a file
_LARGEST_PLAIN = 1 << 25
_LARGEST_ROOT_FILE = 1 << 20
_LARGEST_REFLOG = 1 << 28
_FOUND, _GONE = 200, (404, 410)

# Somebody waits for every answer, so it comes soon or not at all. Two tries at most, the plain one included.
_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 10.0
_DEADLINE_SECONDS = 60.0


class HttpStore:
    """A `ReadableStore` at *url*, for any number of threads."""

    def __init__(self, url: str, transport: Transport | None = None) -> None:
        self._url = url.rstrip("/")
        self._plain = Connections() if _is_plain(self._url) else None
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
        answer = self._ask_plainly(path, min(limit, _LARGEST_PLAIN))
        status, body = answer or self._ask_properly(path, limit, (_FOUND, *_GONE))
        return body if status == _FOUND else None

    def _ask_plainly(self, path: str, limit: int) -> tuple[int, bytes] | None:
        """Status and body of a plain answer; None for any other, or none."""
        if self._plain is None:
            return None
        patience = Patience(_CONNECT_SECONDS, time.monotonic() + _DEADLINE_SECONDS)
        try:
            answer = self._plain.get(f"{self._url}/{path}", limit, patience)
        except NoAnswer:
            return None
        return (answer.status, answer.body) if _is_plain_answer(answer) else None

    def _ask_properly(self, path: str, limit: int, accept: Container[int]) -> tuple[int, bytes]:
        try:
            reply = self._transport.fetch(f"{self._url}/{path}", limit=limit, accept=accept)
        except DuccError as error:
            raise StoreUnavailable(str(error)) from error
        return reply.status, reply.body


def _is_plain_answer(answer: Answer) -> bool:
    """Does it say what it is, in words that need no further thought?"""
    return (answer.status == _FOUND or answer.status in _GONE) and "Content-Encoding" not in answer.headers


def _is_plain(url: str) -> bool:
    """May we talk to the server directly and in the open?"""
    parts = urlsplit(url)
    proxied = "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname or "")
    return parts.scheme == "http" and parts.username is None and not parts.query and not proxied

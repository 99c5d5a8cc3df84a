"""One answer of HTTP/1, read from a line over which something was asked; httptools says what its bytes mean.

Bodies with a length, in chunks, and until the line ends are understood; what is not HTTP, or says two things at once,
is refused. Trailers are dropped, codings of the content not undone.
"""

import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_LONGEST_HEAD = 1 << 16
_AT_ONCE = 1 << 18  # memory for that much is used again and again
_FIRST_FINAL = 200


class NotHttp(ValueError):
    """What arrives is no answer, or not all of one."""


class Answer(NamedTuple):
    """What a server said, whole. Names of *headers* are in lower case; *keeps*: may the line be used again?"""

    status: int
    headers: dict[str, str]
    body: bytes
    keeps: bool


class Incoming:
    """Bytes as they arrive. Slower than *slowest* bytes a second for the time of one *wait* counts as silent."""

    def __init__(self, line: socket.socket, wait_seconds: float, slowest: float) -> None:
        self._line, self._wait_seconds, self._slowest = line, wait_seconds, slowest
        self._received = self._seen = 0
        self._since = time.monotonic()

    def more(self) -> bytes:
        """Some bytes; none when the line has ended. Raises `TimeoutError`, and what else the line raises.

        An end without a word is a `ConnectionResetError`.
        """
        part = self._line.recv(_AT_ONCE)
        if not part and not self._received:
            raise ConnectionResetError("closed without a word")
        self._received += len(part)
        elapsed = time.monotonic() - self._since
        if elapsed >= self._wait_seconds:
            if self._received - self._seen < elapsed * self._slowest:
                raise TimeoutError
            self._seen, self._since = self._received, time.monotonic()
        return part


def read_answer(incoming: Incoming, limit: int, announced: Callable[[int], None]) -> Answer:
    """The answer, if its body has no more than *limit* bytes; how many it will have is *announced*, if the head tells.

    Raises `NotHttp`, and what `Incoming.more` raises. What a server says before the answer itself (1xx) is passed over.
    """
    arriving = _Arriving(limit, announced)
    while not arriving.is_whole:
        part = incoming.more()
        arriving.take(part) if part else arriving.end()
    return arriving.answer()


class _Arriving:
    """As much of an answer as has arrived. The methods whose names begin with `on_` are called by the parser."""

    def __init__(self, limit: int, announced: Callable[[int], None]) -> None:
        self.is_whole = False
        self._limit, self._announced = limit, announced
        self._parser = HttpResponseParser(self)
        self._status, self._headers = 0, dict[str, str]()
        self._has_head = self._keeps = False
        self._body: list[bytes] = []
        self._size = 0  # of the head until that is whole, then of the body
        self._refusal = ""

    def take(self, part: bytes) -> None:
        """Raises `NotHttp` as soon as this can't become an answer that is wanted."""
        if not self._has_head:
            self._size += len(part)
        try:
            self._parser.feed_data(part)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self.is_whole:  # what follows an answer says only that the line is of no more use
                raise NotHttp(str(error)) from error
            self._keeps = False
        if not self._has_head and self._size > _LONGEST_HEAD:
            self._refusal = "no end of its head in sight"
        if self._refusal:
            raise NotHttp(self._refusal)

    def end(self) -> None:
        """The line has ended: so has a body without a length. Raises `NotHttp` for any other."""
        if not self._has_head or "content-length" in self._headers or "transfer-encoding" in self._headers:
            raise NotHttp("cut off")
        self.is_whole = True

    def answer(self) -> Answer:
        return Answer(self._status, self._headers, b"".join(self._body), self._keeps)

    def on_message_begin(self) -> None:
        if self.is_whole:
            self._keeps = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_whole:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self.is_whole:
            return
        self._status = self._parser.get_status_code()
        if self._status < _FIRST_FINAL:
            return
        self._has_head, self._size = True, 0
        coding, length = self._headers.get("transfer-encoding", ""), int(self._headers.get("content-length", 0))
        if coding.lower() not in ("", "chunked"):
            self._refusal = f"a transfer coding that was not asked for: {coding[:80]!r}"
        elif length > self._limit:
            self._refusal = self._too_long()
        elif length:
            self._announced(length)

    def on_body(self, data: bytes) -> None:
        if self.is_whole:
            return
        self._body.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._refusal = self._too_long()

    def on_message_complete(self) -> None:
        if self._status < _FIRST_FINAL:
            self._headers.clear()
        elif not self.is_whole:
            self.is_whole, self._keeps = True, self._parser.should_keep_alive()

    def _too_long(self) -> str:
        return f"longer than {self._limit} bytes"

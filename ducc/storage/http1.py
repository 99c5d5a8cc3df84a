"""One answer of HTTP/1, read from a line over which something was asked. Source: RFC 9112.

Bodies with a length, in chunks, and until the line ends are understood; what is not HTTP, or says two things at once,
is refused. Trailers are dropped, codings of the content not undone.
"""

import socket
import time
from io import BytesIO
from typing import NamedTuple

_LONGEST_HEAD = 1 << 16
_LONGEST_LINE = 1 << 12  # between chunks
_AT_ONCE = 1 << 18  # memory for that much is used again and again
_FIRST_FINAL = 200
_END_OF_HEAD, _END_OF_LINE = b"\r\n\r\n", b"\r\n"
_WITHOUT_BODY = frozenset({204, 304})


class NotHttp(ValueError):
    """What arrives is no answer, or not all of one."""


class Head(NamedTuple):
    """What comes before the body. Names of *headers* are in lower case; *length* is None if the head does not tell."""

    status: int
    headers: dict[str, str]
    length: int | None
    chunked: bool
    keeps: bool  # may the line be used again?


class Incoming:
    """Bytes as they arrive. Slower than *slowest* bytes a second for the time of one *wait* counts as silent.

    Raises `TimeoutError` and what else the line raises; `NotHttp` if it ends too early, and `ConnectionResetError` if
    it ends without a word.
    """

    def __init__(self, line: socket.socket, wait_seconds: float, slowest: float) -> None:
        self._line, self._wait_seconds, self._slowest = line, wait_seconds, slowest
        self._held = b""
        self._received = self._seen = 0
        self._since = time.monotonic()

    @property
    def is_empty(self) -> bool:
        """Is nothing left of what has arrived?"""
        return not self._held

    def until(self, mark: bytes, longest: int) -> bytes:
        """What comes before *mark*, which is dropped."""
        while (at := self._held.find(mark)) < 0:
            if len(self._held) > longest:
                raise NotHttp("no end in sight")
            self._held += self._some(_AT_ONCE)
        found, self._held = self._held[:at], self._held[at + len(mark) :]
        return found

    def exactly(self, size: int) -> bytes:
        if size <= len(self._held):
            found, self._held = self._held[:size], self._held[size:]
            return found
        whole, missing = BytesIO(), size - len(self._held)
        whole.write(self._held)
        self._held = b""
        while missing:
            part = self._some(min(missing, _AT_ONCE))
            whole.write(part)
            missing -= len(part)
        return whole.getvalue()

    def rest(self, limit: int) -> bytes:
        """All until the line ends, or a little more than *limit*."""
        whole = BytesIO()
        whole.write(self._held)
        self._held = b""
        while whole.tell() <= limit and (part := self._line.recv(_AT_ONCE)):
            whole.write(self._arrived(part))
        return whole.getvalue()

    def _some(self, most: int) -> bytes:
        part = self._line.recv(most)
        if not part:
            raise NotHttp("cut off") if self._received else ConnectionResetError("closed without a word")
        return self._arrived(part)

    def _arrived(self, part: bytes) -> bytes:
        self._received += len(part)
        elapsed = time.monotonic() - self._since
        if elapsed >= self._wait_seconds:
            if self._received - self._seen < elapsed * self._slowest:
                raise TimeoutError
            self._seen, self._since = self._received, time.monotonic()
        return part


def read_head(incoming: Incoming) -> Head:
    """The head of the answer itself; what a server says before that (1xx) is passed over."""
    while (head := _head(incoming.until(_END_OF_HEAD, _LONGEST_HEAD))).status < _FIRST_FINAL:
        pass
    return head


def read_body(incoming: Incoming, head: Head, limit: int) -> bytes:
    """All of the body, if it has no more than *limit* bytes."""
    if head.status in _WITHOUT_BODY:
        return b""
    if head.chunked:
        return _chunks(incoming, limit)
    if head.length is not None and head.length <= limit:
        return incoming.exactly(head.length)
    body = incoming.rest(limit) if head.length is None else None
    if body is None or len(body) > limit:
        raise NotHttp(f"longer than {limit} bytes")
    return body


def _head(text: bytes) -> Head:
    first, *lines = text.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (status.isascii() and status.isdigit()) or rest[3:4].strip():
        raise NotHttp(f"not an answer of HTTP: {first[:80]!r}")
    headers = _headers(lines)
    coding, length = headers.get("transfer-encoding", "").lower(), headers.get("content-length")
    if coding not in ("", "chunked"):
        raise NotHttp(f"a transfer coding that was not asked for: {coding[:80]!r}")
    connection = headers.get("connection", "").lower()
    keeps = "close" not in connection and (version == "HTTP/1.1" or "keep-alive" in connection)
    sized = None if coding or length is None else _number(length, 10)
    ends = coding or sized is not None or int(status) in _WITHOUT_BODY
    return Head(int(status), headers, sized, bool(coding), keeps and bool(ends))


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise NotHttp(f"not a header: {line[:80]!r}")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _chunks(incoming: Incoming, limit: int) -> bytes:
    parts: list[bytes] = []
    room = limit
    while size := _number(incoming.until(_END_OF_LINE, _LONGEST_LINE).split(b";")[0].strip().decode("latin-1"), 16):
        room -= size
        if room < 0:
            raise NotHttp(f"longer than {limit} bytes")
        parts.append(incoming.exactly(size))
        if incoming.until(_END_OF_LINE, _LONGEST_LINE):
            raise NotHttp("a chunk is longer than it says")
    while incoming.until(_END_OF_LINE, _LONGEST_LINE):
        pass  # a trailer
    return b"".join(parts)


def _number(text: str, base: int) -> int:
    """A number of plain digits: no sign, no space, no underscore."""
    if not (text.isascii() and text.isalnum()):
        raise NotHttp(f"not a length: {text[:80]!r}")
    try:
        return int(text, base)
    except ValueError as error:
        raise NotHttp(f"not a length: {text[:80]!r}") from error

"""gRPC's server side on connections that are already let in: a path to a call, its bytes to bytes, and a status code.

Not the gRPC library's, which can't be given a connection of ours: what asked who is there and passed everything on, and
that library's own threads, took more than half of a call's time. Source: the gRPC protocol over HTTP/2.
"""

import contextlib
import logging
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from snapshotter.http2 import BrokenConnection, Connection, Request, encoded

log = logging.getLogger("ducc.snapshotter")

FIRST_BYTE_SECONDS = 20.0
_PIECE = 65536
_LONGEST_TEXT = 1000  # characters of an error; all of it has to fit in one frame
_PREFIX = struct.Struct(">BI")  # of a message: is it compressed?, its length
_PRINTABLE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # beside letters and digits; all ASCII but %


class Status(IntEnum):
    """gRPC's status codes, those that are given here."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Answer(NamedTuple):
    """What a call came to; *messages* if it is OK, else *text*."""

    status: Status
    text: str = ""
    messages: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """*call* makes an answer of a message and raises nothing. One that never waits is answered *at_once*.

    Others have a thread of their own meanwhile, so that nothing waits for them.
    """

    call: Callable[[bytes], Answer]
    at_once: bool = False


class Server:
    """Answers calls of *methods* (by path), at most so many *threads* at the same time."""

    def __init__(self, methods: Mapping[str, Method], threads: int) -> None:
        self.methods = methods
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="call")
        self._running: set[Future[None]] = set()

    def converse(self, caller: socket.socket) -> None:
        """Answer what comes from *caller* until either side ends."""
        with contextlib.suppress(OSError):
            _Conversation(self, caller).hold()

    def begin(self, work: Callable[[], None]) -> bool:
        """Do *work* in another thread; False once the server is closed."""
        try:
            begun = self._threads.submit(work)
        except RuntimeError:
            return False
        self._running.add(begun)
        begun.add_done_callback(self._running.discard)
        return True

    def close(self, grace_seconds: float) -> None:
        """Begin nothing more, and let what was begun end, within that time."""
        self._threads.shutdown(wait=False)
        wait(list(self._running), grace_seconds)


class _Conversation:
    """One connection."""

    def __init__(self, server: Server, caller: socket.socket) -> None:
        self._server, self._caller = server, caller
        self._connection = Connection()
        self._lock = threading.Lock()  # who speaks or listens on the connection

    def hold(self) -> None:
        self._send()
        self._caller.settimeout(FIRST_BYTE_SECONDS)  # who says nothing holds no place for long
        data = self._caller.recv(_PIECE)
        self._caller.settimeout(None)
        while data:
            try:
                with self._lock:
                    requests = self._connection.receive(data)
            except BrokenConnection as error:
                log.warning("connection ended: %s", error)
                self._send()
                return
            for request in requests:
                self._begin(request)
            self._send()
            data = self._caller.recv(_PIECE)

    def _begin(self, request: Request) -> None:
        path = request.headers.get(":path", "")
        method = self._server.methods.get(path)
        if method is None:
            self._answer(request, Answer(Status.UNIMPLEMENTED, f"there is no {path}"))
        elif method.at_once:
            self._work(method, request)
        elif not self._server.begin(lambda: self._work(method, request)):
            self._answer(request, Answer(Status.UNAVAILABLE, "the snapshotter is ending"))

    def _work(self, method: Method, request: Request) -> None:
        fault = _fault(request)
        self._answer(request, fault or method.call(bytes(request.body[_PREFIX.size :])))

    def _answer(self, request: Request, answer: Answer) -> None:
        body = b"".join(_PREFIX.pack(0, len(message)) + message for message in answer.messages)
        with self._lock:
            self._connection.answer(request.stream, _HEADERS, body, _trailers(answer))
        with contextlib.suppress(OSError):  # of a caller that is gone; who reads hears of it
            self._send()

    def _send(self) -> None:
        with self._lock:
            if data := self._connection.to_send():
                self._caller.sendall(data)


def _fault(request: Request) -> Answer | None:
    """What is wrong with a request before its message is read."""
    if request.is_too_large:
        return Answer(Status.RESOURCE_EXHAUSTED, "the message is too large")
    if len(request.body) < _PREFIX.size:
        return Answer(Status.INTERNAL, "there is no message")
    is_compressed, length = _PREFIX.unpack_from(request.body)
    if is_compressed:
        return Answer(Status.UNIMPLEMENTED, "compressed messages are not read")
    if length != len(request.body) - _PREFIX.size:
        return Answer(Status.INTERNAL, "one message was expected, of the length that it says")
    return None


def _trailers(answer: Answer) -> bytes:
    if answer.status == Status.OK:
        return _OK
    text = urllib.parse.quote(answer.text[:_LONGEST_TEXT], _PRINTABLE, errors="replace")
    return encoded({"grpc-status": str(int(answer.status)), "grpc-message": text})


_HEADERS = encoded({":status": "200", "content-type": "application/grpc"})
_OK = encoded({"grpc-status": "0"})

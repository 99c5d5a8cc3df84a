"""HTTP in: what the servers have in common, and the one that offers repositories of a local directory.

Only names that a publisher writes exist: `/cvmfs/<fqrn>/data/ab/<38 digits><letter>`, for ever the same, and a fixed
set of root files, good for a minute. Everything else, however it is spelt, is not there; symbolic links are not
followed. News of a repository are pushed by `ducc.announcing`. Source of the headers: format, "What the HTTP side must
offer".
"""

import asyncio
import errno
import os
import re
import signal
import socket
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import uvicorn

from ducc import announcing
from ducc.announcing import Announcer
from ducc.errors import BadInput

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_FQRN = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_OBJECT = re.compile(rf"/cvmfs/({_FQRN})/(data/[0-9a-f]{{2}}/[0-9a-f]{{38}}(?:-rmd160|-shake128)?[CHXMPL]?)")
_ROOT_FILE = re.compile(
    rf"/cvmfs/({_FQRN})/"
    r"(\.cvmfs(?:published|whitelist|whitelist\.pkcs7|reflog|_master_replica|_last_snapshot|_status\.json))"
)
_LAST_PORT = 65535
_SMALL = 256 * 1024  # read at once; what is larger is read in threads, piece by piece
_PIECE = 1024 * 1024

_OBJECT_HEADERS = [
    (b"content-type", b"application/octet-stream"),
    (b"cache-control", b"public, max-age=259200, immutable"),
]
_ROOT_FILE_HEADERS = [(b"content-type", b"application/x-cvmfs"), (b"cache-control", b"public, max-age=61")]
_ERROR_HEADERS = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store")]


class CannotListen(BadInput):
    """The address to serve at can't be had."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen at {host}:{port}: {reason}")


class _Published(NamedTuple):
    """A file that a request names, and the headers that go with it."""

    path: str
    headers: list[tuple[bytes, bytes]]


class RepositoryServer:
    """An ASGI application that serves every repository `DIR/<fqrn>` below *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._announcer = Announcer(directory)

    def end(self) -> None:
        """Keep nobody who only listens for news."""
        self._announcer.end()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _say(send, 405, b"only GET and HEAD\n", [(b"allow", b"GET, HEAD")])
            return
        if scope["raw_path"] == announcing.PATH and await self._announcer.announce(receive, send):
            return
        published = self._published(scope["raw_path"].partition(b"?")[0])
        opened = _open_regular(published.path) if published else None
        if published is None or opened is None:
            await _say(send, 404, b"no such file\n", [])
            return
        descriptor, size = opened
        try:
            headers = [*published.headers, (b"content-length", b"%d" % size)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _send_file(send, descriptor, 0 if scope["method"] == "HEAD" else size)
        finally:
            os.close(descriptor)

    def _published(self, raw_path: bytes) -> _Published | None:
        path = raw_path.decode("latin-1")
        if match := _OBJECT.fullmatch(path):
            return _Published(f"{self._directory}/{match[1]}/{match[2]}", _OBJECT_HEADERS)
        if match := _ROOT_FILE.fullmatch(path):
            return _Published(f"{self._directory}/{match[1]}/{match[2]}", _ROOT_FILE_HEADERS)
        return None


def serve(
    application: Application,
    listening: socket.socket,
    ready: Callable[[], None],
    parser: Literal["httptools", "h11"] = "httptools",
) -> None:
    """Answer until SIGTERM or SIGINT, then finish what was begun; *ready* is called when requests are answered.

    *parser* reads requests: httptools is faster, h11 takes no more than 64 KiB of a request's head.
    """
    config = uvicorn.Config(
        application, loop="uvloop", http=parser, lifespan="off", interface="asgi3",
        log_config=None, access_log=False, server_header=False, timeout_keep_alive=60, timeout_graceful_shutdown=10,
    )  # fmt: skip
    server = _Server(config, ready)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.end)  # until uvicorn hears them, and when it raises them once more in the end
    server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one."""
    if not 0 <= port <= _LAST_PORT:
        raise CannotListen(host, port, f"ports go up to {_LAST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        raise CannotListen(host, port, (error.strerror or str(error)).lower()) from error
    return listening


@runtime_checkable
class Ending(Protocol):
    """An application that has to be told when the server ends."""

    def end(self) -> None:
        """Finish what would go on for long."""


class _Server(uvicorn.Server):
    """Says when it is ready, and when it ends."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def end(self, number: int, frame: FrameType | None) -> None:
        """A signal: end as soon as it can be."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if isinstance(self.config.app, Ending):
            self.config.app.end()
        await super().shutdown(sockets)


def _open_regular(path: str) -> tuple[int, int] | None:
    """Descriptor and size of a regular file, if there is one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO):
            return None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return descriptor, status.st_size


async def _send_file(send: Send, descriptor: int, size: int) -> None:
    sent = 0
    while size - sent > _SMALL:
        piece = await asyncio.to_thread(os.pread, descriptor, min(_PIECE, size - sent), sent)
        if not piece:
            break  # cut off while we read it; the server ends the connection, so nobody takes it for the whole
        sent += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": sent < size})
        if sent == size:
            return
    await send({"type": "http.response.body", "body": os.pread(descriptor, size - sent, sent)})


async def _say(send: Send, status: int, text: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*_ERROR_HEADERS, *headers, (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})

"""Docker's plugin protocol: JSON by HTTP over a unix socket that only root can connect to.

    serve(Plugin(["VolumeDriver"], {"VolumeDriver.Get": get}), Path("/run/docker/plugins/ducc.sock"), ready)

A call takes the object that Docker sent and returns the one to answer with, or bytes piece by piece where the protocol
says so. A `DuccError` becomes `{"Err": "one line"}` with status 500; Docker shows the line to its user. Calls run in
threads, many at a time. Source: docs.docker.com, "Docker Plugin API".
"""

import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from anyio import from_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from ducc import serving
from ducc.errors import BadInput, DuccError, UnexpectedFailure
from ducc.image.strictjson import Fields, read_object
from ducc.unixsocket import listen_privately

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 20  # of a JSON request
_MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
_FAILED, _UNKNOWN = 500, 404

Answer = Mapping[str, Any] | Iterator[bytes]
Call = Callable[[Fields], Answer]
Upload = Callable[[Fields, BinaryIO], Answer]


class Plugin:
    """An ASGI application that answers `POST /<name>` by the calls of that name.

    *implements* is what it tells Docker to be. *uploads* take their fields from the query, and a stream.
    """

    def __init__(
        self, implements: Sequence[str], calls: Mapping[str, Call], uploads: Mapping[str, Upload] | None = None
    ) -> None:
        self._calls = {"Plugin.Activate": lambda _: {"Implements": list(implements)}, **calls}
        self._uploads = uploads or {}

    async def __call__(self, scope: serving.Message, receive: serving.Receive, send: serving.Send) -> None:
        if scope["type"] != "http":
            return
        response = await self._response(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        name = request.scope["path"].removeprefix("/")  # not by `url`: dockerd's host is the path of the socket
        try:
            if request.method != "POST" or (name not in self._calls and name not in self._uploads):
                return _json({"Err": f"{request.method} {name[:100]}: there is no such call"}, _UNKNOWN)
            return await _said(await self._answer(name, request))
        except DuccError as error:
            log.info("refused: call=%s reason=%s", name, error)
            return _json({"Err": str(error)}, _FAILED)
        except ClientDisconnect:
            return Response(status_code=_FAILED)
        except Exception as error:
            log.exception("call %s failed", name)
            return _json({"Err": str(UnexpectedFailure(error))}, _FAILED)

    async def _answer(self, name: str, request: Request) -> Answer:
        if name in self._uploads:
            fields = Fields(dict(request.query_params), name)
            body = cast(BinaryIO, io.BufferedReader(_Body(request.stream()), 1 << 16))
            return await run_in_threadpool(self._uploads[name], fields, body)
        fields = read_object(await _whole(request, name) or b"{}", name)
        return await run_in_threadpool(self._calls[name], fields)


def serve(plugin: Plugin, address: Path, ready: Callable[[], None]) -> None:
    """Answer at *address* until SIGTERM or SIGINT, which let calls that were begun finish. Raises `SocketTaken`."""
    with listen_privately(address) as listening:
        try:
            serving.serve(plugin, listening, ready)
        finally:
            address.unlink(missing_ok=True)


async def _whole(request: Request, name: str) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise BadInput(f"{name}: a request of more than {MOST_BYTES} bytes")
    return bytes(data)


async def _said(answer: Answer) -> Response:
    """Of what comes in pieces, the first one is waited for, so that a failure until then can still be told."""
    if isinstance(answer, Mapping):
        return _json(answer, 200)
    first = await run_in_threadpool(next, answer, b"")
    return StreamingResponse(_pieces(first, answer), media_type="application/octet-stream")


def _pieces(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _json(value: Mapping[str, Any], status: int) -> Response:
    return Response(json.dumps(value), status, media_type=_MEDIA_TYPE)


class _Body(io.RawIOBase):
    """What a request sends, for a thread to read as it arrives."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(from_thread.run(self._next))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    async def _next(self) -> bytes:
        """The next piece; empty at the end."""
        try:
            async for piece in self._stream:
                if piece:
                    return piece
        except ClientDisconnect as error:
            raise OSError("the caller has gone") from error
        return b""

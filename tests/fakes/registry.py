"""An in-process registry that says what a test tells it to say, above all lies.

It serves what was put in (`hold_image`, `hold`), and before that whatever was scripted for a path (`say`): wrong
lengths, cut connections, silence, redirects, web pages, challenges. Every request is kept in `seen`.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests import builders


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


@dataclass(frozen=True)
class Answer:
    """What to say. *cut_after* breaks the connection after so many bytes of the body; a silence comes before the head.

    With *stall_after* the silence comes after so many bytes of the body instead.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None  # what Content-Length says when it lies
    cut_after: int | None = None
    silence_seconds: float = 0.0
    chunked: bool = False
    stall_after: int | None = None


Script = Answer | Callable[[Seen], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # who is turned away tries again only after a second

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up in the middle are what the tests are about."""


class FakeRegistry:
    """A registry with one image name, `some/image`, unless a test says otherwise."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.content: dict[str, Answer] = {}
        self._script: dict[str, list[Script]] = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def reference(self, suffix: str = ":tag", name: str = "some/image") -> str:
        return f"{self.url}/{name}{suffix}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def hold(self, path: str, body: bytes, **headers: str) -> None:
        """Serve *body*; `content_type=` becomes `Content-Type`."""
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        self.content[path] = Answer(body=body, headers=named)

    def hold_image(self, image: builders.Image | builders.Index, tag: str = "tag", name: str = "some/image") -> str:
        """Serve an image with all its parts; return the digest of its manifest."""
        for part in (*image.parts, image):
            digest = builders.sha256(part.manifest)
            for key in (digest, tag):
                path = f"/v2/{name}/manifests/{key}"
                self.hold(path, part.manifest, content_type=part.media_type, docker_content_digest=digest)
            for blob in part.blobs:
                self.hold_blob(blob, name)
        return digest

    def hold_blob(self, blob: bytes, name: str = "some/image") -> str:
        """Serve a blob; return its path."""
        path = f"/v2/{name}/blobs/{builders.sha256(blob)}"
        self.hold(path, blob, content_type="application/octet-stream")
        return path

    def hold_tags(self, *tags: object, name: str = "some/image", **headers: str) -> None:
        self.hold(f"/v2/{name}/tags/list", json.dumps({"name": name, "tags": tags}).encode(), **headers)

    def say(self, path: str, *script: Script) -> None:
        """The next answers for *path*, each once; then what is held there."""
        self._script.setdefault(path, []).extend(script)

    def say_always(self, path: str, answer: Script) -> None:
        self._script[path] = [answer] * 1000

    def answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        script = self._script.get(seen.path)
        if script:
            said = script.pop(0)
            return said(seen) if callable(said) else said
        return _part(self.content.get(seen.path, Answer(404, b"{}")), seen.headers.get("Range"))

    def asked(self, method: str = "GET") -> list[str]:
        """The paths asked for, in order."""
        return [seen.path for seen in self.seen if seen.method == method]


def _part(answer: Answer, wanted: str | None) -> Answer:
    if answer.status != 200 or not wanted:
        return answer
    first = int(wanted.removeprefix("bytes=").removesuffix("-"))
    total = len(answer.body)
    headers = {**answer.headers, "Content-Range": f"bytes {first}-{total - 1}/{total}"}
    return Answer(206, answer.body[first:], headers)


def _handler(registry: FakeRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = registry.answer(Seen(self.command, self.path, dict(self.headers), body))
            if answer.stall_after is None:
                time.sleep(answer.silence_seconds)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send(answer)

        do_HEAD = do_POST = do_PUT = do_GET

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
            self.end_headers()
            if self.command != "HEAD":
                self._send_body(answer)

        def _send_body(self, answer: Answer) -> None:
            body = answer.body[: answer.cut_after]
            if answer.stall_after is not None:
                self.wfile.write(body[: answer.stall_after])
                self.wfile.flush()
                time.sleep(answer.silence_seconds)
                body = body[answer.stall_after :]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) if answer.chunked and body else body)
            if answer.cut_after is not None or (answer.length or 0) > len(answer.body):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif answer.chunked:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def fake_registry(tls: ssl.SSLContext | None = None) -> Iterator[FakeRegistry]:
    registry = FakeRegistry(tls)
    try:
        yield registry
    finally:
        registry.close()

import base64
import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ducc.client.notices import Notices

FQRN = "repo.example.org"
MANIFEST = b"C0123\nS1\n--\nand what is \xff signed"


class Ended(Exception):
    """Enough was heard."""


def event(**changed: object) -> bytes:
    message = {
        "version": 1, "timestamp": "now", "type": "activity", "repository": FQRN,
        "manifest": base64.b64encode(MANIFEST).decode(), **changed,
    }  # fmt: skip
    return b"data: " + json.dumps(message).encode() + b"\n\n"


class Server(ThreadingHTTPServer):
    """Answers each subscription with the next of *lines*, and notes what was asked."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Subscription)
        self.answers = list(answers)
        self.asked: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/v1"


class Subscription(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, body))
        status, text = self.server.answers.pop(0) if self.server.answers else (200, b"")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def started() -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def heard(started: list[Server], lines: int, *answers: tuple[int, bytes]) -> tuple[list[bytes], list[float], Server]:
    """What was heard on as many *lines*, and the pauses between them."""
    server = Server(*answers)
    started.append(server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == lines:
            raise Ended

    with pytest.raises(Ended):
        Notices(server.url + "/", FQRN, told.put, sleep).listen()
    return [told.get() for _ in range(told.qsize())], pauses, server


def test_each_manifest_that_is_pushed_is_passed_on(started: list[Server]) -> None:
    told, _, server = heard(started, 1, (200, b": welcome\n\n" + event() + b"event: x\n\n" + event()))
    assert told == [MANIFEST, MANIFEST]
    path, body = server.asked[0]
    assert (path, json.loads(body)) == ("/api/v1/notifications/subscribe", {"version": 1, "repository": FQRN})


def test_what_is_about_something_else_is_passed_over(started: list[Server]) -> None:
    others = event(repository="other.example.org") + event(type="weather") + b'data: {"status":"timeout"}\n\n'
    assert heard(started, 1, (200, others + event()))[0] == [MANIFEST]


@pytest.mark.parametrize(
    "answer",
    [
        (404, event()),
        (200, b"data: <html>\n\n" + event()),
        (200, b"data: 7\n\n" + event()),
        (200, event(manifest="~")),
        (200, event(manifest=None)),
        (200, b"data: \xff\n\n" + event()),
        (200, b""),
    ],
)
def test_after_nonsense_a_new_line_is_opened(answer: tuple[int, bytes], started: list[Server]) -> None:
    told, pauses, _ = heard(started, 2, answer, (200, event()))
    assert told == [MANIFEST]
    assert pauses == [1, 1]  # what has worked begins anew


def test_the_longer_nobody_answers_the_longer_are_the_pauses(started: list[Server]) -> None:
    _, pauses, _ = heard(started, 9)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    with pytest.raises(Ended):
        Notices("http://127.0.0.1:1/api/v1", FQRN, lambda _: None, _ended).listen()


def _ended(seconds: float) -> None:
    raise Ended

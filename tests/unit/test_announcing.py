import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ducc import announcing
from ducc.announcing import Announcer

FQRN = "repo.example.org"
QUESTION = json.dumps({"version": 1, "repository": FQRN}).encode()


class Subscriber:
    """Asks, and stays until it has heard as many events as it wants."""

    def __init__(self, question: bytes, wanted: int = 1) -> None:
        self._question = [question[:10], question[10:]]
        self._wanted = wanted
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.heard: Callable[[int], None] = lambda number: None
        self.ended = False

    async def receive(self) -> dict[str, Any]:
        if self._question:
            body = self._question.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._question)}
        while len(self.pieces) < self._wanted:
            await asyncio.sleep(0.005)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
        elif message.get("more_body"):
            self.pieces.append(message["body"])
            self.heard(len(self.pieces))
        else:
            self.ended = True

    @property
    def manifests(self) -> list[bytes]:
        """What the events announce; each came whole, in a line of its own."""
        assert all(piece.startswith(b"data: ") and piece.find(b"\n") == len(piece) - 2 for piece in self.pieces)
        messages = [json.loads(piece[6:]) for piece in self.pieces]
        assert all((one["version"], one["type"], one["repository"]) == (1, "activity", FQRN) for one in messages)
        return [base64.b64decode(one["manifest"]) for one in messages]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(announcing, "_LOOK_SECONDS", 0.01)
    path = tmp_path / FQRN / ".cvmfspublished"
    path.parent.mkdir()
    path.write_bytes(b"first \xff")
    return path


def replace(manifest: Path, data: bytes) -> None:
    new = manifest.with_name("new")
    new.write_bytes(data)
    new.replace(manifest)


def run(answer: Awaitable[bool]) -> bool:
    return asyncio.run(asyncio.wait_for(answer, 60))


def test_the_present_manifest_comes_at_once_and_each_new_one_after_it(manifest: Path) -> None:
    subscriber = Subscriber(QUESTION, wanted=3)
    subscriber.heard = lambda number: replace(manifest, b"number %d" % number)
    assert run(Announcer(manifest.parent.parent).announce(subscriber.receive, subscriber.send))
    assert subscriber.manifests == [b"first \xff", b"number 1", b"number 2"]
    assert subscriber.headers[b"content-type"] == b"text/event-stream"
    assert subscriber.ended


def test_a_line_ends_with_the_server(manifest: Path) -> None:
    announcer, subscriber = Announcer(manifest.parent.parent), Subscriber(QUESTION, wanted=1000)
    subscriber.heard = lambda number: announcer.end()
    assert run(announcer.announce(subscriber.receive, subscriber.send))
    assert (subscriber.manifests, subscriber.ended) == ([b"first \xff"], True)


def test_a_line_on_which_nothing_is_said_ends(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "_LONGEST_SECONDS", 0.05)
    subscriber = Subscriber(QUESTION, wanted=1000)
    assert run(Announcer(manifest.parent.parent).announce(subscriber.receive, subscriber.send))
    assert subscriber.ended


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"repository": "other.example.org"}',
        b'{"repository": "../repo.example.org"}',
        b'{"repository": "' + b"x" * 100_000,
        b"\xff",
    ],
)
def test_what_is_no_question_about_a_repository_here_is_not_answered(question: bytes, manifest: Path) -> None:
    subscriber = Subscriber(question)
    assert not run(Announcer(manifest.parent.parent).announce(subscriber.receive, subscriber.send))
    assert (subscriber.headers, subscriber.pieces) == ({}, [])

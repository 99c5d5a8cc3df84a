"""Layers that somebody keeps: handed out bit for bit, if they are published and undamaged."""

import asyncio
import os
from pathlib import Path

import pytest

from ducc.mirror.answer import Answer, Answers
from ducc.mirror.archives import Archives, Part
from ducc.mirror.images import PublishedImages
from ducc.mirror.question import read_question
from ducc.mirror.refusal import Refusal
from ducc.mirror.server import MirrorServer
from tests import builders
from tests.builders import sha256
from tests.unit.mirror.published import NAME, image, put

LARGE = os.urandom(3_000_000)
IMAGE = builders.Image([builders.Layer.of(builders.file("large", LARGE))])
BLOB = IMAGE.layers[0].blob


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """An OCI layout with the published image, and another one that nobody has published."""
    put(tmp_path / "mount", f"{NAME}:1", IMAGE)
    return builders.write_layout(tmp_path / "kept", {"1": IMAGE, "secret": image("secret")})


def place(kept: Path, blob: bytes) -> Path:
    return kept / "blobs" / "sha256" / sha256(blob).removeprefix("sha256:")


def ask(answers: Answers, blob: bytes, **headers: str) -> Answer:
    return answers.to(read_question(f"/v2/{NAME}/blobs/{sha256(blob)}".encode(), b""), headers)


def answers(kept: Path) -> Answers:
    return Answers([PublishedImages(kept.parent / "mount")], Archives(kept))


def content(answer: Answer) -> bytes:
    assert isinstance(answer.body, Part)
    found = b""
    while piece := answer.body.piece(len(found)):
        found += piece
    return found


def test_a_kept_layer_is_handed_out_bit_for_bit(kept: Path) -> None:
    answer = ask(answers(kept), BLOB)
    assert (answer.status, content(answer)) == (200, BLOB)
    assert answer.headers["docker-content-digest"] == sha256(BLOB)
    assert len(answer.body) == len(BLOB)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-", 1_000_000, None),
        ("bytes=-7", -7, None),
        ("bytes=5-2097200", 5, 2_097_201),
    ],
)
def test_a_range_of_it_is_that_part(kept: Path, asked: str, start: int, end: int | None) -> None:
    answer = ask(answers(kept), BLOB, range=asked)
    assert (answer.status, content(answer)) == (206, BLOB[start:end])


def test_what_is_kept_and_not_published_is_not_handed_out(kept: Path) -> None:
    secret = image("secret")
    for blob in (secret.layers[0].blob, secret.config, secret.manifest):
        assert place(kept, blob).exists()
        with pytest.raises(Refusal, match="no published image"):
            ask(answers(kept), blob)


def test_a_damaged_one_is_not_handed_out_nor_one_that_was_damaged_later(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = answers(kept)
    assert ask(asked, BLOB).status == 200
    path = place(kept, BLOB)
    damaged = bytearray(BLOB)
    damaged[1_500_000] ^= 1
    path.write_bytes(damaged)
    for again in (asked, answers(kept)):
        with pytest.raises(Refusal, match="not as an archive"):
            ask(again, BLOB)
    assert "its bytes are others" in caplog.text
    path.write_bytes(BLOB)
    assert content(ask(asked, BLOB)) == BLOB


def test_it_is_hashed_once(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(kept)
    ask(asked, BLOB)
    monkeypatch.setattr("ducc.mirror.archives._digest", lambda archive: pytest.fail("hashed again"))
    assert ask(asked, BLOB).status == 200


def test_links_and_what_is_no_file_are_not_kept_layers(kept: Path, tmp_path: Path) -> None:
    path = place(kept, BLOB)
    path.rename(tmp_path / "elsewhere")
    for make in (lambda: path.symlink_to(tmp_path / "elsewhere"), path.mkdir, lambda: os.mkfifo(path)):
        make()
        with pytest.raises(Refusal, match="not as an archive"):
            ask(answers(kept), BLOB)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_a_client_that_has_gone_is_sent_no_more(kept: Path) -> None:
    left, sent = asyncio.Event(), []

    async def receive() -> dict[str, object]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(dict(message))  # type: ignore[call-overload]
        left.set()  # as soon as it has the first bytes

    path = f"/v2/{NAME}/blobs/{sha256(BLOB)}".encode()
    scope = {"type": "http", "method": "GET", "raw_path": path, "query_string": b"", "headers": []}
    asyncio.run(MirrorServer(answers(kept))(scope, receive, send))
    assert sum(len(message.get("body", b"")) for message in sent) < len(BLOB)

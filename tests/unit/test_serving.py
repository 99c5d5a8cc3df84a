import asyncio
import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from ducc.serving import CannotListen, RepositoryServer, listen
from tests.console import Console, stop

FQRN = "repo.example.org"
SMALL, LARGE = b"small object", os.urandom(3_000_000)


def object_path(data: bytes, suffix: str = "") -> str:
    digest = hashlib.sha1(data).hexdigest()
    return f"data/{digest[:2]}/{digest[2:]}{suffix}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A directory with one repository, and everything around it that is nobody's business."""
    repository = tmp_path / "srv" / FQRN
    for name, data in {
        object_path(SMALL): SMALL,
        object_path(SMALL, "C"): SMALL,
        object_path(LARGE, "P"): LARGE,
        object_path(b""): b"",
        ".cvmfspublished": b"manifest",
        ".cvmfswhitelist": b"whitelist",
        ".cvmfsreflog": b"reflog",
        ".cvmfs_master_replica": b"",
        ".cvmfssecret": b"secret",
        ".htpasswd": b"secret",
        "keys": b"secret",
        "data/txn/session-1/0": b"secret",
        "data/txn/lock": b"secret",
        f"{object_path(SMALL)}.tmp": b"secret",
        "../secret": b"secret",
    }.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes(data)
    (repository / object_path(b"link")).parent.mkdir(exist_ok=True)
    (repository / object_path(b"link")).symlink_to(tmp_path / "srv" / "secret")
    (repository / object_path(b"directory")).mkdir(parents=True)
    return tmp_path / "srv"


@pytest.fixture
def connection(store: Path, ducc: Console, tmp_path: Path) -> Iterator[HTTPConnection]:
    log = tmp_path / "serve.log"
    process = ducc.start("serve", "--storage", f"file://{store}", "--port", "0", log=log)
    while not (line := re.fullmatch(r"serving (.+) at http://127\.0\.0\.1:(\d+)/cvmfs/\n", log.read_text())):
        assert process.poll() is None
        time.sleep(0.02)
    connection = HTTPConnection("127.0.0.1", int(line[2]), timeout=60)
    yield connection
    connection.close()
    stop(process)
    assert process.returncode == 0
    assert log.read_text() == line[0]  # one line, and nothing but it


def ask(connection: HTTPConnection, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", "x")
    connection.endheaders()
    response = connection.getresponse()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_objects_are_served_whole_and_may_be_kept_for_long(connection: HTTPConnection) -> None:
    for data, suffix in ((SMALL, ""), (SMALL, "C"), (LARGE, "P"), (b"", "")):
        path = f"/cvmfs/{FQRN}/{object_path(data, suffix)}"
        status, headers, body = ask(connection, path)
        assert (status, body) == (200, data)
        assert headers["content-length"] == str(len(data))
        assert headers["content-type"] == "application/octet-stream"
        assert "max-age=259200" in headers["cache-control"]
        status, head, body = ask(connection, path, "HEAD")
        assert (status, body) == (200, b"")
        assert {**head, "date": ""} == {**headers, "date": ""}


def test_root_files_are_served_and_may_be_kept_for_a_minute(connection: HTTPConnection) -> None:
    for name, data in (
        (".cvmfspublished", b"manifest"),
        (".cvmfswhitelist", b"whitelist"),
        (".cvmfsreflog", b"reflog"),
    ):
        status, headers, body = ask(connection, f"/cvmfs/{FQRN}/{name}")
        assert (status, body) == (200, data)
        assert headers["content-type"] == "application/x-cvmfs"
        assert headers["cache-control"] == "public, max-age=61"
    assert ask(connection, f"/cvmfs/{FQRN}/.cvmfs_master_replica")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/cvmfs/",
        f"/cvmfs/{FQRN}",
        f"/cvmfs/{FQRN}/",
        f"/cvmfs/{FQRN}/data/",
        f"/cvmfs/{FQRN}/.cvmfssecret",
        f"/cvmfs/{FQRN}/.htpasswd",
        f"/cvmfs/{FQRN}/keys",
        f"/cvmfs/{FQRN}/../secret",
        f"/cvmfs/{FQRN}/%2e%2e/secret",
        f"/cvmfs/{FQRN}/..%2fsecret",
        "/cvmfs/../srv/secret",
        "/cvmfs/./secret",
        f"/cvmfs/{FQRN}%2f.cvmfspublished",
        f"/cvmfs/{FQRN}/%2ecvmfspublished",
        f"//cvmfs/{FQRN}/.cvmfspublished",
        f"/cvmfs/{FQRN}//.cvmfspublished",
        f"/cvmfs/{FQRN}/data/txn/session-1/0",
        f"/cvmfs/{FQRN}/data/txn/lock",
        f"/cvmfs/{FQRN}/{object_path(SMALL)}.tmp",
        f"/cvmfs/{FQRN}/{object_path(SMALL)}T",
        f"/cvmfs/{FQRN}/{object_path(SMALL).upper()}",
        f"/cvmfs/{FQRN}/{object_path(b'link')}",
        f"/cvmfs/{FQRN}/{object_path(b'directory')}",
        f"/cvmfs/{FQRN}/{object_path(b'nothing')}",
        "/cvmfs/other.example.org/.cvmfspublished",
        f"/cvmfs/{FQRN}/.cvmfspublished%00",
        f"/cvmfs/{FQRN}/.cvmfspublished%0a",
    ],
)
def test_nothing_else_exists(path: str, store: Path) -> None:
    status, _, body = asyncio.run(answer(RepositoryServer(store), path))
    assert (status, body) == (404, b"no such file\n")


def test_only_reading_is_possible(connection: HTTPConnection) -> None:
    for method in ("PUT", "POST", "DELETE"):
        assert ask(connection, f"/cvmfs/{FQRN}/.cvmfspublished", method)[0] == 405


def test_a_query_changes_nothing(connection: HTTPConnection) -> None:
    assert ask(connection, f"/cvmfs/{FQRN}/.cvmfspublished?x=../..")[2] == b"manifest"


def test_an_address_that_cannot_be_had_is_one_clear_line(store: Path, ducc: Console) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host, wanted in (("127.0.0.1", port), ("127.0.0.1", 70_000), ("no such host", 0), ("192.0.2.1", 0)):
            with pytest.raises(CannotListen, match=str(wanted)):
                listen(host, wanted)
        result = ducc("serve", "--storage", f"file://{store}", "--port", port, status=2)
        assert re.fullmatch(r"ducc: cannot listen at 127\.0\.0\.1:\d+: address already in use\n", result.stderr.lower())
    result = ducc("serve", "--storage", f"file://{store}/nowhere", "--port", 0, status=2)
    assert "no such directory" in result.stderr


HASTY = """
import os, signal
from ducc import serving

class Early(serving._Server):
    def run(self, sockets=None):
        os.kill(os.getpid(), signal.SIGTERM)
        super().run(sockets)

async def application(scope, receive, send):
    pass

serving._Server = Early
serving.serve(application, serving.listen("127.0.0.1", 0), lambda: None)
print("ended")
"""


def test_a_signal_that_comes_before_it_serves_ends_it_too() -> None:
    done = subprocess.run([sys.executable, "-c", HASTY], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "ended\n"


async def answer(server: RepositoryServer, path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    """What the application says to one GET, its path exactly as spelt here."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: object) -> None:
        sent.append(dict(message))  # type: ignore[call-overload]

    await server({"type": "http", "method": "GET", "raw_path": path.encode()}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)  # type: ignore[misc]
    return sent[0]["status"], dict(sent[0]["headers"]), body  # type: ignore[return-value, call-overload]

"""The mirror as it is run: `ducc serve --registry`, asked over HTTP."""

import asyncio
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from ducc.mirror.answer import Answers
from ducc.mirror.images import PublishedImages
from ducc.mirror.server import MirrorServer
from tests import builders
from tests.builders import sha256
from tests.console import Console, stop
from tests.unit.mirror.published import NAME, image, put

ANSWER_SECONDS = 60
LARGE = builders.Image([builders.Layer.of(builders.file("large", os.urandom(5_000_000)))])


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mount = tmp_path_factory.mktemp("mount")
    put(mount, f"{NAME}:1", image())
    return mount


@pytest.fixture(scope="module")
def kept(mount: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with one large published image."""
    put(mount, f"{NAME}:large", LARGE)
    return builders.write_layout(tmp_path_factory.mktemp("kept"), {"large": LARGE})


@pytest.fixture(scope="module")
def url(mount: Path, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    log = home / "serve.log"
    with Console(home) as ducc:
        process = ducc.start("serve", "--registry", mount, "--archives", kept, "--port", 0, log=log)
        line = said(process, log, r"serving images of (.+) at (http://127\.0\.0\.1:\d+)/v2/\n")
        assert line[1] == str(mount)
        yield line[2]
        stop(process)
        assert process.returncode == 0
        assert log.read_text() == line[0]  # one line, and nothing but it, whatever was asked


def said(process: "subprocess.Popen[bytes]", log: Path, pattern: str) -> "re.Match[str]":
    """Wait for what the process says first."""
    while not (line := re.fullmatch(pattern, log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    return line


def raw(url: str, head: bytes) -> bytes:
    """What the server says to bytes that no proper client sends."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), ANSWER_SECONDS) as connection:
        connection.sendall(head + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_client_gets_a_manifest_and_its_head(url: str) -> None:
    path = f"{url}/v2/{NAME}/manifests/1"
    got, head = requests.get(path, timeout=ANSWER_SECONDS), requests.head(path, timeout=ANSWER_SECONDS)
    assert (got.status_code, got.content) == (200, image().manifest)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "docker-content-digest", "etag"):
        assert head.headers[name] == got.headers[name]
    assert int(head.headers["content-length"]) == len(image().manifest)


def test_a_client_that_has_it_gets_no_body(url: str) -> None:
    path = f"{url}/v2/{NAME}/manifests/1"
    got = requests.get(path, headers={"If-None-Match": f'"{sha256(image().manifest)}"'}, timeout=ANSWER_SECONDS)
    assert (got.status_code, got.content) == (304, b"")


def test_a_range_of_a_config_comes_over_the_wire(url: str) -> None:
    path = f"{url}/v2/{NAME}/blobs/{sha256(image().config)}"
    got = requests.get(path, headers={"Range": "bytes=2-5"}, timeout=ANSWER_SECONDS)
    assert (got.status_code, got.content) == (206, image().config[2:6])


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(url: str, method: str) -> None:
    for path in (f"{NAME}/manifests/1", f"{NAME}/blobs/uploads/", ""):
        got = requests.request(method, f"{url}/v2/{path}", data=b"x" * 100_000, timeout=ANSWER_SECONDS)
        assert (got.status_code, got.headers["allow"]) == (405, "GET, HEAD")
        assert got.json()["errors"][0]["code"] == "UNSUPPORTED"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2/../../../etc/passwd",
        b"GET /v2/%2e%2e/%2e%2e/manifests/passwd",
        b"GET /v2/a/manifests/x%00",
        b"GET /v2/\xff/manifests/x",
        b"GET //v2/",
        b"GET /cvmfs/x/.cvmfspublished",
        b"GET /v2/a/manifests/x?ns=../..",
        b"GET /v2/" + b"a/" * 20_000 + b"manifests/x",
        b"GET /v2/a/manifests/x?" + b"&".join(b"%d=1" % n for n in range(5000)),
        b"FROBNICATE /v2/",
        b"GET http://other.example/v2/a/manifests/x%0d%0a",
        b"NONSENSE",
    ],
)
def test_hostile_requests_get_a_refusal_and_the_next_one_an_answer(url: str, head: bytes) -> None:
    status = raw(url, head).split(b"\r\n")[0]
    assert re.fullmatch(rb"HTTP/1\.1 4\d\d .*", status), status
    assert requests.get(f"{url}/v2/", timeout=ANSWER_SECONDS).status_code == 200


@pytest.mark.parametrize("head", [b"GET /v2/", b"GET /v2/ HTTP/1.1\r\nX: "])
def test_a_request_that_does_not_end_is_not_waited_for(url: str, head: bytes) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), ANSWER_SECONDS) as connection, suppress(ConnectionError):
        connection.sendall(head)
        for _ in range(1000):  # 64 MB, if somebody took them all
            connection.sendall(b"a" * 65536)
        raise AssertionError("it takes everything")


def test_many_clients_at_once_all_get_theirs(url: str, mount: Path) -> None:
    for number in range(20):
        put(mount, f"{NAME}:many-{number}", image(str(number)))

    def fetch(number: int) -> bytes:
        digest = sha256(image(str(number % 20)).manifest)
        return requests.get(f"{url}/v2/{NAME}/manifests/{digest}", timeout=ANSWER_SECONDS).content

    with ThreadPoolExecutor(20) as crowd:
        assert list(crowd.map(fetch, range(100))) == [image(str(number % 20)).manifest for number in range(100)]


def test_what_is_published_later_is_served_without_a_restart(url: str, mount: Path) -> None:
    assert requests.get(f"{url}/v2/{NAME}/manifests/2", timeout=ANSWER_SECONDS).status_code == 404
    put(mount, f"{NAME}:2", image("later"))
    assert requests.get(f"{url}/v2/{NAME}/manifests/2", timeout=ANSWER_SECONDS).content == image("later").manifest


def test_prometheus_is_told_what_was_asked(url: str) -> None:
    before = counts(url)
    for tag in ("1", "1", "unknown"):
        requests.get(f"{url}/v2/{NAME}/manifests/{tag}", timeout=ANSWER_SECONDS)
    after = counts(url)
    assert after["404"] - before.get("404", 0) == 1
    assert after["200"] - before.get("200", 0) == 3  # the first question for counts, too


def counts(url: str) -> dict[str, float]:
    """Requests so far, by status."""
    text = requests.get(f"{url}/metrics", timeout=ANSWER_SECONDS).text
    return {
        status: float(n) for status, n in re.findall(r'^ducc_mirror_requests_total{status="(\d+)"} (.+)$', text, re.M)
    }


def test_another_registry_can_be_meant_by_names_without_one(mount: Path, ducc: Console, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    process = ducc.start("serve", "--default-registry", "registry.example.org", "--port", 0, log=log,
                         DUCC_REGISTRY=str(mount), DUCC_STORAGE="file:///srv/cvmfs")  # fmt: skip
    line = said(process, log, r"serving .* at (http://127\.0\.0\.1:\d+)/v2/\n")
    assert requests.get(f"{line[1]}/v2/physics/analysis/manifests/1", timeout=ANSWER_SECONDS).status_code == 200
    stop(process)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--storage or --registry"),
        (["--registry", "/no/such/directory"], "no such directory"),
        (["--registry", "/", "--default-registry", "a/../b"], "malformed"),
        (["--registry", "/", "--archives", "/proc"], "OCI layout"),
    ],
)
def test_options_that_can_not_be_used_are_one_clear_line(ducc: Console, words: list[str], said: str) -> None:
    result = ducc("serve", *words, "--port", 0, status=2)
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_a_repository_that_hangs_holds_nobody_for_longer_than_the_deadline() -> None:
    goes_on = threading.Event()

    class Hanging(PublishedImages):
        def manifest(self, reference: object) -> None:
            goes_on.wait(ANSWER_SECONDS)

    server = MirrorServer(Answers([Hanging(Path("/"))]), deadline_seconds=0.2)
    try:
        status, body = asyncio.run(answer(server, f"/v2/{NAME}/manifests/1"))
    finally:
        goes_on.set()
    assert (status, json.loads(body)["errors"][0]["code"]) == (503, "UNAVAILABLE")


def test_beyond_a_number_requests_are_not_begun(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ducc.mirror.server._MOST_AT_ONCE", 0)
    status, body = asyncio.run(answer(MirrorServer(Answers([PublishedImages(mount)])), "/v2/"))
    assert (status, json.loads(body)["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")


async def answer(server: MirrorServer, path: str) -> tuple[int, bytes]:
    """What the application says to one GET."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: object) -> None:
        sent.append(dict(message))  # type: ignore[call-overload]

    scope = {"type": "http", "method": "GET", "raw_path": path.encode(), "query_string": b"", "headers": []}
    await server(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)  # type: ignore[return-value,misc]


def test_the_layers_of_what_was_served_are_never_sent(url: str) -> None:
    layer: builders.Layer = image().layers[0]
    got = requests.get(f"{url}/v2/{NAME}/blobs/{sha256(layer.blob)}", timeout=ANSWER_SECONDS)
    assert (got.status_code, got.json()["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


def test_a_kept_layer_comes_whole_and_in_parts_to_many_at_once(url: str) -> None:
    blob = LARGE.layers[0].blob
    path = f"{url}/v2/{NAME}/blobs/{sha256(blob)}"
    head = requests.head(path, timeout=ANSWER_SECONDS)
    assert (head.headers["content-length"], head.content) == (str(len(blob)), b"")

    def fetch(number: int) -> bytes:
        headers = {"Range": f"bytes={number}-"} if number else {}
        return requests.get(path, headers=headers, timeout=ANSWER_SECONDS).content

    with ThreadPoolExecutor(10) as crowd:
        assert list(crowd.map(fetch, range(10))) == [blob[number:] for number in range(10)]

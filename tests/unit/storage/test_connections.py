import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from ducc.storage.connections import Answer, Connections, NoAnswer, Patience
from tests.fakes.registry import Answer as Said
from tests.fakes.registry import FakeRegistry, fake_registry
from tests.unit.test_transport import secure

__all__ = ["secure"]  # a fixture


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with fake_registry() as server:
        server.hold("/a", b"answer", content_type="x/y")
        yield server


def get(
    url: str, connections: Connections | None = None, limit: int = 1000, seconds: float = 60, **options: object
) -> Answer:
    patience = Patience(seconds, time.monotonic() + 120)
    return (connections or Connections()).get(url, limit, patience, **options)  # type: ignore[arg-type]


def test_an_answer_has_status_headers_and_body_whatever_the_status(server: FakeRegistry) -> None:
    answer = get(f"{server.url}/a?b=c")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "x/y", b"answer")
    assert server.seen[0].target == "/a?b=c"
    assert get(f"{server.url}/nothing").status == 404
    server.say("/a", Said(302, headers={"Location": "/b"}))
    assert get(f"{server.url}/a").status == 302


def test_answers_of_any_form_come_whole(server: FakeRegistry) -> None:
    connections = Connections()
    server.say("/a", Said(200, b"x" * 900, chunked=True), Said(200, b""), Said(304))
    assert [len(get(f"{server.url}/a", connections).body) for _ in range(4)] == [900, 0, 0, 6]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(200, b"x" * 1001), "broke"),
        (Said(200, b"x", length=9), "broke"),
        (Said(200, b"x" * 100, cut_after=50), "broke"),
        (Said(200, b"x", silence_seconds=600), "silent"),
        (Said(200, b"xyz", stall_after=1, silence_seconds=600), "silent"),
    ],
    ids=["too long", "too short", "cut", "silent", "stalled"],
)
def test_what_is_no_whole_answer_is_none_and_the_next_question_is_answered(
    said: Said, reason: str, server: FakeRegistry
) -> None:
    connections = Connections()
    server.say("/a", said)
    with pytest.raises(NoAnswer, match=reason) as caught:
        get(f"{server.url}/a", connections, seconds=1 if reason == "silent" else 60)
    assert caught.value.reached
    assert get(f"{server.url}/a", connections).body == b"answer"


def test_nobody_there_is_told_from_silence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        for url, reason in (
            (f"http://127.0.0.1:{taken.getsockname()[1]}/", "connection refused"),
            ("http://nobody.invalid/", "the host name is not known"),
        ):
            with pytest.raises(NoAnswer, match=reason) as caught:
                get(url)
            assert not caught.value.reached


def test_a_deadline_that_is_over_is_kept_without_asking(server: FakeRegistry) -> None:
    with pytest.raises(NoAnswer, match="too long"):
        Connections().get(f"{server.url}/a", 10, Patience(5, time.monotonic() - 1))
    assert not server.seen


def test_the_last_answer_of_a_connection_is_cut_in_time_too(server: FakeRegistry) -> None:
    server.say("/a", Said(200, b"xyz", {"Connection": "close"}, stall_after=1, silence_seconds=600))
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        Connections().get(f"{server.url}/a", 10, Patience(600, began + 0.3))
    assert time.monotonic() - began < 120


def test_a_long_answer_may_take_longer_and_a_short_one_may_not(server: FakeRegistry) -> None:
    for size, arrives in ((8 << 20, True), (3, False)):
        server.say("/a", Said(200, b"x" * size, stall_after=1, silence_seconds=2.5))
        patience = Patience(60, time.monotonic() + 1.5)
        if arrives:
            assert len(Connections().get(f"{server.url}/a", size, patience).body) == size
        else:
            with pytest.raises(NoAnswer):
                Connections().get(f"{server.url}/a", size, patience)


def test_threads_do_not_share_connections(server: FakeRegistry) -> None:
    connections = Connections()
    bodies: list[bytes] = []

    def ask() -> None:
        bodies.extend(get(f"{server.url}/a", connections).body for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [b"answer"] * 160


# --- certificates --------------------------------------------------------------------------


def test_certificates_are_verified(secure: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    secure.hold("/a", b"secret")
    assert get(f"{secure.url}/a").body == b"secret"
    with pytest.raises(NoAnswer, match="certificate"):
        get(f"{secure.url}/a".replace("127.0.0.1", "localhost"))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(NoAnswer, match="certificate"):
        get(f"{secure.url}/a")
    assert len(secure.seen) == 1


def test_a_proxy_sees_only_where_https_goes(secure: FakeRegistry) -> None:
    secure.hold("/a", b"secret")
    with tunnelling() as (proxy, heads):
        connections = Connections()
        for _ in range(2):
            assert get(f"{secure.url}/a", connections, proxy=proxy).body == b"secret"
    assert len(heads) == 1  # the tunnel is kept
    assert heads[0].startswith(f"CONNECT {secure.host} HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6eA==" in heads[0]


@contextmanager
def tunnelling() -> Iterator[tuple[str, list[str]]]:
    """A proxy that connects; what it was asked for."""
    heads: list[str] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(listening: socket.socket) -> None:
        with suppress(OSError), listening.accept()[0] as client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            heads.append(head.decode())
            host, port = head.split()[1].decode().split(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 connected\r\n\r\n")
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"http://me:x@127.0.0.1:{listening.getsockname()[1]}", heads


def test_tls_that_is_none_is_no_answer(server: FakeRegistry) -> None:
    with pytest.raises(NoAnswer) as caught:
        get(f"{server.url}/a".replace("http:", "https:"))
    assert isinstance(caught.value.__cause__, ssl.SSLError)

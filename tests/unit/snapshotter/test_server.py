"""Calls by the gRPC library's client, over a pair of sockets or a socket with a name, and the answers that it sees."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from snapshotter import server
from snapshotter.entrance import Entrance
from snapshotter.http2 import LARGEST_REQUEST
from snapshotter.server import Answer, Method, Server, Status


def echo(message: bytes) -> Answer:
    return Answer(Status.OK, messages=(message,))


class Gate:
    """A call that waits until it may go on."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self, message: bytes) -> Answer:
        self.entered.release()
        assert self.open.wait(60)
        return echo(message)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def running(gate: Gate) -> Server:
    calls = {
        "echo": Method(echo),
        "now": Method(echo, at_once=True),
        "wait": Method(gate),
        "many": Method(lambda message: Answer(Status.OK, messages=(message,) * 100)),
        "refuse": Method(lambda message: Answer(Status.NOT_FOUND, message.decode(errors="surrogateescape"))),
    }
    return Server({f"/s/{name}": method for name, method in calls.items()}, 2)


@pytest.fixture
def channel(tmp_path: Path, running: Server, gate: Gate) -> Iterator[grpc.Channel]:
    entrance = Entrance(tmp_path / "run" / "s.sock", running.converse)
    entrance.serve()
    largest = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"unix:{tmp_path}/run/s.sock", largest) as opened:
        yield opened
    gate.open.set()
    running.close(60)
    entrance.close()


def call(channel: grpc.Channel, name: str, message: bytes = b"") -> bytes:
    return channel.unary_unary(f"/s/{name}")(message, timeout=60)


def refusal(channel: grpc.Channel, name: str, message: bytes = b"", **options: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/s/{name}")(message, timeout=60, **options)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("name", ["echo", "now"])
@pytest.mark.parametrize("size", [0, 1, 16384, 3_000_000])
def test_messages_of_any_size_come_and_go(name: str, size: int, channel: grpc.Channel) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert call(channel, name, message) == message


def test_several_messages_are_an_answer(channel: grpc.Channel) -> None:
    assert list(channel.unary_stream("/s/many")(b"x" * 3000, timeout=60)) == [b"x" * 3000] * 100


@pytest.mark.parametrize("text", ["plain", "100 % of it", "über\nlines\0", "", "ä" * 1000])
def test_the_text_of_an_error_arrives_as_it_is(text: str, channel: grpc.Channel) -> None:
    assert refusal(channel, "refuse", text.encode()) == (grpc.StatusCode.NOT_FOUND, text)


def test_text_that_is_no_text_or_too_long_is_cut_and_told(channel: grpc.Channel) -> None:
    assert refusal(channel, "refuse", b"a\xff") == (grpc.StatusCode.NOT_FOUND, "a?")
    assert refusal(channel, "refuse", b"a" * 100_000) == (grpc.StatusCode.NOT_FOUND, "a" * 1000)


def test_what_can_not_be_answered_is_said_so_and_the_connection_goes_on(channel: grpc.Channel) -> None:
    assert refusal(channel, "none")[0] == grpc.StatusCode.UNIMPLEMENTED
    assert refusal(channel, "echo", b"x" * LARGEST_REQUEST)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    compressed = refusal(channel, "echo", b"x" * 100_000, compression=grpc.Compression.Gzip)
    assert compressed[0] == grpc.StatusCode.UNIMPLEMENTED
    two = channel.stream_unary("/s/echo")
    with pytest.raises(grpc.RpcError) as caught:
        two(iter([b"a", b"b"]), timeout=60)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    with pytest.raises(grpc.RpcError) as caught:
        two(iter([]), timeout=60)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert call(channel, "echo", b"still there") == b"still there"


def test_calls_that_wait_keep_those_that_are_answered_at_once_from_nothing(channel: grpc.Channel, gate: Gate) -> None:
    waiting = [channel.unary_unary("/s/wait").future(b"%d" % number, timeout=60) for number in range(5)]
    for _ in range(2):  # as many as there are threads
        assert gate.entered.acquire(timeout=60)
    assert call(channel, "now", b"x") == b"x"
    gate.open.set()
    assert [one.result() for one in waiting] == [b"0", b"1", b"2", b"3", b"4"]


def test_two_hundred_callers_on_one_connection_get_their_own_answers(channel: grpc.Channel) -> None:
    with ThreadPoolExecutor(200) as crowd:
        messages = [b"%d" % number * 1000 for number in range(200)]
        assert list(crowd.map(lambda message: call(channel, "echo", message), messages)) == messages


def test_what_was_begun_is_answered_when_it_closes_and_nothing_is_begun(
    channel: grpc.Channel, running: Server, gate: Gate
) -> None:
    begun = channel.unary_unary("/s/wait").future(b"x", timeout=60)
    assert gate.entered.acquire(timeout=60)
    running.close(0)
    assert refusal(channel, "echo")[0] == grpc.StatusCode.UNAVAILABLE
    gate.open.set()
    assert begun.result() == b"x"


def test_who_says_nothing_is_sent_away(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_BYTE_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        running.converse(theirs)  # returns


def test_who_does_not_speak_http2_is_sent_away_and_that_is_logged(
    running: Server, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"GET / HTTP/1.1\r\n\r\n")
        running.converse(theirs)
    assert "connection ended: what began is not HTTP/2" in caplog.text

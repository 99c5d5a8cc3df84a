"""Frames by hand, as a client may send them, and what comes back: good ones, odd ones, and wrong ones."""

import struct

import pytest
from hpack import Decoder, Encoder

from snapshotter import http2
from snapshotter.http2 import PREFACE, BrokenConnection, Connection, Fault, encoded

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

Frame = tuple[int, int, int, bytes]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def number(value: int) -> bytes:
    return struct.pack(">I", value)


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def block(path: str = "/a/B", **more: str) -> bytes:
    return Encoder().encode({":method": "POST", ":path": path, **more})


def asked(stream: int = 1, body: bytes = b"body") -> bytes:
    return frame(HEADERS, END_HEADERS, stream, block()) + frame(DATA, END, stream, body)


@pytest.fixture
def connection() -> Connection:
    """One that has begun."""
    opened = Connection()
    assert opened.receive(PREFACE + frame(SETTINGS)) == []
    assert [one[0] for one in frames(opened.to_send())] == [SETTINGS, WINDOW, SETTINGS]
    return opened


def test_a_request_is_whole_however_its_bytes_arrive() -> None:
    said = PREFACE + frame(SETTINGS) + asked(1) + asked(3, b"other")
    for size in (1, 2, 7, 1000):
        opened = Connection()
        pieces = [said[first : first + size] for first in range(0, len(said), size)]
        found = [request for piece in pieces for request in opened.receive(piece)]
        assert [(one.stream, bytes(one.body), one.headers[":path"]) for one in found] == [
            (1, b"body", "/a/B"), (3, b"other", "/a/B"),
        ]  # fmt: skip


def test_padding_priority_and_headers_in_pieces_are_read(connection: Connection) -> None:
    headers = block(x="y" * 300)
    said = frame(HEADERS, PADDED | WITH_PRIORITY, 1, b"\3" + bytes(5) + headers[:50] + bytes(3))
    said += frame(CONTINUATION, 0, 1, headers[50:100]) + frame(CONTINUATION, END_HEADERS, 1, headers[100:])
    said += frame(PRIORITY, 0, 1, bytes(5)) + frame(0x42, 0xFF, 9, b"of the future")
    said += frame(DATA, PADDED, 1, b"\2bo" + bytes(2)) + frame(DATA, END, 1, b"dy")
    (request,) = connection.receive(said)
    assert (request.headers["x"], bytes(request.body)) == ("y" * 300, b"body")


def test_an_answer_is_headers_body_and_trailers(connection: Connection) -> None:
    (request,) = connection.receive(asked())
    connection.to_send()
    connection.answer(request.stream, encoded({":status": "200"}), b"x" * 20_000, encoded({"long": "z" * 500}))
    first, *body, last = frames(connection.to_send())
    assert first[:3] == (HEADERS, END_HEADERS, 1)
    assert Decoder().decode(first[3]) == [(":status", "200")]
    assert [len(one[3]) for one in body] == [16384, 3616]
    assert last[:3] == (HEADERS, END_HEADERS | END, 1)
    assert Decoder().decode(last[3]) == [("long", "z" * 500)]


@pytest.mark.parametrize("which", ["stream", "connection", "first"])
def test_no_more_is_sent_than_the_peer_has_room_for(which: str, connection: Connection) -> None:
    size = 100_000
    connection.receive(asked())
    if which == "connection":
        connection.receive(frame(WINDOW, 0, 1, number(size)))
    else:
        connection.receive(frame(WINDOW, 0, 0, number(size)))
    connection.to_send()
    connection.answer(1, b"h", b"x" * size, b"t")

    def sent() -> int:
        return sum(len(one[3]) for one in frames(connection.to_send()) if one[0] == DATA)

    assert sent() == 65535
    assert sent() == 0
    if which == "first":
        connection.receive(setting(4, size - 10))
        assert sent() == size - 10 - 65535
        connection.receive(setting(4, 5))  # below what was sent already: nothing until there is room again
        connection.receive(frame(WINDOW, 0, 1, number(10)))
        assert sent() == 0
        connection.receive(setting(4, size))
    else:
        connection.receive(frame(WINDOW, 0, 1 if which == "stream" else 0, number(size)))
    out = frames(connection.to_send())
    assert out[-1][:3] == (HEADERS, END_HEADERS | END, 1)


def test_one_that_waits_for_room_keeps_nobody_else_waiting(connection: Connection) -> None:
    connection.receive(frame(WINDOW, 0, 0, number(1_000_000)) + asked(1) + asked(3))
    connection.to_send()
    connection.answer(1, b"h", b"x" * 100_000, b"t")
    connection.to_send()
    connection.answer(3, b"h", b"small", b"t")
    assert [one[2] for one in frames(connection.to_send())] == [3, 3, 3]


def test_what_was_taken_back_is_neither_answered_nor_waited_for(connection: Connection) -> None:
    connection.receive(asked(1) + frame(HEADERS, END_HEADERS, 3, block()))
    assert connection.receive(frame(RST, 0, 1, number(8)) + frame(RST, 0, 3, number(8))) == []
    connection.to_send()
    connection.answer(1, b"h", b"body", b"t")
    assert connection.to_send() == b""
    assert connection.receive(frame(DATA, END, 3, b"late") + asked(5)) != []


def test_pings_are_answered_and_answers_to_ours_are_not(connection: Connection) -> None:
    connection.receive(frame(PING, 0, 0, b"12345678") + frame(PING, ACK, 0, b"87654321") + frame(SETTINGS, ACK))
    assert frames(connection.to_send()) == [(PING, ACK, 0, b"12345678")]


def test_of_too_large_a_request_nothing_is_kept(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "LARGEST_REQUEST", 10)
    headers = frame(HEADERS, END_HEADERS, 1, block())
    (request,) = connection.receive(headers + frame(DATA, 0, 1, b"x" * 11) + frame(DATA, END, 1, b"y"))
    assert request.is_too_large
    (other,) = connection.receive(asked(3))
    assert not other.is_too_large


def test_room_for_bodies_is_given_back(connection: Connection) -> None:
    connection.receive(asked(1, b"x" * 1000) + frame(DATA, 0, 99, b"of nobody"))
    updates = [one for one in frames(connection.to_send()) if one[0] == WINDOW]
    assert updates == [(WINDOW, 0, 0, number(1000)), (WINDOW, 0, 0, number(9))]


def test_a_crowd_of_streams_is_bounded(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "MOST_STREAMS", 2)
    assert [one.stream for one in connection.receive(asked(1) + asked(3) + asked(5))] == [1, 3]
    assert (RST, 0, 5, number(Fault.REFUSED_STREAM)) in frames(connection.to_send())
    connection.answer(1, b"h", b"", b"t")
    assert [one.stream for one in connection.receive(asked(7))] == [7]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"GET / HTTP/1.1\r\n", Fault.PROTOCOL),
        (PREFACE + b"\xff" * 9, Fault.FRAME_SIZE),
        (PREFACE + frame(HEADERS, END_HEADERS, 2, block()), Fault.PROTOCOL),
        (PREFACE + frame(HEADERS, END_HEADERS, 0, block()), Fault.PROTOCOL),
        (PREFACE + asked(3) + asked(1), Fault.PROTOCOL),
        (PREFACE + frame(HEADERS, END_HEADERS, 1, b"\xff" * 20), Fault.COMPRESSION),
        (PREFACE + frame(HEADERS, END_HEADERS, 1, Encoder().encode({"x": b"\xff"})), Fault.COMPRESSION),
        (PREFACE + frame(HEADERS, PADDED | END_HEADERS, 1, b""), Fault.PROTOCOL),
        (PREFACE + frame(HEADERS, PADDED | END_HEADERS, 1, b"\x09xx"), Fault.PROTOCOL),
        (PREFACE + frame(HEADERS, 0, 1, block()) + frame(PING, 0, 0, bytes(8)), Fault.PROTOCOL),
        (PREFACE + frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, END_HEADERS, 3), Fault.PROTOCOL),
        (PREFACE + frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(16384)) * 5, Fault.PROTOCOL),
        (PREFACE + frame(CONTINUATION, END_HEADERS, 1, block()), Fault.PROTOCOL),
        (PREFACE + frame(PUSH, END_HEADERS, 1, block()), Fault.PROTOCOL),
        (PREFACE + frame(SETTINGS, 0, 0, b"12345"), Fault.FRAME_SIZE),
        (PREFACE + setting(4, 1 << 31), Fault.FLOW_CONTROL),
        (PREFACE + frame(WINDOW, 0, 0, number(0)), Fault.FLOW_CONTROL),
        (PREFACE + frame(WINDOW, 0, 0, number((1 << 31) - 1)), Fault.FLOW_CONTROL),
        (PREFACE + frame(WINDOW, 0, 0, b"123"), Fault.FRAME_SIZE),
    ],
)  # fmt: skip
def test_what_is_not_http2_ends_the_connection_with_a_word_why(said: bytes, fault: Fault) -> None:
    opened = Connection()
    with pytest.raises(BrokenConnection):
        opened.receive(said)
    kind, _, _, payload = frames(opened.to_send())[-1]
    assert (kind, payload[4:8]) == (GOAWAY, number(fault))

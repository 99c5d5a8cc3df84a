import socket

import pytest

from ducc.storage.http1 import Answer, Incoming, NotHttp, read_answer

OK = b"HTTP/1.1 200 OK\r\n"


def read(said: bytes, limit: int = 100) -> tuple[Answer, list[int]]:
    """What a server *said* before it hung up, and the sizes that were announced."""
    ours, theirs = socket.socketpair()
    announced: list[int] = []
    with ours:
        with theirs:
            theirs.sendall(said)
        return read_answer(Incoming(ours, 60, 0), limit, announced.append), announced


@pytest.mark.parametrize(
    ("said", "body", "keeps"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", b"abc", True),
        (OK + b"content-length:0\r\n\r\n", b"", True),
        (OK + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc", b"abc", False),
        (OK + b"\r\nuntil the end", b"until the end", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: railer\r\n\r\n",
         b"abc0123456789", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
        (OK + b"Upgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 3\r\n\r\nabc", b"abc", True),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\n\r\nabc", b"abc", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
        (b"HTTP/1.1 204\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx",
         b"x", True),
    ],
)  # fmt: skip
def test_answers_of_every_form_are_whole(said: bytes, body: bytes, keeps: bool) -> None:
    reply, _ = read(said)
    assert (reply.body, reply.keeps) == (body, keeps)


def test_headers_are_known_by_names_in_lower_case_and_several_of_one_name_are_one() -> None:
    reply, _ = read(OK + b"X-A: 1\r\nx-a:2 \r\nContent-Length: 0\r\n\r\n")
    assert reply.headers == {"x-a": "1, 2", "content-length": "0"}


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 1\r\n\r\nz", b"garbage", b"HTTP/1.1 2"])
def test_what_comes_after_an_answer_is_no_part_of_it_and_the_line_is_not_used_again(more: bytes) -> None:
    reply, _ = read(OK + b"Content-Length: 1\r\n\r\nx" + more)
    assert reply == (200, {"content-length": "1"}, b"x", False)


def test_a_length_is_announced() -> None:
    assert read(OK + b"Content-Length: 3\r\n\r\nabc")[1] == [3]


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nx",
        b"HTTP/1.1 20x\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Folded: a\r\n b\r\n\r\n",
        OK + b"Space : a\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\nx",
        OK + b"Content-Length: 1_0\r\n\r\n0123456789",
        OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        OK + b"Content-Length: 4\r\n\r\nabc",
        OK + b"Content-Length: 101\r\n\r\n" + bytes(101),
        OK + b"\r\n" + bytes(101),
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n65\r\n" + bytes(0x65) + b"\r\n0\r\n\r\n",
        OK + b"X: " + b"x" * (1 << 17),
    ],
)
def test_what_is_no_whole_answer_is_refused(said: bytes) -> None:
    with pytest.raises(NotHttp):
        read(said)


def test_an_end_without_a_word_is_a_broken_connection() -> None:
    with pytest.raises(ConnectionResetError):
        read(b"")

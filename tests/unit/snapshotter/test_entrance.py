"""Who comes in at the socket, and how long one may say nothing."""

import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ducc.unixsocket import SocketTaken
from snapshotter import entrance
from snapshotter.entrance import Entrance


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Path]:
    """A server that says everything back."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "inner"))
    listening.listen(100)

    def echo(connection: socket.socket) -> None:
        with connection:
            while piece := connection.recv(65536):
                connection.sendall(piece)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield tmp_path / "inner"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.fixture
def address(tmp_path: Path, inner: Path) -> Iterator[Path]:
    opened = Entrance(tmp_path / "run" / "s.sock", inner)
    opened.serve()
    yield tmp_path / "run" / "s.sock"
    opened.close()
    assert not (tmp_path / "run" / "s.sock").exists()


def connected(address: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(address))
    return connection


def test_what_is_said_comes_through_both_ways_whatever_its_size(address: Path) -> None:
    said = os.urandom(3_000_000)
    with connected(address) as connection:
        threading.Thread(target=connection.sendall, args=(said,), daemon=True).start()
        heard = b""
        while len(heard) < len(said):
            heard += connection.recv(65536)
    assert heard == said


def test_socket_and_directory_are_for_one_user(address: Path) -> None:
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700


def test_who_says_nothing_is_sent_away(tmp_path: Path, inner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "FIRST_BYTE_SECONDS", 0.1)
    opened = Entrance(tmp_path / "s.sock", inner)
    opened.serve()
    with connected(tmp_path / "s.sock") as connection:
        assert connection.recv(1) == b""
    opened.close()


def test_a_crowd_is_bounded_and_places_are_given_back(address: Path, caplog: pytest.LogCaptureFixture) -> None:
    crowd = [connected(address) for _ in range(entrance.MOST_CONNECTIONS)]
    for connection in crowd:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    with connected(address) as one_more:
        assert one_more.recv(1) == b""
    for connection in crowd:
        connection.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with connected(address) as again:
            try:
                again.sendall(b"x")
                if again.recv(1) == b"x":
                    return
            except OSError:
                pass
        time.sleep(0.01)
    pytest.fail("no place was given back")


def test_a_connection_that_can_not_be_taken_now_is_taken_later(
    tmp_path: Path, inner: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(entrance, "_PAUSE_SECONDS", 0.01)
    opened = Entrance(tmp_path / "s.sock", inner)
    opened._listening = Exhausted(opened._listening)
    opened.serve()
    with connected(tmp_path / "s.sock") as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    opened.close()
    assert "no connection could be taken: Too many open files" in caplog.text


class Exhausted:
    """A listening socket of a process that has no descriptor left, the first time that somebody comes."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening, self._is_exhausted = listening, True

    def accept(self) -> tuple[socket.socket, object]:
        if self._is_exhausted:
            self._is_exhausted = False
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._listening.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._listening, name)


def test_a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not(tmp_path: Path, inner: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "s.sock"))
    stale.close()
    opened = Entrance(tmp_path / "s.sock", inner)
    with pytest.raises(SocketTaken, match="another process listens"):
        Entrance(tmp_path / "s.sock", inner)
    opened.close()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(SocketTaken):
        Entrance(tmp_path / "file", inner)
    assert (tmp_path / "file").read_text() == "precious"

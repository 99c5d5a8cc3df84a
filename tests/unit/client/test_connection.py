"""The line to the kernel, with a socket in the kernel's place."""

import errno
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest

from ducc.client import wire
from ducc.client.connection import Buffer, Connection, MustWait, Patience, Refused
from ducc.client.wire import Op, Request

HEAD = struct.Struct("=IIQQIIII")
EASY, OF_THE_DISK, ARRIVING, MISSING, UNKNOWN, IN_PIECES, RESTLESS, FAULTY = range(1, 9)


class FileSystem:
    """Answers by inode: at once, with patience, when something has arrived, or not at all."""

    def __init__(self) -> None:
        self.arriving: Future[bytes] = Future()
        self.disk = threading.Event()
        self.rooms: list[tuple[Patience, int]] = []
        self.dropped: list[int] = []
        self.afterwards: list[Callable[[], None]] = []
        self.notices: list[bytes] = []

    def ahead(self, request: Request) -> Sequence[Buffer]:
        return [self.notices.pop(), b"!"] if self.notices else []

    def answer(self, request: Request, patience: Patience) -> Sequence[Buffer]:
        self.rooms.append((patience, len(request.room)))
        if request.inode == FAULTY:
            raise ZeroDivisionError
        if request.inode == MISSING:
            raise Refused(errno.ENOENT)
        if request.inode == OF_THE_DISK:
            if patience < Patience.DISK:
                raise MustWait(Patience.DISK)
            assert self.disk.wait(60)
        if request.inode == ARRIVING:
            if not self.arriving.done():
                raise MustWait(Patience.NETWORK, self.arriving)
            if error := self.arriving.exception():
                raise self.refusal(request, error)
        if request.inode == RESTLESS and patience < Patience.NETWORK:
            raise MustWait(Patience.NETWORK, self.arriving)
        if request.inode == IN_PIECES:
            return [b"%04d" % number for number in range(5000)]
        return [b"answer ", b"to %d" % request.inode]

    def rest(self) -> Callable[[], None] | None:
        return self.afterwards.pop() if self.afterwards else None

    def refusal(self, request: Request, error: BaseException) -> Refused:
        return Refused(errno.EIO)

    def forgotten(self, inodes: Sequence[int]) -> None:
        self.dropped += inodes


class Kernel:
    """The other end: asks, and hears."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.settimeout(60)

    def ask(self, operation: int, unique: int, inode: int = EASY, body: bytes = b"", pid: int = 1) -> None:
        self.end.send(HEAD.pack(HEAD.size + len(body), operation, unique, inode, 0, 0, pid, 0) + body)

    def hear(self) -> tuple[int, int, bytes]:
        """Which request was answered, with which errno, and with what."""
        data = self.end.recv(1 << 20)
        length, number, unique = struct.unpack_from("=IiQ", data)
        assert length == len(data)
        return unique, -number, data[16:]


@pytest.fixture
def files() -> FileSystem:
    return FileSystem()


@pytest.fixture
def kernel(files: FileSystem) -> Iterator[Kernel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        connection = Connection(ours.fileno(), files)
        serving = threading.Thread(target=connection.serve)
        serving.start()
        yield Kernel(theirs)
        files.disk.set()
        connection.end()
        serving.join(60)
        assert not serving.is_alive()
        connection.close()


def test_what_needs_no_waiting_is_answered_while_others_wait(kernel: Kernel, files: FileSystem) -> None:
    kernel.ask(Op.READ, 1, OF_THE_DISK)
    kernel.ask(Op.READ, 2, ARRIVING)
    kernel.ask(Op.READ, 3, EASY)
    assert kernel.hear() == (3, 0, b"answer to 1")
    files.arriving.set_result(b"")
    assert kernel.hear() == (2, 0, b"answer to 3")
    files.disk.set()
    assert kernel.hear() == (1, 0, b"answer to 2")


def test_any_number_may_wait_while_others_are_answered(kernel: Kernel, files: FileSystem) -> None:
    for unique in range(1, 60):
        kernel.ask(Op.READ, unique, OF_THE_DISK)
    kernel.ask(Op.READ, 100, EASY)
    assert kernel.hear() == (100, 0, b"answer to 1")
    files.disk.set()
    assert sorted(kernel.hear() for _ in range(59)) == [(unique, 0, b"answer to 2") for unique in range(1, 60)]


def test_who_asks_one_thing_after_the_other_is_answered_by_one_thread(kernel: Kernel, files: FileSystem) -> None:
    files.disk.set()
    before = threading.active_count()
    for unique in range(1, 100):
        kernel.ask(Op.READ, unique, OF_THE_DISK)
        assert kernel.hear() == (unique, 0, b"answer to 2")
    assert threading.active_count() <= before + 2  # another one stands by


def test_the_end_does_not_wait_for_who_waits_and_a_line_without_requests_is_still_alive(files: FileSystem) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    alive = threading.Semaphore(0)
    with ours, theirs, pytest.MonkeyPatch.context() as patched:
        patched.setattr("ducc.client.connection._BEAT_SECONDS", 0.01)
        connection = Connection(ours.fileno(), files, alive.release)
        serving = threading.Thread(target=connection.serve)
        serving.start()
        Kernel(theirs).ask(Op.READ, 1, OF_THE_DISK)
        while len(files.rooms) < 2:
            time.sleep(0.001)
        assert all(alive.acquire(timeout=60) for _ in range(5))
        connection.end()
        serving.join(60)
        assert not serving.is_alive()
        connection.close()
        files.disk.set()


def test_a_fault_of_the_answerer_is_the_end(files: FileSystem) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        Kernel(theirs).ask(Op.READ, 1, FAULTY)
        with pytest.raises(ZeroDivisionError):
            Connection(ours.fileno(), files).serve()


def test_what_is_left_to_do_after_an_answer_holds_up_nobody(kernel: Kernel, files: FileSystem) -> None:
    files.disk.set()
    slow = threading.Event()
    files.afterwards.append(lambda: print(slow.wait(60)))
    kernel.ask(Op.READ, 1, OF_THE_DISK)
    assert kernel.hear() == (1, 0, b"answer to 2")
    kernel.ask(Op.READ, 2, OF_THE_DISK)
    assert kernel.hear() == (2, 0, b"answer to 2")
    slow.set()
    kernel.ask(Op.READ, 3, EASY)
    assert kernel.hear() == (3, 0, b"answer to 1")


def test_a_notice_is_taken_before_the_answer(kernel: Kernel, files: FileSystem) -> None:
    files.notices.append(b"soon you will ask for this")
    kernel.ask(Op.IOCTL, 1)
    assert kernel.end.recv(100) == b"soon you will ask for this!"
    assert kernel.hear() == (1, 0, b"answer to 1")


def test_while_the_kernel_does_not_take_a_notice_others_are_answered(
    kernel: Kernel, files: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not before who is reading the same content has been answered."""
    answered = threading.Event()
    monkeypatch.setattr(Connection, "notify", lambda self, *notice: answered.wait(60))
    files.notices += [b"notice"] * 3
    for unique in (1, 2, 3):
        kernel.ask(Op.IOCTL, unique)
    kernel.ask(Op.READ, 4, EASY)
    assert kernel.hear() == (4, 0, b"answer to 1")
    answered.set()
    assert sorted(kernel.hear() for _ in range(3)) == [(unique, 0, b"answer to 1") for unique in (1, 2, 3)]


def test_room_is_lent_to_who_answers_at_once_and_to_nobody_who_waits(kernel: Kernel, files: FileSystem) -> None:
    files.disk.set()
    kernel.ask(Op.READ, 1, OF_THE_DISK)
    assert kernel.hear() == (1, 0, b"answer to 2")
    assert files.rooms == [(Patience.NOTHING, 1 << 20), (Patience.NETWORK, 0)]


class EndsWhenAnotherIsToLead(Connection):
    """Is told to end in the moment in which a thread that stood by has been chosen to lead, and has not begun to."""

    def _stand_by(self) -> bool:
        leads = super()._stand_by()
        if leads:
            self.end()
        return leads


def test_an_end_that_comes_between_two_leaders_is_heard(files: FileSystem) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        connection, kernel = EndsWhenAnotherIsToLead(ours.fileno(), files), Kernel(theirs)
        serving = threading.Thread(target=connection.serve, daemon=True)
        serving.start()
        kernel.ask(Op.READ, 1, OF_THE_DISK)
        kernel.ask(Op.READ, 2, EASY)
        serving.join(60)
        files.disk.set()
        assert not serving.is_alive()
        connection.close()


def test_an_answer_may_have_any_number_of_parts(kernel: Kernel) -> None:
    kernel.ask(Op.READDIR, 1, IN_PIECES)
    assert kernel.hear() == (1, 0, b"".join(b"%04d" % number for number in range(5000)))


def test_what_has_arrived_and_is_wanted_again_is_waited_for_by_another_thread(
    kernel: Kernel, files: FileSystem
) -> None:
    """Whoever asks the same again each time it arrives must not do so within himself."""
    files.arriving.set_result(b"")
    kernel.ask(Op.READ, 1, RESTLESS)
    assert kernel.hear() == (1, 0, b"answer to 7")


def test_an_answer_that_the_kernel_does_not_take_becomes_an_error(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = os.writev

    def refuse(descriptor: int, parts: Sequence[Buffer]) -> int:
        if len(parts) > 1:
            raise OSError(errno.EINVAL, "invalid")
        return write(descriptor, parts)

    monkeypatch.setattr("ducc.client.connection.os.writev", refuse)
    kernel.ask(Op.READ, 1, EASY)
    assert kernel.hear() == (1, errno.EIO, b"")
    assert "refuses an answer: bytes=11" in caplog.text


def test_errors_are_numbers(kernel: Kernel, files: FileSystem) -> None:
    kernel.ask(Op.LOOKUP, 1, MISSING)
    assert kernel.hear() == (1, errno.ENOENT, b"")
    kernel.ask(Op.READ, 2, ARRIVING)
    files.arriving.set_exception(ValueError())
    assert kernel.hear() == (2, errno.EIO, b"")


def test_who_was_killed_is_let_go_and_who_got_another_signal_is_not(kernel: Kernel, files: FileSystem) -> None:
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    kernel.ask(Op.READ, 1, OF_THE_DISK, pid=os.getpid())
    kernel.ask(Op.READ, 2, OF_THE_DISK, pid=dead.pid)
    kernel.ask(Op.INTERRUPT, 3, 0, struct.pack("=Q", 1))
    kernel.ask(Op.INTERRUPT, 4, 0, struct.pack("=Q", 2))
    assert kernel.hear() == (2, errno.EINTR, b"")
    files.disk.set()
    assert kernel.hear() == (1, 0, b"answer to 2")


def test_what_the_kernel_drops_is_passed_on_and_not_answered(kernel: Kernel, files: FileSystem) -> None:
    kernel.ask(Op.FORGET, 1, 7, struct.pack("=Q", 3))
    kernel.ask(Op.BATCH_FORGET, 2, 0, struct.pack("=IIQQQQ", 2, 0, 8, 1, 9, 1))
    kernel.ask(Op.READ, 3)
    assert kernel.hear()[0] == 3
    assert files.dropped == [7, 8, 9]


@pytest.mark.parametrize(("minor", "number"), [(30, errno.EPROTO), (31, 0), (45, 0)])
def test_old_kernels_are_refused(minor: int, number: int, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    offered = wire.Can.DO_READDIRPLUS | 1 << 16
    kernel.ask(Op.INIT, 1, 0, struct.pack("=IIII", 7, minor, 1 << 20, offered) + bytes(48))
    unique, error, body = kernel.hear()
    assert (unique, error) == (1, number)
    if not number:
        assert struct.unpack_from("=IIII", body) == (7, min(minor, 38), 1 << 20, wire.Can.DO_READDIRPLUS)
        assert len(body) == 64


def test_listings_are_padded_and_go_on_where_they_are_told() -> None:
    entry = wire.directory_entry(5, 0o100644, b"name", 77)
    assert len(entry) == 32
    assert struct.unpack_from("=QQII4s4x", entry) == (5, 77, 4, 8, b"name")

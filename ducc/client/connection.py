"""The line to the kernel: a mount, the requests that come from it, and who answers them.

One thread leads: it reads requests and answers what can be answered at once. For what has to wait for a disk or for the
network it goes away itself, since handing it over would take as long as all the rest; if the kernel asks meanwhile, and
only then, one of those who stand by leads. So nobody who asks for something easy waits behind somebody who asks for
something hard. Whoever is killed while waiting is let go at once.

The line is a descriptor. Whoever holds it keeps the mount alive, answered or not, and any process that has it can go on
answering: the kernel sends again what the last one had read and not answered.
"""

import array
import errno
import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from enum import IntEnum
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Protocol

from ducc.client import wire
from ducc.client.mountpoint import MountFailed
from ducc.client.wire import NO_ROOM, Op, Request

log = logging.getLogger(__name__)

_BUFFER_BYTES = 128 * 1024  # no request is larger, since nothing is written
_BACKGROUND = 64  # reads ahead that the kernel may have waiting
_PAGES = 256  # of one read
_MOST_PARTS = os.sysconf("SC_IOV_MAX")  # of what is written at once; else nobody gets an answer
_MOST_LEADERS = 16  # threads that lead, have gone away or stand by; when all have gone, others wait in their place
_DISK_THREADS, _NETWORK_THREADS = 16, 32
_BEAT_SECONDS = 5.0
_KILLED = 1 << (signal.SIGKILL - 1)
_UNANSWERED = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.DESTROY})

Buffer = bytes | bytearray | memoryview


class Patience(IntEnum):
    """What an answer may wait for."""

    NOTHING = 0
    DISK = 1
    NETWORK = 2


class MustWait(Exception):
    """It can't be answered with so little patience, or not before something has arrived."""

    def __init__(self, needed: Patience, arriving: "Future[Any] | None" = None) -> None:
        super().__init__(needed.name)
        self.needed, self.arriving = needed, arriving


class Refused(Exception):
    """The answer is an error number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


class Answerer(Protocol):
    """The file system behind the line. May be called by any thread."""

    def answer(self, request: Request, patience: Patience) -> Sequence[Buffer]:
        """The parts of the answer, perhaps in the request's room. Raises `MustWait` and `Refused`, nothing else."""

    def ahead(self, request: Request) -> Sequence[Buffer]:
        """A notice of what will be asked next, to be taken before the answer; empty: none. Raises nothing."""

    def rest(self) -> Callable[[], None] | None:
        """What this thread has left to do once its answer has been sent; None: nothing."""

    def refusal(self, request: Request, error: BaseException) -> Refused:
        """What to say when that for which a request waited does not arrive."""

    def forgotten(self, inodes: Sequence[int]) -> None:
        """The kernel has dropped *inodes*."""


def mount(directory: Path, options: Sequence[str]) -> int:
    """Mount something at *directory* that waits to be answered; return the descriptor of the line."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = ["fusermount3", "-o", ",".join(options), "--", str(directory)]
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        try:
            done = subprocess.run(
                command, env=environment, pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise MountFailed(
                f"{directory}: fusermount3 can't be run ({error.strerror}); is fuse3 installed?"
            ) from error
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines() or ["fusermount3 does not say why"]
            raise MountFailed(f"{directory}: {reason[-1].removeprefix('fusermount3: ')}")
        return _received(ours)


def _received(ours: socket.socket) -> int:
    _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2][:4])
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


class Connection:
    """Answers by *answerer* what comes over the line *descriptor*, which stays the caller's."""

    def __init__(self, descriptor: int, answerer: Answerer, alive: Callable[[], None] = lambda: None) -> None:
        """*alive* is called every few seconds, as long as requests are read."""
        self._descriptor, self._answerer, self._alive = descriptor, answerer, alive
        self._alive_at = 0.0
        os.set_blocking(descriptor, False)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = False  # nothing more is read
        self._ended = False  # nothing more is answered
        self._pools = {
            Patience.DISK: ThreadPoolExecutor(_DISK_THREADS, "disk"),
            Patience.NETWORK: ThreadPoolExecutor(_NETWORK_THREADS, "network"),
        }
        self._waiting: dict[int, int] = {}  # requests that are not answered by who has read them, and who asks
        self._lock = Lock()
        self._asked = select.epoll()  # by those who stand by: it tells of the line only while the leader is away
        self._asked.register(self._wake, select.EPOLLIN)
        self._buffer, self._room = bytearray(_BUFFER_BYTES), memoryview(bytearray(_PAGES * wire.PAGE))  # the leader's
        self._term = 0  # grows with each leader
        self._is_away = False  # the leader
        self._leaders = self._standing_by = 0
        self._left = Event()  # nobody leads, nor will
        self._failure: BaseException | None = None

    def serve(self) -> None:
        """Answer until the mount is gone, or `end` is called."""
        self._leaders += 1
        Thread(target=self._lead_in_turn, args=(True,), name="leader-1", daemon=True).start()
        self._left.wait()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Let `serve` return; may be called by any thread."""
        self._ending = True
        os.eventfd_write(self._wake, 1)
        with self._lock:
            if self._is_away:
                self._relieve()
                self._left.set()

    def close(self, patience_seconds: float = 0) -> None:
        """To be called after `serve`; who still waits after *patience_seconds* is not answered."""
        deadline = time.monotonic() + patience_seconds
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.005)
        self._ended = True
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    # --- who leads ----------------------------------------------------------------------------

    def _lead_in_turn(self, leads: bool) -> None:
        """The life of a thread that answers. Whoever is to lead does so even in the end: it is he who tells of it."""
        while leads or not self._ending:
            if leads:
                self._lead()
                with self._lock:
                    self._standing_by += 1
            leads = self._stand_by()

    def _lead(self) -> None:
        """Read and answer, until another one has to lead or there is an end."""
        term = self._term
        asked = select.poll()
        for descriptor in (self._descriptor, self._wake):
            asked.register(descriptor, select.POLLIN)
        try:
            while self._term == term and not self._ending:
                request = self._next(asked)
                if request is not None:
                    self._take(request)
                self._beat()
        except BaseException as error:  # noqa: BLE001 - for whoever waits for the end
            self._failure = error
            self.end()
        if self._ending and self._term == term:
            os.eventfd_write(self._wake, 1)
            self._left.set()

    def _next(self, asked: select.poll) -> Request | None:
        """A request; None if there is none yet, or will be none any more."""
        try:
            size = os.readv(self._descriptor, [self._buffer])
        except BlockingIOError:
            asked.poll(_BEAT_SECONDS * 1000)
            return None
        except OSError as error:
            if error.errno not in (errno.EINTR, errno.ENOENT, errno.ENODEV):  # ENOENT: taken back at the last moment
                raise
            self._ending = error.errno == errno.ENODEV or self._ending  # unmounted
            return None
        self._ending = size == 0 or self._ending
        return wire.request(self._buffer, size, self._room) if size else None

    def _go_away(self) -> bool:
        """Let another one lead as soon as there is a request, while this one waits; False if there can be no other."""
        with self._lock:
            if self._ending or (not self._standing_by and self._leaders >= _MOST_LEADERS):
                return False
            if not self._standing_by:
                self._leaders += 1
                self._standing_by += 1
                Thread(target=self._lead_in_turn, args=(False,), name=f"leader-{self._leaders}", daemon=True).start()
            self._is_away = True
            self._asked.register(self._descriptor, select.EPOLLIN | select.EPOLLONESHOT)
            return True

    def _come_back(self, term: int) -> None:
        """Lead on, unless somebody else does by now."""
        with self._lock:
            if self._term == term and self._is_away:
                self._is_away = False
                self._asked.unregister(self._descriptor)

    def _stand_by(self) -> bool:
        """Wait until there is a request and no leader; False: an end, or nothing for long."""
        for descriptor, _ in self._asked.poll(_BEAT_SECONDS):
            with self._lock:
                if descriptor == self._descriptor and self._is_away:
                    self._relieve()
                    self._standing_by -= 1
                    return True
        if self._is_away:
            self._beat()
        return False

    def _relieve(self) -> None:
        """The leader, who is away, leads no more. With the lock held."""
        self._term += 1
        self._is_away = False
        self._asked.unregister(self._descriptor)

    def take_over(self) -> None:
        """Ask the kernel for what another process had begun to answer."""
        with suppress(OSError):  # kernels before 6.9: whoever waits, waits until killed
            os.write(self._descriptor, wire.send_again())

    def notify(self, *notice: Buffer) -> bool:
        """Tell the kernel something; False if it knows nothing of what is spoken of.

        Blocks while a name is being looked up, so it must not be called by the thread that leads.
        """
        try:
            os.writev(self._descriptor, notice)
        except OSError:
            return False
        return True

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._alive_at >= _BEAT_SECONDS:
            self._alive_at = now
            self._alive()

    def _take(self, request: Request) -> None:
        if request.operation in _UNANSWERED:
            self._note(request)
        elif request.operation == Op.INIT:
            self._introduce(request)
        else:
            self._answer(request)

    def _note(self, request: Request) -> None:
        if request.operation == Op.INTERRUPT:
            self._interrupt(wire.interrupt_in(request.body))
        elif request.operation != Op.DESTROY:
            self._answerer.forgotten(wire.forgotten(request))

    def _introduce(self, request: Request) -> None:
        init = wire.init_in(request.body)
        if init.major != wire.MAJOR or init.minor < wire.OLDEST_MINOR:
            log.error("this kernel is too old: it speaks FUSE %d.%d", init.major, init.minor)
            self._send(wire.refusal(request.unique, errno.EPROTO))
        else:
            body = wire.init_out(init, _BACKGROUND, _PAGES)
            self._send(wire.answer(request.unique, len(body)), body)

    def _answer(self, request: Request) -> None:
        if notice := self._answerer.ahead(request):
            self._tell(notice)
        try:
            outcome = self._outcome(request, Patience.NOTHING)
        except MustWait as more:
            with self._lock:
                self._waiting[request.unique] = request.pid
            self._wait_or_go_away(request._replace(room=NO_ROOM), more)  # the room is for the next one
        else:
            self._send(*outcome)

    def _tell(self, notice: Sequence[Buffer]) -> None:
        """Tell the kernel something before who has asked goes on; if others ask meanwhile, another thread leads."""
        term = self._term
        if self._go_away():  # what somebody is just reading is locked until he is answered
            self.notify(*notice)
            self._come_back(term)

    def _outcome(self, request: Request, patience: Patience) -> list[Buffer]:
        """All parts of an answer, its head first. Raises `MustWait`."""
        try:
            parts = self._answerer.answer(request, patience)
        except Refused as refused:
            return [wire.refusal(request.unique, refused.number)]
        return [wire.answer(request.unique, sum(map(len, parts))), *parts]

    def _wait_or_go_away(self, request: Request, more: MustWait) -> None:
        term = self._term
        if more.arriving is not None or not self._go_away():
            self._wait_for(request, more)
            return
        try:
            outcome = self._outcome(request, Patience.NETWORK)
        except MustWait as again:
            self._wait_for(request, again)
        else:
            self._come_back(term)  # first: who has been answered may ask again at once
            self._send_if_waiting(request.unique, *outcome)
        finally:
            self._come_back(term)
            self._do_the_rest(term)

    def _do_the_rest(self, term: int) -> None:
        """What is left to do is done while the leader is away, too, if it leads still."""
        rest = self._answerer.rest()
        if rest is None:
            return
        if self._term == term and not self._go_away():
            with suppress(RuntimeError):  # closed meanwhile
                self._pools[Patience.DISK].submit(rest)
            return
        rest()
        self._come_back(term)

    def _wait_for(self, request: Request, more: MustWait) -> None:
        if more.arriving is None or more.arriving.done():  # it has come and gone: somebody must take it in passing
            with suppress(RuntimeError):  # closed meanwhile: nobody is answered any more
                self._pools[more.needed].submit(self._answer_later, request, more.needed)
        else:
            more.arriving.add_done_callback(partial(self._answer_arrived, request))

    def _answer_arrived(self, request: Request, arrived: "Future[Any]") -> None:
        """By the thread that has fetched it, which must not be kept for long."""
        error = CancelledError() if arrived.cancelled() else arrived.exception()
        if error is None:
            self._answer_later(request, Patience.NOTHING)
        else:
            refused = self._answerer.refusal(request, error)
            self._send_if_waiting(request.unique, wire.refusal(request.unique, refused.number))

    def _answer_later(self, request: Request, patience: Patience) -> None:
        if request.unique not in self._waiting:
            return  # let go meanwhile
        try:
            outcome = self._outcome(request, patience)
        except MustWait as more:
            self._wait_for(request, more)
        else:
            self._send_if_waiting(request.unique, *outcome)
        rest = self._answerer.rest()
        if rest is not None:
            rest()

    def _send_if_waiting(self, unique: int, head: Buffer, *parts: Buffer) -> None:
        with self._lock:
            if self._waiting.pop(unique, None) is None:
                return
        self._send(head, *parts)

    def _interrupt(self, unique: int) -> None:
        """Let go whoever was killed. Other signals are no reason to fail a system call that was not made for it."""
        with self._lock:
            pid = self._waiting.get(unique)
            if pid is None or not _was_killed(pid):
                return
            del self._waiting[unique]
        self._send(wire.refusal(unique, errno.EINTR))

    def _send(self, head: Buffer, *parts: Buffer) -> None:
        if self._ended:
            return  # the descriptor may be another's by now
        if len(parts) >= _MOST_PARTS:
            parts = (b"".join(parts),)
        try:
            os.writev(self._descriptor, [head, *parts])
        except OSError as error:  # nobody waits any more, or the mount is gone
            if error.errno == errno.EINVAL and parts:  # it is not taken as it is: better an error than no answer
                log.error("a fault of this program: the kernel refuses an answer: bytes=%d", sum(map(len, parts)))
                self._send(wire.refusal(wire.answered_by(head), errno.EIO))


def _was_killed(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    pending = [line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(int(bits, 16) & _KILLED for bits in pending)

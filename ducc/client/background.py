"""Going on in the background, once the start has succeeded or failed in front of whoever started it.

Two processes stay. The one that does the work may be killed, stopped or stuck; the other one, which does nothing but
watch, then starts a new one in its place, in moments. So that whoever uses the mount notices nothing but a pause, it
also holds the line to the kernel, which lives for as long as anybody holds it, and gives it to the new one.

The worker may also ask to be succeeded. Then the watching process becomes another program: the same command, as it is
installed and configured by now, with the line in its hands.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from ducc.errors import DuccError

_READY, _LINE, _ALIVE, _SUCCEED = b"ready", b"line", b"alive", b"succeed"
BEAT_SECONDS = 5.0  # how often a worker that is well says so
_LONGEST_SILENCE_SECONDS = 60.0  # then it is stuck, or was stopped, and is killed
_SOON_SECONDS = 10.0  # a worker that ends sooner than this after its start ends for a reason that may last
_LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 0.2  # how soon an end is seen that comes during a pause
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StartFailed(DuccError):
    """What went on in the background did not get as far as it should; text and exit status are its own."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code  # type: ignore[misc]  # of this failure, not of all


class Start:
    """How a worker starts: alone, in front of whoever is told when it is ready."""

    line: int | None = None  # to the kernel, left by a worker that was killed

    def __init__(self, ready: Callable[[], None]) -> None:
        self.ready = ready

    def keep(self, line: int) -> None:
        """The line is open; should this process be killed, another one goes on."""

    def alive(self) -> None:
        """To be called every `BEAT_SECONDS` by the thread that answers."""

    def succeed(self) -> bool:
        """Let another program take over the line when this worker has ended well; False: nobody watches who could."""
        return False


class WatchedStart(Start):
    """The start of a worker that is watched, through *channel*."""

    def __init__(self, channel: socket.socket, line: int | None, *, can_succeed: bool) -> None:
        super().__init__(self._say_ready)
        self._channel, self.line, self._can_succeed = channel, line, can_succeed

    def _say_ready(self) -> None:
        self._say(_READY)

    def keep(self, line: int) -> None:
        self._say(_LINE, line)

    def alive(self) -> None:
        with suppress(OSError):  # the watcher may be stopped, and what we answer must not wait for it
            self._channel.send(_ALIVE, socket.MSG_DONTWAIT)

    def succeed(self) -> bool:
        return self._can_succeed and self._say(_SUCCEED)

    def _say(self, word: bytes, *descriptors: int) -> bool:
        try:
            socket.send_fds(self._channel, [word], descriptors)
        except OSError:  # nobody watches any more
            return False
        return True


Work = Callable[[Start], None]


def in_background(work: Work, log_file: Path, again: Sequence[str] = (), *, new_session: bool = True) -> None:
    """Run *work* in a process of its own, for as long as it is wanted; return when it is ready, or raise `StartFailed`.

    The new processes have no terminal and write to *log_file*. *again* is the command of a successor, to which the
    descriptor of the line is added: it is to call `go_on`. To be called while this process has no threads.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _detach(log_file, new_session)
        os._exit(_Watch(work, again, writing).run())
    os.close(writing)
    message = os.read(reading, 1 << 16)
    os.close(reading)
    os.waitpid(child, 0)
    if message != _READY:
        code, _, text = message.decode(errors="replace").partition(" ")
        raise StartFailed(text or f"it ended without a word; see {log_file}", int(code or 1))


def go_on(work: Work, line: int, again: Sequence[str]) -> int:
    """Watch *work* in the place of another program, whose line this process has; return the last exit status."""
    os.set_inheritable(line, False)
    watch = _Watch(work, again, None)
    watch.line = line
    return watch.run()


def _detach(log_file: Path, new_session: bool) -> None:
    """Leave terminal and directory; the parent's child ends here, so that nobody has to wait for us."""
    if new_session:
        os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor, replacement in ((0, nothing), (1, output), (2, output)):
        os.dup2(replacement, descriptor)


class _Watch:
    """Watches one worker after the other. *report* is a pipe to whoever has started all this, if somebody waits."""

    def __init__(self, work: Work, again: Sequence[str], report: int | None) -> None:
        self._work, self._again, self._report = work, again, report
        self.line: int | None = None
        self._worker = 0
        self._ending = self._succeeding = False

    def run(self) -> int:
        """Return the exit status of the last worker: the one that was not killed."""
        for number in _PASSED_ON:
            signal.signal(number, self._pass_on)
        pause = 0.0
        while True:
            started = time.monotonic()
            status = self._run_one()
            if status == 0 and self._succeeding and not self._ending:
                self._become_another()
            has_begun = self.line is not None and self._report is None  # else who started all this was told why not
            if (status >= 0 and (status == 0 or not has_begun)) or self._ending:
                return max(status, 0)
            pause = 0.0 if time.monotonic() - started > _SOON_SECONDS else min(2 * pause + 0.2, _LONGEST_PAUSE_SECONDS)
            print(f"the process behind the mount has ended ({status}); starting another", file=sys.stderr, flush=True)
            self._pause(pause)
            if self._ending:
                return 0

    def _pause(self, seconds: float) -> None:
        """Wait, unless the end comes first."""
        until = time.monotonic() + seconds
        while not self._ending and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))

    def _run_one(self) -> int:
        """Start a worker and wait for its end. Its status is negative if it was killed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._succeeding = False
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # till there is somebody to pass them on to
        self._worker = os.fork()
        if self._worker == 0:
            ours.close()
            for number in _PASSED_ON:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        if self._worker == 0:
            os._exit(self._do(WatchedStart(theirs, self.line, can_succeed=bool(self._again))))
        theirs.close()
        with ours:
            self._watch(ours)
        worker, self._worker = self._worker, 0
        _, status = os.waitpid(worker, 0)
        return os.waitstatus_to_exitcode(status)

    def _watch(self, channel: socket.socket) -> None:
        """Hear what the worker says until it has ended, and kill it when it has said nothing for too long."""
        ended = os.pidfd_open(self._worker)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(channel, select.POLLIN)
        heard: float | None = None  # when it has last said to be alive; a start may take its time
        while True:
            ready = dict(poll.poll(BEAT_SECONDS * 1000))
            if channel.fileno() in ready and (word := self._hear(channel)):
                heard = time.monotonic() if word == _ALIVE else heard
            elif ended in ready:
                break
            if heard is not None and time.monotonic() - heard > _LONGEST_SILENCE_SECONDS:
                os.kill(self._worker, signal.SIGKILL)
                heard = None
        os.close(ended)

    def _hear(self, channel: socket.socket) -> bytes:
        try:
            word, descriptors, _, _ = socket.recv_fds(channel, 64, 1)
        except OSError:
            return b""
        if word == _LINE:
            if self.line is not None:
                os.close(self.line)
            self.line = descriptors[0]
        elif word == _READY:
            self._tell(_READY)
        self._succeeding = self._succeeding or word == _SUCCEED
        return word

    def _become_another(self) -> None:
        assert self.line is not None
        os.set_inheritable(self.line, True)
        sys.stderr.flush()
        os.execv(self._again[0], [*self._again, str(self.line)])  # noqa: S606 - a command of our own

    def _do(self, start: Start) -> int:
        """The worker: do the work; how it ended is told to who started it if that is still waiting."""
        try:
            self._work(start)
        except DuccError as error:
            self._tell(f"{error.exit_code} {error}".encode())
            print(f"ended: {error}", file=sys.stderr, flush=True)
            return error.exit_code
        except BaseException as error:  # noqa: BLE001 - nobody else is left to tell
            self._tell(f"1 {type(error).__name__}: {error}".encode())
            sys.excepthook(type(error), error, error.__traceback__)
            return 1
        return 0

    def _tell(self, message: bytes) -> None:
        if self._report is not None:
            report, self._report = self._report, None
            with suppress(OSError):
                os.write(report, message)
            os.close(report)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._ending = self._ending or number != signal.SIGHUP
        with suppress(ProcessLookupError):
            if self._worker:
                os.kill(self._worker, number)

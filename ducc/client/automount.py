"""All configured repositories in one directory, each mounted when its name is first touched.

The process behind the directory mounts nothing itself: it starts `ducc mount`, as somebody at a terminal would, and
`ducc umount` for what nobody has used for long. So it has nothing to lose. If it is killed, what is mounted stays, with
all that is open there; a name that is new waits for a moment for the successor, which takes the directory over.

It must have one thread that answers, and one that asks the kernel for what has not been used: that question is answered
by the first one.
"""

import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ducc.client import autofs
from ducc.client.autofs import Autofs, Kind, Packet
from ducc.client.background import BEAT_SECONDS, Start
from ducc.client.configuration import read_configuration
from ducc.client.mountpoint import claimed, forget, holder, our_mounts, unmount, wait_for_end
from ducc.client.parameters import Parameters
from ducc.errors import DuccError

log = logging.getLogger(__name__)

DEFAULT_IDLE_SECONDS = 1200
_REFUSED_SECONDS = 60.0  # a repository that could not be mounted is not tried again sooner
_LOOKS = 4  # for unused mounts, in the time after which they may go

Command = Callable[[str, Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Automount:
    """What to show where. *mount* is the command that mounts a repository in a directory, *unmount* the contrary."""

    directory: Path
    etc: Path
    mount: Command
    unmount: Command
    idle_seconds: int = DEFAULT_IDLE_SECONDS  # 0: what is mounted stays


def run_automount(settings: Automount, start: Start) -> None:
    """Mount the directory, or take over what a killed process has left, and answer until SIGTERM or SIGINT."""
    with claimed(settings.directory):
        line = Autofs(settings.directory)
        log.info("mounting what is touched: at=%s", settings.directory)
        _Answering(settings, line, start).run()
        line.close()
        autofs.detach(settings.directory)
        forget(settings.directory)
    log.info("unmounted: at=%s", settings.directory)


def end(directory: Path) -> None:
    """Unmount the directory and all below it, unless something there is in use. Raises `UnmountFailed`."""
    for entry in our_mounts():
        if Path(entry.mountpoint).parent == directory:
            unmount(Path(entry.mountpoint))
    process = holder(directory)
    if process is None:
        autofs.detach(directory)
    else:
        os.kill(process, signal.SIGTERM)
        wait_for_end(directory)


@dataclass(slots=True)
class _Job:
    """A command that runs for a name. *followers* are packets that can be answered after it."""

    process: "subprocess.Popen[bytes]"
    kind: int
    name: str
    tokens: list[int]
    followers: list[Packet] = field(default_factory=list)


class _Answering:
    def __init__(self, settings: Automount, line: Autofs, start: Start) -> None:
        self._settings, self._autofs, self._start = settings, line, start
        self._jobs: dict[int, _Job] = {}  # by the descriptor that tells of their end
        self._refused: dict[str, float] = {}  # when
        self._poll = select.poll()
        self._ending = os.eventfd(0, os.EFD_CLOEXEC)

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.eventfd_write(self._ending, 1))
        if self._settings.idle_seconds:
            self._autofs.expire_after(self._settings.idle_seconds)
            threading.Thread(target=self._expire, name="expire", daemon=True).start()
        for descriptor in (self._autofs.pipe, self._ending):
            self._poll.register(descriptor, select.POLLIN)
        self._start.ready()
        while self._answer_some():
            self._start.alive()

    def _answer_some(self) -> bool:
        """Answer what has come meanwhile; False when it is over."""
        for descriptor, _ in self._poll.poll(BEAT_SECONDS * 1000):
            if descriptor == self._ending:
                return False
            if descriptor == self._autofs.pipe:
                packet = self._autofs.read()
                if packet is None:
                    return False
                self._take(packet)
            else:
                self._ended(descriptor)
        return True

    def _expire(self) -> None:
        while True:
            time.sleep(max(self._settings.idle_seconds / _LOOKS, 1))
            while self._autofs.expire_one():
                pass

    # --- what the kernel asks for ---------------------------------------------------------------

    def _take(self, packet: Packet) -> None:
        name = os.fsdecode(packet.name)
        if packet.kind == Kind.EXPIRE:
            self._begin(self._settings.unmount, packet.kind, name, packet.token)
        elif packet.kind == Kind.MISSING:
            self._wanted(packet, name)
        else:
            self._autofs.fail(packet.token)

    def _wanted(self, packet: Packet, name: str) -> None:
        running = self._running(name)
        if running is not None:
            running.followers.append(packet)
        elif self._is_mounted(name):
            self._autofs.ready(packet.token)
        elif not self._may_be_mounted(name):
            self._autofs.fail(packet.token)
        elif first := self._configuration_repository(name):
            job = self._running(first) or self._begin(self._settings.mount, Kind.MISSING, first)
            job.followers.append(packet)
        else:
            self._begin(self._settings.mount, Kind.MISSING, name, packet.token)

    def _may_be_mounted(self, name: str) -> bool:
        """Is it configured, and has it not just failed?"""
        if time.monotonic() - self._refused.get(name, -_REFUSED_SECONDS) < _REFUSED_SECONDS:
            return False
        try:
            configuration = read_configuration(name, self._settings.etc)
            Parameters.of(configuration, os.getuid(), os.getgid(), os.environ)
        except DuccError as error:
            log.info("not configured: name=%r reason=%s", name, error)
            return False
        listed = configuration.text("CVMFS_REPOSITORIES").replace(",", " ").split()
        return name == configuration.fqrn and (not configuration.is_on("CVMFS_STRICT_MOUNT", False) or name in listed)

    def _configuration_repository(self, name: str) -> str | None:
        """The repository that has to be mounted before this one, since it holds configuration."""
        first = read_configuration(name, self._settings.etc).text("CVMFS_CONFIG_REPOSITORY")
        if not first or first == name or self._is_mounted(first) or not self._may_be_mounted(first):
            return None
        return first

    # --- jobs ---------------------------------------------------------------------------------------

    def _running(self, name: str) -> _Job | None:
        return next((job for job in self._jobs.values() if job.name == name), None)

    def _begin(self, command: Command, kind: int, name: str, *tokens: int) -> _Job:
        directory = self._settings.directory / name
        directory.mkdir(exist_ok=True)
        process = subprocess.Popen(command(name, directory), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        job = _Job(process, kind, name, list(tokens))
        descriptor = os.pidfd_open(process.pid)
        self._jobs[descriptor] = job
        self._poll.register(descriptor, select.POLLIN)
        return job

    def _ended(self, descriptor: int) -> None:
        job = self._jobs.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        well = job.process.wait() == 0
        if job.kind == Kind.MISSING and not well:
            log.warning("could not be mounted: name=%s", job.name)
            self._refused[job.name] = time.monotonic()
        if not self._is_mounted(job.name):
            with suppress(OSError):
                (self._settings.directory / job.name).rmdir()
        for token in job.tokens:
            (self._autofs.ready if well else self._autofs.fail)(token)
        for packet in job.followers:
            self._take(packet)

    def _is_mounted(self, name: str) -> bool:
        place = str(self._settings.directory / name)
        return any(entry.mountpoint == place for entry in our_mounts())

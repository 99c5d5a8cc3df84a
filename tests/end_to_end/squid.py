"""Debian's Squid on loopback, with everything in memory, and what its log says of each request."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.console import SYSTEM_PATH, stop
from tests.needs import need_program
from tests.registry import free_port

PATIENCE_SECONDS = 60

CONFIGURATION = """\
http_port 127.0.0.1:{port}
http_access allow localhost
cache_effective_user proxy
pid_filename none
cache_mem 64 MB
maximum_object_size_in_memory 32 MB
cache_log {directory}/cache.log
logformat ducc %Ss %>Hs %ru
access_log stdio:{directory}/access.log ducc
buffered_logs off
coredump_dir {directory}
pinger_enable off
shutdown_lifetime 0 seconds
connect_timeout 3 seconds
"""


@dataclass
class Squid:
    """A running proxy."""

    directory: Path
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> list[tuple[str, str]]:
        """How it found what it was asked for (`TCP_MISS`, `TCP_MEM_HIT`, …), and the URL, request by request."""
        lines = [line.split() for line in (self.directory / "access.log").read_text().splitlines()]
        return [(result, url) for result, _, url in lines]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running_squid() -> Iterator[Squid]:
    """Its user may not enter the directories of tests, so it has one elsewhere."""
    program = need_program("squid")
    directory = Path(tempfile.mkdtemp(prefix="ducc-squid-"))
    try:
        shutil.chown(directory, "proxy")
        port = free_port()
        configuration = directory / "squid.conf"
        configuration.write_text(CONFIGURATION.format(port=port, directory=directory))
        directory.chmod(0o755)
        squid = Squid(directory, port, start(program, configuration))
        try:
            _wait_for_port(squid)
            yield squid
        finally:
            stop(squid.process)
    finally:
        shutil.rmtree(directory)


def start(program: str, configuration: Path) -> "subprocess.Popen[bytes]":
    command = ["setpriv", "--pdeathsig", "KILL", program, "-N", "-f", str(configuration)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": SYSTEM_PATH},
    )


def _wait_for_port(squid: Squid) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", squid.port), 1).close()
            return
        except OSError:
            log = squid.directory / "cache.log"
            assert squid.process.poll() is None, log.read_text() if log.exists() else "squid ended at once"
            assert time.monotonic() < deadline, "squid does not listen"
            time.sleep(0.05)

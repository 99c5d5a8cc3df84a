"""Is a program well? What `HEALTHCHECK` of a container image asks: exit status 0 it is, 1 it is not.

    python -m ducc.health http URL        something answers there, and no fault of its own (5xx)
    python -m ducc.health grpc SOCKET     a gRPC server answers
    python -m ducc.health plugin SOCKET   a plugin of Docker answers
    python -m ducc.health daemon          the daemon that `watch` runs has said lately that it is alive
    python -m ducc.health watch COMMAND…  run it as systemd would, and note when it says that it is alive

`watch` passes signals on, and ends with the exit status of the command.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from ducc.errors import BadInput, DuccError

ALIVE = Path("/tmp/ducc-alive")  # noqa: S108 - of a container, whose only program makes it
SILENCE_SECONDS = 120
_ANSWER_SECONDS = 20
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FAULT = 500


class NotWell(DuccError):
    """The program does not answer, or not as it should."""


def main(argv: Sequence[str] | None = None) -> int:
    what, *words = sys.argv[1:] if argv is None else argv or [""]
    try:
        if what == "watch" and words:
            return watch(words, ALIVE)
        check(what, words[0] if words else "")
    except DuccError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def check(what: str, where: str) -> None:
    """Raises `NotWell`."""
    try:
        if what == "http":
            _ask_http(where)
        elif what == "grpc":
            _ask_grpc(where)
        elif what == "plugin":
            _ask(_UnixConnection(where), "POST", "/Plugin.Activate")
        elif what == "daemon":
            _look_at(ALIVE)
        else:
            raise BadInput(f"{what!r}: wanted http URL, grpc SOCKET, plugin SOCKET, daemon, or watch COMMAND…")
    except (OSError, HTTPException) as error:
        raise NotWell(f"{where or what}: {error}") from error


def watch(command: Sequence[str], alive: Path) -> int:
    """Run *command*, and touch *alive* whenever it says to be so. Returns its exit status, or 128 + a signal's number.

    It is killed, as systemd does it, when it was ready and has then said nothing for `SILENCE_SECONDS`.
    """
    alive.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0ducc-watch-{os.getpid()}")
        heard.settimeout(1)
        told = {"NOTIFY_SOCKET": f"@ducc-watch-{os.getpid()}", "WATCHDOG_USEC": str(SILENCE_SECONDS * 1_000_000)}
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # till there is somebody to pass them on to
        process = subprocess.Popen(command, env={**os.environ, **told}, preexec_fn=_hear_signals)

        def pass_on(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        for number in _PASSED_ON:
            signal.signal(number, pass_on)
        _hear_signals()
        last = 0.0
        while process.poll() is None:
            with suppress(TimeoutError):
                if any(word in (b"READY=1", b"WATCHDOG=1") for word in heard.recv(4096).split(b"\n")):
                    alive.touch()
                    last = time.monotonic()
            if last and time.monotonic() - last > SILENCE_SECONDS:
                process.kill()
        return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _hear_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)


def _look_at(alive: Path) -> None:
    age = time.time() - alive.stat().st_mtime
    if age > SILENCE_SECONDS:
        raise NotWell(f"the daemon has said nothing for {age:.0f} s")


def _ask_http(url: str) -> None:
    parts = urlsplit(url)
    _ask(HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_SECONDS), "GET", parts.path or "/")


def _ask(connection: HTTPConnection, method: str, path: str) -> None:
    connection.request(method, path)
    status = connection.getresponse().status
    connection.close()
    if status >= _FAULT:
        raise NotWell(f"{path}: status {status}")


def _ask_grpc(address: str) -> None:
    import grpc

    with grpc.insecure_channel(f"unix:{address}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            raise NotWell(f"{address}: no answer") from None


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, address: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(self._address)


if __name__ == "__main__":
    sys.exit(main())

"""What systemd is told: a datagram to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) describes it."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress


class Notifier:
    """Tells the service manager of the process's state; without one, nothing happens."""

    def __init__(self, environ: Mapping[str, str], monotonic_ns: Callable[[], int] | None = None) -> None:
        """Children are to have no part in it: the caller takes the variables out of its environment."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._monotonic_ns = monotonic_ns or (lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        self.watchdog_seconds = _watchdog_seconds(environ)
        """How often `alive` is to be called at least, if at all: half of what the manager waits."""

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def _send(self, *lines: str) -> None:
        if self._address[:1] not in ("/", "@"):
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1)  # a manager that does not listen must not stop us
            sender.sendto(message, address)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    microseconds, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000

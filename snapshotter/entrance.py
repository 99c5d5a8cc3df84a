"""Who may call: only root, or whoever this process runs as, whatever became of the socket's mode.

The gRPC library does not tell who is at the other end of a connection, so connections come in here, the kernel is asked
for the peer's user, and those that may come in are passed on to the library's own socket beside ours.
"""

import contextlib
import logging
import os
import socket
import struct
import threading
from pathlib import Path

from ducc.unixsocket import listen_privately

log = logging.getLogger("ducc.snapshotter")

MOST_CONNECTIONS = 64  # containerd holds one or two
FIRST_BYTE_SECONDS = 20.0
_PIECE = 65536
_PAUSE_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Entrance:
    """A socket at *address* that passes connections on to the one at *inner*, from `serve` until `close`.

    Raises `SocketTaken`.
    """

    def __init__(self, address: Path, inner: Path) -> None:
        self._inner = inner
        self._address = address
        self._listening = listen_privately(address, directory_mode=0o700)
        self._closed = threading.Event()
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def serve(self) -> None:
        """Take connections in the background."""
        threading.Thread(target=self._accept, name="entrance", daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and no name."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._address.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError as error:
                if self._closed.is_set():
                    return
                log.warning("no connection could be taken: %s", error.strerror)
                self._closed.wait(_PAUSE_SECONDS)  # for a descriptor, or memory
                continue
            if not self._is_welcome(caller):
                caller.close()
            elif not self._places.acquire(blocking=False):
                log.warning("connection refused: there are %d already", MOST_CONNECTIONS)
                caller.close()
            else:
                threading.Thread(target=self._pass_on, args=(caller,), name="connection", daemon=True).start()

    def _is_welcome(self, caller: socket.socket) -> bool:
        _, uid, _ = _CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid in (0, os.geteuid()):
            return True
        log.warning("connection refused: it is from user %d", uid)
        return False

    def _pass_on(self, caller: socket.socket) -> None:
        try:
            with caller, socket.socket(socket.AF_UNIX) as inner, contextlib.suppress(OSError):
                caller.settimeout(FIRST_BYTE_SECONDS)
                first = caller.recv(_PIECE)  # who says nothing holds no place for long
                caller.settimeout(None)
                inner.connect(str(self._inner))
                inner.sendall(first)
                back = threading.Thread(target=_copy, args=(inner, caller), name="connection-back", daemon=True)
                back.start()
                _copy(caller, inner)
                back.join()
        finally:
            self._places.release()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until either side ends; then both are ended."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

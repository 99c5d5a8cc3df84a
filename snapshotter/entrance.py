"""Who may call: only root, or whoever this process runs as, whatever became of the socket's mode.

The kernel is asked for the user at the other end of each connection; those that may come in have a thread of their own.
"""

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from ducc.unixsocket import listen_privately

log = logging.getLogger("ducc.snapshotter")

MOST_CONNECTIONS = 64  # containerd holds one or two
_PAUSE_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Entrance:
    """A socket at *address* whose connections *converse* is given, from `serve` until `close`.

    Raises `SocketTaken`.
    """

    def __init__(self, address: Path, converse: Callable[[socket.socket], None]) -> None:
        self._converse = converse
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
                threading.Thread(target=self._let_in, args=(caller,), name="connection", daemon=True).start()

    def _is_welcome(self, caller: socket.socket) -> bool:
        _, uid, _ = _CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid in (0, os.geteuid()):
            return True
        log.warning("connection refused: it is from user %d", uid)
        return False

    def _let_in(self, caller: socket.socket) -> None:
        try:
            with caller:
                self._converse(caller)
        finally:
            self._places.release()

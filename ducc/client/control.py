"""The other end of a mount: a unix socket on which its process answers questions about itself and takes orders.

One question a connection: a line of JSON, `{"command": …}`, and one line of JSON back, `{"error": …}` where it could
not be done. The socket lies in a directory that only its owner may enter, beside the mountpoint's lock.
"""

import json
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ducc.client.mountpoint import control_path
from ducc.errors import DuccError

log = logging.getLogger(__name__)

Message = dict[str, Any]
Answerer = Callable[[Message], Message]

_LONGEST_LINE = 1 << 16
_ANSWER_SECONDS = 600.0  # pinning a whole image takes its time


class NotAnswering(DuccError):
    """Nobody, or nobody sane, is behind the mount."""

    exit_code = 58


class OrderFailed(DuccError):
    """The mount's process answers that it could not do what it was told."""

    exit_code = 59


def ask(directory: Path, message: Message, seconds: float = _ANSWER_SECONDS) -> Message:
    """Send a question to whoever answers the mount at *directory*. Raises `NotAnswering` or `OrderFailed`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(seconds)
        try:
            asking.connect(str(control_path(directory)))
            asking.sendall(json.dumps(message).encode() + b"\n")
            with asking.makefile("rb") as answering:
                answer = json.loads(answering.readline())
        except TimeoutError as error:
            raise NotAnswering(f"the process behind {directory} does not answer in time") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no proper answer"
            raise NotAnswering(f"the process behind {directory} does not answer: {reason.lower()}") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise OrderFailed(str(answer["error"]) if isinstance(answer, dict) else "no proper answer")
    return answer


@contextmanager
def answering(directory: Path, answer: Answerer, answered: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let *answer* be asked, by threads of their own, about the mount at *directory*; *answered* comes after each."""
    path = control_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileNotFoundError):
        path.unlink()  # of a process that was killed: whoever is here holds the mountpoint's lock
    with _Server(str(path), _handler(answer, answered)) as server:
        os.chmod(path, 0o600)
        threading.Thread(target=server.serve_forever, args=(0.2,), name="control", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            with suppress(FileNotFoundError):
                path.unlink()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # who finds no place in the queue of a unix socket is turned away at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("who asked has gone", exc_info=True)


def _handler(answer: Answerer, answered: Callable[[], None]) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            said = _answered(answer, self.rfile.readline(_LONGEST_LINE))
            try:
                self.wfile.write(json.dumps(said).encode() + b"\n")
            finally:
                answered()

    return Handler


def _answered(answer: Answerer, line: bytes) -> Message:
    try:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError
    except ValueError:
        return {"error": "not a question"}
    try:
        return answer(message)
    except DuccError as error:
        return {"error": str(error)}
    except Exception as error:
        log.exception("a fault of this program: command=%s", message.get("command"))
        return {"error": f"unexpected {type(error).__name__}"}

"""A unix socket that only its owner can connect to: where engines speak to us, whoever can speak to it is root."""

import socket
from pathlib import Path

from ducc.errors import DuccError

_BACKLOG = 128


class SocketTaken(DuccError):
    """Another process listens at the address, or nothing can be put there."""

    exit_code = 111


def listen_privately(address: Path, directory_mode: int = 0o755) -> socket.socket:
    """Listen at *address*, with mode 0600 from the first moment. What is left there from before goes if nobody answers.

    Its directory is made if it is missing, with *directory_mode*. Raises `SocketTaken`.
    """
    listening = socket.socket(socket.AF_UNIX)
    try:
        address.parent.mkdir(parents=True, exist_ok=True, mode=directory_mode)
        remove_stale(address)
        _bind(listening, address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise SocketTaken(f"can't listen at {address}: {error.strerror or error}") from error
    except SocketTaken:
        listening.close()
        raise
    return listening


def remove_stale(address: Path) -> None:
    """Take away a socket at which nobody listens. Raises `SocketTaken` if somebody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(address))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if not address.is_socket():
                raise SocketTaken(f"{address} is there, and is not a socket") from None
            address.unlink()
            return
    raise SocketTaken(f"another process listens at {address}")


def _bind(listening: socket.socket, address: Path) -> None:
    """Nobody can connect between `bind` and `chmod`: connections are refused until `listen`."""
    listening.bind(str(address))
    address.chmod(0o600)

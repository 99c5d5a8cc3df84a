"""Going on in the background, once the start has succeeded or failed in front of whoever started it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ducc.errors import DuccError

_READY = b"ready"


class StartFailed(DuccError):
    """What went on in the background did not get as far as it should; text and exit status are its own."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code  # type: ignore[misc]  # of this failure, not of all


def in_background(work: Callable[[Callable[[], None]], None], log_file: Path) -> None:
    """Run *work* in a process of its own and return when it calls what it is given; else raise `StartFailed`.

    The new process has no terminal and writes to *log_file*. To be called while this one has no threads.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _detach(log_file)
        os._exit(_report(work, writing))
    os.close(writing)
    with open(reading, "rb") as report:
        message = report.read()
    os.waitpid(child, 0)
    if message != _READY:
        code, _, text = message.decode(errors="replace").partition(" ")
        raise StartFailed(text or f"it ended without a word; see {log_file}", int(code or 1))


def _detach(log_file: Path) -> None:
    """Leave session, terminal and directory; the parent's child ends here, so that nobody has to wait for us."""
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor, replacement in ((0, nothing), (1, output), (2, output)):
        os.dup2(replacement, descriptor)


def _report(work: Callable[[Callable[[], None]], None], pipe: int) -> int:
    """Do the work; tell the starting process through *pipe*, once, how the start went."""
    reported = False

    def tell(message: bytes) -> None:
        nonlocal reported
        if not reported:
            reported = True
            os.write(pipe, message)
            os.close(pipe)

    try:
        work(lambda: tell(_READY))
    except DuccError as error:
        tell(f"{error.exit_code} {error}".encode())
        print(f"ended: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except BaseException as error:  # noqa: BLE001 - nobody else is left to tell
        tell(f"1 {type(error).__name__}: {error}".encode())
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0

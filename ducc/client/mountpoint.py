"""What the outside sees of a mount: the kernel's table, and a lock that lasts as long as the process behind it.

The lock is a file in the run-time directory, named after the mountpoint. The kernel drops it with its holder, however
that ends, so "has it ended?" has an exact answer; inside stands the process id, for signals. Only its holder removes
the file, and who has locked it makes sure that it is still the one of that name.
"""

import fcntl
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from ducc.errors import DuccError

MOUNT_TYPE = "fuse.ducc"
_END_SECONDS = 30.0  # how long a process may take to end after its mount is gone
_FORMER_SECONDS = 60.0  # how long a new mount waits for the process behind the former one, which is needed elsewhere
_GLANCE_SECONDS = 0.2  # whoever only looks whether the lock is held, holds it for a moment
_SETTLING_SECONDS = 1.0  # how long the kernel may take to end a mount that nobody uses
_READ_AHEAD_KB = 256  # a page of a mapped library costs as much reading
_LONGEST_NUMBER = 10  # digits of a process
_STILL_IN_USE = "was mounted before, and an overlay or another mount namespace still uses that: end it first"


class MountFailed(DuccError):
    """The repository is fine, but can't be shown in that directory."""

    exit_code = 54


class UnmountFailed(DuccError):
    """The directory is still mounted."""

    exit_code = 55


class MountEntry(NamedTuple):
    """A line of the kernel's table. *device* is `major:minor`; *source* is the repository's name, if it is ours."""

    device: str
    mountpoint: str
    type: str
    source: str


def mounted_at(directory: Path) -> MountEntry | None:
    """What is mounted exactly at *directory* (absolute), topmost. Nothing below it is touched: it may not answer."""
    found = [entry for entry in _mounts() if entry.mountpoint == str(directory)]
    return found[-1] if found else None


def our_mounts() -> list[MountEntry]:
    """All mounts of repositories that this process can see."""
    return [entry for entry in _mounts() if entry.type == MOUNT_TYPE]


def _mounts() -> Iterator[MountEntry]:
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        dash = fields.index("-")
        yield MountEntry(fields[2], _unescaped(fields[4]), fields[dash + 1], _unescaped(fields[dash + 2]))


def unmount(directory: Path) -> bool:
    """Take the mount away and wait until the process behind it has ended; a dead mount goes even if it is in use.

    False: the process goes on, since an overlay or another mount namespace shows the repository; it ends with the last
    of them.
    """
    lock = _lock_path(directory)
    entry = mounted_at(directory)
    options = ["-u"] if _is_held(lock) else ["-u", "-z"]
    command = ["fusermount3", *options, str(directory)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        reason = finished.stderr.strip().splitlines() or ["fusermount3 does not say why"]
        raise UnmountFailed(f"{directory} is still mounted: {reason[-1]}")
    return wait_for_end(directory, lambda: entry is not None and _is_known_to_the_kernel(entry))


def wait_for_end(directory: Path, is_used_elsewhere: Callable[[], bool] = lambda: False) -> bool:
    """Wait until the process behind a mount that was there has ended; False: it goes on, since it is used elsewhere."""
    began = time.monotonic()
    while _is_held(_lock_path(directory)):
        waited = time.monotonic() - began
        if waited > _SETTLING_SECONDS and is_used_elsewhere():
            return False
        if waited > _END_SECONDS:
            raise UnmountFailed(f"{directory} is unmounted, but the process behind it has not ended")
        time.sleep(0.01)
    return True


def holder(directory: Path) -> int | None:
    """The process behind a mount."""
    path = _lock_path(directory)
    text = ""
    if _is_held(path):
        with suppress(FileNotFoundError):  # it has just ended
            text = path.read_text()
    return int(text) if text.strip() else None


def detach(directory: Path) -> None:
    """Take a mount of ours away, if it is there, even if it is in use. For the process behind it."""
    entry = mounted_at(directory)
    if entry is not None and entry.type == MOUNT_TYPE:
        subprocess.run(["fusermount3", "-u", "-z", str(directory)], capture_output=True, check=False)


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Hold the mountpoint's lock, for as long as this process lives at most."""
    path = _lock_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(directory, path) as lock:
        os.pwrite(lock.fileno(), f"{os.getpid():<{_LONGEST_NUMBER}}\n".encode(), 0)  # over the former one, never empty
        yield


def _locked(directory: Path, path: Path) -> TextIO:
    """The lock; waited for while the process behind a former mount is ending."""
    began = time.monotonic()
    while True:
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            waited = time.monotonic() - began
            if waited > _GLANCE_SECONDS and mounted_at(directory):
                raise MountFailed(f"{directory} is mounted already") from None
            if waited > _FORMER_SECONDS:
                raise MountFailed(f"{directory} {_STILL_IN_USE}") from None
            time.sleep(0.02)
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()  # the last one has just removed it


def forget(directory: Path) -> None:
    """Remove what is left of a mount that is gone. For the process that was behind it, while it holds the lock."""
    for path in (state_path(directory), _lock_path(directory)):
        path.unlink(missing_ok=True)


def read_more_ahead(directory: Path) -> None:
    """Let the kernel read files in larger pieces; only root may, and it is only a matter of speed."""
    entry = mounted_at(directory)
    if entry is not None and os.geteuid() == 0:
        with suppress(OSError):  # a container may see the setting and not be allowed to change it
            Path(f"/sys/class/bdi/{entry.device}/read_ahead_kb").write_text(str(_READ_AHEAD_KB))


def _is_known_to_the_kernel(entry: MountEntry) -> bool:
    """Is the file system alive, wherever it is mounted?"""
    return Path(f"/sys/class/bdi/{entry.device}").exists()


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def control_path(directory: Path) -> Path:
    """Where the process behind a mount listens."""
    return _lock_path(directory).with_suffix(".socket")


def state_path(directory: Path) -> Path:
    """Where the process behind a mount keeps what its successor needs."""
    return _lock_path(directory).with_suffix(".state")


def _lock_path(directory: Path) -> Path:
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:32]
    return _run_time_directory() / f"{name}.lock"


def _run_time_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/run/ducc")
    own = os.environ.get("XDG_RUNTIME_DIR")
    return Path(own) / "ducc" if own else Path.home() / ".cache" / "ducc" / "run"


def _unescaped(text: str) -> str:
    """Blanks, tabs, newlines and backslashes are octal in the table."""
    return (
        text.encode(errors="surrogateescape")
        .decode("unicode_escape")
        .encode("latin-1")
        .decode(errors="surrogateescape")
    )

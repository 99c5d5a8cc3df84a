"""What a test session left behind: processes, mounts and sockets.

A session's processes are known by an environment variable that they inherit, however often they fork; its
mounts and unix sockets lie below its temporary directory.
"""

import os
import time
from pathlib import Path

SESSION_VARIABLE = "DUCC_TEST_SESSION"
PATIENCE_SECONDS = 60  # workers and killed daemons may take a moment to be gone


def leftovers(session: str, directory: Path) -> list[str]:
    """One line for each thing still there after a moment's patience."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found := [*processes(session), *mounts(directory), *sockets(directory)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return found


def processes(session: str) -> list[str]:
    marker = f"{SESSION_VARIABLE}={session}".encode()
    return [_describe(process) for process in Path("/proc").glob("[0-9]*") if marker in _environment(process)]


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile, or not ours
        return []


def _describe(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        words = b"?"
    return f"process {process.name}: {os.fsdecode(words).strip()[:200]}"


def mounts(directory: Path) -> list[str]:
    table = Path("/proc/self/mounts").read_text(errors="surrogateescape")
    below = f"{directory}/"
    return [f"mount: {line}" for line in table.splitlines() if f"{line.split()[1]}/".startswith(below)]


def sockets(directory: Path) -> list[str]:
    table = Path("/proc/net/unix").read_text(errors="surrogateescape")
    return [f"socket: {line.split()[-1]}" for line in table.splitlines() if f" {directory}/" in line]

"""Time and memory of a process, as the operating system accounts for them."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one finished process: wall and processor seconds, and the most memory it held at a time, in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


class CommandFailed(Exception):
    """A measured command did not do its work, so its time means nothing."""


def run(command: Sequence[str | Path], log: Path, *, synced: bool = False) -> Cost:
    """Run a command to its end; its output goes to *log*. With *synced*, the time until all it wrote is on the disk."""
    os.sync()
    with log.open("ab") as output:
        started = time.monotonic()
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        if synced:
            os.sync()
        seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        last = log.read_text(errors="replace").splitlines()[-3:]
        raise CommandFailed("\n".join([f"{' '.join(map(str, command))} ended with {process.returncode}:", *last]))
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def memory_mb(word: str | Path) -> float:
    """What the processes with *word* in their command lines hold, pages that several share counted once (PSS)."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(word) in (process / "cmdline").read_bytes().split(b"\0"):
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def in_turn(ours: Callable[[int], Cost], peer: Callable[[int], Cost], runs: int) -> tuple[list[Cost], list[Cost]]:
    """Run the two in turn, A B A B …; each is told the number of the run."""
    pairs = [(ours(number), peer(number)) for number in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.cpu_seconds for cost in costs),
        statistics.median(cost.peak_mb for cost in costs),
    )

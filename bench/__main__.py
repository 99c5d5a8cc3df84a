"""Run the benchmarks and print one table: `python -m bench [FIGURE…]`."""

import argparse
import platform
import sys
from collections.abc import Callable

from bench import sharing
from bench.batches import Batches
from bench.client import Client
from bench.conversion import Conversion
from bench.engines import Engines
from bench.limits import Limits
from bench.pods import Pods
from bench.stage import Stage, stage
from bench.table import Row, render

GROUPS: dict[str, tuple[tuple[str, ...], Callable[[Stage], list[Row]]]] = {
    "conversion": (("P1", "P2", "P14"), lambda one: Conversion(one).rows()),
    "batches": (("P3", "P4", "P5", "growth"), lambda one: Batches(one).rows()),
    "limits": (("P15", "P16", "rows"), lambda one: Limits(one).rows()),
    "engines": (("engines",), lambda one: Engines(one).rows()),
    "pods": (("P6-pod", "P13-pod"), lambda one: Pods(one).rows()),
    "client": (("P6", "P9", "P10", "P11", "P12", "P13", "memory"), lambda one: Client(one).rows()),
}


def main() -> int:
    """Exit status 0; a missed goal is a word in the table, not a failure."""
    parser = argparse.ArgumentParser("python -m bench")
    parser.add_argument("figures", nargs="*", help="P1, P2 …; all if none is named; or: sharing")
    wanted = set(parser.parse_args().figures)
    if wanted == {"sharing"}:
        print(sharing.table())
        return 0
    rows: list[Row] = []
    with stage() as one:
        for figures, run in GROUPS.values():
            if not wanted or wanted & set(figures):
                rows += run(one)
    print(f"{platform.machine()}, {platform.release()}, Python {platform.python_version()}")
    print(render(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

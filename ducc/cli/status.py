"""`ducc status FQRN`: what becomes of each wish, while the daemon works or without it."""

import argparse
import sys
import time
from typing import Any

from ducc.cli import options
from ducc.cli.loop import add_state, state_file
from ducc.daemon.state import Run, read_state
from ducc.daemon.status import Shown, run_values, shown, shown_span, shown_time
from ducc.publish.changes import to_json_bytes

_SHOWN_RUNS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fqrn", metavar="FQRN", help="the repository")
    options.add_storage(parser)
    add_state(parser)
    options.add_json(parser)
    parser.add_argument("--failing", action="store_true", help="only what fails")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 shown, 2 no such repository, 90 the daemon's state can't be read."""
    repository = options.open_repository(arguments.storage, arguments.fqrn)
    state = read_state(state_file(arguments.state, arguments.fqrn))
    states, runs, notes = state or (None, [], {})
    head = repository.head()
    rows = [row for row in shown(repository, head, states) if row.status == "failing" or not arguments.failing]
    if arguments.json:
        values = {
            "repository": arguments.fqrn,
            "revision": head.manifest.revision,
            "published_at": head.manifest.timestamp,
            "has_state": state is not None,
            "images": [row.values() for row in rows],
            "runs": [run_values(one) for one in runs[:_SHOWN_RUNS]],
            **notes,
        }
        sys.stdout.buffer.write(to_json_bytes(values))
        return 0
    for row in rows:
        print(_line(row, time.time()))
    for registry, limits in sorted(notes.get("limits", {}).items()):
        print(_limits_line(registry, limits))
    print(_summary(arguments.fqrn, head.manifest.revision, rows, runs, state is not None))
    return 0


def _line(row: Shown, now: float) -> str:
    """Status, its age, the image, and what is to be said of it."""
    said = []
    if row.status == "failing":
        said += [row.reason, f"{row.attempts} tries" if row.attempts > 1 else "1 try"]
        said += [f"next in {shown_span(row.next_try - now)}"] if row.next_try else []
        said += [f"published as it was {shown_span(now - row.checked_at)} ago"] if row.checked_at else []
    elif row.status == "granted" and row.checked_at:
        said += [f"checked {shown_span(now - row.checked_at)} ago"]
    if row.published_at:
        said += [f"published {shown_time(row.published_at)}"]
    if row.due:
        said += [f"may be removed from {shown_time(row.due)}"]
    age = shown_span(now - row.since) if row.since else "-"
    return f"{row.status:<9} {age:>5}  {row.image}" + (f": {'; '.join(said)}" if said else "")


def _limits_line(registry: str, limits: dict[str, Any]) -> str:
    return f"limits: {registry}: {limits['remaining']} of {limits['limit']} requests left"


def _summary(fqrn: str, revision: int, rows: list[Shown], runs: list[Run], has_state: bool) -> str:
    statuses = [row.status for row in rows]
    numbers = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses)))
    last = f"; last work {shown_time(runs[0].started)}" if runs else ""
    return f"{fqrn}: revision {revision}; {numbers or 'no images'}{last}" + ("" if has_state else "; no daemon's state")

"""`ducc convert WISHLIST…`: grant the wishes of one or more wishlists."""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from ducc.cli import options, process
from ducc.cli.executor import open_executor
from ducc.cli.progress import watch
from ducc.convert.fetch import FetchElsewhere, Workplace
from ducc.convert.observer import Observer
from ducc.convert.plan import Convert, GiveUp, Step, plan
from ducc.convert.published import Published
from ducc.convert.run import Conversion, Outcome, Report
from ducc.errors import BadInput, DuccError
from ducc.publish.changes import to_json_bytes
from ducc.publish.keys import KeyDirectory
from ducc.publish.repository import Head, Repository
from ducc.registry.client import Registry
from ducc.registry.credentials import credentials_from_environment
from ducc.wishlist.parse import Wishlist, read_wishlist

ALL_GRANTED, BAD_INPUT, SOME_FAILED = 0, BadInput.exit_code, 3
ASKERS = 16  # registries are asked for so many digests at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("wishlists", metavar="WISHLIST", type=Path, nargs="+", help="YAML files of wishes")
    add_conversion_options(parser)


def add_conversion_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that converts."""
    options.add_storage(parser)
    options.add_keys(parser)
    options.add_json(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        default=options.default_cache(),
        help="for the content index, and blobs on their way",
    )
    parser.add_argument(
        "--executor", metavar="WHERE", default="here",
        help="who ingests layers: here, processes:N, or dask:ADDRESS of a scheduler",
    )  # fmt: skip
    parser.add_argument(
        "--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="threads that compress and store"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 every wish granted, 2 a wishlist can't be used, 3 some wishes failed."""
    wishlists, status = _read(arguments.wishlists)
    return convert(wishlists, arguments) or status


def _read(paths: Iterable[Path]) -> tuple[list[Wishlist], int]:
    """Read what can be read; what can't is reported and leaves the others alone."""
    wishlists, status = [], ALL_GRANTED
    for path in paths:
        try:
            wishlists.append(read_wishlist(path))
        except BadInput as error:
            print(error, file=sys.stderr)
            status = BAD_INPUT
    return wishlists, status


def convert(wishlists: Iterable[Wishlist], arguments: argparse.Namespace) -> int:
    """Convert wishlists, those for one repository together; print what became of them; return the exit status."""
    by_repository: defaultdict[str, list[Wishlist]] = defaultdict(list)
    for wishlist in wishlists:
        by_repository[wishlist.fqrn].append(wishlist)
    process.prepare()
    with watch(arguments.json) as observer:
        results = [_convert_into(fqrn, ours, arguments, observer) for fqrn, ours in by_repository.items()]
    if arguments.json:
        sys.stdout.buffer.write(to_json_bytes({"repositories": [values for values, _ in results]}))
    return SOME_FAILED if any(failed for _, failed in results) else ALL_GRANTED


def _convert_into(
    fqrn: str, wishlists: Sequence[Wishlist], arguments: argparse.Namespace, observer: Observer
) -> tuple[dict[str, Any], bool]:
    """Return what is to be said about one repository, as JSON values, and whether a wish failed."""
    repository = options.open_repository(arguments.storage, fqrn)
    registry = Registry(credentials=credentials_from_environment(os.environ))
    head = repository.head()
    with ThreadPoolExecutor(ASKERS, "ask") as askers:
        steps = plan(wishlists, Published(repository, head), registry, askers)
    if arguments.dry_run:
        return _show_plan(fqrn, steps, arguments.json)
    report = _run(repository, steps, head, registry, arguments, observer)
    if not arguments.json:
        _print_summary(fqrn, report)
    return _report_values(fqrn, report), bool(report.failed)


def _run(
    repository: Repository,
    steps: Sequence[Step],
    head: Head,
    registry: Registry,
    arguments: argparse.Namespace,
    observer: Observer,
) -> Report:
    keys = KeyDirectory(arguments.keys, repository.fqrn).load()
    workplace = Workplace(arguments.storage, repository.fqrn, arguments.cache, max(1, arguments.workers))
    with (
        closing(workplace.content_index(repository.settings.compressor)) as index,
        open_executor(arguments.executor) as executor,
    ):
        elsewhere = FetchElsewhere(executor, workplace, observer) if executor else None
        conversion = Conversion(
            repository, keys, registry, index, workplace.spool(), observer, workplace.workers, elsewhere
        )
        return conversion.run(steps, head)


def _show_plan(fqrn: str, steps: Sequence[Step], json: bool) -> tuple[dict[str, Any], bool]:
    images = [_planned(step) for step in steps]
    for image in [] if json else images:
        print(f"{image['plan']:<10} {image['image']}" + (f": {image['error']}" if "error" in image else ""))
    return {"repository": fqrn, "images": images}, any(isinstance(step, GiveUp) for step in steps)


def _planned(step: Step) -> dict[str, str]:
    if isinstance(step, GiveUp):
        return {"image": step.wish, "plan": "fail", "error": str(step.error)}
    return {"image": str(step.reference), "plan": "convert" if isinstance(step, Convert) else "keep"}


def _print_summary(fqrn: str, report: Report) -> None:
    counts = dict.fromkeys(("published", "unchanged", "failed"), 0)
    for outcome in report.outcomes:
        counts[outcome.status] += 1
    made = f"revision {report.revision}" if report.revision is not None else "no new revision"
    numbers = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{fqrn}: {numbers}; {made}; {report.seconds:.1f} s")


def _report_values(fqrn: str, report: Report) -> dict[str, Any]:
    images = [_outcome_values(outcome) for outcome in report.outcomes]
    return {"repository": fqrn, "revision": report.revision, "seconds": round(report.seconds, 3), "images": images}


def _outcome_values(outcome: Outcome) -> dict[str, Any]:
    values: dict[str, Any] = {"image": outcome.image, "status": outcome.status}
    if outcome.error is not None:
        values["error"] = _error_values(outcome.error)
    if outcome.record is not None:
        values["root_hash"] = str(outcome.record.image_tree)
        values["config_digest"] = str(outcome.record.config_digest)
        values["counters"] = dict(outcome.record.counters)
        values["warnings"] = list(outcome.record.warnings)
    return values


def _error_values(error: DuccError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "text": str(error), "retryable": error.retryable}

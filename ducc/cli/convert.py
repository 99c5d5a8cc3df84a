"""`ducc convert WISHLIST…`: grant the wishes of one or more wishlists."""

import argparse
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ducc.cli import options, process
from ducc.cli.caches import default_cache
from ducc.cli.executor import open_executor
from ducc.cli.progress import watch
from ducc.convert.fetch import Workplace
from ducc.convert.grant import grant, look
from ducc.convert.observer import Observer
from ducc.convert.plan import Convert, GiveUp, PushThin, Step
from ducc.convert.report import Report
from ducc.errors import BadInput
from ducc.publish.changes import to_json_bytes
from ducc.publish.keys import KeyDirectory
from ducc.registry.client import Registry
from ducc.wishlist.sources import Source
from ducc.wishlist.wish import BrokenWish, Wish, Wishlist

ALL_GRANTED, BAD_INPUT, SOME_FAILED = 0, BadInput.exit_code, 3

Wishes = Sequence[Wish | BrokenWish]
Result = tuple[dict[str, Any], bool]  # what is to be said about one repository, and whether a wish failed that counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_wishlists(parser)
    add_conversion_options(parser)


def add_conversion_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that converts."""
    options.add_storage(parser)
    options.add_keys(parser)
    options.add_json(parser)
    options.add_registries(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    options.add_cache(parser)
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


def _read(sources: Iterable[str]) -> tuple[list[Wishlist], int]:
    """Read what can be read; what can't is reported and leaves the others alone."""
    wishlists, status = [], ALL_GRANTED
    for source in sources:
        loaded = Source.parse(source).load()
        if loaded.wishlist is not None:
            wishlists.append(loaded.wishlist)
        if loaded.error is not None:
            print(loaded.error, file=sys.stderr)
            status = BAD_INPUT
    return wishlists, status


def convert(wishlists: Iterable[Wishlist], arguments: argparse.Namespace) -> int:
    """Convert wishlists, those for one repository together; print what became of them; return the exit status."""
    wishes: defaultdict[str, list[Wish | BrokenWish]] = defaultdict(list)
    for wishlist in wishlists:
        wishes[wishlist.fqrn] += [*wishlist.wishes, *wishlist.broken]
    process.prepare()
    registry = options.open_registry(arguments.registries)
    work = _propose if arguments.dry_run else _grant
    with watch(arguments.json) as observer:
        results = [work(fqrn, ours, registry, arguments, observer) for fqrn, ours in wishes.items()]
    if arguments.json:
        sys.stdout.buffer.write(to_json_bytes({"repositories": [values for values, _ in results]}))
    return SOME_FAILED if any(failed for _, failed in results) else ALL_GRANTED


def _grant(fqrn: str, wishes: Wishes, registry: Registry, arguments: argparse.Namespace, observer: Observer) -> Result:
    repository = options.open_repository(arguments.storage, fqrn)
    keys = KeyDirectory(arguments.keys, fqrn).load()
    cache = arguments.cache or default_cache()
    workplace = Workplace(arguments.storage, fqrn, cache, max(1, arguments.workers), arguments.registries)
    with open_executor(arguments.executor) as executor:
        report = grant(wishes, repository, keys, registry, workplace, observer=observer, executor=executor)
    if not arguments.json:
        _print_summary(fqrn, report)
    return report.to_json(fqrn), bool(report.failed)


def _propose(fqrn: str, wishes: Wishes, registry: Registry, arguments: argparse.Namespace, _: Observer) -> Result:
    steps = look(wishes, options.open_repository(arguments.storage, fqrn), registry)[1]
    images = [_planned(step) for step in steps]
    for image in [] if arguments.json else images:
        print(f"{image['plan']:<10} {image['image']}" + (f": {image['error']}" if "error" in image else ""))
    failed = any(isinstance(step, GiveUp) and not step.ignored for step in steps)
    return {"repository": fqrn, "images": images}, failed


def _planned(step: Step) -> dict[str, str]:
    if isinstance(step, GiveUp):
        return {"image": step.wish, "plan": "fail", "error": step.reason}
    plan = "convert" if isinstance(step, Convert) else "push" if isinstance(step, PushThin) else "keep"
    return {"image": str(step.reference), "plan": plan}


def _print_summary(fqrn: str, report: Report) -> None:
    counts = Counter(dict.fromkeys(("published", "unchanged", "failed"), 0))
    counts.update(outcome.status for outcome in report.outcomes)
    made = f"revision {report.revision}" if report.revision is not None else "no new revision"
    numbers = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{fqrn}: {numbers}; {made}; {report.seconds:.1f} s")

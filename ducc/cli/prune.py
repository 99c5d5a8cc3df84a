"""`ducc prune WISHLIST…`: un-publish what nobody wishes for any more, after a grace period."""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ducc import layout
from ducc.cli import options
from ducc.cli.loop import seconds
from ducc.convert.grant import ASKERS
from ducc.convert.plan import GiveUp, images_of
from ducc.convert.stop import Stop, Threads
from ducc.daemon.prune import Fate, Plan, Verdict, Wished, plan_prune, plan_undo
from ducc.daemon.status import shown_time
from ducc.errors import BadInput
from ducc.image.reference import Reference
from ducc.publish.changes import Change, to_json_bytes
from ducc.publish.commit import commit_decided
from ducc.publish.keys import KeyDirectory
from ducc.publish.repository import Head, Repository
from ducc.registry.client import Registry
from ducc.wishlist.sources import Source
from ducc.wishlist.wish import Wish, Wishlist

_SHOWN = (Fate.REMOVED, Fate.SCHEDULED, Fate.WAITING, Fate.UNKNOWN)
_PLANNED = {Fate.REMOVED: "remove", Fate.SCHEDULED: "schedule"}


class ListUnclear(BadInput):
    """What a wishlist asks for is not known whole, so that nothing can be said of what nobody asks for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_wishlists(parser)
    options.add_storage(parser)
    parser.add_argument("--keys", metavar="DIR", type=Path, help="directory of the signing keys (for what changes)")
    options.add_registries(parser)
    options.add_json(parser)
    parser.add_argument("--apply", action="store_true", help="do it; without this, only say what would be done")
    parser.add_argument(
        "--grace", metavar="TIME", type=seconds, default="14d",
        help="how long an image stays from when it is scheduled (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--most", metavar="N%", type=_share, default="10%",
        help="change nothing if more of the images than that would go (default %(default)s)".replace("10%", "10%%"),
    )  # fmt: skip
    parser.add_argument("--undo", metavar="IMAGE", help="take an image from the schedule, and do nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 done or shown, 2 bad input or a list that can't be read whole, 91 too many would go."""
    if (arguments.apply or arguments.undo) and arguments.keys is None:
        raise BadInput("--keys is missing: a change is signed")
    by_repository: defaultdict[str, list[Wishlist]] = defaultdict(list)
    for text in arguments.wishlists:
        wishlist = _read(text)
        by_repository[wishlist.fqrn].append(wishlist)
    results, plans = [], dict[str, Plan]()
    for fqrn, lists in by_repository.items():
        repository = options.open_repository(arguments.storage, fqrn)
        if arguments.undo:
            results.append(_undo(repository, arguments))
        else:
            plans[fqrn], values = _prune(repository, lists, arguments)
            results.append(values)
    if arguments.json:
        sys.stdout.buffer.write(to_json_bytes({"repositories": results}))
    for fqrn, plan in plans.items():
        plan.check_share(fqrn, arguments.most)  # of what is only shown, after it was
    return 0


def _read(text: str) -> Wishlist:
    """A wishlist as it is now; one that was good before is not good enough."""
    loaded = Source.parse(text).load()
    if loaded.error is not None:
        raise loaded.error
    assert loaded.wishlist is not None
    if loaded.wishlist.broken:
        raise ListUnclear(f"{loaded.wishlist.broken[0]}; nothing is removed as long as a line can't be read")
    return loaded.wishlist


def _undo(repository: Repository, arguments: argparse.Namespace) -> dict[str, Any]:
    image = Reference.parse(arguments.undo)
    keys = KeyDirectory(arguments.keys, repository.fqrn).load()
    with repository.store.session():
        head = commit_decided(repository, keys, lambda base: plan_undo(repository, base, image))
    if not arguments.json:
        print(f"{repository.fqrn}: {image} stays; revision {head.manifest.revision}")
    return {"repository": repository.fqrn, "revision": head.manifest.revision, "undone": str(image)}


def _prune(
    repository: Repository, lists: Sequence[Wishlist], arguments: argparse.Namespace
) -> tuple[Plan, dict[str, Any]]:
    wishes = [wish for one in lists for wish in one.wishes]
    wished = _ask(wishes, options.open_registry(arguments.registries))
    now = int(time.time())
    before = repository.head()
    plan = plan_prune(repository, before, wished, now, arguments.grace)

    def decide(base: Head) -> Sequence[Change] | None:
        nonlocal plan
        plan = plan_prune(repository, base, wished, now, arguments.grace)
        plan.check_share(repository.fqrn, arguments.most)
        return plan.changes or None

    after = before
    if arguments.apply:
        keys = KeyDirectory(arguments.keys, repository.fqrn).load()
        with repository.store.session():
            after = commit_decided(repository, keys, decide)
    revision = after.manifest.revision if after.raw != before.raw else None
    if not arguments.json:
        _print(repository.fqrn, plan, revision, arguments.apply)
    return plan, _values(repository.fqrn, plan, revision)


def _ask(wishes: Sequence[Wish], registry: Registry) -> Wished:
    """What the wishes stand for now. Whoever does not answer is noted: nothing of his goes."""
    images, unanswered = set[bytes](), []
    with Threads(ASKERS, "ask", Stop()) as askers:
        for wish, answer in [(wish, askers.submit(images_of, wish, registry)) for wish in wishes]:
            for one in answer.result():
                if isinstance(one, GiveUp):
                    unanswered.append(wish)
                    print(f"ducc: {one.wish}: {one.reason}", file=sys.stderr)
                else:
                    images.add(layout.public_link(one.reference))
    return Wished(frozenset(images), tuple(wishes), tuple(unanswered))


def _print(fqrn: str, plan: Plan, revision: int | None, applied: bool) -> None:
    for verdict in plan.of(*_SHOWN):
        word = verdict.fate if applied else _PLANNED.get(verdict.fate, verdict.fate)
        due = f"  due {shown_time(verdict.due)}" if verdict.due is not None else ""
        print(f"{word:<10} {verdict.image}{due}")
    numbers = ", ".join(f"{len(plan.of(fate))} {fate}" for fate in Fate)
    made = f"revision {revision}" if revision is not None else "no new revision"
    print(f"{fqrn}: {numbers}; {made}" + ("" if applied else "; nothing was changed (--apply)"))


def _values(fqrn: str, plan: Plan, revision: int | None) -> dict[str, Any]:
    return {"repository": fqrn, "revision": revision, "images": [_verdict(one) for one in plan.verdicts]}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    values: dict[str, Any] = {"image": verdict.image, "fate": str(verdict.fate)}
    return values if verdict.due is None else {**values, "due": verdict.due}


def _share(text: str) -> float:
    number = text.removesuffix("%")
    if not number.isdecimal() or not 0 <= int(number) <= 100:
        raise BadInput(f"--most {text!a}: write a share such as 10%")
    return int(number) / 100

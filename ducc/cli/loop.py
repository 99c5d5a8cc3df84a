"""`ducc loop WISHLIST…`: the daemon that keeps repositories equal to their wishlists."""

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ducc.cli import options
from ducc.cli.caches import default_cache
from ducc.errors import BadInput

if TYPE_CHECKING:
    from ducc.daemon.events import Events
    from ducc.daemon.keeper import Keeper

STOPPED = 0
DEFAULT_INTERVAL_SECONDS = 600.0

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<number>\d{1,9})(?P<unit>[smhd]?)", re.ASCII)
_LAST_WORDS_SECONDS = 1.0  # for notifications on their way when everything else has ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_wishlists(parser)
    options.add_storage(parser)
    options.add_keys(parser)
    options.add_registries(parser)
    add_state(parser)
    parser.add_argument(
        "--interval", metavar="[WISHLIST=]TIME", action="append", default=[],
        help="how often a wishlist is granted: 90s, 10m, 2h, 1d (default 10m); for all, or for one of them",
    )  # fmt: skip
    options.add_cache(parser)
    parser.add_argument(
        "--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="threads that compress and store"
    )
    parser.add_argument(
        "-n", "--notification-file", metavar="FILE", type=Path, help="append a line of JSON for everything that happens"
    )
    parser.add_argument("--notify", metavar="URL", action="append", default=[], help="POST what happens there, as JSON")
    parser.add_argument("--notify-secret", metavar="FILE", type=Path, help="sign what is posted with this secret")
    parser.add_argument("--log-format", choices=["plain", "json"], default="plain", help="how the log is written")


def add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state", metavar="DIR", type=Path, default=None, help="where the daemon notes what it does (a cache)"
    )


def state_file(directory: Path | None, fqrn: str) -> Path:
    """Where the daemon notes what it does for one repository: in *directory*, or where systemd or users keep such."""
    if directory is None:
        given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        directory = Path(given) if given else default_cache() / "state"
    return directory / f"{fqrn}.sqlite"


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 stopped by a signal, 2 bad input, 34 another daemon works on the repository."""
    from ducc import logs
    from ducc.daemon.loop import Loop, Slot
    from ducc.daemon.systemd import Notifier
    from ducc.wishlist.sources import Source

    os.umask(os.umask(0o077) | 0o022)  # whoever started us: nobody else writes what we make
    logs.set_up(max(1, arguments.verbose), as_json=arguments.log_format == "json")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until everything has been read once
    cache = arguments.cache or default_cache()
    intervals = _intervals(arguments.interval, arguments.wishlists)
    slots = [Slot(Source.parse(text, cache / "wishlists"), intervals[text]) for text in arguments.wishlists]
    notifier = Notifier(os.environ)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)  # they are not for the programs that we start
    events = _events(arguments)

    events.tell("start_ducc")
    with Loop(slots, partial(_open_keeper, arguments, cache, events), notifier) as loop:
        ended = loop.run()
    events.tell("end_ducc", status="ok")
    events.close(_LAST_WORDS_SECONDS)
    logging.shutdown()
    sys.stdout.flush()
    if not ended:
        os._exit(STOPPED)  # threads that wait for a silent registry would keep the process; nothing depends on them
    return STOPPED


def _open_keeper(
    arguments: argparse.Namespace, cache: Path, events: "Events", fqrn: str, opened: ExitStack
) -> "Keeper":
    """Be the only one who keeps the repository *fqrn*, until *opened* is closed."""
    from ducc.convert.fetch import Workplace
    from ducc.daemon.granting import Granting
    from ducc.daemon.keeper import Keeper
    from ducc.daemon.state import State

    workplace = Workplace(arguments.storage, fqrn, cache, max(1, arguments.workers), arguments.registries)
    work = Granting(workplace, arguments.keys, partial(options.open_registry, arguments.registries))
    opened.enter_context(options.open_repository(arguments.storage, fqrn).store.claim("loop"))
    return Keeper(fqrn, work, opened.enter_context(State(state_file(arguments.state, fqrn))), events)


def _events(arguments: argparse.Namespace) -> "Events":
    from ducc.daemon.events import Events, FileSink, HttpSink, Sink, read_secret

    secret = read_secret(arguments.notify_secret) if arguments.notify_secret else None
    sinks: list[Sink] = [HttpSink(url, secret) for url in arguments.notify]
    if arguments.notification_file:
        sinks.append(FileSink(arguments.notification_file))
    return Events(sinks)


def _intervals(texts: Sequence[str], wishlists: Sequence[str]) -> dict[str, float]:
    """How often each wishlist is granted, in seconds."""
    intervals = dict.fromkeys(wishlists, DEFAULT_INTERVAL_SECONDS)
    for text in texts:
        source, separator, time = text.rpartition("=")
        if separator and source not in intervals:
            raise BadInput(f"--interval {text}: {source} is none of the wishlists")
        intervals |= dict.fromkeys([source] if separator else wishlists, seconds(time))
    return intervals


def seconds(text: str) -> float:
    """Read a time span: `90s`, `10m`, `2h`, `14d`; a number alone is seconds."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match["number"]) == 0:
        raise BadInput(f"{text!a}: not a time such as 90s, 10m, 2h, 1d")
    return float(match["number"]) * _UNITS[match["unit"]]

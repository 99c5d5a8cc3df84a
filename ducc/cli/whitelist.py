"""Renew the whitelist, which says until when the repository's certificate may sign."""

import argparse
from datetime import UTC, datetime

from ducc.cli import options
from ducc.cvmfs.fqrn import require_fqrn
from ducc.publish.init import renew_whitelist
from ducc.publish.keys import WHITELIST_DAYS, KeyDirectory
from ducc.storage.open import open_store

_LONGEST_DAYS = 3660


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["renew"], help="sign a new one; nothing else in the repository changes")
    parser.add_argument("fqrn", metavar="FQRN", help="the repository's name")
    options.add_storage(parser)
    options.add_keys(parser)
    parser.add_argument("--days", type=_days, default=WHITELIST_DAYS, help="how long it is good (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 renewed, 2 there is no such repository; see the documentation for keys that can't be used."""
    fqrn = require_fqrn(arguments.fqrn)
    store = open_store(arguments.storage, fqrn)
    whitelist = renew_whitelist(store, KeyDirectory(arguments.keys, fqrn), datetime.now(UTC), arguments.days)
    print(f"{fqrn}: whitelist renewed until {whitelist.expires:%Y-%m-%d %H:00} UTC")
    return 0


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _LONGEST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to {_LONGEST_DAYS}")
    return int(text)

"""Renew the whitelist, which says until when the repository's certificate may sign."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from ducc.cvmfs.fqrn import require_fqrn
from ducc.publish.init import renew_whitelist
from ducc.publish.keys import WHITELIST_DAYS, KeyDirectory
from ducc.storage.open import open_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    renew = actions.add_parser("renew", help="sign a new whitelist; nothing else in the repository changes")
    renew.add_argument("fqrn", metavar="FQRN", help="the repository's name")
    renew.add_argument("--storage", metavar="URL", required=True, help="where repositories are kept: file:///DIR")
    renew.add_argument("--keys", metavar="DIR", type=Path, required=True, help="directory with the master key")
    renew.add_argument("--days", type=_days, default=WHITELIST_DAYS, help="how long it is good (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 renewed, 2 there is no such repository; see the documentation for keys that can't be used."""
    fqrn = require_fqrn(arguments.fqrn)
    store = open_store(arguments.storage, fqrn)
    whitelist = renew_whitelist(store, KeyDirectory(arguments.keys, fqrn), datetime.now(UTC), arguments.days)
    print(f"{fqrn}: whitelist renewed until {whitelist.expires:%Y-%m-%d %H:00} UTC")
    return 0


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 3660:
        raise ValueError
    return days

"""What operators look up: every error of ours has an exit status, and the page that lists them has every one."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import ducc
from ducc.errors import DuccError

PAGE = Path(__file__).parents[2] / "docs/exit-status.md"
ROW = re.compile(r"^\| (?P<statuses>[\d/ –]+) \|", re.MULTILINE)


def errors() -> list[type[DuccError]]:
    for module in pkgutil.walk_packages(ducc.__path__, "ducc."):
        importlib.import_module(module.name)
    return list(_below(DuccError))


def _below(error: type[DuccError]) -> Iterator[type[DuccError]]:
    for one in error.__subclasses__():
        yield one
        yield from _below(one)


def documented() -> set[int]:
    found: set[int] = set()
    for row in ROW.finditer(PAGE.read_text()):
        for part in row["statuses"].split("/"):
            first, _, last = part.partition("–")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def test_every_exit_status_is_in_the_page_that_operators_read():
    known = documented()
    missing = {f"{one.__module__}.{one.__name__}: {one.exit_code}" for one in errors() if one.exit_code not in known}
    assert {0, 1, 2, 3, 50, 56, 130} <= known
    assert missing == set()

"""The table that a benchmark run prints."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. *peer* is what it is compared with, measured in the same run; *verdict* compares with the goal."""

    figure: str
    what: str
    ours: str
    peer: str
    ratio: str
    goal: str
    verdict: str


HEADINGS = Row("figure", "what", "ours", "peer", "ratio", "goal", "")


def verdict(holds: bool) -> str:
    return "ok" if holds else "MISSED"


def render(rows: Iterable[Row]) -> str:
    """Columns as wide as they need to be."""
    lines = [astuple(row) for row in (HEADINGS, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )

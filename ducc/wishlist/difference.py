"""Unified diffs: which lines of which files a change adds or rewrites. Pure: no I/O.

Any tool's output will do (`git diff`, `diff -u`), with or without the prefixes `a/` and `b/`. Removed lines count for
nothing: what is not there can't be wrong.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ducc.errors import BadInput

_HUNK = re.compile(r"@@ -\d+(?:,(?P<old>\d+))? \+(?P<start>\d+)(?:,(?P<new>\d+))? @@")
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)")
_ESCAPED = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b'"': b'"', b"\\": b"\\"}
_NOTHING = "/dev/null"


class MalformedDiff(BadInput):
    """A text that should be a unified diff is none, or only a part of one."""


@dataclass(frozen=True, slots=True)
class ChangedLines:
    """The lines that a change adds or rewrites, from 1, by file as the diff names it."""

    by_file: Mapping[str, frozenset[int]]

    def of(self, path: str) -> frozenset[int] | None:
        """The changed lines of the file at *path*, which is absolute; None if the change does not touch it.

        The diff's names are relative to some directory above: the longest that *path* ends with is the file's.
        """
        ours = PurePosixPath(path).parts
        fitting = [
            (len(name), lines)
            for text, lines in self.by_file.items()
            for name in _names(text)
            if ours[-len(name) :] == name
        ]
        return max(fitting, key=lambda one: one[0])[1] if fitting else None


def read_diff(text: str) -> ChangedLines:
    """Read a unified diff; an empty one changes nothing. Raises `MalformedDiff`."""
    lines = enumerate(text.removesuffix("\n").split("\n"), 1)
    by_file: dict[str, frozenset[int]] = {}
    path, anything = None, False
    for number, line in lines:
        if line.startswith("+++ "):
            path, anything = _path(line.removeprefix("+++ ")), True
            by_file.setdefault(path, frozenset())
        elif match := _HUNK.match(line):
            if path is None:
                raise MalformedDiff(f"diff, line {number}: changes of a file that is not named")
            by_file[path] |= frozenset(_added(match, lines))
        elif line.startswith("@@"):
            raise MalformedDiff(f"diff, line {number}: not the head of a hunk (a merge's combined diff is none)")
        anything = anything or line.startswith("diff ")
    if text.strip() and not anything:
        raise MalformedDiff("not a unified diff: make one by git diff, or diff -u")
    by_file.pop(_NOTHING, None)
    return ChangedLines(by_file)


def _added(head: re.Match[str], lines: Iterator[tuple[int, str]]) -> Iterator[int]:
    """The numbers of a hunk's new lines; takes as many from *lines* as its head promises."""
    old, new = (int(head[side] or "1") for side in ("old", "new"))  # a count of one may be left out
    at = int(head["start"])
    while old > 0 or new > 0:
        number, line = next(lines, (0, None))
        if line is None:
            raise MalformedDiff("diff: ends within a hunk")
        kind = line.removesuffix("\r")[:1]
        if kind == "\\":
            continue
        if kind not in ("+", "-", " ", ""):
            raise MalformedDiff(f"diff, line {number}: not a line of a hunk")
        if kind == "+":
            yield at
        old, new, at = old - (kind != "+"), new - (kind != "-"), at + (kind != "-")


def _path(text: str) -> str:
    """The name of a file; git writes odd ones in quotes, others put the time behind a tab."""
    text = text.rstrip("\r")
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return _ESCAPE.sub(_unescaped, text[1:-1].encode()).decode("utf-8", "replace")
    return text.partition("\t")[0]


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else _ESCAPED.get(code, code)


def _names(text: str) -> list[tuple[str, ...]]:
    """A file's path as the diff has it, and without the first directory, which may be git's prefix."""
    parts = PurePosixPath(text).parts
    return [parts, parts[1:]] if len(parts) > 1 else [parts]

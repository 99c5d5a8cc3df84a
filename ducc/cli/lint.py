"""`ducc lint WISHLIST…`: what is wrong with wishlists, before they are merged."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ducc.cli import options
from ducc.errors import BadInput
from ducc.publish.changes import to_json_bytes
from ducc.wishlist.difference import read_diff
from ducc.wishlist.lint import Checked, Finding, check_offline, check_online
from ducc.wishlist.sources import Source

ALL_WELL, BAD_INPUT, SOME_FAIL = 0, BadInput.exit_code, 3
ASKERS = 8  # wishes are asked for so many at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_wishlists(parser)
    parser.add_argument("--online", action="store_true", help="ask the registries, too, whether the images are there")
    parser.add_argument(
        "--diff", metavar="FILE", help="look only at the lines that this unified diff changes; - is standard input"
    )
    options.add_registries(parser)
    parser.add_argument(
        "--format", choices=list(_FORMATS), default="text", help="text (default), json, or annotations of GitHub"
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 nothing is wrong (warnings at most), 2 something is written wrong, 3 an image is not there."""
    changed = None if arguments.diff is None else read_diff(_read(arguments.diff))
    sources = [Source.parse(text) for text in arguments.wishlists]
    checked = [check_offline(source, changed) for source in sources]
    offline = [finding for one in checked for finding in one.findings]
    online = _ask(checked, arguments.registries) if arguments.online else []
    _FORMATS[arguments.format](checked, [*offline, *online])
    if offline:
        return BAD_INPUT
    return ALL_WELL if all(finding.is_warning for finding in online) else SOME_FAIL


def _read(path: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    return data.decode("utf-8", "replace")


def _ask(checked: Iterable[Checked], registries: Path | None) -> list[Finding]:
    registry = options.open_registry(registries)
    wishes = [wish for one in checked for wish in one.wishes]
    with ThreadPoolExecutor(ASKERS, "ask") as askers:
        return list(check_online(wishes, registry, askers))


def _print_text(checked: Sequence[Checked], findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f"{finding.file}:{finding.line}:{finding.column}: {_level(finding)}: {finding.text}")
    errors = sum(not finding.is_warning for finding in findings)
    counts = {
        "wishlists": len(checked),
        "images looked at": sum(len(one.wishes) for one in checked),
        "errors": errors,
        "warnings": len(findings) - errors,
    }
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))


def _print_json(checked: Sequence[Checked], findings: Sequence[Finding]) -> None:
    values = {
        "wishlists": [{"file": one.file, "touched": one.is_touched, "images": len(one.wishes)} for one in checked],
        "findings": [_values(finding) for finding in findings],
    }
    sys.stdout.buffer.write(to_json_bytes(values))


def _print_annotations(checked: Sequence[Checked], findings: Sequence[Finding]) -> None:
    """Workflow commands; what they mean by a line of their own is escaped."""
    for one in findings:
        place = f"file={_escaped(one.file)},line={one.line},col={one.column},title={_escaped(one.kind)}"
        print(f"::{_level(one)} {place}::{one.text.replace('%', '%25')}")


def _values(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "level": _level(finding),
        "kind": finding.kind,
        "text": finding.text,
        "retryable": finding.retryable,
    }


def _level(finding: Finding) -> str:
    return "warning" if finding.is_warning else "error"


def _escaped(text: str) -> str:
    for character in "%:,\r\n":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


_FORMATS: dict[str, Callable[[Sequence[Checked], Sequence[Finding]], None]] = {
    "text": _print_text,
    "json": _print_json,
    "github": _print_annotations,
}

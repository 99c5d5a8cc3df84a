"""containerd's filters: which snapshots of a list are wanted. Pure: no I/O.

`labels."a/b"==c,parent==""`: comparisons of which all must hold. `==` and `!=` compare, `~=` looks for a regular
expression, a field alone asks whether it says anything. Fields: `name`, `parent`, `kind`, `labels.<name>`.
"""

import ast
import re
from collections.abc import Callable, Iterable

from snapshotter.snapshots import InvalidRequest, Snapshot, shown

Wanted = Callable[[Snapshot], bool]

_LONGEST = 65536
_LONGEST_EXPRESSION = 1024
_QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_FIELD = re.compile(rf"{_QUOTED}|[A-Za-z][A-Za-z0-9_]*")
_OPERATOR = re.compile("==|!=|~=")
_VALUE = re.compile(rf"{_QUOTED}|[^\s,]+")


def any_of(filters: Iterable[str]) -> Wanted:
    """What fits one of *filters*; everything, if there is none. Raises `InvalidRequest`."""
    wanted = [_parse(text) for text in filters]
    return lambda snapshot: not wanted or any(fits(snapshot) for fits in wanted)


def _parse(text: str) -> Wanted:
    if len(text) > _LONGEST:
        raise InvalidRequest(f"a filter of {len(text)} characters is too long: {_LONGEST} at most")
    if not text:
        return lambda snapshot: True
    selectors, at = [], 0
    while True:
        selector, at = _selector(text, at)
        selectors.append(selector)
        if at == len(text):
            return lambda snapshot: all(fits(snapshot) for fits in selectors)
        if text[at] != ",":
            raise _nonsense(text, at)
        at += 1


def _selector(text: str, at: int) -> tuple[Wanted, int]:
    path, at = _path(text, at)
    operator = _OPERATOR.match(text, at)
    if operator is None:
        return (lambda snapshot: bool(_field(snapshot, path))), at
    value = _VALUE.match(text, operator.end())
    if value is None:
        raise _nonsense(text, operator.end())
    compare = _comparison(operator[0], _unquoted(value[0], text))
    return (lambda snapshot: compare(_field(snapshot, path) or "")), value.end()


def _path(text: str, at: int) -> tuple[list[str], int]:
    path: list[str] = []
    while True:
        field = _FIELD.match(text, at)
        if field is None:
            raise _nonsense(text, at)
        path.append(_unquoted(field[0], text))
        at = field.end()
        if not text.startswith(".", at):
            return path, at
        at += 1


def _field(snapshot: Snapshot, path: list[str]) -> str | None:
    match path:
        case ["name"]:
            return snapshot.name
        case ["parent"]:
            return snapshot.parent
        case ["kind"]:
            return snapshot.kind.name.lower()
        case ["labels", *name]:
            return snapshot.labels.get(".".join(name))
    return None


def _comparison(operator: str, value: str) -> Callable[[str], bool]:
    if operator == "==":
        return lambda said: said == value
    if operator == "!=":
        return lambda said: said != value
    if len(value) > _LONGEST_EXPRESSION:
        raise InvalidRequest(f"a regular expression of {len(value)} characters is too long")
    try:
        expression = re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidRequest(f"{shown(value)} is not a regular expression: {error}") from error
    return lambda said: expression.search(said) is not None


def _unquoted(word: str, text: str) -> str:
    if not word.startswith('"'):
        return word
    try:
        return str(ast.literal_eval(word))
    except (SyntaxError, ValueError) as error:
        raise InvalidRequest(f"filter {shown(text)}: {shown(word)} is not well quoted") from error


def _nonsense(text: str, at: int) -> InvalidRequest:
    return InvalidRequest(f"filter {shown(text)} can't be read from its character {at + 1} on")

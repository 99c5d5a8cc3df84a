"""JSON from a registry, read so that no two readers can disagree about it.

What other readers settle silently is refused: duplicate keys, NaN, numbers without bound, byte order marks, lone
surrogates, NUL, trailing bytes, any depth that exhausts the stack. `Fields` then hands out values of the type asked
for. Keys are compared exactly, and one that differs from a known key only by case is refused, for Go's reader takes it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from ducc.errors import DuccError

MAX_BYTES = 4 * 1024 * 1024
_MAX_DIGITS = 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class MalformedDocument(DuccError):
    """A JSON document of an image cannot be trusted to mean one thing."""

    exit_code = 41


def read_object(data: bytes, source: str, limit: int = MAX_BYTES) -> "Fields":
    """Parse *data*, which must be one JSON object. *source* names it in errors."""
    value = read_json(data, source, limit)
    if not isinstance(value, dict):
        raise MalformedDocument(f"{source}: a JSON object was expected, not {_kind(value)}")
    return Fields(value, source)


def read_json(data: bytes, source: str, limit: int = MAX_BYTES) -> object:
    """Parse *data* strictly."""
    if len(data) > limit:
        raise MalformedDocument(f"{source}: longer than {limit} bytes")
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_bounded_integer,
            parse_float=_finite_float,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise MalformedDocument(f"{source}: nested too deep") from None
    except ValueError as error:
        raise MalformedDocument(f"{source}: not valid JSON: {ascii(str(error))[1:-1][:200]}") from error
    return value


class Fields:
    """One JSON object, asked for values of a type. `null` is the same as absent, as it is to Go's reader."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.source = source
        self._values = values
        self._keys: dict[str, list[str]] = {}
        for key in values:
            self._keys.setdefault(key.lower(), []).append(key)

    def has(self, key: str) -> bool:
        """Is the key there, be it with the value `null`?"""
        if self._keys.get(key.lower(), [key]) != [key]:
            raise MalformedDocument(f"{self.source}: {key!r} is also written in other capitals")
        return key in self._values

    def get(self, key: str) -> Any:
        """The value of whatever type, or None."""
        return self._values[key] if self.has(key) else None

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required unless there is a *default*."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        return self._as_text(value, key)

    def integer(self, key: str) -> int:
        """A required integer (`1.0` and `true` are none)."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "an integer", value)
        return value

    def child(self, key: str) -> "Fields | None":
        """An object, or None when absent."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Fields(value, f"{self.source}: {key}")

    def children(self, key: str) -> "list[Fields]":
        """The objects of an array; empty when absent."""
        return [Fields(item, f"{self.source}: {key}[{n}]") for n, item in enumerate(self._array(key, dict, "objects"))]

    def texts(self, key: str) -> tuple[str, ...] | None:
        """The strings of an array, or None when absent."""
        if self.get(key) is None:
            return None
        return tuple(self._as_text(item, key) for item in self._array(key, str, "strings"))

    def text_map(self, key: str) -> dict[str, str]:
        """An object whose values are strings (labels, annotations); empty when absent."""
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return {self._as_text(name, key): self._as_text(text, key) for name, text in value.items()}

    def _array(self, key: str, kind: type, kinds: str) -> list[Any]:
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise self._wrong(key, f"an array of {kinds}", value)
        return value

    def _as_text(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        if "\0" in value:
            raise MalformedDocument(f"{self.source}: {key!r} holds a NUL character")
        return value

    def _wrong(self, key: str, expected: str, value: object) -> MalformedDocument:
        return MalformedDocument(f"{self.source}: {key!r} must be {expected}, not {_kind(value)}")


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return values


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not a number in JSON")


def _bounded_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number without bound")
    return value


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", float: "a float"}
    if value is None:
        return "null or absent"
    return "an integer" if type(value) is int else names.get(type(value), "something else")

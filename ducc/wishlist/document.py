"""Documents: the bytes of a YAML file, checked and taken apart into nodes that know their places.

Stricter than YAML: aliases, deep nesting, byte order marks and foreign encodings are faults. The events of the document
are checked before it is built, because the C library follows nested brackets until its stack ends.
"""

from collections.abc import Iterator
from typing import Protocol

import yaml

from ducc.wishlist.wish import MAX_BYTES, Fault, MalformedWishlist

_TAG = "tag:yaml.org,2002:"

_MAX_DEPTH = 8
_KINDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a decimal number",
    "bool": "a boolean",
    "timestamp": "a date",
    "null": "empty",
}


class Mark(Protocol):
    """A place in a document, as either of the two YAML parsers tells it: from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def compose(data: bytes, path: str) -> yaml.Node:
    """The root node of the document; *path* names it in errors. Raises `MalformedWishlist`."""
    text = decoded(data, path)
    try:
        for fault in _structure_faults(text, path):
            raise MalformedWishlist([fault])
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"not valid YAML: {error.problem or error.context}"
        raise MalformedWishlist([fault_at(path, mark, reason)]) from error
    except yaml.YAMLError as error:
        raise MalformedWishlist([_unreadable_character(text, path)]) from error
    if root is None:
        raise MalformedWishlist([Fault(path, 1, 1, "the file is empty")])
    return root


def decoded(data: bytes, path: str) -> str:
    """The text of a file that people write: UTF-8, and not too long. Raises `MalformedWishlist`."""
    if len(data) > MAX_BYTES:
        raise MalformedWishlist([Fault(path, 1, 1, f"larger than {MAX_BYTES} bytes: this is no wishlist")])
    if data.startswith(b"\xef\xbb\xbf"):
        raise MalformedWishlist([Fault(path, 1, 1, "begins with a byte order mark: save it as UTF-8 without one")])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise MalformedWishlist([Fault(path, line, column, "not UTF-8")]) from error


def fault_at(path: str, mark: Mark | None, text: str) -> Fault:
    """A fault at the place that the YAML parser tells, if it does."""
    return Fault(path, mark.line + 1, mark.column + 1, text) if mark else Fault(path, 1, 1, text)


def last_line(node: yaml.Node) -> int:
    """The last line with something of *node*, from 1; its own end mark is where the next token begins."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        final = node.value[-1]
        return last_line(final[1] if isinstance(final, tuple) else final)
    mark = node.end_mark
    return max(mark.line + (mark.column > 0), node.start_mark.line + 1)


def is_text(node: yaml.Node) -> bool:
    """Is it a string, and not what only looks like one?"""
    return is_scalar(node, "str")


def is_scalar(node: yaml.Node, kind: str) -> bool:
    """Is it one value, of that kind in YAML's words?"""
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + kind


def is_null(node: yaml.Node) -> bool:
    return bool(node.tag == f"{_TAG}null")


def kind(node: yaml.Node) -> str:
    """What it is, in words."""
    name = node.tag.removeprefix(_TAG)
    if not node.tag.startswith(_TAG) or name.startswith("python"):
        return f"something tagged {ascii(node.tag)[1:-1][:50]}"
    if isinstance(node, yaml.ScalarNode):
        return _KINDS.get(name, name)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _structure_faults(text: str, path: str) -> Iterator[Fault]:
    """What must not even be built: deep nesting, and aliases, which no wishlist needs."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            yield fault_at(path, event.start_mark, "aliases are not supported: write the value out")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                yield fault_at(path, event.start_mark, "nested too deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _unreadable_character(text: str, path: str) -> Fault:
    """Place the first character that YAML does not allow; its reader tells only the offset."""
    for line, content in enumerate(text.split("\n"), 1):
        for column, character in enumerate(content, 1):
            if not character.isprintable() and character not in "\t\r\x85\ufeff":
                return Fault(path, line, column, f"the character {character!a} is not allowed")
    return Fault(path, 1, 1, "holds a character that is not allowed")

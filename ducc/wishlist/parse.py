"""Wishlists, schema version 1: YAML to wishes.

    version: 1
    user: publisher                                              # optional: who pushes thin images
    cvmfs_repo: unpacked.example.org
    output_format: $(scheme)://thin.example.org/thin/$(image)    # optional: how thin images are named
    input:
      - https://registry.example.org/project/image:tag
      - https://registry.example.org/project/other:2.*

Stricter than YAML: unknown keys, equal keys, aliases, and values that are not the strings they look like (`3.10` is a
number) are faults, not surprises. The events of the document are checked before it is built, because the C library
follows nested brackets until its stack ends.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from ducc.errors import BadInput, DuccError
from ducc.image.reference import Reference, shown
from ducc.wishlist.template import check_template

MAX_BYTES = 4 * 1024 * 1024
KEYS = ("version", "user", "cvmfs_repo", "output_format", "input")

_MAX_DEPTH = 8
_MAX_NAME_LENGTH = 100
_REPOSITORY_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)+")
_TAG = "tag:yaml.org,2002:"
_KINDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a decimal number",
    "bool": "a boolean",
    "timestamp": "a date",
    "null": "empty",
}


class _Mark(Protocol):
    """A place in a document, as either of the two YAML parsers tells it: from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of a wishlist; lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class MalformedWishlist(BadInput):
    """A wishlist that can't be used as a whole. The text has one line for each fault."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


class UnreadableWishlist(BadInput):
    """The file of a wishlist can't be opened or read."""


class WrongType(BadInput):
    """A line of `input` is not a string."""


class DuplicateWish(BadInput):
    """A line of `input` names an image, or a place for one, that an earlier line has."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One line of `input`: an image, or with a wildcard many, that a repository is to hold."""

    reference: Reference
    fqrn: str
    user: str | None
    output_format: str | None
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class BrokenWish:
    """One line of `input` that can't be granted as it is written; the others are not concerned."""

    line: int
    column: int
    text: str  # as far as it can be shown
    error: DuccError
    file: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.error}"


@dataclass(frozen=True, slots=True)
class Wishlist:
    """The wishes of one file, in its order."""

    path: str
    fqrn: str
    wishes: tuple[Wish, ...]
    broken: tuple[BrokenWish, ...]


def read_wishlist(path: Path) -> Wishlist:
    """Parse the file at *path*. Raises `UnreadableWishlist` or `MalformedWishlist`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableWishlist(f"{path}: cannot be read: {error.strerror}") from error
    return parse_wishlist(data, str(path))


def parse_wishlist(data: bytes, path: str) -> Wishlist:
    """Parse the text of a wishlist; *path* names it in errors. Raises `MalformedWishlist` with all faults."""
    reader = _Reader(path)
    root = _compose(_decoded(data, path), path)
    fields = reader.mapping(root)
    reader.version(fields.get("version"))
    user = reader.text(fields.get("user"), "user")
    output_format = reader.output_format(fields.get("output_format"))
    fqrn = reader.fqrn(fields.get("cvmfs_repo"), root)
    items = reader.items(fields.get("input"), root)
    if reader.faults:
        raise MalformedWishlist(sorted(reader.faults, key=lambda fault: (fault.line, fault.column)))
    wishes, broken = _grant_lines(items, fqrn, user, output_format, path)
    return Wishlist(path, fqrn, tuple(wishes), tuple(broken))


class _Reader:
    """Takes the values out of the nodes and collects the faults, so that all are told at once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.faults: list[Fault] = []

    def fault(self, node: yaml.Node, text: str) -> None:
        self.faults.append(_fault_at(self.path, node.start_mark, text))

    def mapping(self, root: yaml.Node) -> dict[str, yaml.Node]:
        """The values by key. Unknown keys and all but the first of equal keys are faults."""
        if not isinstance(root, yaml.MappingNode):
            raise MalformedWishlist(
                [_fault_at(self.path, root.start_mark, "a wishlist is a mapping of keys to values")]
            )
        fields: dict[str, yaml.Node] = {}
        for key, value in root.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in KEYS:
                self.fault(key, f"unknown key {ascii(name)[:50]}: a wishlist has {', '.join(KEYS)}")
            elif name in fields:
                self.fault(key, f"the key {name!r} stands here for the second time")
            else:
                fields[name] = value
        return fields

    def version(self, node: yaml.Node | None) -> None:
        if node is not None and (node.tag != f"{_TAG}int" or node.value != "1"):
            self.fault(node, "version must be 1, the only version of the schema")

    def text(self, node: yaml.Node | None, key: str) -> str | None:
        """A string, or None when there is none."""
        if node is None or node.tag == f"{_TAG}null":
            return None
        if not _is_text(node):
            self.fault(node, f"{key} must be a string, not {_kind(node)}: write it in quotes")
            return None
        return str(node.value)

    def fqrn(self, node: yaml.Node | None, root: yaml.Node) -> str:
        name = self.text(node, "cvmfs_repo")
        if node is None or (name is None and node.tag == f"{_TAG}null"):
            self.fault(node or root, "cvmfs_repo is missing: name the repository that the images go to")
        elif name is not None and (reason := _fqrn_fault(name)):
            self.fault(node, reason)
        return name or ""

    def output_format(self, node: yaml.Node | None) -> str | None:
        """The template, or None: an empty one stands for none, as in lists that have never made thin images."""
        template = self.text(node, "output_format") or None
        if node is not None and template is not None:
            try:
                check_template(template)
            except BadInput as error:
                self.fault(node, str(error))
        return template

    def items(self, node: yaml.Node | None, root: yaml.Node) -> list[yaml.Node]:
        if node is None:
            self.fault(root, "input is missing: list the images")
        elif isinstance(node, yaml.SequenceNode):
            return list(node.value)
        elif node.tag != f"{_TAG}null":
            self.fault(node, f"input must be a list of image references, not {_kind(node)}")
        return []


def _grant_lines(
    items: list[yaml.Node], fqrn: str, user: str | None, output_format: str | None, path: str
) -> tuple[list[Wish], list[BrokenWish]]:
    wishes: list[Wish] = []
    broken: list[BrokenWish] = []
    seen: dict[tuple[str, str, str], int] = {}
    for item in items:
        line = item.start_mark.line + 1
        try:
            reference = _reference(item)
            _refuse_duplicate(reference, line, seen)
            wishes.append(Wish(reference, fqrn, user, output_format, path, line))
        except DuccError as error:
            text = shown(item.value) if _is_text(item) else _kind(item)
            broken.append(BrokenWish(line, item.start_mark.column + 1, text, error, path))
    return wishes, broken


def _reference(item: yaml.Node) -> Reference:
    if not _is_text(item):
        raise WrongType(f"an image reference must be a string, not {_kind(item)}")
    return Reference.parse(item.value)


def _refuse_duplicate(reference: Reference, line: int, seen: dict[tuple[str, str, str], int]) -> None:
    """Two references that would be shown at one path are duplicates, whatever their scheme or digest."""
    place = (reference.registry, reference.repository, reference.tag or str(reference.digest))
    first = seen.setdefault(place, line)
    if first != line:
        raise DuplicateWish(f"{reference}: line {first} has the same image name")


def _fqrn_fault(name: str) -> str | None:
    printable = ascii(name)[1:-1][:_MAX_NAME_LENGTH]
    if "/" in name:
        return f"{printable}: publishing below a directory is not supported: name the repository alone"
    if len(name) > _MAX_NAME_LENGTH or not _REPOSITORY_NAME.fullmatch(name):
        return f"{printable}: not a fully qualified repository name such as unpacked.example.org"
    return None


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}str"


def _kind(node: yaml.Node) -> str:
    kind = node.tag.removeprefix(_TAG)
    if not node.tag.startswith(_TAG) or kind.startswith("python"):
        return f"something tagged {ascii(node.tag)[1:-1][:50]}"
    if isinstance(node, yaml.ScalarNode):
        return _KINDS.get(kind, kind)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _decoded(data: bytes, path: str) -> str:
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


def _compose(text: str, path: str) -> yaml.Node:
    try:
        for fault in _structure_faults(text, path):
            raise MalformedWishlist([fault])
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"not valid YAML: {error.problem or error.context}"
        raise MalformedWishlist([_fault_at(path, mark, reason)]) from error
    except yaml.YAMLError as error:
        raise MalformedWishlist([_unreadable_character(text, path)]) from error
    if root is None:
        raise MalformedWishlist([Fault(path, 1, 1, "the file is empty")])
    return root


def _structure_faults(text: str, path: str) -> Iterator[Fault]:
    """What must not even be built: deep nesting, and aliases, which no wishlist needs."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            yield _fault_at(path, event.start_mark, "aliases are not supported: write the value out")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                yield _fault_at(path, event.start_mark, "nested too deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _unreadable_character(text: str, path: str) -> Fault:
    """Place the first character that YAML does not allow; its reader tells only the offset."""
    for line, content in enumerate(text.split("\n"), 1):
        for column, character in enumerate(content, 1):
            if not character.isprintable() and character not in "\t\r\x85\ufeff":
                return Fault(path, line, column, f"the character {character!a} is not allowed")
    return Fault(path, 1, 1, "holds a character that is not allowed")


def _fault_at(path: str, mark: _Mark | None, text: str) -> Fault:
    return Fault(path, mark.line + 1, mark.column + 1, text) if mark else Fault(path, 1, 1, text)

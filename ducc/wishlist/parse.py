"""Wishlists, schema version 1: YAML to wishes.

    version: 1
    user: publisher                                              # optional: who pushes thin images
    cvmfs_repo: unpacked.example.org
    output_format: $(scheme)://thin.example.org/thin/$(image)    # optional: how thin images are named
    ignoreErrors: ['*/nightly:*']                                # optional: images whose failure changes no exit status
    defaults: {keep: forever}                                    # optional: settings of all items (ducc.wishlist.item)
    input:
      - https://registry.example.org/project/image:tag
      - {image: 'https://registry.example.org/project/other:2.*', priority: 10}

Stricter than YAML: unknown keys, equal keys, aliases, and values that are not the strings they look like (`3.10` is a
number) are faults, not surprises. A fault in an item breaks that item; any other, the whole.
"""

import re
from dataclasses import replace
from fnmatch import fnmatchcase

import yaml

from ducc.errors import BadInput, DuccError
from ducc.image.reference import Reference, shown
from ducc.wishlist.document import compose, is_null, is_scalar, is_text, kind, last_line
from ducc.wishlist.fields import Reader
from ducc.wishlist.item import ITEM_KEYS, SETTINGS, read_settings
from ducc.wishlist.settings import WishSettings
from ducc.wishlist.template import check_template
from ducc.wishlist.wish import (
    BadSetting,
    BrokenWish,
    Fault,
    MalformedWishlist,
    Places,
    Wish,
    Wishlist,
    WrongType,
)

KEYS = ("version", "user", "cvmfs_repo", "output_format", "input", "ignoreErrors", "defaults")

_MAX_NAME_LENGTH = 100
_MAX_GLOB_LENGTH = 300
_REPOSITORY_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)+")


def parse_wishlist(data: bytes, path: str) -> Wishlist:
    """Parse the text of a wishlist; *path* names it in errors. Raises `MalformedWishlist` with all faults."""
    root = compose(data, path)
    reader = Reader(path)
    fields = reader.mapping(root, KEYS, "a wishlist")
    if not isinstance(root, yaml.MappingNode):
        raise MalformedWishlist(reader.faults)
    _check_version(reader, fields.get("version"))
    user = reader.text_or_none(fields.get("user"), "user")
    output_format = _output_format(reader, fields.get("output_format"))
    fqrn = _fqrn(reader, fields.get("cvmfs_repo"), root)
    items = _items(reader, fields.get("input"), root)
    ignored = _ignored(reader, fields.get("ignoreErrors"))
    defaults, shared_lines = _defaults(reader, fields.get("defaults"))
    if reader.faults:
        raise MalformedWishlist(sorted(reader.faults, key=lambda fault: (fault.line, fault.column)))
    author = _Author(path, fqrn, user, output_format, defaults, ignored)
    made = [author.wish(item) for item in items]
    return Wishlist(
        path,
        fqrn,
        tuple(one for one in made if isinstance(one, Wish)),
        tuple(one for one in made if isinstance(one, BrokenWish)),
        shared_lines,
    )


class _Author:
    """Makes wishes of the items of one file."""

    def __init__(
        self,
        path: str,
        fqrn: str,
        user: str | None,
        output_format: str | None,
        defaults: WishSettings,
        ignored: tuple[str, ...],
    ) -> None:
        self._path, self._fqrn, self._user, self._output_format = path, fqrn, user, output_format
        self._defaults, self._ignored = defaults, ignored
        self._places = Places()

    def wish(self, item: yaml.Node) -> Wish | BrokenWish:
        """The wish that an item is, or why it is none."""
        line, end, reader = item.start_mark.line + 1, last_line(item), Reader(self._path)
        try:
            written, settings = self._read(reader, item)
            if reader.faults:
                return _broken_settings(reader.faults, shown(written), end)
            reference = Reference.parse(written)
            self._places.take(reference, line)
        except DuccError as error:
            text = shown(_image(item).value) if is_text(_image(item)) else kind(item)
            return BrokenWish(line, item.start_mark.column + 1, text, error, self._path, end)
        if any(fnmatchcase(name, glob) for glob in self._ignored for name in (written, str(reference))):
            settings = replace(settings, ignore_errors=True)
        return Wish(reference, self._fqrn, self._user, self._output_format, self._path, line, settings, end)

    def _read(self, reader: Reader, item: yaml.Node) -> tuple[str, WishSettings]:
        """What is written as the image, and the settings. Raises `WrongType`; other faults are the reader's."""
        if is_text(item):
            return item.value, self._defaults
        if not isinstance(item, yaml.MappingNode):
            raise WrongType(f"an image reference must be a string, not {kind(item)}")
        fields = reader.mapping(item, ITEM_KEYS, "an item")
        if "image" not in fields:
            reader.fault(item, "image is missing: name the image")
        written = reader.text(fields["image"], "image") if "image" in fields else ""
        if "tags" in fields and "*" not in written:
            reader.fault(fields["tags"], "tags choose among those that match a *, and the image has none")
        return written, read_settings(reader, fields, self._defaults)


def _broken_settings(faults: list[Fault], text: str, end: int) -> BrokenWish:
    first = faults[0]
    error = BadSetting("; ".join(fault.text for fault in faults))
    return BrokenWish(first.line, first.column, text, error, first.file, end)


def _image(item: yaml.Node) -> yaml.Node:
    """The node that should hold the reference."""
    if isinstance(item, yaml.MappingNode):
        return next((value for key, value in item.value if key.value == "image"), item)
    return item


def _check_version(reader: Reader, node: yaml.Node | None) -> None:
    if node is not None and not (is_scalar(node, "int") and node.value == "1"):
        reader.fault(node, "version must be 1, the only version of the schema")


def _output_format(reader: Reader, node: yaml.Node | None) -> str | None:
    """The template, or None: an empty one stands for none, as in lists that have never made thin images."""
    template = reader.text_or_none(node, "output_format") or None
    if node is not None and template is not None:
        try:
            check_template(template)
        except BadInput as error:
            reader.fault(node, str(error))
    return template


def _fqrn(reader: Reader, node: yaml.Node | None, root: yaml.Node) -> str:
    if node is None or is_null(node):
        reader.fault(node or root, "cvmfs_repo is missing: name the repository that the images go to")
        return ""
    name = reader.text(node, "cvmfs_repo")
    if is_text(node) and (reason := _fqrn_fault(name)):
        reader.fault(node, reason)
    return name


def _fqrn_fault(name: str) -> str | None:
    printable = ascii(name)[1:-1][:_MAX_NAME_LENGTH]
    if "/" in name:
        return f"{printable}: publishing below a directory is not supported: name the repository alone"
    if len(name) > _MAX_NAME_LENGTH or not _REPOSITORY_NAME.fullmatch(name):
        return f"{printable}: not a fully qualified repository name such as unpacked.example.org"
    return None


def _items(reader: Reader, node: yaml.Node | None, root: yaml.Node) -> list[yaml.Node]:
    if node is None:
        reader.fault(root, "input is missing: list the images")
    elif isinstance(node, yaml.SequenceNode):
        return list(node.value)
    elif not is_null(node):
        reader.fault(node, f"input must be a list of image references, not {kind(node)}")
    return []


def _ignored(reader: Reader, node: yaml.Node | None) -> tuple[str, ...]:
    """The shell's patterns that name images."""
    if node is None or is_null(node) or node.value == []:
        return ()
    globs = reader.texts(node, "ignoreErrors")
    for item, glob in globs:
        if len(glob) > _MAX_GLOB_LENGTH:
            reader.fault(item, f"ignoreErrors: a pattern has at most {_MAX_GLOB_LENGTH} characters")
    return tuple(glob for _, glob in globs)


def _defaults(reader: Reader, node: yaml.Node | None) -> tuple[WishSettings, tuple[int, int] | None]:
    """The settings of items that say nothing else, and the lines that say so."""
    if node is None:
        return WishSettings(), None
    settings = read_settings(reader, reader.mapping(node, SETTINGS, "defaults"), WishSettings())
    return settings, (node.start_mark.line + 1, last_line(node))

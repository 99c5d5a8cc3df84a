"""Items of `input`, and `defaults`: nodes to settings.

- registry.example.org/name:tag                       # the image alone, as ever
- image: registry.example.org/name:*                  # with settings; all but the image may be left out
  platforms: [linux/amd64, linux/arm64]               # or: all
  products: [layers, flat]
  credentials: robot                                  # a name in the operator's registries
  keep: 90d                                           # or: forever
  priority: 10
  ignore_errors: true
  tags: {newest: 5, by: version, semver: ">=1.2 <3", max_age: 90d, exclude: ["*-rc*"]}
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import yaml

from ducc.errors import BadInput
from ducc.image.manifest import Platform
from ducc.image.platform import normalised
from ducc.wishlist.document import is_text
from ducc.wishlist.fields import Reader
from ducc.wishlist.settings import (
    ALL_PLATFORMS,
    FOREVER,
    HIGHEST_PRIORITY,
    ORDERS,
    PRODUCTS,
    TagFilter,
    WishSettings,
)

if TYPE_CHECKING:
    from ducc.wishlist.versions import VersionRange

SETTINGS = ("platforms", "products", "credentials", "keep", "priority", "ignore_errors", "tags")
ITEM_KEYS = ("image", *SETTINGS)
TAG_KEYS = ("newest", "by", "semver", "max_age", "exclude")
MOST_TAGS = 100_000  # that anybody may ask for

_DURATION = re.compile(r"(?P<count>[1-9][0-9]{0,4})(?P<unit>[hdw])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TAG_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,128}")


def read_settings(reader: Reader, fields: Mapping[str, yaml.Node], defaults: WishSettings) -> WishSettings:
    """The settings among *fields*; those that are not there are the *defaults*. Each is replaced as a whole."""
    changes = {key: _READERS[key](reader, node) for key, node in fields.items() if key in _READERS}
    return replace(defaults, **changes)


def _platforms(reader: Reader, node: yaml.Node) -> tuple[Platform, ...] | None:
    if is_text(node) and node.value == "all":
        return ALL_PLATFORMS
    platforms = []
    for item, text in reader.texts(node, "platforms (unless it is: all)"):
        try:
            platforms.append(normalised(Platform.parse(text)))
        except BadInput as error:
            reader.fault(item, f"platforms: {error}")
    return tuple(dict.fromkeys(platforms))


def _products(reader: Reader, node: yaml.Node) -> frozenset[str]:
    products = reader.texts(node, "products")
    for item, text in products:
        if text not in PRODUCTS:
            reader.fault(item, f"products: {ascii(text)[:50]} is none of {', '.join(PRODUCTS)}")
    return frozenset(text for _, text in products)


def _credentials(reader: Reader, node: yaml.Node) -> str:
    name = reader.text(node, "credentials")
    if is_text(node) and not _NAME.fullmatch(name):
        reader.fault(node, "credentials: write the name that the operator gave them; no user, no password")
    return name


def _keep(reader: Reader, node: yaml.Node) -> timedelta:
    if is_text(node) and node.value == "forever":
        return FOREVER
    return _duration(reader, node, "keep")


def _priority(reader: Reader, node: yaml.Node) -> int:
    return reader.integer(node, "priority", -HIGHEST_PRIORITY, HIGHEST_PRIORITY)


def _ignore_errors(reader: Reader, node: yaml.Node) -> bool:
    return reader.boolean(node, "ignore_errors")


def _tags(reader: Reader, node: yaml.Node) -> TagFilter:
    fields = reader.mapping(node, TAG_KEYS, "tags")
    changes = {key: _TAG_READERS[key](reader, value) for key, value in fields.items()}
    return TagFilter(**changes)


def _newest(reader: Reader, node: yaml.Node) -> int:
    return reader.integer(node, "newest", 1, MOST_TAGS)


def _by(reader: Reader, node: yaml.Node) -> str:
    text = reader.text(node, "by")
    if is_text(node) and text not in ORDERS:
        reader.fault(node, f"by: {ascii(text)[:50]} is none of {', '.join(ORDERS)}")
    return text


def _semver(reader: Reader, node: yaml.Node) -> "VersionRange | None":
    from ducc.wishlist.versions import MalformedRange, VersionRange  # as in `ducc.wishlist.settings`: takes long

    text = reader.text(node, "semver")
    try:
        return VersionRange.parse(text) if is_text(node) else None
    except MalformedRange as error:
        reader.fault(node, f"semver: {error}")
        return None


def _max_age(reader: Reader, node: yaml.Node) -> timedelta:
    return _duration(reader, node, "max_age")


def _exclude(reader: Reader, node: yaml.Node) -> tuple[str, ...]:
    patterns = reader.texts(node, "exclude")
    for item, text in patterns:
        if not _TAG_PATTERN.fullmatch(text):
            reader.fault(item, f"exclude: {ascii(text)[:50]} is not a tag, nor one with *")
    return tuple(text for _, text in patterns)


def _duration(reader: Reader, node: yaml.Node, key: str) -> timedelta:
    match = _DURATION.fullmatch(node.value) if is_text(node) else None
    if match is None:
        reader.fault(node, f"{key} must be hours, days or weeks, such as 12h, 90d or 8w")
        return timedelta()
    return timedelta(hours=int(match["count"]) * _HOURS[match["unit"]])


_READERS: dict[str, Callable[[Reader, yaml.Node], Any]] = {
    "platforms": _platforms,
    "products": _products,
    "credentials": _credentials,
    "keep": _keep,
    "priority": _priority,
    "ignore_errors": _ignore_errors,
    "tags": _tags,
}
_TAG_READERS: dict[str, Callable[[Reader, yaml.Node], Any]] = {
    "newest": _newest,
    "by": _by,
    "semver": _semver,
    "max_age": _max_age,
    "exclude": _exclude,
}

"""Tags as versions: their order, and ranges of them.

A tag is a version if it begins like one: `3.11`, `v1.10.2`, `1.2.3-rc1`, `3.11-slim`. What follows the numbers is a
pre-release if it says so (alpha, beta, rc, dev …) and else a variant, which has no part in comparisons with a range.
Versions are ordered as `packaging` orders them, variants of one version, and tags that are no versions, by their text
with runs of digits read as numbers. Pure: no I/O.

    >=1.2 <3        both; a comma may stand between them          ^1.2    1.2 or newer, below 2
    1.2, =1.2.x     1.2 and all 1.2.…                             ~1.2.3  1.2.3 or newer, below 1.3
    >1.2, <=1.2     newer than all 1.2.…; no newer than they      || between alternatives

Pre-releases are in a range only if the range names one: `>=2.0-rc1`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ducc.errors import BadInput

MAX_RANGE_LENGTH = 200

_STAGES = {"preview": "rc", "pre": "rc", "c": "rc", "dev": ".dev"}  # as packaging spells them; the others stay
_VERSION = re.compile(
    r"v?(?P<release>[0-9]+(?:\.[0-9]+)*)"
    r"(?:[._-]?(?P<stage>alpha|beta|preview|pre|rc|dev|a|b|c)[._-]?(?P<number>[0-9]*))?"
    r"(?P<variant>(?:[._+-].*)?)",
    re.IGNORECASE,
)
_COMPARATOR = re.compile(r"(?P<operator>>=|<=|!=|==|>|<|=|\^|~|)(?P<version>v?[0-9][0-9A-Za-z.*_-]*)")
_SPACE_AFTER_OPERATOR = re.compile(r"(?<=[<>=^~])\s+")
_PARTS_OF_A_WHOLE_VERSION = 3

Order = tuple[bool, Version, tuple[str | int, ...], str]


class MalformedRange(BadInput):
    """A text that should say which versions are wanted does not."""


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Which versions are wanted: each of some alternatives is a set of conditions."""

    text: str
    alternatives: tuple[SpecifierSet, ...] = field(compare=False, repr=False)
    with_prereleases: bool = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> "VersionRange":
        """Read a range as people write it. Raises `MalformedRange`."""
        if len(text) > MAX_RANGE_LENGTH or not text.isascii() or not text.isprintable():
            raise MalformedRange("a range of versions is a short line such as >=1.2 <3")
        tight = _SPACE_AFTER_OPERATOR.sub("", text)
        alternatives = tuple(_specifiers(part) for part in tight.split("||"))
        named = (specifier.prereleases for specifiers in alternatives for specifier in specifiers)
        return cls(text, alternatives, any(named))

    def has(self, tag: str) -> bool:
        """Is *tag* a version within the range?"""
        version = version_of(tag)
        return version is not None and any(
            specifiers.contains(version, prereleases=self.with_prereleases) for specifiers in self.alternatives
        )


def version_of(tag: str) -> Version | None:
    """The version that *tag* begins with, without its variant; None if it begins with none."""
    match = _VERSION.fullmatch(tag)
    return _version(match) if match else None


def order(tag: str) -> Order:
    """What to sort tags by, oldest first; tags that are no versions come before all that are."""
    version = version_of(tag)
    parts = re.split("([0-9]+)", tag)
    natural = tuple(int(part) if index % 2 else part for index, part in enumerate(parts))
    return version is not None, version or Version("0"), natural, tag


def _version(match: re.Match[str]) -> Version:
    stage = (match["stage"] or "").lower()
    suffix = f"{_STAGES.get(stage, stage)}{match['number'] or 0}" if stage else ""
    return Version(match["release"] + suffix)


def _specifiers(text: str) -> SpecifierSet:
    words = text.replace(",", " ").split()
    if not words:
        raise MalformedRange("a range of versions, or one of its alternatives, is empty: write for example >=1.2 <3")
    return SpecifierSet(",".join(condition for word in words if word != "*" for condition in _conditions(word)))


def _conditions(word: str) -> Iterator[str]:
    """One comparison, in the words of `packaging`."""
    match = _COMPARATOR.fullmatch(word)
    named, any_below = re.subn(r"(?:\.[xX*])+$", "", match["version"]) if match else ("", 0)
    parsed = _VERSION.fullmatch(named)
    if match is None or parsed is None or parsed["variant"]:
        raise MalformedRange(f"{ascii(word)[1:-1][:50]}: not a comparison of versions such as >=1.2")
    version, operator = _version(parsed), match["operator"]
    release = version.release
    partial = any_below or (len(release) < _PARTS_OF_A_WHOLE_VERSION and not version.is_prerelease)
    if operator == "^":
        yield from (f">={version}", f"<{_above(release, _first_nonzero(release))}")
    elif operator == "~":
        yield from (f">={version}", f"<{_above(release, min(1, len(release) - 1))}")
    elif operator == ">" and partial:
        yield f">={_above(release, len(release) - 1)}"
    elif operator == "<=" and partial:
        yield f"<{_above(release, len(release) - 1)}"
    elif operator in ("", "=", "==", "!="):
        yield ("!=" if operator == "!=" else "==") + str(version) + (".*" if partial else "")
    else:
        yield f"{operator}{version}"


def _first_nonzero(release: tuple[int, ...]) -> int:
    return next((index for index, number in enumerate(release) if number), len(release) - 1)


def _above(release: tuple[int, ...], index: int) -> Version:
    """The lowest version above all that begin with the numbers up to *index*."""
    return Version(".".join(map(str, (*release[:index], release[index] + 1))))

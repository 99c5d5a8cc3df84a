"""What a layer says about the layers below it; published beside its tree, so that it can be grafted at any time."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes


@dataclass(frozen=True, slots=True)
class LayerNotes:
    """Paths inside the layer's tree, each list sorted bytewise.

    *implied*: directories that the layer has no entry for, only entries below; they keep what layers below say.
    *whiteouts*: names hidden. *opaque*: directories that hide all that layers below put there.
    *lower_links*: (path, target) of hard links to files of layers below; they are not in the layer's tree.
    """

    implied: tuple[bytes, ...] = ()
    whiteouts: tuple[bytes, ...] = ()
    opaque: tuple[bytes, ...] = ()
    lower_links: tuple[tuple[bytes, bytes], ...] = ()

    def hides_below(self, path: bytes) -> bool:
        """Is there a whiteout below *path*, or an opaque directory at or below it?"""
        return _any_below(self.whiteouts, path) or _any_below(self.opaque, path) or self.is_opaque(path)

    def is_opaque(self, path: bytes) -> bool:
        return _has(self.opaque, path)

    def implies(self, path: bytes) -> bool:
        return _has(self.implied, path)

    def is_hidden(self, path: bytes) -> bool:
        """Does a directory above *path* hide what layers below have there?"""
        while self.opaque and path:
            path = path.rpartition(b"/")[0]
            if self.is_opaque(path):
                return True
        return False

    def fits_anywhere(self) -> bool:
        """Is the layer's own tree what overlayfs needs of it on top of any layers?

        The root's attributes do not count: engines give a container's root their own.
        """
        implied = any(path and not self.is_hidden(path) for path in self.implied)
        return not (implied or self.lower_links or self.is_opaque(b""))

    def to_json(self) -> dict[str, Any]:
        """Return the notes as JSON values; bytes that are not plain text are percent-encoded."""
        return {
            "implied_directories": [_text(path) for path in self.implied],
            "whiteouts": [_text(path) for path in self.whiteouts],
            "opaque_directories": [_text(path) for path in self.opaque],
            "links_to_lower_layers": [[_text(path), _text(target)] for path, target in self.lower_links],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LayerNotes":
        return cls(
            _paths(values["implied_directories"]),
            _paths(values["whiteouts"]),
            _paths(values["opaque_directories"]),
            tuple(
                (unquote_to_bytes(path), unquote_to_bytes(target)) for path, target in values["links_to_lower_layers"]
            ),
        )


def _has(paths: Sequence[bytes], path: bytes) -> bool:
    at = bisect_left(paths, path)
    return at < len(paths) and paths[at] == path


def _any_below(paths: Sequence[bytes], path: bytes) -> bool:
    prefix = path + b"/"
    at = bisect_left(paths, prefix)
    return at < len(paths) and paths[at].startswith(prefix)


def _text(path: bytes) -> str:
    return quote_from_bytes(path, safe="/ !#$&'()*+,:;=?@[]^`{|}~<>\"\\")


def _paths(values: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(unquote_to_bytes(value) for value in values)

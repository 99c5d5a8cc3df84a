"""Thin images: what an image says that has no files of its own, only the places where its layers are published.

    {"version": "1.0", "origin": "<image>", "layers": [{"digest": "<hex>", "url": "cvmfs://<fqrn>/<path>"}, …]}

is its one file, `thin.json`; layers are base first. `min_version` says what a reader must know at least, `comment` is
for people. Whoever mounts such an image takes each layer's directory from the repository that the URL names. The file
comes from a registry, so nothing in it is believed that could lead out of a repository. Pure: no I/O.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ducc.cvmfs.fqrn import BadRepositoryName, require_fqrn
from ducc.image.digest import Digest, MalformedDigest
from ducc.image.manifest import MAX_LAYERS
from ducc.image.strictjson import Fields, MalformedDocument, read_object

FILE = "thin.json"
VERSION = "1.0"
MARK = "CVMFS_IMAGE=true"  # in the environment of every thin image
SCHEME = "cvmfs://"

_VERSION = re.compile(r"(?P<major>\d{1,4})(?:\.(?P<minor>\d{1,4}))?")
_NAME = re.compile(r"[A-Za-z0-9_+.:@-]{1,255}")


class MalformedThinImage(MalformedDocument):
    """A `thin.json` that says something else than where layers are."""


class LaterThinImage(MalformedThinImage):
    """A `thin.json` that only a later version of this program understands."""


@dataclass(frozen=True, slots=True)
class ThinLayer:
    """One layer: the digest that the registry knows it by, and the directory *path* of the repository *fqrn*."""

    digest: Digest
    fqrn: str
    path: str  # as in `/.layers/ab/ab…/layerfs`; every component is a plain name

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.fqrn}{self.path}"


@dataclass(frozen=True, slots=True)
class ThinImage:
    """What one `thin.json` says; *layers* go from the base up, *origin* is the image that they were made from."""

    origin: str
    layers: tuple[ThinLayer, ...]
    comment: str = ""

    @classmethod
    def parse(cls, data: bytes, source: str = FILE) -> "ThinImage":
        """Read a `thin.json`; *source* names it in errors. Raises `MalformedThinImage`."""
        try:
            fields = read_object(data, source)
            _refuse_later(fields)
            layers = tuple(map(_layer, fields.children("layers")))
            if len(layers) > MAX_LAYERS:
                raise MalformedThinImage(f"{source}: more than {MAX_LAYERS} layers")
            return cls(fields.text("origin", ""), layers, fields.text("comment", ""))
        except MalformedThinImage:
            raise
        except (MalformedDocument, MalformedDigest, BadRepositoryName) as error:
            raise MalformedThinImage(f"{source}: {str(error).removeprefix(f'{source}: ')}") from error

    def to_bytes(self) -> bytes:
        """The file: the same bytes for equal values."""
        values: dict[str, object] = {
            "version": VERSION,
            "origin": self.origin,
            "layers": [{"digest": layer.digest.hex, "url": layer.url} for layer in self.layers],
        }
        if self.comment:
            values["comment"] = self.comment
        return json.dumps(values, ensure_ascii=False).encode()


def _refuse_later(fields: Fields) -> None:
    """Refuse what asks for more than we know: a later major version, or a `min_version` above ours."""
    ours = _version(VERSION, fields.source)
    version = _version(fields.text("version"), fields.source)
    needed = _version(fields.text("min_version", "") or f"{version[0]}.0", fields.source)
    if needed > ours:
        raise LaterThinImage(f"{fields.source}: needs a reader of version {needed[0]}.{needed[1]}, this is {VERSION}")


def _version(text: str, source: str) -> tuple[int, int]:
    match = _VERSION.fullmatch(text)
    if match is None:
        raise MalformedThinImage(f"{source}: {ascii(text)[:50]} is not a version")
    return int(match["major"]), int(match["minor"] or 0)


def _layer(fields: Fields) -> ThinLayer:
    url = fields.text("url")
    if not url.startswith(SCHEME):
        raise MalformedThinImage(f"{fields.source}: a layer's url must begin with {SCHEME}")
    fqrn, _, path = url.removeprefix(SCHEME).partition("/")
    if not _is_plain(path.split("/")):
        raise MalformedThinImage(f"{fields.source}: a layer's url must be {SCHEME}<repository>/<directory>")
    return ThinLayer(_digest(fields.text("digest")), require_fqrn(fqrn), f"/{path}")


def _digest(text: str) -> Digest:
    """Digests stand here without the name of their hash; with it they are read, too."""
    return Digest.parse(text if ":" in text else f"sha256:{text}")


def _is_plain(names: Sequence[str]) -> bool:
    return all(_NAME.fullmatch(name) and name not in (".", "..") for name in names)

"""Manifests and indexes: what an image is made of, and its builds by platform.

Both keep the registry's bytes as they came: the digest is theirs, and they are published unchanged. Docker's schema 2
and OCI's forms are read alike. What is not an image that can be published whole (schema 1, artifacts, encrypted or
foreign layers) is refused under its own name. Sources: OCI image-spec, manifest.md, image-index.md, descriptor.md;
Docker's "Image Manifest Version 2, Schema 2". Pure: no I/O.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ducc.errors import BadInput, DuccError
from ducc.image.digest import Digest, MalformedDigest
from ducc.image.strictjson import Fields, MalformedDocument, read_object

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)

_SCHEMA_1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
_CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_LAYER_TYPES = (
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
)
_FOREIGN_LAYERS = ("application/vnd.docker.image.rootfs.foreign.", "application/vnd.oci.image.layer.nondistributable.")

_PLATFORM_PART = re.compile("[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")

MAX_LAYERS = 1000
_MAX_SIZE = 2**63 - 1


class MalformedManifest(DuccError):
    """A manifest or index breaks its own specification."""

    exit_code = 41


class UnsupportedImage(DuccError):
    """What the reference names is well formed, and is not an image that can be published."""

    exit_code = 42


class SchemaOneImage(UnsupportedImage):
    """A manifest of the signed first kind, which names layers but cannot be verified."""


class NotAnImage(UnsupportedImage):
    """An artifact: a chart, a signature, a plugin, a model … in the form of a manifest."""


class EncryptedLayer(UnsupportedImage):
    """A layer that only the holder of a key can read."""


class ForeignLayer(UnsupportedImage):
    """A layer that the registry does not hold: without it the image is incomplete."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """What a build runs on, as it is written: `normalised` in `ducc.image.platform` settles the spellings."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Read `linux/amd64` or `linux/arm/v7`."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(_PLATFORM_PART.fullmatch(part) for part in parts):
            raise BadInput(f"{ascii(text)[1:-1][:100]}: not a platform: write linux/amd64 or linux/arm/v7")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names one blob, manifest or index, and says how long it is. *size* is in bytes and at least 1."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES


@dataclass(frozen=True, slots=True)
class Manifest:
    """One build of an image. *layers* go from the base up."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Index:
    """The builds of an image, in the registry's order."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_manifest(raw: bytes, content_type: str = "", source: str = "") -> Manifest | Index:
    """Read a manifest or an index, whichever *raw* is.

    *content_type* is what the registry called it, if it did; *source* names it in errors, its digest by default.
    """
    digest = Digest.of(raw)
    source = source or f"manifest {digest}"
    fields = read_object(raw, source)
    try:
        media_type = _media_type(fields, content_type.partition(";")[0].strip().lower())
        if media_type in INDEX_TYPES:
            entries = tuple(_descriptor(entry) for entry in fields.children("manifests"))
            return Index(raw, digest, media_type, entries, fields.text_map("annotations"))
        config = _config_descriptor(fields)
        layers = _layers(fields)
        return Manifest(raw, digest, media_type, config, layers, fields.text_map("annotations"))
    except (MalformedDocument, MalformedDigest) as error:
        prefix = "" if isinstance(error, MalformedDocument) else f"{source}: "
        raise MalformedManifest(f"{prefix}{error}") from error


def _media_type(fields: Fields, content_type: str) -> str:
    """Settle what this is, from what it says and what the registry says; refuse what can be read in two ways."""
    said = fields.text("mediaType", default="")
    _refuse_other_kinds(fields, said or content_type)
    known = (*MANIFEST_TYPES, *INDEX_TYPES)
    if said and said not in known:
        raise NotAnImage(f"{fields.source}: not an image: its media type is {_shown(said)}")
    if said and content_type in known and said != content_type:
        raise MalformedManifest(f"{fields.source}: says it is {said}, the registry says {content_type}")
    has_layers, has_manifests = fields.has("layers"), fields.has("manifests")
    if has_layers == has_manifests:
        raise MalformedManifest(f"{fields.source}: must have either 'layers' or 'manifests'")
    by_content = OCI_INDEX if has_manifests else OCI_MANIFEST
    media_type = said or (content_type if content_type in known else by_content)
    if (media_type in INDEX_TYPES) != has_manifests:
        raise MalformedManifest(f"{fields.source}: is called {media_type} and has not its fields")
    return media_type


def _refuse_other_kinds(fields: Fields, media_type: str) -> None:
    version = fields.integer("schemaVersion") if fields.has("schemaVersion") else None
    if version == 1 or media_type in _SCHEMA_1_TYPES or fields.has("fsLayers"):
        raise SchemaOneImage(f"{fields.source}: schema 1 cannot be verified: push the image again with a newer tool")
    if media_type == _OCI_ARTIFACT:
        raise NotAnImage(f"{fields.source}: an OCI artifact, not an image")
    if version != 2:
        raise MalformedManifest(f"{fields.source}: schemaVersion must be 2")


def _config_descriptor(fields: Fields) -> Descriptor:
    child = fields.child("config")
    if child is None:
        raise MalformedManifest(f"{fields.source}: no 'config'")
    media_type = child.text("mediaType")
    if media_type not in _CONFIG_TYPES:
        kind = fields.text("artifactType", default="") or media_type
        raise NotAnImage(f"{fields.source}: an artifact of type {_shown(kind)}, not an image")
    return _descriptor(child)


def _layers(fields: Fields) -> tuple[Descriptor, ...]:
    children = fields.children("layers")
    if len(children) > MAX_LAYERS:
        raise UnsupportedImage(f"{fields.source}: {len(children)} layers, at most {MAX_LAYERS} are supported")
    for child in children:
        _refuse_unreadable_layer(child.source, child.text("mediaType"))
    return tuple(_descriptor(child) for child in children)


def _refuse_unreadable_layer(source: str, media_type: str) -> None:
    if media_type.endswith("+encrypted"):
        raise EncryptedLayer(f"{source}: the layer is encrypted ({_shown(media_type)})")
    if media_type.startswith(_FOREIGN_LAYERS):
        raise ForeignLayer(f"{source}: a foreign layer, which no registry holds: the image would be incomplete")
    if media_type not in _LAYER_TYPES:
        raise NotAnImage(f"{source}: {_shown(media_type)} is not a layer of an image")


def _descriptor(fields: Fields) -> Descriptor:
    size = fields.integer("size")
    if not 0 < size <= _MAX_SIZE:
        raise MalformedManifest(f"{fields.source}: a size of {size} bytes is not possible")
    return Descriptor(
        fields.text("mediaType"),
        Digest.parse(fields.text("digest")),
        size,
        _platform(fields.child("platform")),
        fields.text_map("annotations"),
    )


def _platform(fields: Fields | None) -> Platform | None:
    if fields is None:
        return None
    return Platform(fields.text("os", ""), fields.text("architecture", ""), fields.text("variant", ""))


def _shown(text: str) -> str:
    return ascii(text)[1:-1][:100]

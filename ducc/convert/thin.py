"""The thin product: an image in a registry that only says where the layers of a published image are.

It is made of what is published and of nothing else, so the same revision always makes the same bytes: whether a
registry has it already is one comparison of digests. Its config is the published image's own, whole, with the one
layer that holds `thin.json` in the place of the others, and with a mark in its environment. Docker's schema 2, since
that is what every engine that knows thin images reads.
"""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ducc import layout
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.errors import BadInput
from ducc.image.digest import Digest
from ducc.image.manifest import DOCKER_LIST, DOCKER_MANIFEST, Platform
from ducc.image.reference import Reference
from ducc.image.thin import FILE, MARK, ThinImage, ThinLayer
from ducc.registry.push import Document, Push
from ducc.wishlist.template import fill_template

_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class UnusableThinName(BadInput):
    """What `output_format` makes of an image's name can't be the name of its thin image."""


def thin_name(template: str, reference: Reference) -> Reference:
    """The name of an image's thin image, which is always a tag. Raises `MalformedTemplate`, `UnusableThinName`."""
    name = fill_template(template, reference)
    if name.tag is None:
        raise UnusableThinName(f"{reference}: output_format makes {name}: a thin image needs a tag, not a digest")
    if (name.registry, name.repository, name.tag) == (reference.registry, reference.repository, reference.tag):
        raise UnusableThinName(f"{reference}: output_format makes the image's own name, which would be overwritten")
    return replace(name, digest=None)


def thin_push(fqrn: str, reference: Reference, published: Published) -> Push | None:
    """The thin image of what is published under *reference*, with a build for each that is; None if nothing is."""
    records = published.builds(reference)
    whole = [record for record in records if record.build == layout.EVERY_CLIENT]
    builds = [made for record in whole or records if (made := _build(fqrn, reference, record, published))]
    if not builds:
        return None
    blobs = [blob for build in builds for blob in build.blobs]
    manifests = [build.manifest for build in builds]
    return Push(blobs, manifests if whole else [*manifests, _index(builds)])


@dataclass(frozen=True, slots=True)
class _Build:
    """One build's thin image."""

    manifest: Document
    platform: Platform
    blobs: tuple[bytes, ...]


def _build(fqrn: str, reference: Reference, record: ImageRecord, published: Published) -> _Build | None:
    config = published.file(layout.metadata_file(reference, "config.json", record.build))
    stack = [tree for tree in map(published.layer, record.layers) if tree is not None]
    if config is None or len(stack) < len(record.layers):
        return None
    places = zip(stack, published.standing(stack), strict=True)
    layers = tuple(ThinLayer(tree.digest, fqrn, path.decode()) for tree, path in places)
    tar = _tar(ThinImage(str(reference), layers).to_bytes())
    layer, own_config = _gzip(tar), _config(config, Digest.of(tar), f"ducc: thin image of {reference}")
    parts = {"config": _descriptor(_CONFIG, own_config), "layers": [_descriptor(_LAYER, layer)]}
    manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, **parts}
    return _Build(Document(DOCKER_MANIFEST, _json(manifest)), Platform.parse(record.platform), (layer, own_config))


def _config(raw: bytes, layer: Digest, made_by: str) -> bytes:
    """The image's own config, all of it, but for what speaks of its layers."""
    values: dict[str, Any] = json.loads(raw)
    settings = values.get("config") or {}
    environment = [entry for entry in settings.get("Env") or () if entry.partition("=")[0] != MARK.partition("=")[0]]
    values["config"] = {**settings, "Env": [*environment, MARK]}
    values["rootfs"] = {"type": "layers", "diff_ids": [str(layer)]}
    step = {"created_by": made_by}
    values["history"] = [{"created": values["created"], **step} if values.get("created") else step]
    return _json(values)


def _index(builds: Sequence[_Build]) -> Document:
    entries = [
        {**_descriptor(DOCKER_MANIFEST, build.manifest.data), "platform": _platform(build.platform)} for build in builds
    ]
    return Document(DOCKER_LIST, _json({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}))


def _platform(platform: Platform) -> dict[str, str]:
    values = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {key: value for key, value in values.items() if value}


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": str(Digest.of(data))}


def _tar(data: bytes) -> bytes:
    file = tarfile.TarInfo(FILE)
    file.size, file.mode = len(data), 0o644
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        writer.addfile(file, io.BytesIO(data))
    return archive.getvalue()


def _gzip(data: bytes) -> bytes:
    """*data* as it is in the form of gzip: compressors differ, and digests must not."""
    compressor = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
    trailer = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return _GZIP_HEADER + compressor.compress(data) + compressor.flush() + trailer


def _json(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

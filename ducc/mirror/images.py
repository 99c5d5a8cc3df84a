"""The images of one mounted repository, as a registry has them: by name and tag, and by digest.

A tag is one look into the repository. What digests there are under an image's name is found by reading all documents
of that name, once a revision. Digests are those of the bytes that are read, whatever stands beside them.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ducc import layout
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.image.manifest import Index, Manifest, parse_manifest
from ducc.image.reference import Reference
from ducc.mirror.archives import Archive, Part
from ducc.mirror.files import MountedFiles
from ducc.rootfs.locate import RepositoryUnavailable

log = logging.getLogger(__name__)

_ANY = "any"  # a tag that stands for none
BLOB = "application/octet-stream"
_NAMES_REMEMBERED = 256


class Document(NamedTuple):
    """Bytes to hand out, and what they are."""

    data: bytes | Archive
    media_type: str
    digest: Digest

    def part(self, start: int, end: int) -> bytes | Part:
        """The bytes from *start* up to *end*."""
        return self.data[start:end] if isinstance(self.data, bytes) else Part(self.data, start, end)


@dataclass(frozen=True, slots=True)
class Contents:
    """What is published under one image name: paths of documents by digest, and digests of layers."""

    tags: tuple[str, ...]
    manifests: Mapping[Digest, bytes]
    configs: Mapping[Digest, bytes]
    layers: frozenset[Digest]


class PublishedImages:
    """Questions to the repository at *mountpoint*; all raise `RepositoryUnavailable`, and may come from any thread."""

    def __init__(self, mountpoint: Path) -> None:
        self._files = MountedFiles(mountpoint)
        self._remembered = lru_cache(_NAMES_REMEMBERED)(self._read_contents)
        self._one_at_a_time = Lock()

    def manifest(self, reference: Reference) -> Document | None:
        """What the image's registry had under the tag when it was published, or what has that digest."""
        if reference.digest is not None:
            path = self.contents(reference).manifests.get(reference.digest)
            return self._manifest_at(path, reference.digest) if path else None
        for name in ("index.json", "manifest.json"):
            if found := self._manifest_at(layout.metadata_file(reference, name)):
                return found
        self._require_images()
        return None

    def config(self, reference: Reference, digest: Digest) -> Document | None:
        """The config with that digest."""
        path = self.contents(reference).configs.get(digest)
        data = self._files.read(path) if path else None
        return Document(data, BLOB, digest) if data is not None and Digest.of(data) == digest else None

    def contents(self, reference: Reference) -> Contents:
        """All that is published under the name of *reference*; its tag and digest mean nothing."""
        named = replace(reference, tag=_ANY, digest=None)
        revision = self._files.revision()
        if revision is None:
            return self._read_contents(None, named)
        with self._one_at_a_time:  # who comes meanwhile finds it done
            return self._remembered(revision, named)

    def _read_contents(self, _revision: bytes | None, named: Reference) -> Contents:
        tags: set[str] = set()
        manifests: dict[Digest, bytes] = {}
        configs: dict[Digest, bytes] = {}
        layers: set[Digest] = set()
        for build in self._builds():
            parent, name = _described(named, build)
            for entry in self._entries(parent, name):
                if entry.startswith(name + b":"):
                    tags.add(entry[len(name) + 1 :].decode())
                for path, manifest in self._manifests_in(parent + b"/" + entry):
                    manifests[manifest.digest] = path
                    if isinstance(manifest, Manifest):
                        configs[manifest.config.digest] = parent + b"/" + entry + b"/config.json"
                        layers.update(layer.digest for layer in manifest.layers)
        return Contents(tuple(sorted(tags)), manifests, configs, frozenset(layers))

    def _require_images(self) -> None:
        """Raise `RepositoryUnavailable` if there are none at all: most likely nothing is mounted."""
        if not self._files.names(layout.METADATA):
            raise RepositoryUnavailable(
                f"no image is published at {self._files.mountpoint}, or nothing is mounted there"
            )

    def _builds(self) -> list[str]:
        self._require_images()
        return [layout.EVERY_CLIENT, *map(bytes.decode, self._files.names(layout.METADATA + layout.MULTIARCH))]

    def _entries(self, parent: bytes, name: bytes) -> list[bytes]:
        return [entry for entry in self._files.names(parent) if entry.startswith((name + b":", name + b"@"))]

    def _manifests_in(self, directory: bytes) -> Iterator[tuple[bytes, Manifest | Index]]:
        for name in (b"/index.json", b"/manifest.json"):
            data = self._files.read(directory + name)
            found = None if data is None else _parsed(data, directory + name)
            if found is not None:
                yield directory + name, found

    def _manifest_at(self, path: bytes, digest: Digest | None = None) -> Document | None:
        data = self._files.read(path)
        found = None if data is None else _parsed(data, path)
        if found is None or digest not in (None, found.digest):
            return None
        return Document(found.raw, found.media_type, found.digest)


def _described(named: Reference, build: str) -> tuple[bytes, bytes]:
    """The directory of documents, and how all entries of the name begin in it, before `:<tag>` or `@<digest>`."""
    parent, _, entry = layout.metadata_file(named, "", build).rstrip(b"/").rpartition(b"/")
    return parent, entry.removesuffix(f":{_ANY}".encode())


def _parsed(data: bytes, path: bytes) -> Manifest | Index | None:
    try:
        return parse_manifest(data)
    except DuccError as error:
        log.warning("not handed out: path=%s reason=%s", path.decode(errors="replace"), error)
        return None

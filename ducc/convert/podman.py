"""The podman product: all published images as a store that podman reads as one of its additional image stores.

    overlay/<layer id>/diff            → the published layer
    overlay/<layer id>/link, lower       the layer's short name; those of the layers below it, topmost first
    overlay/l/<short name>             → ../<layer id>/diff
    overlay-layers/layers.json, layers.lock
    overlay-images/images.json, images.lock
    overlay-images/<config digest>/      manifest and config, under names that say which they are

There are two stores: one with the layers of the image, whose ids are those that podman itself gives them, so that what
it pulls shares them; and one, *flat*, where an image has one layer, its root file system. So has an image of very many
layers in both. Source: how the library containers/storage reads stores, tried with podman 4.3 and 5.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ducc import layout
from ducc.convert.flat import created_seconds
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.errors import DuccError
from ducc.image.config import ImageConfig
from ducc.image.digest import Digest
from ducc.image.manifest import Manifest, parse_manifest
from ducc.image.reference import DOCKER_HUB, Reference
from ducc.ingest.layer import LayerTree
from ducc.publish.changes import Change, EditRows, PutFile, PutLink, Remove, joined_row, rows_to_json_bytes

IMAGES, LAYERS = b"/overlay-images/images.json", b"/overlay-layers/layers.json"
LOCKS = (b"/overlay-images/images.lock", b"/overlay-layers/layers.lock")

MOST_LAYERS = 32  # whose names fit the one page that a mount's options have; podman can't shorten those of other stores

_SHORT_NAME_LENGTH = 26  # what leaves room for many in the options of a mount
_COMPRESSIONS = {"tar": 0, "gzip": 2, "zstd": 4}  # by the end of a layer's media type


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One build of an image, with all that a store says of it; *layers* are base first, *places* where each stands."""

    reference: Reference
    build: str
    manifest: Manifest
    config: ImageConfig
    layers: Sequence[LayerTree]
    places: Sequence[bytes]
    is_flat: bool  # is its root file system published, too?

    @classmethod
    def published(cls, record: ImageRecord, published: Published) -> "StoredImage | None":
        """What is published of an image; None if it can't be read."""
        reference = Reference.parse(record.reference)
        documents = [
            published.file(layout.metadata_file(reference, name, record.build))
            for name in ("manifest.json", "config.json")
        ]
        layers = [published.layer(digest) for digest in record.layers]
        if None in documents or None in layers:
            return None
        try:
            manifest, config = parse_manifest(documents[0] or b""), ImageConfig.parse(documents[1] or b"")
        except DuccError:  # another version of this program could read it
            return None
        if not isinstance(manifest, Manifest):
            return None
        trees = [layer for layer in layers if layer is not None]
        places = published.standing(trees)
        return cls(reference, record.build, manifest, config, trees, places, record.image_tree is not None)


@dataclass(slots=True)
class Contents:
    """What stands in one store: files and links by path, and the rows of its two tables by id."""

    store: bytes
    files: dict[bytes, bytes] = field(default_factory=dict)
    links: dict[bytes, bytes] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # ids of images by name

    def __post_init__(self) -> None:
        self.files |= {self.store + lock: b"" for lock in LOCKS}

    def changes(self, published: Published) -> list[Change]:
        """What adds all of it to a store that may have some of it."""
        layers = EditRows(self.store + LAYERS, tuple(self.layers.values()))
        images = EditRows(self.store + IMAGES, tuple(self.images.values()), self.names)
        return [*self._missing(published), layers, images]

    def replacing(self, published: Published) -> list[Change]:
        """What makes a store that is published this one, and nothing else."""
        paths = {*self.files, *self.links, self.store + IMAGES, self.store + LAYERS}
        wanted = {path.rpartition(b"/")[0] for path in paths} | paths
        changes: list[Change] = [
            Remove(path)
            for directory in (b"/overlay", b"/overlay/l", b"/overlay-images")
            for path in published.below(self.store + directory)
            if path not in wanted
        ]
        for table, rows in ((LAYERS, self.layers), (IMAGES, self._named_images())):
            data = rows_to_json_bytes(rows[key] for key in sorted(rows))
            if published.file(self.store + table) != data:
                changes.append(PutFile(self.store + table, data))
        return [*changes, *self._missing(published)]

    def _missing(self, published: Published) -> list[Change]:
        files = [PutFile(path, data) for path, data in self.files.items() if published.file(path) != data]
        links = [PutLink(path, target) for path, target in self.links.items() if published.link(path) != target]
        return [*files, *links]

    def _named_images(self) -> dict[str, dict[str, Any]]:
        names: dict[str, list[str]] = {}
        for name in sorted(self.names):
            names.setdefault(self.names[name], []).append(name)
        return {key: {**row, "names": names.get(key, [])} for key, row in self.images.items()}

    def put_layer(self, name: str, below: Sequence[str], path: bytes, row: dict[str, Any]) -> None:
        """A layer called *name* that lies over those called *below*, topmost first, and is published at *path*."""
        at, short = self.store + b"/overlay/" + name.encode(), _short_name(name)
        self.links[at + b"/diff"] = layout.link_target(at + b"/diff", path)
        self.links[self.store + f"/overlay/l/{short}".encode()] = f"../{name}/diff".encode()
        self.files[at + b"/link"] = short.encode()
        if below:
            self.files[at + b"/lower"] = ":".join(f"l/{_short_name(one)}" for one in below).encode()
        parent = {"parent": below[0]} if below else {}
        self.layers[name] = {"id": name, **parent, "created": _time(0), **row}

    def put_image(self, image: StoredImage, top: str | None, documents: dict[str, bytes]) -> None:
        """An image whose topmost layer is called *top*; *documents* are its manifests and its config."""
        name = image.config.digest.hex
        row = {
            "id": name,
            "digest": str(image.manifest.digest),
            "names": [],
            "created": _time(created_seconds(image.config)),
            "metadata": "{}",
            "big-data-names": sorted(documents),
            "big-data-sizes": {key: len(data) for key, data in documents.items()},
            "big-data-digests": {key: str(Digest.of(data)) for key, data in documents.items()},
        }
        self.images[name] = joined_row(self.images.get(name, {}), {**row, "layer": top} if top else row)
        self.names |= dict.fromkeys(names_of(image.reference), name)


class PodmanStores:
    """Collects what stores are to have."""

    def __init__(self) -> None:
        self._stores: dict[bytes, Contents] = {}

    def add(self, image: StoredImage) -> None:
        documents = {
            "manifest": image.manifest.raw,
            f"manifest-{image.manifest.digest}": image.manifest.raw,
            str(image.config.digest): image.config.raw,
        }
        layered = self._contents(layout.podman_store(image.build))
        too_deep = image.is_flat and len(image.layers) > MOST_LAYERS
        layered.put_image(image, (_put_flat_layer if too_deep else _put_layers)(layered, image), documents)
        at = f"/overlay-images/{image.config.digest.hex}".encode()
        for key, data in documents.items():
            layered.files[layered.store + at + b"/" + file_name(key)] = data
        if image.is_flat:
            flat = self._contents(layout.podman_store(image.build, flat=True))
            flat.put_image(image, _put_flat_layer(flat, image), documents)
            flat.links[flat.store + at] = layout.link_target(flat.store + at, layered.store + at)

    def changes(self, published: Published) -> list[Change]:
        """What adds all of it to what is published; a repository without a store gets all that is published in one."""
        if all(published.file(store + IMAGES) is None for store in (layout.PODMAN, *self._stores)):
            self.add_published([record for record in published.records() if not self._has(record)], published)
        return [change for contents in self._each() for change in contents.changes(published)]

    def replacing(self, published: Published) -> list[Change]:
        """What makes the published stores these, and takes away those that are empty."""
        found = [layout.PODMAN, layout.PODMAN + b"/flat"]
        found += [path + layout.PODMAN for path in published.below(layout.MULTIARCH)]
        found += [path + b"/flat" for path in found[2:]]
        empty = [Remove(path) for path in found if path not in self._stores and published.below(path)]
        return [*empty, *(change for contents in self._each() for change in contents.replacing(published))]

    def add_published(self, records: Iterable[ImageRecord], published: Published) -> None:
        """Images that are published, as far as they can be read."""
        for record in records:
            image = StoredImage.published(record, published)
            if image is not None:
                self.add(image)

    def _each(self) -> Iterator[Contents]:
        return (self._stores[path] for path in sorted(self._stores))

    def _has(self, record: ImageRecord) -> bool:
        """Is what stands in the place of this image collected?"""
        names = names_of(Reference.parse(record.reference))
        return names[0] in self._contents(layout.podman_store(record.build)).names

    def _contents(self, store: bytes) -> Contents:
        return self._stores.setdefault(store, Contents(store))


def names_of(reference: Reference) -> list[str]:
    """What people call an image when they speak to podman; images of Docker Hub go by the short host, too."""
    suffix = f":{reference.tag}" if reference.tag is not None else f"@{reference.digest}"
    hosts = [reference.registry, *(["docker.io"] if reference.registry == DOCKER_HUB else [])]
    return [f"{host}/{reference.repository}{suffix}" for host in hosts]


def file_name(key: str) -> bytes:
    """The file that has the document called *key*: plain letters stand for themselves, all else is encoded."""
    if all(character in ".0123456789abcdefghijklmnopqrstuvwxyz" for character in key):
        return key.encode()
    return b"=" + base64.b64encode(key.encode())


def layer_ids(diff_ids: Sequence[Digest]) -> list[str]:
    """What podman calls each layer of a stack, base first: by its diff id, and by the layer that it lies on."""
    names: list[str] = []
    for diff_id in diff_ids:
        names.append(Digest.of(f"{names[-1]}+{diff_id.hex}".encode()).hex if names else diff_id.hex)
    return names


def _put_layers(store: Contents, image: StoredImage) -> str | None:
    names = layer_ids([layer.diff_id for layer in image.layers])
    stack = zip(image.layers, image.places, image.manifest.layers, strict=True)
    for number, (layer, place, descriptor) in enumerate(stack):
        row = {
            "compressed-diff-digest": str(layer.digest),
            "compressed-size": descriptor.size,
            "compression": _COMPRESSIONS.get(descriptor.media_type.replace("+", ".").rpartition(".")[2], 0),
            "diff-digest": str(layer.diff_id),
            "diff-size": layer.tar_size,
        }
        store.put_layer(names[number], names[:number][::-1], place, row)
    return names[-1] if names else None


def _put_flat_layer(store: Contents, image: StoredImage) -> str:
    """One layer that is the image's root file system; its name is made of the image's, and is no tar's digest."""
    name = Digest.of(f"flat {image.config.digest}".encode()).hex
    row = {"diff-digest": f"sha256:{name}", "diff-size": sum(layer.tar_size for layer in image.layers)}
    store.put_layer(name, (), layout.flat_image(image.config.digest), row)
    return name


def _short_name(name: str) -> str:
    """A layer's short name; as unlikely to be another's as its name is."""
    return base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:_SHORT_NAME_LENGTH]


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

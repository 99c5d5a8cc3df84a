"""What a revision shows of an image: its files of metadata, and the links by which people call it.

An image has one build that all clients see, or one for each platform; then its public link is one that every client
expands for itself. Nothing that was published of an image goes before something stands in its place.
"""

from collections.abc import Sequence
from dataclasses import replace

from ducc import layout
from ducc.catalog.writer import WrittenTree
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.errors import BadInput
from ducc.image.manifest import Index, Platform, UnsupportedImage
from ducc.image.reference import Reference
from ducc.publish.changes import BindTree, Change, PutFile, PutLink, Remove
from ducc.registry.client import Image

_OF_A_BUILD = ("manifest.json", "config.json", "record.json")


def build_changes(reference: Reference, image: Image, record: ImageRecord, tree: WrittenTree | None) -> list[Change]:
    """What is to be published of one build; without *tree*, only its layers are, and no older one is shown for it."""
    documents = {
        "manifest.json": image.manifest.raw,
        "config.json": image.config.raw,
        "record.json": record.to_bytes(),
    }
    changes: list[Change] = [
        PutFile(layout.metadata_file(reference, name, record.build), data) for name, data in documents.items()
    ]
    link = layout.public_link(reference, record.build)
    if tree is None:
        return [*changes, Remove(link)]
    target = layout.public_target(reference, record.config_digest, record.build)
    return [BindTree(layout.flat_image(record.config_digest), tree), *changes, PutLink(link, target)]


def index_changes(reference: Reference, index: Index | None) -> list[Change]:
    """The index beside the image, if what its name stands for is one."""
    path = layout.metadata_file(reference, "index.json")
    return [Remove(path) if index is None else PutFile(path, index.raw)]


def variant_changes(reference: Reference, builds: Sequence[ImageRecord], published: Published) -> list[Change]:
    """What makes the public link one that clients expand, now that *builds* are published, each under its name.

    What all clients have seen until now becomes the build of its own platform, unless that is among *builds*.
    """
    names = {record.build for record in builds}
    changes: list[Change] = []
    before = published.record(reference)
    if before is not None and (name := _build_of(before)) and name not in names:
        names.add(name)
        changes += _moved(reference, before, name, published)
    changes += [Remove(layout.metadata_file(reference, name)) for name in _OF_A_BUILD]
    for name in sorted(names):
        aliases = layout.alias_links(name).items()
        changes += [PutLink(path, target) for path, target in aliases if published.link(path) != target]
    public = layout.public_link(reference)
    if any(record.image_tree for record in builds):
        return [*changes, PutLink(public, layout.variant_target(reference))]
    return [*changes, Remove(public)]


def _build_of(record: ImageRecord) -> str | None:
    try:
        return layout.build_name(Platform.parse(record.platform))
    except (BadInput, UnsupportedImage):
        return None


def _moved(reference: Reference, record: ImageRecord, build: str, published: Published) -> list[Change]:
    """Show under *build*, too, what is published of *record*."""
    documents = {
        name: published.file(layout.metadata_file(reference, name)) for name in ("manifest.json", "config.json")
    }
    documents["record.json"] = replace(record, build=build).to_bytes()
    changes: list[Change] = [
        PutFile(layout.metadata_file(reference, name, build), data) for name, data in documents.items() if data
    ]
    if record.image_tree is None:
        return changes
    target = layout.public_target(reference, record.config_digest, build)
    return [*changes, PutLink(layout.public_link(reference, build), target)]

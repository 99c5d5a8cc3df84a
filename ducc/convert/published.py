"""What a revision already holds: images by reference, layers by digest."""

import json
from collections.abc import Iterator

from ducc import layout
from ducc.catalog.schema import CatalogRef
from ducc.catalog.tree import Bind, Directory, Nested
from ducc.convert.record import ImageRecord, UnreadableRecord
from ducc.cvmfs.entry import Entry
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.ingest.layer import LayerTree
from ducc.publish.repository import Head, Repository


class Published:
    """Questions to one revision of a repository."""

    def __init__(self, repository: Repository, head: Head) -> None:
        self._repository, self._head = repository, head

    def image(self, reference: Reference) -> ImageRecord | None:
        """The record of an image that is published whole: record, link and tree are there and agree."""
        record = self.record(reference)
        if record is None:
            return None
        link = self._repository.find(self._head, layout.public_link(reference))
        target = layout.public_target(reference, record.config_digest)
        if not isinstance(link, Entry) or link.symlink != target:
            return None
        bound = self.bound(layout.flat_image(record.config_digest))
        layers = (self.bound(layout.layer_tree(digest)) for digest in record.layers)
        return record if bound == record.image_tree and all(layers) else None

    def record(self, reference: Reference) -> ImageRecord | None:
        """The record of an image, whether or not what it speaks of is there."""
        path = layout.metadata_file(reference, "record.json")
        data = self.file(path)
        return None if data is None else ImageRecord.from_bytes(data, path)

    def layer(self, digest: Digest) -> LayerTree | None:
        """A published layer as it was ingested."""
        path = layout.layer_file(digest, "tree.json")
        data = self.file(path)
        if data is None or self.bound(layout.layer_tree(digest)) is None:
            return None
        try:
            return LayerTree.from_json(json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DuccError) as error:
            raise UnreadableRecord(path) from error

    def bound(self, path: bytes) -> CatalogRef | None:
        """The root of the tree that is mounted at *path*."""
        node = self._repository.find(self._head, path)
        return node.ref if isinstance(node, Bind) else None

    def file(self, path: bytes) -> bytes | None:
        """The content of a file of the trunk."""
        node = self._repository.find(self._head, path)
        return self._repository.read(node) if isinstance(node, Entry) and node.is_regular else None

    def records(self) -> Iterator[ImageRecord]:
        """Every published image's record, in the order of their paths."""
        top = self._repository.find(self._head, layout.METADATA)
        pending = [(layout.METADATA, top)]
        while pending:
            path, node = pending.pop()
            if isinstance(node, Nested):
                node = self._repository.catalogs.open_nested(node)
            if not isinstance(node, Directory):
                continue
            record = node.children.get(b"record.json")
            if isinstance(record, Entry):
                record_path = path + b"/record.json"
                yield ImageRecord.from_bytes(self._repository.read(record), record_path)
            pending.extend((path + b"/" + name, node.children[name]) for name in sorted(node.children, reverse=True))

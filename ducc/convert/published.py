"""What a revision already holds: images by reference, layers by digest.

What can't be read back is as good as not published: whoever asks is told so, and what is wished for is made anew.
"""

import json
import logging
from collections.abc import Container, Iterator, Sequence

from ducc import layout
from ducc.catalog.schema import CatalogRef
from ducc.catalog.tree import Bind, Directory, Nested, Node
from ducc.convert.record import ImageRecord, UnreadableRecord
from ducc.cvmfs.entry import Entry
from ducc.errors import DuccError
from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from ducc.image.manifest import Index, parse_manifest
from ducc.image.reference import Reference
from ducc.ingest.layer import LayerTree
from ducc.publish.repository import ForgedObject, Head, Repository
from ducc.storage.base import ObjectMissing

log = logging.getLogger(__name__)


class Published:
    """Questions to one revision of a repository."""

    def __init__(self, repository: Repository, head: Head) -> None:
        self._repository, self._head = repository, head
        self._unreadable: set[bytes] = set()
        self._whole_layers: set[Digest] = set()

    @property
    def fqrn(self) -> str:
        return self._repository.fqrn

    # --- images ---

    def image(self, reference: Reference, build: str = layout.EVERY_CLIENT) -> ImageRecord | None:
        """The record of an image, or of one build of it, that is published whole: all it speaks of is there."""
        record = self.record(reference, build)
        if record is None or not all(map(self._layer_is_whole, record.layers)):
            return None
        return record if record.image_tree is None or self._is_shown(reference, record) else None

    def record(self, reference: Reference, build: str = layout.EVERY_CLIENT) -> ImageRecord | None:
        """The record of an image, or of one build of it, whether or not what it speaks of is there."""
        path = layout.metadata_file(reference, "record.json", build)
        return self._read_record(path, self._find(path))

    def builds(self, reference: Reference) -> list[ImageRecord]:
        """The records of all builds of an image, by name; of one that has the same for every client, that one."""
        directories = self._children(self._find(layout.METADATA + layout.MULTIARCH))
        names = [layout.EVERY_CLIENT, *sorted(name.decode() for name in directories)]
        records = (self.record(reference, name) for name in names)
        return [record for record in records if record is not None]

    def index(self, reference: Reference) -> Index | None:
        """The index that an image was published from."""
        data = self.file(layout.metadata_file(reference, "index.json"))
        try:
            found = None if data is None else parse_manifest(data)
        except DuccError:  # another version of this program could read it
            return None
        return found if isinstance(found, Index) else None

    def records(self) -> Iterator[ImageRecord]:
        """Every published image's record, each build's own, in the order of their paths."""
        pending = [(layout.METADATA, self._find(layout.METADATA))]
        while pending:
            path, node = pending.pop()
            children = self._children(node)
            record = self._read_record(path + b"/record.json", children.get(b"record.json"))
            if record is not None:
                yield record
            pending.extend((path + b"/" + name, children[name]) for name in sorted(children, reverse=True))

    def _is_shown(self, reference: Reference, record: ImageRecord) -> bool:
        """Does the public path lead to the tree that the record names?"""
        shown = layout.public_target(reference, record.config_digest, record.build)
        if self.link(layout.public_link(reference, record.build)) != shown:
            return False
        if record.build and self.link(layout.public_link(reference)) != layout.variant_target(reference):
            return False
        return self.bound(layout.flat_image(record.config_digest)) == record.image_tree

    def _read_record(self, path: bytes, node: Node | None) -> ImageRecord | None:
        try:
            data = self._content(node)
            return None if data is None else ImageRecord.from_bytes(data, path)
        except (UnreadableRecord, ObjectMissing, ForgedObject) as error:
            self._warn(path, error)
            return None

    # --- layers ---

    def layer(self, digest: Digest) -> LayerTree | None:
        """A published layer as it was ingested."""
        path = layout.layer_file(digest, "tree.json")
        try:
            data = self.file(path)
            if data is None or self.bound(layout.layer_tree(digest)) is None:
                return None
            return _layer_tree(data, path)
        except (UnreadableRecord, ObjectMissing, ForgedObject) as error:
            self._warn(path, error)
            return None

    def layer_is_readable(self, digest: Digest) -> bool:
        """False once `layer` has found that what is published of a layer is of no use."""
        return layout.layer_file(digest, "tree.json") not in self._unreadable

    def says_where_it_fits(self, digest: Digest) -> bool:
        """Is it said on which stacks a layer can be used? Earlier publishers completed it for one, and did not say."""
        if self._find(layout.layer_anywhere(digest)) is not None:
            return True
        return bool(self._children(self._find(layout.layer_stacks(digest))))

    def standing(self, stack: Sequence[LayerTree], coming: Container[bytes] = ()) -> list[bytes]:
        """Where each layer of a stack, base first, is as it has to be there; *coming* are paths of the next commit."""
        chains = chain_ids([layer.diff_id for layer in stack])
        completed = [layout.stacked_layer(layer.digest, chain) for layer, chain in zip(stack, chains, strict=True)]
        return [
            path if path in coming or self.bound(path) is not None else layout.layer_tree(layer.digest)
            for layer, path in zip(stack, completed, strict=True)
        ]

    def _layer_is_whole(self, digest: Digest) -> bool:
        if digest not in self._whole_layers:  # images share layers
            if self.bound(layout.layer_tree(digest)) is None or not self.says_where_it_fits(digest):
                return False
            self._whole_layers.add(digest)
        return True

    # --- whatever stands there ---

    def bound(self, path: bytes) -> CatalogRef | None:
        """The root of the tree that is mounted at *path*."""
        node = self._find(path)
        return node.ref if isinstance(node, Bind) else None

    def link(self, path: bytes) -> bytes | None:
        """What the symbolic link at *path* says."""
        node = self._find(path)
        return node.symlink if isinstance(node, Entry) and node.is_symlink else None

    def file(self, path: bytes) -> bytes | None:
        """The content of a file of the trunk."""
        return self._content(self._find(path))

    def below(self, path: bytes) -> list[bytes]:
        """The paths of what stands in a directory of the trunk, by name."""
        return [path + b"/" + name for name in sorted(self._children(self._find(path)))]

    def _content(self, node: Node | None) -> bytes | None:
        return self._repository.read(node) if isinstance(node, Entry) and node.is_regular else None

    def _children(self, node: Node | None) -> dict[bytes, Node]:
        if isinstance(node, Nested):
            node = self._repository.catalogs.open_nested(node)
        return node.children if isinstance(node, Directory) else {}

    def _find(self, path: bytes) -> Node | None:
        return self._repository.find(self._head, path)

    def _warn(self, path: bytes, error: DuccError) -> None:
        if path not in self._unreadable:
            self._unreadable.add(path)
            log.warning("published description unreadable, taken as not published: %s", error)


def _layer_tree(data: bytes, path: bytes) -> LayerTree:
    try:
        return LayerTree.from_json(json.loads(data))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DuccError) as error:
        raise UnreadableRecord(path) from error

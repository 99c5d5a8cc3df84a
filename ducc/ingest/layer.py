"""One layer: its verified stream becomes a layer tree. A pure function of the layer's bytes, but for what it stores."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from ducc.catalog.schema import CatalogRef, Counters
from ducc.catalog.split import SplitPolicy
from ducc.catalog.store import CatalogStore
from ducc.catalog.writer import write_tree
from ducc.cvmfs.compression import Compress
from ducc.cvmfs.objectname import parse_hash
from ducc.image.digest import Digest
from ducc.ingest.ahead import ReadAhead
from ducc.ingest.contents import CHUNKED_ABOVE, Content, ContentWriter
from ducc.ingest.index import ContentIndex
from ducc.ingest.layer_tree import LayerTreeBuilder
from ducc.ingest.notes import LayerNotes
from ducc.layer.entries import Kind, LayerReader, Member
from ducc.layer.stream import VerifiedStream
from ducc.storage.base import ObjectStore

PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LayerTree:
    """A layer as it was ingested: *ref* is its tree, before anything is known of the layers below it.

    *content_size* is the sum of its files' sizes, *tar_size* the bytes of the uncompressed archive; *dropped* counts
    what was left out, by reason.
    """

    digest: Digest
    diff_id: Digest
    ref: CatalogRef
    notes: LayerNotes
    counters: Counters
    content_size: int
    tar_size: int
    dropped: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the values that are published as the layer's `tree.json`."""
        return {
            "digest": str(self.digest),
            "diff_id": str(self.diff_id),
            "root_hash": str(self.ref),
            "root_size": self.ref.size,
            "content_size": self.content_size,
            "tar_size": self.tar_size,
            "counters": self.counters._asdict(),
            "dropped": dict(self.dropped),
            **self.notes.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LayerTree":
        return cls(
            Digest.parse(values["digest"]),
            Digest.parse(values["diff_id"]),
            CatalogRef(parse_hash(values["root_hash"]), values["root_size"]),
            LayerNotes.from_json(values),
            Counters(**values["counters"]),
            values["content_size"],
            values["tar_size"],
            values["dropped"],
        )


@dataclass(frozen=True, slots=True)
class Ingest:
    """Where layers are ingested to. *workers* compress and store; they may serve several layers at once."""

    store: ObjectStore
    catalogs: CatalogStore
    compress: Compress
    index: ContentIndex
    workers: Executor
    policy: SplitPolicy

    def layer(self, blob: VerifiedStream, diff_id: Digest) -> LayerTree:
        """Ingest one layer. When this returns, all was verified, and everything the tree refers to was put."""
        reader = LayerReader(blob, diff_id, ahead=ReadAhead)
        try:
            return self._ingest(reader, blob.expected, diff_id)
        finally:
            reader.stop()

    def _ingest(self, reader: LayerReader, digest: Digest, diff_id: Digest) -> LayerTree:
        contents = ContentWriter(self.store, self.compress, self.index, self.workers)
        builder = LayerTreeBuilder(str(digest))
        try:
            for member in reader:
                builder.add(member, _store_content(member, reader, contents))
        finally:
            contents.finish()
        root, notes = builder.finish()
        written = write_tree(root, self.catalogs, self.policy)
        return LayerTree(
            digest, diff_id, written.ref, notes, written.counters,
            reader.content_size, reader.tar_size, dict(sorted(reader.dropped.items())),
        )  # fmt: skip


def _store_content(member: Member, reader: LayerReader, contents: ContentWriter) -> Content | None:
    if member.kind is not Kind.FILE:
        return None
    if member.size > CHUNKED_ABOVE:
        return contents.add_pieces(reader.pieces(PIECE_BYTES))
    return contents.add(reader.content())

"""What is published about an image beside it: `record.json`, and how it is read back.

The record says what the image was made of, so that nothing needs to be made twice, and nobody has to guess.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ducc import layout
from ducc.catalog.schema import CatalogRef
from ducc.cvmfs.objectname import parse_hash
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.publish.changes import to_json_bytes

SCHEMA = 1


class UnreadableRecord(DuccError):
    """A published record was written by a later version, or not by this program."""

    exit_code = 68

    def __init__(self, path: bytes) -> None:
        super().__init__(f"{path.decode()}: can't be read; it was published by another version of this program")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One published image.

    *source_digest* is what the reference named (an index or a manifest): as long as it does, there is nothing to do.
    *layers* are base first. *published_at* is unix seconds. *image_tree* is None when only the layers are published.
    *build* is its name in `ducc/layout.py`, if the image has one build for each platform.
    """

    reference: str
    source_digest: Digest
    manifest_digest: Digest
    config_digest: Digest
    platform: str
    image_tree: CatalogRef | None
    layers: tuple[Digest, ...]
    published_at: int
    publisher: str
    counters: Mapping[str, int]
    warnings: tuple[str, ...]
    build: str = layout.EVERY_CLIENT

    def to_bytes(self) -> bytes:
        tree = self.image_tree
        values = asdict(self) | {
            "schema": SCHEMA,
            "source_digest": str(self.source_digest),
            "manifest_digest": str(self.manifest_digest),
            "config_digest": str(self.config_digest),
            "image_tree": tree and {"root_hash": str(tree), "root_size": tree.size},
            "layers": [str(digest) for digest in self.layers],
        }
        if self.build == layout.EVERY_CLIENT:
            del values["build"]
        return to_json_bytes(values)

    @classmethod
    def from_bytes(cls, data: bytes, path: bytes) -> "ImageRecord":
        """Read a record; *path* is for the error."""
        try:
            return cls._from_json(json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DuccError) as error:
            raise UnreadableRecord(path) from error

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> "ImageRecord":
        if values.pop("schema") != SCHEMA:
            raise ValueError("schema")
        tree = values["image_tree"]
        return cls(**{
            **values,
            "source_digest": Digest.parse(values["source_digest"]),
            "manifest_digest": Digest.parse(values["manifest_digest"]),
            "config_digest": Digest.parse(values["config_digest"]),
            "image_tree": None if tree is None else CatalogRef(parse_hash(tree["root_hash"]), tree["root_size"]),
            "layers": tuple(map(Digest.parse, values["layers"])),
            "warnings": tuple(values["warnings"]),
        })  # fmt: skip

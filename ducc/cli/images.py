"""`ducc images FQRN`: what a repository holds."""

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from ducc import layout
from ducc.cli import options
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.image.reference import Reference
from ducc.publish.changes import to_json_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fqrn", metavar="FQRN", help="the repository")
    options.add_storage(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0."""
    repository = options.open_repository(arguments.storage, arguments.fqrn)
    head = repository.head()
    records = list(Published(repository, head).records())
    if arguments.json:
        images = [_values(record) for record in records]
        values = {"repository": arguments.fqrn, "revision": head.manifest.revision, "images": images}
        sys.stdout.buffer.write(to_json_bytes(values))
        return 0
    count = len({record.reference for record in records})
    print(f"{arguments.fqrn}, revision {head.manifest.revision}: {count} images")
    for record in records:
        print(_line(record))
    return 0


def _values(record: ImageRecord) -> dict[str, Any]:
    return {
        "image": record.reference,
        "path": _path(record),
        "platform": record.platform,
        "config_digest": str(record.config_digest),
        "root_hash": record.image_tree and str(record.image_tree),
        "published_at": record.published_at,
        "counters": dict(record.counters),
        "warnings": list(record.warnings),
    }


def _line(record: ImageRecord) -> str:
    when = datetime.fromtimestamp(record.published_at, UTC).strftime("%Y-%m-%d %H:%M")
    size = record.counters["file_size"] / 1e6
    files = record.counters["regular"]
    return (
        f"{when}  {record.config_digest.hex[:12]}  {files:>8} files {size:>9.1f} MB  {_path(record) or _layers(record)}"
    )


def _path(record: ImageRecord) -> str | None:
    """Where the image, or this build of it, is seen; None if only its layers are published."""
    if record.image_tree is None:
        return None
    return layout.public_link(Reference.parse(record.reference), record.build).decode()


def _layers(record: ImageRecord) -> str:
    return f"(layers only) {record.reference} {record.platform}"

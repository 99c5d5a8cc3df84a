"""`ducc check-image-syntax IMAGE`: how an image reference is read. Asks nobody."""

import argparse
import csv
import sys
from typing import Any

from ducc import layout
from ducc.cli import options
from ducc.image.reference import Reference
from ducc.publish.changes import to_json_bytes

COLUMNS = ("name", "user", "scheme", "registry", "repository", "tag", "digest", "is_thin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="[scheme://][registry/]name[:tag][@sha256:digest]")
    parser.add_argument("-z", "--csv", action="store_true", help="comma separated, below the names of the columns")
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 an image reference, 2 none."""
    reference = Reference.parse(arguments.image)
    values = _values(reference)
    if arguments.json:
        sys.stdout.buffer.write(to_json_bytes({**values, **_consequences(reference)}))
    elif arguments.csv:
        table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerow({**values, "is_thin": "false"})
    else:
        for name, value in {**values, **_consequences(reference)}.items():
            print(f"{name:<12}{str(value).lower() if isinstance(value, bool) else value}".rstrip())
    return 0


def _values(reference: Reference) -> dict[str, Any]:
    """The columns that the Go program prints. Whether an image is thin is not to be seen in its name."""
    return {
        "name": str(reference),
        "user": "",
        "scheme": reference.scheme,
        "registry": reference.registry,
        "repository": reference.repository,
        "tag": reference.tag or "",
        "digest": str(reference.digest or ""),
        "is_thin": False,
    }


def _consequences(reference: Reference) -> dict[str, Any]:
    """What follows: is it many, who is asked, and where users find it (a wildcard: with each tag in place of it)."""
    return {
        "is_wildcard": reference.is_wildcard,
        "asked_at": reference.base_url,
        "path": layout.public_link(reference).decode(),
    }

"""`ducc download-manifest IMAGE`: the bytes that a registry has under an image's name, verified and unchanged."""

import argparse
import sys

from ducc.cli import options
from ducc.image.manifest import Platform
from ducc.image.reference import MalformedReference, Reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="[scheme://]registry/name:tag, or @sha256:digest")
    parser.add_argument(
        "--platform", metavar="OS/ARCH[/VARIANT]", help="of an index, print the manifest of the build for it"
    )
    parser.add_argument("--credentials", metavar="NAME", help="those of that name in the file --registries")
    options.add_registries(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 printed, 2 the image can't be named so; else the class of what went wrong."""
    reference = Reference.parse(arguments.image)
    if reference.is_wildcard:
        raise MalformedReference(arguments.image, "name one tag, not a wildcard")
    platforms = [Platform.parse(arguments.platform)] if arguments.platform else None
    registry = options.open_registry(arguments.registries).using(arguments.credentials)
    image = registry.resolve_platforms(reference, platforms)[0][1]
    named = image.manifest if arguments.platform else image.index or image.manifest
    sys.stdout.buffer.write(named.raw)
    return 0

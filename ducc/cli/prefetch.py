"""Publish what starts of an image want, so that clients fetch it ahead.

FILE is what `ducc client record stop MOUNT` printed after a start of the image on a node that had nothing of it in its
memory; `-` is standard input. Several are several starts.
"""

import argparse
import re
import sys
from pathlib import Path

from ducc.cli import options
from ducc.convert.prefetch import Planned, plan_prefetch
from ducc.errors import BadInput
from ducc.image.reference import Reference
from ducc.publish.changes import Change, to_json_bytes
from ducc.publish.commit import commit_decided
from ducc.publish.keys import KeyDirectory
from ducc.publish.repository import Head

_LINE = re.compile(r"([0-9a-f]{40}[A-Z]?)(?: (?:\d+|-))?")
_LARGEST_FILE = 1 << 26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("fqrn", metavar="FQRN", help="the repository")
    parser.add_argument("image", metavar="IMAGE", help="an image that it holds, as a wishlist names it")
    parser.add_argument("starts", metavar="FILE", nargs="+", help="what a start wanted: a line for each object")
    options.add_storage(parser)
    options.add_keys(parser)
    options.add_json(parser)
    parser.add_argument("--anew", action="store_true", help="forget what former starts wanted")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 published, 2 no such image, or a file that is no record of a start of it, 72 a list can't be read.

    Such a list, of another version of this program, is replaced with `--anew`.
    """
    image = Reference.parse(arguments.image)
    starts = [_start(file) for file in arguments.starts]
    repository = options.open_repository(arguments.storage, arguments.fqrn)
    keys = KeyDirectory(arguments.keys, repository.fqrn).load()
    planned: Planned

    def decide(base: Head) -> list[Change]:
        nonlocal planned
        planned = plan_prefetch(repository, base, image, starts, anew=arguments.anew)
        return planned.changes

    with repository.store.session():
        head = commit_decided(repository, keys, decide)
    told = {"repository": repository.fqrn, "image": str(image), "revision": head.manifest.revision}
    if arguments.json:
        sys.stdout.buffer.write(to_json_bytes({**told, "objects": planned.objects, "bytes": planned.bytes}))
    else:
        what = f"{planned.objects} objects, {planned.bytes / 1e6:.1f} MB, are fetched ahead for {image}"
        print(f"{repository.fqrn}: {what}; revision {head.manifest.revision}")
    return 0


def _start(file: str) -> list[str]:
    """The names of objects in a file, in its order."""
    try:
        if file == "-":
            text = sys.stdin.read(_LARGEST_FILE)
        else:
            with Path(file).open(encoding="ascii") as opened:
                text = opened.read(_LARGEST_FILE)
    except OSError as error:
        raise BadInput(f"{file}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: no record of a start: not text") from error
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        if not (match := _LINE.fullmatch(line)):
            raise BadInput(f"{file}, line {number}: no record of a start: wanted are an object's name and its bytes")
        names.append(match[1])
    return names

"""Offer, over HTTP, the repositories of a local store as clients expect them, or published images as registries do."""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ducc.errors import BadInput

if TYPE_CHECKING:
    from ducc.serving import Application


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", metavar="URL", help="offer the repositories that lie here: file:///DIR")
    parser.add_argument(
        "--registry", metavar="DIR", type=Path, action="append",
        help="offer the images of the repository mounted here instead, as a registry for pulling; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--default-registry", metavar="NAME", default="docker.io",
        help="with --registry: whose images are meant where nobody says it (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--archives", metavar="DIR", type=Path,
        help="with --registry: an OCI layout; what it has of published layers is handed out as well",
    )  # fmt: skip
    parser.add_argument("--port", metavar="N", type=int, required=True, help="0: any that is free")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen (127.0.0.1)")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 stopped by a signal, 2 the directory or the address can't be used."""
    from ducc.serving import listen, serve

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what strangers send is no event
    if not arguments.storage and not arguments.registry:
        raise BadInput("what is to be served? wanted: --storage or --registry")
    what, path, application = _mirror(arguments) if arguments.registry else _repositories(arguments.storage)
    with listen(arguments.host, arguments.port) as listening:
        host, port = listening.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        text = f"serving {what} at http://{host}:{port}{path}"
        serve(application, listening, lambda: print(text, flush=True), "h11" if arguments.registry else "httptools")
    return 0


def _repositories(storage: str) -> "tuple[str, str, Application]":
    from ducc.serving import RepositoryServer
    from ducc.storage.open import local_directory

    directory = local_directory(storage, "any.repository").parent
    if not directory.is_dir():
        raise BadInput(f"storage {storage!r}: there is no such directory")
    return str(directory), "/cvmfs/", RepositoryServer(directory)


def _mirror(arguments: argparse.Namespace) -> "tuple[str, str, Application]":
    from ducc.image.reference import Reference
    from ducc.mirror.answer import Answers
    from ducc.mirror.archives import Archives
    from ducc.mirror.images import PublishedImages
    from ducc.mirror.server import MirrorServer

    if arguments.archives and not os.path.isdir(arguments.archives / "blobs"):
        raise BadInput(
            f"archives {arguments.archives}: wanted the directory of an OCI layout, which has one named blobs"
        )
    for directory in arguments.registry:
        if not os.path.isdir(directory):  # nor one whose mount is dead
            raise BadInput(f"registry {directory}: there is no such directory; wanted: where a repository is mounted")
    images = [PublishedImages(directory.absolute()) for directory in arguments.registry]
    named = Reference.parse(f"https://{arguments.default_registry}/any/image:any")
    what = "images of " + ", ".join(map(str, arguments.registry))
    return what, "/v2/", MirrorServer(Answers(images, Archives(arguments.archives)), named.registry)

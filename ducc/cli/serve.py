"""Offer the repositories of a local store over HTTP, as clients and replicas expect them."""

import argparse
import logging
from pathlib import Path

from ducc.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_storage(parser)
    parser.add_argument("--port", metavar="N", type=int, required=True, help="0: any that is free")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen (127.0.0.1)")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 stopped by a signal, 2 the directory or the address can't be used."""
    from ducc.serving import RepositoryServer, listen, serve

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    directory = _directory(arguments.storage)
    with listen(arguments.host, arguments.port) as listening:
        host, port = listening.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        text = f"serving {directory} at http://{host}:{port}/cvmfs/"
        serve(RepositoryServer(directory), listening, lambda: print(text, flush=True))
    return 0


def _directory(storage: str) -> Path:
    from ducc.errors import BadInput
    from ducc.storage.open import local_directory

    directory = local_directory(storage, "any.repository").parent
    if not directory.is_dir():
        raise BadInput(f"storage {storage!r}: there is no such directory")
    return directory

"""Show a published repository in a directory, read-only; files are fetched when they are read."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ducc.cli.options import default_cache
from ducc.errors import BadInput

if TYPE_CHECKING:
    from ducc.storage.base import ReadableStore

_GIBIBYTE = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fqrn", metavar="FQRN", help="the repository")
    parser.add_argument("directory", metavar="DIR", type=Path, help="where to show it; an existing directory")
    parser.add_argument("--url", help="the repository's URL: http://HOST/cvmfs/FQRN")
    parser.add_argument("--storage", metavar="URL", help="without --url: read a local store, file:///DIR")
    parser.add_argument(
        "--public-key", metavar="FILE", type=Path, action="append", required=True,
        help="public half of the master key; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", type=Path, help="where to keep what was read")
    parser.add_argument("--cache-limit", metavar="GIB", type=float, default=4.0, help="its largest size (4)")
    parser.add_argument("--foreground", action="store_true", help="stay, and log to the terminal")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 mounted (in the foreground: and unmounted again), else the failure's."""
    from ducc.client.background import in_background
    from ducc.cvmfs.fqrn import require_fqrn

    fqrn = require_fqrn(arguments.fqrn)
    directory = Path(os.path.realpath(arguments.directory))
    cache = (arguments.cache or default_cache()).absolute()
    work = _mount(arguments, fqrn, directory, cache)
    if arguments.foreground:
        work(lambda: print(f"{fqrn} is mounted at {directory}", flush=True))
        return 0
    _make_directory(cache)
    in_background(work, cache / f"{fqrn}.log")
    return 0


def _mount(
    arguments: argparse.Namespace, fqrn: str, directory: Path, cache: Path
) -> Callable[[Callable[[], None]], None]:
    """What the mounting process is to do; everything heavy is imported there, after the fork."""
    named = arguments.public_key  # one file, if it is named by a setting
    keys = [file.absolute() for file in (named if isinstance(named, list) else [named])]

    def work(ready: Callable[[], None]) -> None:
        from ducc import logs
        from ducc.client.daemon import MountSettings, run_mount
        from ducc.cvmfs.signature import load_master_public_key

        logs.set_up(max(arguments.verbose, 0 if sys.stderr.isatty() else 1))
        run_mount(
            MountSettings(
                fqrn=fqrn,
                mountpoint=directory,
                store=_store(arguments, fqrn),
                master_keys=[load_master_public_key(_read(file)) for file in keys],
                cache_directory=cache,
                cache_limit_bytes=int(arguments.cache_limit * _GIBIBYTE),
            ),
            ready,
        )

    return work


def _store(arguments: argparse.Namespace, fqrn: str) -> "ReadableStore":
    from ducc.storage.http import HttpStore
    from ducc.storage.local import LocalStore
    from ducc.storage.open import local_directory

    if arguments.url is None:
        if arguments.storage is None:
            raise BadInput("where is the repository? wanted: --url or --storage")
        return LocalStore(local_directory(arguments.storage, fqrn))
    parts = urlsplit(arguments.url)
    if parts.scheme in ("http", "https") and parts.hostname:
        return HttpStore(arguments.url)
    if parts.scheme == "file" and not parts.netloc:
        return LocalStore(Path(unquote(parts.path)))
    raise BadInput(f"--url {arguments.url!r}: wanted http://HOST/cvmfs/{fqrn}, https:// or file:///DIR/{fqrn}")


def _make_directory(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInput(f"cache {cache}: {error.strerror}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadInput(f"public key {file}: {error.strerror}") from error

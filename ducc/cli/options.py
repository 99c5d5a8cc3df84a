"""Options that several commands share, and what they open."""

import argparse
import os
from pathlib import Path

from ducc.publish.repository import Repository
from ducc.registry import open as registry_open
from ducc.registry.client import Registry
from ducc.storage.open import open_store


def add_wishlists(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "wishlists", metavar="WISHLIST", nargs="+", help="a file, http(s)://…, git+URL//path@branch, or osg:FQRN:LIST"
    )


def add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", metavar="URL", required=True, help="where repositories lie: file:///DIR")


def add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", metavar="DIR", type=Path, required=True, help="directory of the signing keys")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, for programs")


def add_registries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registries", metavar="FILE", type=Path, help="how registries are asked: credentials, mirrors, budgets (YAML)"
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", metavar="DIR", type=Path, help="for the content index, and blobs on their way")


def open_registry(settings: Path | None) -> Registry:
    """The registry client that the file *settings*, this program's environment and this user's logins make."""
    return registry_open.open_registry(settings, os.environ)


def open_repository(storage: str, fqrn: str) -> Repository:
    """Open the repository *fqrn* in the store at *storage*."""
    return Repository(fqrn, open_store(storage, fqrn))

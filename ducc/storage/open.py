"""From a URL to the store that it means."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ducc.cvmfs.fqrn import require_fqrn
from ducc.errors import BadInput
from ducc.storage.base import ObjectStore
from ducc.storage.local import LocalStore


class BadStorageURL(BadInput):
    """A storage URL that means no place we can write to."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"storage {url!r}: {reason}; wanted: file:///DIRECTORY")


def open_store(url: str, fqrn: str) -> ObjectStore:
    """The store of one repository; nothing is touched, nor need the repository exist.

    `file:///srv/cvmfs` with `repo.example.org` is the directory `/srv/cvmfs/repo.example.org`.
    """
    return LocalStore(local_directory(url, fqrn))


def local_directory(url: str, fqrn: str) -> Path:
    """Where `open_store` of a `file://` URL keeps the repository."""
    require_fqrn(fqrn)
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise BadStorageURL(url, f"{parts.scheme}:// is not supported" if parts.scheme else "it is no URL")
    if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise BadStorageURL(url, "it names no absolute directory of this machine")
    return Path(unquote(parts.path)) / fqrn

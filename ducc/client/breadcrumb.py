"""What this machine believed last: the state of a repository that was verified here, so that it can be shown off-line.

One line in a file of the cache directory, in the stock client's words: `ROOT HASH T TIMESTAMP R REVISION`, without the
blanks. Only whoever may write the cache can write it, and that it is older than what is published is no fault.
"""

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ducc.cvmfs.manifest import DEFAULT_TTL_SECONDS, Manifest

log = logging.getLogger(__name__)

_LINE = re.compile(r"([0-9a-f]{40})T([0-9]{1,18})(?:R([0-9]{1,18}))?")


class Breadcrumb(NamedTuple):
    """A root catalog that was believed; *timestamp* is unix seconds of its publication."""

    root_hash: bytes
    timestamp: int
    revision: int

    @classmethod
    def of(cls, manifest: Manifest) -> "Breadcrumb":
        return cls(manifest.root_hash, manifest.timestamp, manifest.revision)

    def manifest(self, fqrn: str) -> Manifest:
        """A manifest that says as much; its other fields are not known."""
        return Manifest(self.root_hash, 0, DEFAULT_TTL_SECONDS, self.revision, self.timestamp, fqrn)


class Breadcrumbs:
    """The breadcrumb of one repository in a cache directory."""

    def __init__(self, cache_directory: Path, fqrn: str) -> None:
        self._path = cache_directory / f"cvmfschecksum.{fqrn}"

    def read(self) -> Breadcrumb | None:
        """The last one; None if there is none that can be read."""
        try:
            found = _LINE.fullmatch(self._path.read_text(errors="replace").strip())
        except OSError:
            return None
        return found and Breadcrumb(bytes.fromhex(found[1]), int(found[2]), int(found[3] or 0))

    def drop(self, crumb: Breadcrumb) -> None:
        """Replace the last one; a disk that does not take it costs a warning."""
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            temporary.write_text(f"{crumb.root_hash.hex()}T{crumb.timestamp}R{crumb.revision}")
            temporary.replace(self._path)
            self._remove_abandoned()
        except OSError as error:
            log.warning(
                "without a breadcrumb there is no start off-line: file=%s reason=%s", self._path, error.strerror
            )
            with suppress(OSError):
                temporary.unlink()

    def _remove_abandoned(self) -> None:
        """Remove what processes that were killed had not finished."""
        for path in self._path.parent.glob(f"{self._path.name}.*.new"):
            if not Path(f"/proc/{path.suffixes[-2][1:]}").exists():
                path.unlink(missing_ok=True)

"""The root hash of a revision's number: `python -m volumes.snapshots FQRN REVISION ETC` prints it.

Tags are looked at first. A revision that has none is found by going back from the next younger one that is known, from
root catalog to root catalog, each of which names the one before. A process of its own, so that the plugin itself
neither speaks to the network nor reads what comes from there.
"""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ducc.catalog.history import History, Tag
from ducc.catalog.reader import Catalog
from ducc.client.cache import Cache
from ducc.client.configuration import read_configuration
from ducc.client.fetch import Fetcher, Wanted
from ducc.client.head import Head
from ducc.client.network.store import NetworkStore
from ducc.client.parameters import Parameters
from ducc.client.pin import NoSuchRevision
from ducc.cvmfs.objectname import ObjectName, Suffix, parse_hash
from ducc.cvmfs.signature import load_master_public_key
from ducc.errors import DuccError

_MOST_STEPS = 1000  # back from a revision that is known; each is a request


class Revisions:
    """A repository's revisions, as far as its newest manifest leads to them."""

    def __init__(self, parameters: Parameters) -> None:
        self._fqrn = parameters.fqrn
        store = NetworkStore(parameters.network)
        cache = Cache(parameters.cache_directory, parameters.cache_limit_bytes, parameters.preloaded)
        self._fetcher = Fetcher(store, cache)
        keys = [load_master_public_key(file.read_bytes()) for file in parameters.key_files]
        head = Head(self._fqrn, store, self._fetcher, keys, lambda: datetime.now(UTC))
        self._newest = head.first()

    def root_hash(self, revision: int) -> bytes:
        """Raises `NoSuchRevision`."""
        known = [(tag.revision, tag.hash) for tag in self._tags() if tag.revision and not tag.branch]
        known.append((self._newest.revision, self._newest.root_hash))
        number, root = min(((n, found) for n, found in known if n >= revision), default=(0, b""))
        for _ in range(_MOST_STEPS):
            if number <= revision:
                break
            number, root = self._before(root)
        if number != revision or not root:
            raise NoSuchRevision(self._fqrn, str(revision))
        return root

    def _tags(self) -> Sequence[Tag]:
        if self._newest.history is None:
            return []
        return History.from_bytes(self._content(self._newest.history, Suffix.HISTORY)).tags()

    def _before(self, root: bytes) -> tuple[int, bytes]:
        """Number and root hash of the revision before; zero and nothing at the beginning."""
        hash_text = self._properties(root).get(b"previous_revision", b"").decode()
        if not hash_text:
            return 0, b""
        before = parse_hash(hash_text)
        return int(self._properties(before).get(b"revision", b"0")), before

    def _properties(self, root: bytes) -> dict[bytes, bytes]:
        catalog = Catalog.from_bytes(root.hex(), self._content(root, Suffix.CATALOG))
        try:
            return catalog.properties()
        finally:
            catalog.close()

    def _content(self, digest: bytes, suffix: Suffix) -> bytes:
        return bytes(self._fetcher.content(Wanted(ObjectName(digest, suffix), None)).whole())


def main() -> int:
    """Exit status: 0 and the hash on standard output, else the failure's, and one line on standard error."""
    fqrn, revision, etc = sys.argv[1:]
    try:
        configuration = read_configuration(fqrn, Path(etc))
        parameters = Parameters.of(configuration, os.getuid(), os.getgid(), os.environ)
        print(Revisions(parameters).root_hash(int(revision)).hex())
    except DuccError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

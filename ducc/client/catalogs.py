"""Open catalogs, each once, wherever and however often they are mounted.

A file descriptor is kept of every catalog in use, so that it can be asked again when the cache has dropped it and the
server no longer has it; SQLite handles, which cost memory, are kept of the most recently used only.

The kernel asks for one name after the other, so nobody can know which way a path will take. But where few catalogs
begin below one that has just been opened, most are wanted soon: they are fetched at once, ahead of the question.
"""

from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from threading import Lock

from ducc.catalog.reader import BadCatalog, Catalog
from ducc.catalog.schema import CatalogRef
from ducc.client.cache import Content
from ducc.client.fetch import Fetcher, Wanted
from ducc.cvmfs.objectname import ObjectName, Suffix

_MOST_OPEN = 128
_MOST_AHEAD = 32  # a catalog below which more begin is one of an index, of which few are wanted
_LARGEST_AHEAD_BYTES = 4 << 20  # uncompressed


class CatalogNeeded(Exception):
    """The answer is in a catalog that is not open: load it and ask again."""

    def __init__(self, ref: CatalogRef) -> None:
        super().__init__(str(ref))
        self.ref = ref


class Catalogs:
    """Catalogs by reference. Every method may be called by any thread."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._open: OrderedDict[bytes, Catalog] = OrderedDict()
        self._contents: dict[bytes, Content] = {}
        self._lock = Lock()

    def get(self, ref: CatalogRef) -> Catalog:
        """An open catalog, at once; raises `CatalogNeeded` if it would take longer."""
        with self._lock:
            catalog = self._open.get(ref.digest)
            if catalog is None:
                raise CatalogNeeded(ref)
            self._open.move_to_end(ref.digest)
            return catalog

    def load(self, ref: CatalogRef) -> Catalog:
        """Fetch and open a catalog, if it is not open yet."""
        with suppress(CatalogNeeded):
            return self.get(ref)
        known = self._contents.get(ref.digest)
        content = known or self._fetcher.content(wanted_of(ref))
        catalog = _open(str(ref), content)
        if known is None:
            content.pin()
            self._fetch_ahead(catalog)
        with self._lock:
            self._contents[ref.digest] = content
            self._open[ref.digest] = catalog
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)  # closed when nobody uses it any more
        return catalog

    def _fetch_ahead(self, catalog: Catalog) -> None:
        """Begin to fetch what begins below; whoever needs one of them joins, or asks anew if it could not be had."""
        nested = catalog.nested().values()
        if len(nested) <= _MOST_AHEAD:
            for ref in nested:
                if ref.digest not in self._contents and ref.size <= _LARGEST_AHEAD_BYTES:
                    self._fetcher.fetch_ahead(wanted_of(ref))

    def keep_only(self, digests: Collection[bytes]) -> None:
        """Let go of all catalogs but these."""
        with self._lock:
            for digest in self._contents.keys() - set(digests):
                del self._contents[digest]
                self._open.pop(digest, None)


def wanted_of(ref: CatalogRef) -> Wanted:
    return Wanted(ObjectName(ref.digest, Suffix.CATALOG), ref.size or None)


def _open(name: str, content: Content) -> Catalog:
    content.read_ahead()
    if content.path is not None:
        with suppress(BadCatalog):  # dropped from the cache a moment ago
            return Catalog.from_file(name, Path(content.path))
    return Catalog.from_bytes(name, bytes(content.whole()))

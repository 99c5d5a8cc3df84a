import threading
import time
from pathlib import Path

import pytest

from ducc.catalog.schema import CatalogRef
from ducc.client import catalogs
from ducc.client.cache import Cache
from ducc.client.catalogs import Catalogs
from ducc.client.fetch import Fetcher
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.storage.memory import MemoryStore
from tests.unit.client.publisher import Publisher

PATIENCE_SECONDS = 60


class Slow(MemoryStore):
    """Answers only as long as the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[ObjectName] = []

    def get(self, name: ObjectName) -> bytes:
        self.asked.append(name)
        assert self.gate.wait(PATIENCE_SECONDS)
        return super().get(name)


def published(store: Slow, nested: int) -> CatalogRef:
    """The root catalog of a repository with so many catalogs directly below it."""
    publisher = Publisher(store)
    places = [b"/d%d" % number for number in range(nested)]
    manifest = publisher.publish({place + b"/f": publisher.file(b"f", place) for place in places}, nested=places)
    return CatalogRef(manifest.root_hash, manifest.root_size)


def test_what_begins_below_an_opened_catalog_is_fetched_at_once_and_before_anybody_asks(tmp_path: Path) -> None:
    store = Slow()
    root = published(store, 3)
    fetcher = Fetcher(store, Cache(tmp_path))
    opened = Catalogs(fetcher)
    fetcher.content(catalogs.wanted_of(root))
    store.gate.clear()
    below = opened.load(root).nested().values()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(store.asked) < 4:  # none of them is answered yet
        assert time.monotonic() < deadline
        time.sleep(0.005)
    store.gate.set()
    for ref in below:
        opened.load(ref)
    assert sorted(store.asked[1:]) == sorted(ObjectName(ref.digest, Suffix.CATALOG) for ref in below)
    fetcher.close()


def test_of_an_index_of_many_catalogs_only_those_are_fetched_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "_MOST_AHEAD", 2)
    store = Slow()
    root = published(store, 3)
    fetcher = Fetcher(store, Cache(tmp_path))
    opened = Catalogs(fetcher)
    one = opened.load(root).nested()[b"/d1"]
    opened.load(one)
    fetcher.close()
    assert [name.digest for name in store.asked] == [root.digest, one.digest]

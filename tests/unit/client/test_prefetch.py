import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ducc import layout
from ducc.catalog.tree import Node
from ducc.client.cache import Cache
from ducc.client.fetch import Wanted
from ducc.client.prefetch import BadPrefetchList, Listed, Prefetcher, from_bytes, to_bytes
from ducc.client.repository import Repository
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.image.digest import Digest
from ducc.storage.base import ObjectMissing, StoreUnavailable
from ducc.storage.memory import MemoryStore
from tests import signing
from tests.unit.client.publisher import Publisher
from tests.unit.client.test_background import wait_for

PATIENCE_SECONDS = 60
LAYER, OTHER = Digest("ab" + "0" * 62), Digest("cd" + "0" * 62)
FILES = [f"file-{number}".encode() for number in range(40)]


def wanted(number: int, suffix: Suffix = Suffix.FILE) -> Wanted:
    return Wanted(ObjectName(bytes([number]) * 20, suffix), number, number % 2)


def test_a_list_says_what_was_written_in_the_order_of_the_start() -> None:
    listed = [Listed(2, wanted(7, Suffix.CHUNK)), Listed(0, wanted(9)), Listed(1, wanted(8))]
    assert from_bytes(to_bytes(listed), b"/list") == sorted(listed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "objects": []}',
        '{"version": 1}',
        '{"version": 1, "objects": [[0, "00"]]}',
        '{"version": 1, "objects": [[0, "../../etc/passwd", 1, 0]]}',
        json.dumps({"version": 1, "objects": [[-1, "ab" * 20, 1, 0]]}),
        json.dumps({"version": 1, "objects": [[0, "ab" * 20, "1", 0]]}),
        json.dumps({"version": 1, "objects": [[0, "ab" * 20, True, 0]]}),
        json.dumps({"version": 1, "objects": [[0, "ab" * 20 + "?", 1, 0]]}),
        "[" * 100_000,
    ],
)
def test_what_is_no_list_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadPrefetchList) as error:
        from_bytes(text.encode(), b"/the/list")
    assert str(error.value).startswith("/the/list: ")
    assert "\n" not in str(error.value)


class Server(MemoryStore):
    """Counts who is asked for, and how many at a time; *before* is called with each name."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[ObjectName] = []
        self.at_once = self.most_at_once = 0
        self.before: Callable[[ObjectName], None] = lambda name: None
        self._counting = threading.Lock()

    def get(self, name: ObjectName) -> bytes:
        with self._counting:
            self.asked.append(name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before(name)
            return super().get(name)
        finally:
            with self._counting:
                self.at_once -= 1


class Mount:
    """A layer of which all files but the last are on the list, and a client that has nothing of it."""

    def __init__(self, directory: Path) -> None:
        self.server, self.seconds = Server(), 0.0
        publisher = Publisher(self.server)
        self.files = {name: publisher.file(name, name * 10) for name in FILES}
        nodes = {b"/usr/lib/" + name: entry for name, entry in self.files.items()}
        tree = publisher.bind(nodes, b"layerfs", nested=[b"/usr", b"/usr/lib"])
        self.listed = [self.wanted(name) for name in FILES[:-1]]
        self._publisher, self._tree = publisher, tree
        self.publish(to_bytes(Listed(place, one) for place, one in enumerate(self.listed)))
        self._directory = directory

    def publish(self, published: bytes | None, of_other: bytes | None = None) -> None:
        """Lists of the layer, and of another one that has the same files."""
        nodes: dict[bytes, Node] = {layout.layer_tree(one): self._tree for one in (LAYER, OTHER)}
        for layer, data in ((LAYER, published), (OTHER, of_other)):
            if data is not None:
                path = layout.prefetch_list(layer)
                nodes[path] = self._publisher.file(path.rpartition(b"/")[2], data)
        self._publisher.publish(nodes)

    def open(self) -> "Mount":
        key = signing.keys(signing.FQRN, 0)[0].master_public_key
        cache = Cache(self._directory)
        self.repository = Repository.open(signing.FQRN, self.server, cache, [key], lambda: signing.NOW)
        self.prefetcher = Prefetcher(self.repository, lambda: self.seconds + time.monotonic())
        return self

    def wanted(self, name: bytes) -> Wanted:
        content = self.files[name].content
        assert content is not None
        return Wanted(ObjectName(content), self.files[name].size, self.files[name].compression)

    def wait_for_content_of(self, name: bytes, layer: Digest = LAYER) -> None:
        node = self.repository._node(layout.layer_tree(layer) + b"/usr/lib/" + name)
        assert node is not None
        self.prefetcher.waited_for(node.inode)

    def here(self) -> list[bytes]:
        return [name for name in FILES if self.repository.fetcher.cache.has(self.wanted(name).name.digest)]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    made = Mount(tmp_path)
    yield made
    made.repository.close()


def is_idle() -> bool:
    return not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_whoever_waits_for_a_file_sets_off_the_fetching_of_what_the_list_names(mount: Mount) -> None:
    mount.open().wait_for_content_of(FILES[-1])
    wait_for(lambda: mount.here() == FILES[:-1])
    wait_for(is_idle)
    asked = [name for name in mount.server.asked if name in {one.name for one in mount.listed}]
    assert asked == [one.name for one in mount.listed]  # in the order of the start, each once
    assert mount.repository.fetcher.prefetched == len(asked)


def test_what_two_lists_name_is_fetched_in_the_order_of_the_start(mount: Mount) -> None:
    second_has_come = threading.Event()
    places = list(enumerate(mount.listed))
    halves = [to_bytes(Listed(*one) for one in places[begin::2]) for begin in (0, 1)]

    def until_both_have_come(name: ObjectName) -> None:
        if name == mount.listed[6].name:  # some of the first list are fetched by then
            assert second_has_come.wait(PATIENCE_SECONDS)

    mount.publish(*halves)
    mount.open()
    mount.server.before = until_both_have_come
    mount.wait_for_content_of(FILES[-1])
    wait_for(lambda: mount.listed[6].name in mount.server.asked)
    mount.wait_for_content_of(FILES[-1], OTHER)
    wait_for(lambda: not any(thread.name == "prefetch-list" for thread in threading.enumerate()))
    second_has_come.set()
    wait_for(lambda: mount.here() == FILES[:-1])
    names = [one.name for one in mount.listed]
    asked = [names.index(name) for name in mount.server.asked if name in names]
    assert asked == [0, 2, 4, 6, 1, 3, 5, *range(7, len(names))]


def test_a_tree_without_a_list_costs_no_object(mount: Mount, caplog: pytest.LogCaptureFixture) -> None:
    mount.publish(None)
    mount.open().wait_for_content_of(FILES[0])
    wait_for(is_idle)
    assert (mount.here(), caplog.records) == ([], [])


def test_a_list_that_cannot_be_read_is_said_once(mount: Mount, caplog: pytest.LogCaptureFixture) -> None:
    mount.publish(b"no list")
    mount.open().wait_for_content_of(FILES[0])
    wait_for(is_idle)
    mount.wait_for_content_of(FILES[1])
    wait_for(is_idle)
    assert mount.here() == []
    assert len(caplog.records) == 1


def test_an_object_that_is_not_there_is_passed_over(mount: Mount) -> None:
    def without_one(name: ObjectName) -> None:
        if name == mount.listed[3].name:
            raise ObjectMissing(str(name))

    mount.open()
    mount.server.before = without_one
    mount.wait_for_content_of(FILES[0])
    wait_for(lambda: mount.here() == [*FILES[:3], *FILES[4:-1]])


def test_without_a_server_nobody_goes_on_asking(mount: Mount) -> None:
    def gone_after_three(name: ObjectName) -> None:
        if name == mount.listed[3].name:
            raise StoreUnavailable("no server")

    mount.open()
    mount.server.before = gone_after_three
    mount.wait_for_content_of(FILES[0])
    wait_for(lambda: len(mount.here()) == 3 and is_idle())
    assert mount.listed[4].name not in mount.server.asked


def test_several_are_fetched_at_a_time_where_the_server_is_far(mount: Mount) -> None:
    mount.open()
    mount.server.before = lambda name: time.sleep(0.02)
    mount.wait_for_content_of(FILES[0])
    wait_for(lambda: mount.here() == FILES[:-1])
    assert mount.server.most_at_once > 1


def test_a_list_fills_a_quarter_of_the_cache_at_most(mount: Mount) -> None:
    mount.open()
    mount.repository.fetcher.cache.limit_bytes = 4 * sum(one.size or 0 for one in mount.listed[:10])
    mount.wait_for_content_of(FILES[-1])
    wait_for(lambda: mount.here() == FILES[:10])
    wait_for(is_idle)
    assert mount.here() == FILES[:10]


def test_a_list_is_followed_again_only_after_a_while(mount: Mount) -> None:
    mount.open().wait_for_content_of(FILES[0])
    wait_for(lambda: mount.here() == FILES[:-1] and is_idle())
    mount.repository.fetcher.cache.drop(mount.listed[5].name.digest)
    mount.wait_for_content_of(FILES[0])
    wait_for(is_idle)
    assert FILES[5] not in mount.here()
    mount.seconds += 3600
    mount.wait_for_content_of(FILES[0])
    wait_for(lambda: FILES[5] in mount.here())


def test_what_is_outside_of_images_and_layers_sets_off_nothing(mount: Mount) -> None:
    mount.open()
    node = mount.repository._node(layout.prefetch_list(LAYER))
    assert node is not None
    mount.prefetcher.waited_for(node.inode)
    assert is_idle()

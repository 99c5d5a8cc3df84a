"""Contents become objects: named by their bytes, once each, whatever the batches and the threads."""

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ducc.cvmfs.compression import compressor, inflate
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.ingest import chunk, contents
from ducc.ingest.contents import ContentWriter
from ducc.ingest.index import ContentIndex
from ducc.storage.base import StoreRefused
from ducc.storage.memory import MemoryStore

COMPRESS = compressor("libdeflate-1")


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    for name, value in {"MIN_BYTES": 256, "AVERAGE_BYTES": 1024, "MAX_BYTES": 4096}.items():
        monkeypatch.setattr(chunk, name, value)
    monkeypatch.setattr(contents, "BATCH_BYTES", 2000)
    monkeypatch.setattr(contents, "BATCH_FILES", 4)
    monkeypatch.setattr(contents, "WAITING_BYTES", 10_000)


@pytest.fixture
def index():
    index = ContentIndex(None)
    yield index
    index.close()


@pytest.fixture
def workers():
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def writer(store, index, workers):
    return ContentWriter(store, COMPRESS, index, workers)


def stored(store, digest, size, suffix=Suffix.FILE):
    return inflate(store.get(ObjectName(digest, suffix)), size)


def test_a_small_content_is_one_object_named_by_its_stored_bytes(store, writer):
    content = writer.add(b"hello")
    writer.finish()
    assert content.digest == ObjectName.of(COMPRESS(b"hello")).digest
    assert content.chunks == ()
    assert stored(store, content.digest, 5) == b"hello"


def test_an_empty_content_is_an_object_too(store, writer):
    added, pieced = writer.add(b""), writer.add_pieces([])
    writer.finish()
    assert added.digest == pieced.digest
    assert stored(store, added.digest, 0) == b""


def test_a_big_content_is_chunks_that_follow_one_another(store, writer):
    data = noise(1, 50_000)
    content = writer.add_pieces([data[:7], data[7:30_000], data[30_000:]])
    writer.finish()
    assert content.digest is None
    assert len(content.chunks) > 10
    offset = 0
    for piece in content.chunks:
        assert piece.offset == offset
        assert stored(store, piece.digest, piece.size, Suffix.CHUNK) == data[offset : offset + piece.size]
        offset += piece.size
    assert offset == len(data)


def test_what_turns_out_to_be_one_chunk_is_stored_whole(store, writer):
    content = writer.add_pieces([b"x" * 100, b"y" * 50])
    writer.finish()
    assert content.chunks == ()
    assert stored(store, content.digest, 150) == b"x" * 100 + b"y" * 50


def test_batches_change_no_name(store, index, workers, writer):
    data = [noise(number % 40, number * 7 % 900) for number in range(200)]
    added = [writer.add(one) for one in data]
    writer.finish()
    assert [content.digest for content in added] == [ObjectName.of(COMPRESS(one)).digest for one in data]


def test_known_contents_are_not_compressed_again(store, index, workers):
    compressed = []

    def compress(data):
        compressed.append(bytes(data))
        return COMPRESS(data)

    first = ContentWriter(store, compress, index, workers)
    first.add(b"one")
    first.add_pieces([noise(1, 20_000)])
    first.finish()
    before = len(compressed)
    second = ContentWriter(store, compress, index, workers)
    again, chunked = second.add(b"one"), second.add_pieces([noise(1, 20_000)])
    second.finish()
    assert len(compressed) == before
    assert again.digest == ObjectName.of(COMPRESS(b"one")).digest
    assert len(chunked.chunks) > 3


def test_equal_contents_of_one_batch_are_compressed_once(store, index, workers):
    compressed = []
    writer = ContentWriter(store, lambda data: compressed.append(1) or COMPRESS(data), index, workers)
    same = [writer.add(b"same") for _ in range(3)]
    writer.finish()
    assert len(compressed) == 1
    assert len({content.digest for content in same}) == 1


def test_an_indexed_object_that_is_gone_is_stored_again(store, index, workers, writer):
    content = writer.add(b"hello")
    writer.finish()
    store._staged.clear()
    other = ContentWriter(store, COMPRESS, index, workers)
    again = other.add(b"hello")
    other.finish()
    assert again.digest == content.digest
    assert stored(store, again.digest, 5) == b"hello"


def test_an_indexed_object_of_the_other_kind_is_not_taken_for_this_one(store, index, workers, writer):
    data = noise(3, 30_000)
    (first, *_) = chunk.chunks([data])
    writer.add(first)
    whole = writer.add_pieces([data])
    writer.finish()
    assert store.exists(ObjectName(ObjectName.of(COMPRESS(first)).digest, Suffix.FILE))
    assert store.exists(ObjectName(whole.chunks[0].digest, Suffix.CHUNK))


class FailingStore(MemoryStore):
    """Refuses one object."""

    def __init__(self, refused: bytes) -> None:
        super().__init__()
        self.refused = ObjectName.of(COMPRESS(refused))

    def put(self, name, data):
        if name == self.refused:
            raise StoreRefused("the disk is full")
        super().put(name, data)


def test_what_the_store_refuses_is_raised_and_other_batches_are_stored_all_the_same(index, workers):
    store = FailingStore(b"bad")
    writer = ContentWriter(store, COMPRESS, index, workers)
    good = [b"%d" % number * 10 for number in range(40)]
    for number, one in enumerate(good):
        writer.add(one)
        if number == 20:
            writer.add(b"bad")
    with pytest.raises(StoreRefused):
        writer.finish()
    workers.shutdown()
    kept = [one for one in good if store.exists(ObjectName.of(COMPRESS(one)))]
    assert len(kept) >= len(good) - 4
    assert index.find([hashlib.sha256(b"bad").digest()]) == {}


def test_a_refusal_reaches_whoever_adds_long_before_the_end(index, workers):
    writer = ContentWriter(FailingStore(noise(0, 1500)), COMPRESS, index, workers)
    added = map(writer.add, (noise(number, 1500) for number in range(1000)))
    with pytest.raises(StoreRefused):
        list(added)
    writer.finish()  # what else was under way is done


def test_what_waits_is_bounded(store, index):
    release, sizes, lock = threading.Event(), [], threading.Lock()

    def compress(data):
        release.wait(0.002)
        with lock:
            sizes.append(len(data))
        return COMPRESS(data)

    with ThreadPoolExecutor(1) as one_worker:
        writer = ContentWriter(store, compress, index, one_worker)
        for number in range(300):
            writer.add(noise(number, 500))
            assert writer._running_bytes <= contents.WAITING_BYTES + contents.BATCH_BYTES + 500
        writer.finish()
    assert len(sizes) == 300


def test_however_small_contents_are_only_so_many_batches_wait(store, index, monkeypatch):
    monkeypatch.setattr(contents, "WAITING_BATCHES", 5)
    slow = threading.Event()
    waiting = []

    def compress(data):
        slow.wait(0.001)
        return COMPRESS(data)

    with ThreadPoolExecutor(1) as one_worker:
        writer = ContentWriter(store, compress, index, one_worker)
        for number in range(200):
            writer.add(b"%d" % number)
            waiting.append(len(writer._running))
        writer.finish()
    assert max(waiting) == 5

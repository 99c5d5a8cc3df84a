"""Contents become objects: hash, known? otherwise compress, name, store; on worker threads, within bounds.

Small contents travel in batches, since a task of its own for each of ten thousand small files costs more than the
work. What waits is bounded in bytes, so memory does not grow with the layer.
"""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from ducc.cvmfs.compression import Compress
from ducc.cvmfs.entry import Chunk
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.ingest.chunk import MIN_BYTES, chunks
from ducc.ingest.index import ContentIndex, raw_digest
from ducc.storage.base import ObjectStore

BATCH_BYTES = 2 << 20
BATCH_FILES = 256
WAITING_BYTES = 24 << 20  # contents handed to workers and not yet stored
WAITING_BATCHES = 64  # however small

CHUNKED_ABOVE = MIN_BYTES  # larger contents are cut


@dataclass(slots=True)
class Content:
    """Where a file's bytes are stored; complete once `ContentWriter.finish` has returned. One of the two is set."""

    digest: bytes | None = None
    pieces: list[Chunk] | None = None  # in the order in which workers finished; small contents spare the list

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        return tuple(sorted(self.pieces or ()))


@dataclass(slots=True)
class _Job:
    """One object to be: a whole content, or (*offset* set) a chunk of one."""

    data: bytes | memoryview
    content: Content
    offset: int | None = None


class ContentWriter:
    """Stores the contents of one layer. For one thread; the work is done by the executor's."""

    def __init__(self, store: ObjectStore, compress: Compress, index: ContentIndex, workers: Executor) -> None:
        self._store, self._compress, self._index, self._workers = store, compress, index, workers
        self._batch: list[_Job] = []
        self._batch_bytes = 0
        self._running: deque[tuple[Future[None], int]] = deque()
        self._running_bytes = 0

    def add(self, data: bytes | memoryview) -> Content:
        """Store a small content."""
        content = Content()
        self._enqueue(_Job(data, content))
        return content

    def add_pieces(self, pieces: Iterable[bytes | memoryview]) -> Content:
        """Store a content of any size that arrives in pieces; it is cut if it is big."""
        content, offset = Content(pieces=[]), 0
        held: memoryview | None = None  # the first chunk, until it is known whether it is the whole content
        for chunk in chunks(pieces):
            if offset == 0:
                held = chunk
            else:
                if held is not None:
                    self._enqueue(_Job(held, content, 0))
                    held = None
                self._enqueue(_Job(chunk, content, offset))
            offset += len(chunk)
        if held is not None or offset == 0:
            self._enqueue(_Job(held or b"", content))
        return content

    def finish(self) -> None:
        """Wait until all is stored; afterwards every `Content` is complete. Raises what the store raised."""
        self._dispatch()
        while self._running:
            self._await_oldest()

    def _enqueue(self, job: _Job) -> None:
        self._batch.append(job)
        self._batch_bytes += len(job.data)
        if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= BATCH_FILES:
            self._dispatch()

    def _dispatch(self) -> None:
        if not self._batch:
            return
        self._running.append((self._workers.submit(self._store_batch, self._batch), self._batch_bytes))
        self._running_bytes += self._batch_bytes
        self._batch, self._batch_bytes = [], 0
        while self._running_bytes > WAITING_BYTES or len(self._running) > WAITING_BATCHES:
            self._await_oldest()

    def _await_oldest(self) -> None:
        future, size = self._running.popleft()
        self._running_bytes -= size
        future.result()

    def _store_batch(self, batch: list[_Job]) -> None:
        raw_digests = [raw_digest(job.data) for job in batch]
        known = self._index.find(raw_digests)
        fresh: dict[bytes, bytes] = {}
        for job, raw in zip(batch, raw_digests, strict=True):
            suffix = Suffix.FILE if job.offset is None else Suffix.CHUNK
            digest = fresh.get(raw) or known.get(raw)
            if digest is None or not self._store.exists(ObjectName(digest, suffix)):
                digest = fresh[raw] = self._put(job.data, suffix)
            _complete(job, digest)
        self._index.remember(fresh.items())

    def _put(self, data: bytes | memoryview, suffix: Suffix) -> bytes:
        stored = self._compress(data)
        name = ObjectName.of(stored, suffix)
        self._store.put(name, stored)
        return name.digest


def _complete(job: _Job, digest: bytes) -> None:
    if job.offset is None or job.content.pieces is None:
        job.content.digest = digest
    else:
        job.content.pieces.append(Chunk(job.offset, len(job.data), digest))

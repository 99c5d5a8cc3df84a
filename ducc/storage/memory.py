"""A store in memory: for tests, and for trying a publication without keeping it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from ducc.cvmfs.objectname import ObjectName
from ducc.storage.base import MANIFEST, REFLOG, Claimed, HeadMoved, ObjectMissing


class MemoryStore:
    """An `ObjectStore`. *objects* and *files* are what everybody would see; tests may look at them and damage them."""

    def __init__(self) -> None:
        self.objects: dict[ObjectName, bytes] = {}
        self.files: dict[str, bytes] = {}
        self._staged: dict[ObjectName, bytes] = {}
        self._claims: set[str] = set()
        self._lock = Lock()

    def get(self, name: ObjectName) -> bytes:
        data = self._staged.get(name, self.objects.get(name))
        if data is None:
            raise ObjectMissing(str(name))
        return data

    def exists(self, name: ObjectName) -> bool:
        return name in self._staged or name in self.objects

    def size(self, name: ObjectName) -> int:
        return len(self.get(name))

    def put(self, name: ObjectName, data: bytes | bytearray | memoryview) -> None:
        with self._lock:
            if name not in self.objects:
                self._staged.setdefault(name, bytes(data))

    def flush(self) -> None:
        with self._lock:
            self.objects |= self._staged
            self._staged = {}

    def read_file(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write_file(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def replace_head(self, expected: bytes | None, manifest: bytes, reflog: bytes) -> None:
        self.flush()
        with self._lock:
            if self.files.get(MANIFEST) != expected:
                raise HeadMoved("another publisher replaced the manifest")
            self.files[REFLOG] = reflog
            self.files[MANIFEST] = manifest

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        with self._lock:
            if name in self._claims:
                raise Claimed(name, "")
            self._claims.add(name)
        try:
            yield
        finally:
            self._claims.discard(name)

    @contextmanager
    def session(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._staged = {}

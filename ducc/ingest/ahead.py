"""A stream read ahead by a thread of its own, so that inflating a layer and reading its members overlap."""

from queue import Queue
from threading import Event, Thread

from ducc.layer.stream import Readable

PIECE_BYTES = 1 << 20
PIECES = 4  # that may wait


class ReadAhead:
    """*source*, read in a thread; what it raises is raised by the `read` that comes to it. `stop` must be called."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._pieces: Queue[bytes | BaseException] = Queue(PIECES)
        self._stopped = Event()
        self._rest = b""
        self._end: BaseException | bool = False
        self._thread = Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes, and none only at the end."""
        if not self._rest and not self._end:
            self._take(self._pieces.get())
        if isinstance(self._end, BaseException) and not self._rest:
            raise self._end
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def stop(self) -> None:
        """Let go of the source: when this returns, the thread reads no more of it. May be called again."""
        self._stopped.set()
        while self._thread.is_alive():
            while not self._pieces.empty():
                self._pieces.get_nowait()
            self._thread.join(timeout=0.01)

    def _take(self, piece: bytes | BaseException) -> None:
        if isinstance(piece, BaseException):
            self._end = piece
        else:
            self._rest, self._end = piece, not piece

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                piece = self._source.read(PIECE_BYTES)
                self._pieces.put(piece)
                if not piece:
                    return
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever reads
            self._pieces.put(error)

"""A stream, seen through the chunk of it that arrived last: small pieces are cut out without copying twice."""

from ducc.layer.stream import READ_SIZE, Readable

_WORTH_A_VIEW = READ_SIZE >> 3  # a view keeps all of its chunk in memory


class Window:
    """Reads *source* from where it stands, a chunk at a time, and never beyond the chunk that is needed."""

    __slots__ = ("_at", "_before", "_chunk", "_read")

    def __init__(self, source: Readable) -> None:
        self._read = source.read
        self._chunk = b""
        self._at = 0
        self._before = 0  # bytes of the stream before the chunk

    @property
    def position(self) -> int:
        return self._before + self._at

    def take(self, length: int) -> bytes:
        """The next *length* bytes, fewer only at the end of the stream."""
        end = self._at + length
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
            return data
        parts = []
        while length and (piece := self.piece(length)):
            parts.append(piece)
            length -= len(piece)
        return b"".join(parts)

    def view(self, length: int) -> bytes | memoryview:
        """As `take`, but no copy of what is big and in one chunk."""
        end = self._at + length
        if length < _WORTH_A_VIEW or end > len(self._chunk):
            return self.take(length)
        data = memoryview(self._chunk)[self._at : end]
        self._at = end
        return data

    def piece(self, most: int) -> memoryview:
        """At least one byte and at most *most*; none only at the end of the stream."""
        if self._at == len(self._chunk):
            self._advance()
        view = memoryview(self._chunk)[self._at : self._at + most]
        self._at += len(view)
        return view

    def skip(self, length: int) -> int:
        """Pass over *length* bytes; returns how many there were."""
        end = self._at + length
        if end <= len(self._chunk):
            self._at = end
            return length
        left = length
        while left and (piece := self.piece(left)):
            left -= len(piece)
        return length - left

    def peek(self, length: int) -> bytes:
        """The next *length* bytes, fewer only at the end of the stream; they stay unread."""
        data = self.take(length)
        self.put_back(data)
        return data

    def put_back(self, data: bytes) -> None:
        """Make *data*, the last that was read, unread again."""
        if len(data) <= self._at:
            self._at -= len(data)
            return
        self._before = self.position - len(data)
        self._chunk, self._at = data + self._chunk[self._at :], 0

    def _advance(self) -> None:
        self._before += len(self._chunk)
        self._chunk, self._at = self._read(READ_SIZE), 0

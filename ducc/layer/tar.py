"""A strict streaming reader of tar archives: their members in order, each with its content.

An archive means what Go's `archive/tar` reads in it, because that is what container runtimes use, or it is refused:
`MalformedArchive` names the layer, the member and the reason. Understood are ustar, pax, GNU's long names and sparse
files, star and Unix v7. The stream is read once, from its start to the end-of-archive; what follows is the caller's.
Memory stays below a few megabytes.
"""

from collections import Counter
from collections.abc import Iterator

from ducc.errors import DuccError
from ducc.layer.block import BLOCK_SIZE, ZERO_BLOCK, Header, Refusal, parse_block, text
from ducc.layer.pax import merge_records, parse_records
from ducc.layer.sparse import Extent, check_map, read_old_map, read_pax_map
from ducc.layer.stream import READ_SIZE, Readable
from ducc.layer.window import Window

MAX_EXTENSION_SIZE = 1 << 20  # bytes of one pax header, one long name

_PAX, _GLOBAL_PAX, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTENSIONS = frozenset((_PAX, _GLOBAL_PAX, _LONG_NAME, _LONG_LINK))
_SPARSE, _DIRECTORY, _OLD_REGULAR = b"S", b"5", b"\0"
_WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_ZEROS = memoryview(bytes(READ_SIZE))


class MalformedArchive(DuccError):
    """A layer that can't be read as an archive, or that says what no layer may say."""

    exit_code = 43

    def __init__(self, layer: str, place: str, reason: str) -> None:
        super().__init__(f"{layer}: {place}: {reason}")
        self.layer, self.place, self.reason = layer, place, reason


def place_of(name: bytes) -> str:
    """How an error calls the member *name*: one short line, whatever bytes it is made of."""
    return f"member {repr(name[:256])[1:]}"


class TarReader:
    """Iterate for headers; between two of them `content` or `pieces` gives the content of the former, once."""

    def __init__(self, source: Readable, layer: str) -> None:
        self.oddities: Counter[str] = Counter()  # what was accepted and should be known
        self._window = Window(source)
        self._layer = layer
        self._name: bytes | None = None  # of the member, once it is known
        self._size = 0  # of the member's content, with holes
        self._left = 0  # bytes of it that are in the archive and have not been read
        self._padding = 0
        self._extents: list[Extent] | None = None  # of a sparse file

    def __iter__(self) -> Iterator[Header]:
        while True:
            if self._window.skip(self._left) < self._left:
                raise self._truncated()
            self._window.skip(self._padding)  # the last member's may be missing: Go's reader does not mind
            try:
                header = self._next_member()
            except Refusal as refusal:
                raise self._malformed(str(refusal)) from None
            if header is None:
                return
            yield header

    def content(self) -> bytes | memoryview:
        """All of the content, at once and valid for ever; for files that are known to be small."""
        if self._extents is not None:
            return b"".join(self.pieces(READ_SIZE))
        data = self._window.view(self._left)
        if len(data) < self._left:
            raise self._truncated()
        self._left = 0
        return data

    def pieces(self, most: int) -> Iterator[memoryview]:
        """The content in order, in views of at most *most* bytes; a view stays valid."""
        if self._extents is None:
            yield from self._stored(self._left, most)
            return
        extents, self._extents = self._extents, None
        end = 0
        for offset, length in extents:
            yield from _zeros(offset - end, most)
            yield from self._stored(length, most)
            end = offset + length
        yield from _zeros(self._size - end, most)

    def _stored(self, length: int, most: int) -> Iterator[memoryview]:
        while length:
            piece = self._window.piece(min(length, most))
            if not piece:
                raise self._truncated()
            length -= len(piece)
            self._left -= len(piece)
            yield piece

    def _next_member(self) -> Header | None:
        """The next member's header, corrected by the extended headers before it; none at the end."""
        self._name = None
        extensions: dict[bytes, bytes] = {}
        while block := self._header_block():
            header = parse_block(block)
            if header.flag in _EXTENSIONS:
                self._extend(extensions, header)
                continue
            if extensions:
                _correct(header, extensions)
            if header.flag == _OLD_REGULAR and header.name.endswith(b"/"):
                header.flag = _DIRECTORY
            self._name = header.name
            self._begin_content(header, block)
            return header
        if extensions:
            raise Refusal("an extended header without a member")
        return None

    def _header_block(self) -> bytes:
        """The next block, or nothing at the end: of the stream, or a zero block with another or nothing behind it."""
        block = self._block()
        if block and block != ZERO_BLOCK:
            return block
        second = self._block()
        if second not in (b"", ZERO_BLOCK):
            raise Refusal("a lone block of zeros in the middle of the archive")
        if not second:
            self.oddities["end of archive not marked"] += 1
        return b""

    def _block(self) -> bytes:
        block = self._window.take(BLOCK_SIZE)
        if 0 < len(block) < BLOCK_SIZE:
            raise Refusal("the archive ends inside a header")
        return block

    def _extend(self, extensions: dict[bytes, bytes], header: Header) -> None:
        """Read the body of an extended *header*, to be kept for the next member."""
        if not 0 <= header.size <= MAX_EXTENSION_SIZE:
            raise Refusal(f"an extended header of {header.size} bytes")
        body = self._window.take(header.size)
        if len(body) < header.size:
            raise Refusal("the archive ends inside an extended header")
        self._window.skip(-header.size % BLOCK_SIZE)
        if header.flag in extensions or (header.flag == _GLOBAL_PAX and extensions):
            raise Refusal("extended headers in an order that readers understand differently")
        if header.flag == _GLOBAL_PAX:
            merge_records(parse_records(body), header)  # to refuse what is malformed; it changes no member
            self.oddities["global pax header"] += 1
        else:
            extensions[header.flag] = body

    def _begin_content(self, header: Header, block: bytes) -> None:
        """Make ready to read the content of *header*, which for a sparse file begins with its map."""
        self._left = 0 if header.flag in _WITHOUT_CONTENT else header.size
        if header.size < 0:
            raise Refusal("a negative size")
        self._padding = -self._left % BLOCK_SIZE
        if header.flag == _SPARSE:
            self._extents = read_old_map(block, header, self._map_block)
        else:
            self._extents = read_pax_map(header, self._content_block) if header.records else None
        if self._extents is not None:
            if header.flag in _WITHOUT_CONTENT:
                raise Refusal("a sparse file that is not a file")
            check_map(self._extents, header.size, self._left)
        self._size = header.size

    def _map_block(self) -> bytes:
        if block := self._block():
            return block
        raise Refusal("the archive ends inside a header")

    def _content_block(self) -> bytes:
        if self._left < BLOCK_SIZE:
            raise Refusal("the map of a sparse file is longer than the file")
        self._left -= BLOCK_SIZE
        return self._map_block()

    def _truncated(self) -> MalformedArchive:
        return self._malformed("the archive ends inside its content")

    def _malformed(self, reason: str) -> MalformedArchive:
        place = f"header before byte {self._window.position}" if self._name is None else place_of(self._name)
        return MalformedArchive(self._layer, place, reason)


def _correct(header: Header, extensions: dict[bytes, bytes]) -> None:
    """Apply the extended headers in the order of Go's reader: pax first, then GNU's long names."""
    if _PAX in extensions:
        merge_records(parse_records(extensions[_PAX]), header)
    if name := text(extensions.get(_LONG_NAME, b"")):
        header.name = name
    if link := text(extensions.get(_LONG_LINK, b"")):
        header.link = link


def _zeros(length: int, most: int) -> Iterator[memoryview]:
    while length:
        piece = _ZEROS[: min(length, most)]
        length -= len(piece)
        yield piece

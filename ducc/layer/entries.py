"""From a layer's blob to its members: what ingest uses of this folder.

Here is the policy: which members of an image may be published, which are left out and counted, and which make the
whole layer unacceptable; `attributes` has the same for extended attributes. What a path means among others (parents
that are links, duplicates, targets of hard links) is decided by who has all of them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from os import makedev
from typing import NamedTuple, Protocol

from ducc.errors import DuccError
from ducc.image.digest import Digest, DigestMismatch
from ducc.layer.attributes import kept_attributes
from ducc.layer.block import Header, Refusal
from ducc.layer.decompress import MAX_LAYER_SIZE, DecompressedStream, LayerTooLarge, UnreadableCompression
from ducc.layer.stream import READ_SIZE, Readable, VerifiedStream
from ducc.layer.tar import MalformedArchive, TarReader, place_of
from ducc.layer.whiteout import Meaning, normal_path, read_name

MAX_ID = 2**32 - 2  # the next one means "no owner" to the kernel
MAX_TARGET = 4095
MAX_MAJOR, MAX_MINOR = 2**12 - 1, 2**20 - 1


class Kind(Enum):
    """What a member is, or what it does to the layers below."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque directory"


class Member(NamedTuple):
    """One member of a layer.

    *path* is `b""` for the layer's root and like `b"/a/b"` otherwise; for a whiteout it is what is hidden, for OPAQUE
    the directory. *link* is a symlink's target as it was written, or the path that a hard link repeats. *mode* has no
    bits but 0o7777. *mtime_ns* counts up from *mtime*. *xattrs* are sorted.
    """

    path: bytes
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class DiffIdMismatch(DigestMismatch):
    """The blob is the one that was asked for, but its tar is not the one that the image's config names."""

    retryable = False


_PATH = Meaning.PATH
_FILE, _DIRECTORY, _SYMLINK, _HARDLINK = Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARDLINK
_CHARACTER, _BLOCK = Kind.CHARACTER, Kind.BLOCK
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # contiguous
    b"S": Kind.FILE,  # GNU sparse
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class Stoppable(Readable, Protocol):
    """A stream that somebody reads ahead."""

    def stop(self) -> None:
        """Let go of what lies below; when this returns, nobody reads it any more."""


class LayerReader:
    """Iterate, once, for the members of the layer in *blob*, in the order of the archive.

    Until the next member is asked for, the content of a FILE can be read, once, by `content` or by `pieces`.
    When the iteration has ended by itself, all of the blob and of the tar in it were as their digests say; if it
    raises, nothing that came from it may be published. *dropped* then counts, by reason, what was left out and what is
    odd about the archive.
    """

    def __init__(
        self,
        blob: VerifiedStream,
        diff_id: Digest,
        *,
        max_size: int = MAX_LAYER_SIZE,
        ahead: Callable[[Readable], "Stoppable"] | None = None,
    ) -> None:
        """*ahead* may wrap the verified archive in a stream that another thread reads in advance, up to `stop`."""
        self.layer = f"layer {blob.expected}"
        self.dropped: Counter[str] = Counter()
        self.content_size = 0  # of all files so far, with their holes
        self._blob, self._max_size = blob, max_size
        archive = DecompressedStream(blob, self.layer, max_size)
        self._verified = VerifiedStream(archive, diff_id, None, f"{self.layer}, uncompressed", DiffIdMismatch)
        self._ahead = ahead(self._verified) if ahead else None
        self._stream = self._ahead or self._verified
        self._tar = TarReader(self._stream, self.layer)

    def __iter__(self) -> Iterator[Member]:
        try:
            for header in self._tar:
                member = self._member(header)
                if member is not None:
                    yield member
            while self._stream.read(READ_SIZE):
                pass
            self.dropped += self._tar.oddities
        except (MalformedArchive, UnreadableCompression) as error:
            raise self._cause(error) from error.__cause__

    def stop(self) -> None:
        """Let go of the blob; nothing can be read any more. To be called if the stream is read ahead."""
        if self._ahead is not None:
            self._ahead.stop()

    @property
    def tar_size(self) -> int:
        """Bytes of the uncompressed archive, as far as it was read."""
        return self._verified.received

    def content(self) -> bytes | memoryview:
        """All of the current file's content: ask only if its size is small enough for memory."""
        try:
            return self._tar.content()
        except (MalformedArchive, UnreadableCompression) as error:
            raise self._cause(error) from error.__cause__

    def pieces(self, most: int) -> Iterator[memoryview]:
        """The current file's content in order, in views of at most *most* bytes that stay valid."""
        try:
            yield from self._tar.pieces(most)
        except (MalformedArchive, UnreadableCompression) as error:
            raise self._cause(error) from error.__cause__

    def _cause(self, error: DuccError) -> DuccError:
        """A blob that was damaged on its way can look like anything; so see first whether it was."""
        self.stop()
        self._blob.finish()
        return error

    def _member(self, header: Header) -> Member | None:
        try:
            return self._read(header)
        except Refusal as refusal:
            raise MalformedArchive(self.layer, place_of(header.name), str(refusal)) from None

    def _read(self, header: Header) -> Member | None:
        """The member that *header* describes, none if it is left out."""
        kind = _KINDS.get(header.flag)
        if kind is None:
            raise Refusal(f"type {header.flag!r} is not known")
        meaning, path = read_name(header.name)
        if meaning is not _PATH:
            return self._mark(meaning, path, kind, header)
        if kind is not _DIRECTORY and (not path or header.name.endswith((b"/", b"/."))):
            raise Refusal("only a directory may have such a name")
        if not (0 <= header.uid <= MAX_ID and 0 <= header.gid <= MAX_ID):
            raise Refusal(f"owner {header.uid}:{header.gid} is out of range")
        size, link, device = 0, b"", 0
        if kind is _FILE:
            size = self._count(header.size)
        elif kind is _SYMLINK:
            link = _target(header.link)
        elif kind is _HARDLINK:
            link = _linked_path(header.link)
        elif kind is _CHARACTER or kind is _BLOCK:
            device = _device(header.major, header.minor)
            if device == 0 and kind is _CHARACTER:
                self.dropped["device 0:0"] += 1
                return None
        return Member(
            path, kind, header.mode & 0o7777, header.uid, header.gid, header.mtime, header.mtime_ns, size, link, device,
            kept_attributes(header.records, self.dropped) if header.records else (),
        )  # fmt: skip

    def _mark(self, meaning: Meaning, path: bytes, kind: Kind, header: Header) -> Member | None:
        """A member that is there for its name. aufs made whiteouts that are hard links to one another."""
        if meaning is Meaning.AUFS or meaning is Meaning.CONTROL:
            self.dropped[meaning.value] += 1
            return None
        is_empty_file = kind is _FILE and not header.size
        if not is_empty_file and kind is not _HARDLINK:
            raise Refusal("a whiteout that is not an empty file")
        return Member(path, Kind.OPAQUE if meaning is Meaning.OPAQUE else Kind.WHITEOUT)

    def _count(self, size: int) -> int:
        """Holes are free in the archive, but not for who reads them: they count towards the layer's limit."""
        self.content_size += size
        if self.content_size > self._max_size:
            raise LayerTooLarge(f"{self.layer}: its files are larger than {self._max_size} bytes together")
        return size


def _target(link: bytes) -> bytes:
    if not 0 < len(link) <= MAX_TARGET:
        raise Refusal(f"a symlink whose target has {len(link)} bytes")
    if b"\0" in link:
        raise Refusal("a symlink whose target has a NUL")
    return link


def _linked_path(link: bytes) -> bytes:
    try:
        if path := normal_path(link):
            return path
    except Refusal as refusal:
        raise Refusal(f"a hard link to {link[:256]!r}: {refusal}") from None
    raise Refusal("a hard link to the root of the layer")


def _device(major: int, minor: int) -> int:
    if not (0 <= major <= MAX_MAJOR and 0 <= minor <= MAX_MINOR):
        raise Refusal(f"device {major}:{minor} is out of range")
    return makedev(major, minor)

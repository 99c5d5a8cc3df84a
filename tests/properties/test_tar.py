"""Any archive of Python's `tarfile` is read as `tarfile` reads it; any damage is noticed, and has a name."""

import gzip
import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.layer.entries import Kind, LayerReader, Member
from ducc.layer.stream import VerifiedStream

KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)

components = st.text("abcé ü\udcff\n=", min_size=1, max_size=60)
paths = st.lists(components, min_size=1, max_size=6).map("/".join)
octal_7, octal_11 = st.integers(0, 8**7 - 1), st.integers(0, 8**11 - 1)


@st.composite
def infos(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(paths))
    info.type = draw(st.sampled_from(list(KINDS)))
    info.mode, info.uid, info.gid = draw(st.integers(0, 0o7777)), draw(octal_7), draw(octal_7)
    info.mtime = draw(octal_11)
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(paths)
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = draw(st.integers(1, 4095)), draw(st.integers(0, 2**20 - 1))
    content = draw(st.binary(max_size=2000)) if info.type == tarfile.REGTYPE else b""
    info.size = len(content)
    return info, content


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=draw(st.sampled_from(FORMATS))) as tar:
        for info, content in draw(st.lists(infos(), max_size=6)):
            try:
                tar.addfile(info, io.BytesIO(content))
            except ValueError:
                continue  # too long a name for ustar
    return buffer.getvalue()


def read(blob: bytes, named: bytes | None = None, tar: bytes | None = None) -> list[tuple[Member, bytes]]:
    """Members and contents of *blob*, which is said to be *named* and to hold *tar*."""
    expected = Digest.of(blob if named is None else named)
    stream = VerifiedStream(io.BytesIO(blob), expected, None, "blob")
    reader = LayerReader(stream, Digest.of(blob if tar is None else tar), max_size=1 << 24)
    return [(member, reader.content() if member.kind is Kind.FILE else b"") for member in reader]


def as_tarfile_reads(tar: bytes) -> list[tuple[Member, bytes]]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for info in archive:
            link = info.linkname.encode("utf-8", "surrogateescape")
            device = (info.devmajor, info.devminor) if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE) else (0, 0)
            member = Member(
                b"/" + info.name.encode("utf-8", "surrogateescape"), KINDS[info.type], info.mode, info.uid, info.gid,
                int(info.mtime), 0, info.size, b"/" + link if info.islnk() else link, makedev(*device),
            )  # fmt: skip
            content = archive.extractfile(info) if info.isreg() else None
            found.append((member, content.read() if content else b""))
    return found


def makedev(major: int, minor: int) -> int:
    """Linux's encoding, spelled out: tarfile gives the two numbers."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12


@given(archives())
def test_archives_of_tarfile_are_read_as_tarfile_reads_them(tar: bytes) -> None:
    assert read(tar) == as_tarfile_reads(tar)


@given(archives(), st.data())
def test_damage_never_passes_and_always_has_a_name(tar: bytes, data: st.DataObject) -> None:
    """Every damaged copy is either what it was or a `DuccError`, for blobs of which the digests are known."""
    blob = gzip.compress(tar, 1) if data.draw(st.booleans()) else tar
    damaged = data.draw(damages(blob))
    try:
        members = read(damaged, blob, tar)
    except DuccError:
        return
    assert damaged == blob
    assert members == read(blob, blob, tar)


@given(archives(), st.data())
@settings(max_examples=300)
def test_a_malicious_archive_is_read_or_refused(tar: bytes, data: st.DataObject) -> None:
    """The digests match, so that nothing stands between the damage and the parser."""
    damaged = data.draw(damages(tar))
    try:
        members = read(damaged)
    except DuccError:
        return
    assert all(len(content) == member.size for member, content in members)


@st.composite
def damages(draw: st.DrawFn, blob: bytes) -> bytes:
    at = draw(st.integers(0, len(blob) - 1))
    if draw(st.booleans()):
        return blob[:at]
    return blob[:at] + bytes([draw(st.integers(0, 255))]) + blob[at + 1 :]

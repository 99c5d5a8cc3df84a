"""What an archive means, and what is refused: rows B1 to B47 of the robustness catalogue that belong to the reader."""

import os

import pytest

from ducc.layer.decompress import LayerTooLarge
from ducc.layer.entries import Kind
from ducc.layer.tar import MalformedArchive
from tests.unit.layer.archives import (
    END,
    GNU,
    V7,
    archive,
    binary,
    header,
    long_name,
    member,
    pax,
    pax_body,
    read,
    reader_of,
    record,
)

FILE = b"0"
OLD_FILE = b"\0"
HARDLINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"1", b"2", b"3", b"4", b"5", b"6"


def xattr(name: bytes, value: bytes = b"v") -> tuple[bytes, bytes]:
    return b"SCHILY.xattr." + name, value


# a checksum in base 256 that would hold, were it allowed
BINARY_CHECKSUM = binary(int(header(b"b")[148:154], 8), 8)

REFUSED = {
    "B1 parent": (member(b"../x"), "'..'"),
    "B1 parent in the middle": (member(b"a/../../x"), "'..'"),
    "B1 parent that would stay inside": (member(b"a/../x"), "'..'"),
    "B1 absolute parent": (member(b"/../x"), "'..'"),
    "B1 directory": (member(b"..", flag=DIRECTORY), "'..'"),
    "B3 a file for the root": (member(b"./"), "only a directory"),
    "B3 a symlink without a name": (member(b"", flag=SYMLINK, link=b"/etc"), "only a directory"),
    "B3 a fifo called dot": (member(b".", flag=FIFO), "only a directory"),
    "B6 target too long": (pax({b"linkpath": b"t" * 4096}) + member(b"x", flag=SYMLINK), "4096 bytes"),
    "B6 no target": (member(b"x", flag=SYMLINK), "0 bytes"),
    "B6 NUL in the target": (pax({b"linkpath": b"a\0b"}) + member(b"x", flag=SYMLINK), "NUL"),
    "B7 hard link outside": (member(b"x", flag=HARDLINK, link=b"../../etc/passwd"), "'..'"),
    "B8 hard link to the root": (member(b"x", flag=HARDLINK, link=b"./"), "root"),
    "B11 path too long": (pax({b"path": b"/".join([b"d" * 200] * 21)}) + member(b"x"), "4096 bytes"),
    "B12 symlink with a slash behind": (member(b"x/", flag=SYMLINK, link=b".."), "only a directory"),
    "B12 file with a slash behind": (member(b"x/"), "only a directory"),
    "B13 whiteout of nothing": (member(b".wh."), "whiteout of nothing"),
    "B13 whiteout of dot": (member(b".wh.."), "whiteout of nothing"),
    "B13 whiteout of dot dot": (member(b".wh..."), "whiteout of nothing"),
    "B13 whiteout of dot in a directory": (member(b"dir/.wh.."), "whiteout of nothing"),
    "B16 whiteout with content": (member(b".wh.x", b"content"), "not an empty file"),
    "B16 whiteout that is a directory": (member(b".wh.x/", flag=DIRECTORY), "not an empty file"),
    "B16 whiteout that is a symlink": (member(b".wh.x", flag=SYMLINK, link=b"y"), "not an empty file"),
    "B16 opaque marker that is a directory": (member(b"d/.wh..wh..opq", flag=DIRECTORY), "not an empty file"),
    "B16 file below a whiteout": (member(b".wh.etc/somefile"), "its directory is a whiteout"),
    "B23 256 bytes": (pax({b"path": b"n" * 256}) + member(b"x"), "255 bytes"),
    "B23 256 bytes, hidden": (pax({b"path": b".wh." + b"n" * 256}) + member(b"x"), "255 bytes"),
    "B23 256 bytes, directory": (pax({b"path": b"n" * 256 + b"/x"}) + member(b"x"), "255 bytes"),
    "B24 major out of range": (member(b"x", flag=BLOCK, major=4096), "out of range"),
    "B24 minor out of range": (member(b"x", flag=BLOCK, minor=1 << 20), "out of range"),
    "B24 negative major": (member(b"x", flag=CHARACTER, major=binary(-1, 8)), "out of range"),
    "B26 unknown type": (member(b"x", flag=b"Z"), "is not known"),
    "B26 GNU dump directory": (member(b"x", flag=b"D", magic=GNU), "is not known"),
    "B26 GNU volume label": (member(b"x", flag=b"V", magic=GNU), "is not known"),
    "B29 attribute without a name": (pax([xattr(b"")]) + member(b"x"), "0 bytes"),
    "B29 attribute with a long name": (pax([xattr(b"user." + b"n" * 251)]) + member(b"x"), "256 bytes"),
    "B29 large attribute": (pax([xattr(b"user.a", bytes(65537))]) + member(b"x"), "65537 bytes"),
    "B29 many attributes": (pax([xattr(b"user.%d" % i) for i in range(1001)]) + member(b"x"), "1000"),
    "B30 uid that means nobody": (pax({b"uid": b"4294967295"}) + member(b"x"), "owner"),
    "B30 negative uid": (member(b"x", uid=binary(-2, 8)), "owner"),
    "B30 negative gid, pax": (pax({b"gid": b"-1"}) + member(b"x"), "owner"),
    "B30 gid of 5,000 digits": (pax({b"gid": b"1" * 5000}) + member(b"x"), "64 bits"),
    "B31 not a number": (pax({b"mtime": b"nan"}) + member(b"x"), "not a time"),
    "B31 infinite": (pax({b"mtime": b"inf"}) + member(b"x"), "not a time"),
    "B31 exponent": (pax({b"mtime": b"1e400"}) + member(b"x"), "not a time"),
    "B31 beyond 64 bits": (pax({b"mtime": b"9223372036854775808"}) + member(b"x"), "64 bits"),
    "B31 unused time, malformed": (pax({b"atime": b"tomorrow"}) + member(b"x"), "not a time"),
    "B32 negative size": (member(b"x", size=binary(-1)), "negative size"),
    "B32 negative size, pax": (pax({b"size": b"-1"}) + member(b"x"), "negative size"),
    "B32 size of 2^62 without content": (pax({b"size": b"%d" % 2**62}) + member(b"x"), ""),
    "B32 size of 2^64": (pax({b"size": b"%d" % 2**64}) + member(b"x"), "64 bits"),
    "B34 wrong checksum in the middle": (member(b"a") + header(b"b", checksum=b"000001\0 "), "checksum"),
    "B34 checksum in base 256": (member(b"a") + header(b"b", checksum=BINARY_CHECKSUM), "checksum"),
    "B34 no octal number": (member(b"x", mode=b"00o0644\0"), "not an octal number"),
    "B34 underscore in a number": (member(b"x", mode=b"00_0644\0"), "not an octal number"),
    "B34 digit that is not octal": (member(b"x", uid=b"0000008\0"), "not an octal number"),
    "B34 number beyond 64 bits": (member(b"x", size=b"\x80\xff" + bytes(10)), "64 bits"),
    "B34 garbage after one block of zeros": (member(b"a") + bytes(512) + member(b"b"), "block of zeros"),
    "B38 record of length 0": (pax_body(b"0 path=x\n") + member(b"x"), "where it says"),
    "B38 record of length 1": (pax_body(b"1 path=x\n") + member(b"x"), "where it says"),
    "B38 record past the body": (pax_body(b"99 path=x\n") + member(b"x"), "where it says"),
    "B38 record without a key": (pax_body(record(b"", b"x")) + member(b"x"), "no key"),
    "B38 record without an equals sign": (pax_body(b"7 path\n") + member(b"x"), "no key"),
    "B38 record without a newline": (pax_body(b"9 path=xx") + member(b"x"), "where it says"),
    "B38 record with a sign": (pax_body(b"+10 path=x\n") + member(b"x"), "its length"),
    "B38 only digits": (pax_body(b"1" * 200_000) + member(b"x"), "its length"),
    "B38 bytes of no record": (pax_body(record(b"path", b"y") + bytes(3)) + member(b"x"), "its length"),
    "B38 more than a MiB": (pax({b"comment": bytes(1 << 20)}) + member(b"x"), "extended header of"),
    "B38 claims 64 MiB": (header(b"x", b"x", 64 << 20), "extended header of"),
    "B38 many records": (pax_body(b"8 four=\n" * 65_537) + member(b"x"), "65536"),
    "B39 NUL in a path": (pax({b"path": b"a\0b"}) + member(b"x"), "NUL"),
    "B39 NUL in a key": (pax({b"a\0b": b"x"}) + member(b"x"), "NUL"),
    "B40 malformed global header": (pax_body(b"5 x\n\n", b"g") + member(b"x"), "pax record"),
    "B40 global header between": (pax({b"path": b"y"}) + pax({b"a": b"b"}, b"g") + member(b"x"), "order"),
    "B41 long name of 8 GiB": (header(b"x", b"L", binary(8 << 30), magic=GNU), "extended header of"),
    "B41 negative long name": (header(b"x", b"L", binary(-1), magic=GNU), "extended header of"),
    "B41 long name for nobody": (long_name(b"n" * 200) + END, "without a member"),
    "B41 two long names": (long_name(b"a") + long_name(b"b") + member(b"x"), "order"),
    "B41 two pax headers": (pax({b"path": b"a"}) + pax({b"path": b"b"}) + member(b"x"), "order"),
    "B43 traversal by a sparse name": (
        pax({b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"1", b"GNU.sparse.name": b"../x",
             b"GNU.sparse.numblocks": b"0"}) + member(b"x"), "'..'"),
    "B44 directory with content": (member(b"d/", b"content", DIRECTORY), "checksum"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    blocks, reason = REFUSED[case]
    with pytest.raises((MalformedArchive, LayerTooLarge)) as error:
        read(archive(blocks, member(b"last")))
    text = str(error.value)
    assert text.startswith("layer sha256:")
    assert reason in text
    assert "\n" not in text


NAMES = {
    "B2 absolute": (b"/x", b"/x"),
    "B2 two slashes": (b"//x", b"/x"),
    "B2 dot": (b"./x", b"/x"),
    "B2 dot, two slashes": (b".//x", b"/x"),
    "B2 in the middle": (b"a/.//./x", b"/a/x"),
    "B18 whiteout prefix inside": (b"a.wh.b", b"/a.wh.b"),
    "B18 hidden file": (b".whatever", b"/.whatever"),
    "B23 not UTF-8": (b"\xff\xfe", b"/\xff\xfe"),
    "B23 right to left": ("\u202egpj.exe".encode(), b"/\xe2\x80\xaegpj.exe"),
    "B23 newline": (b"a\nb", b"/a\nb"),
    "B23 three dots": (b"...", b"/..."),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_of_files(case: str) -> None:
    name, path = NAMES[case]
    assert read(archive(member(name))).only().path == path


@pytest.mark.parametrize("name", [b"", b".", b"./", b"/", b"//", b"././"], ids=repr)
def test_b3_directories_that_are_the_root(name: bytes) -> None:
    only = read(archive(member(name, flag=DIRECTORY, mode=0o1777))).only()
    assert (only.path, only.kind, only.mode) == (b"", Kind.DIRECTORY, 0o1777)


def test_b6_a_newline_in_a_target_is_kept() -> None:
    assert read(archive(member(b"x", flag=SYMLINK, link=b"a\nb/../c"))).only().link == b"a\nb/../c"


def test_b7_hard_link_targets_are_normalised() -> None:
    only = read(archive(member(b"x", flag=HARDLINK, link=b"./usr//bin/y"))).only()
    assert (only.kind, only.link, only.size) == (Kind.HARDLINK, b"/usr/bin/y", 0)


def test_b11_deepest_path() -> None:
    name = b"/".join([b"d"] * 2048)
    assert read(archive(pax({b"path": name}), member(b"x"))).only().path == b"/" + name


@pytest.mark.parametrize("flag", [FILE, OLD_FILE, HARDLINK])
def test_whiteouts_hide_a_path(flag: bytes) -> None:
    """aufs made its whiteouts hard links to one another, and old images hold them so."""
    only = read(archive(member(b"./dir/.wh.x", flag=flag, link=b"dir/.wh.y"))).only()
    assert (only.path, only.kind) == (b"/dir/x", Kind.WHITEOUT)


def test_b15_opaque_marker_is_about_its_directory() -> None:
    layer = read(archive(member(b"dir/x"), member(b"dir/.wh..wh..opq"), member(b".wh..wh..opq")))
    assert [(m.path, m.kind) for m in layer.members] == [
        (b"/dir/x", Kind.FILE), (b"/dir", Kind.OPAQUE), (b"", Kind.OPAQUE),
    ]  # fmt: skip


def test_b19_aufs_leftovers_are_dropped() -> None:
    layer = read(archive(
        member(b".wh..wh.plnk/", flag=DIRECTORY), member(b".wh..wh.plnk/12.34", b"content"), member(b".wh..wh.aufs"),
        member(b".wh..wh.orph", flag=DIRECTORY), member(b"x"),
    ))  # fmt: skip
    assert layer.paths() == [b"/x"]
    assert layer.dropped == {"aufs leftover": 4}


def test_b23_255_bytes_are_allowed_and_can_be_hidden() -> None:
    name = b"n" * 255
    layer = read(archive(pax({b"path": name}), member(b"x"), pax({b"path": b".wh." + name}), member(b"x")))
    assert layer.paths() == [b"/" + name] * 2


def test_b24_devices() -> None:
    layer = read(archive(
        member(b"null", flag=CHARACTER, major=1, minor=3), member(b"sda", flag=BLOCK, major=8),
        member(b"big", flag=BLOCK, major=4095, minor=binary((1 << 20) - 1, 8)), member(b"hidden", flag=CHARACTER),
    ))  # fmt: skip
    assert [(m.path, m.kind, m.device) for m in layer.members] == [
        (b"/null", Kind.CHARACTER, os.makedev(1, 3)), (b"/sda", Kind.BLOCK, os.makedev(8, 0)),
        (b"/big", Kind.BLOCK, os.makedev(4095, (1 << 20) - 1)),
    ]  # fmt: skip
    assert layer.dropped == {"device 0:0": 1}


def test_b25_fifo() -> None:
    assert read(archive(member(b"x", flag=FIFO, mode=0o600))).only().kind is Kind.FIFO


def test_b26_contiguous_file_is_a_file() -> None:
    assert read(archive(member(b"x", b"content", b"7"))).contents == {b"/x": b"content"}


def test_old_archives_mark_directories_by_a_slash() -> None:
    layer = read(archive(member(b"d/", flag=OLD_FILE, magic=V7), member(b"d/x", b"abc", OLD_FILE, magic=V7)))
    assert [(m.path, m.kind) for m in layer.members] == [(b"/d", Kind.DIRECTORY), (b"/d/x", Kind.FILE)]


def test_b27_mode_bits() -> None:
    assert read(archive(member(b"x", mode=0o107755))).only().mode == 0o7755


def test_b28_attributes() -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    layer = read(archive(
        pax([
            xattr(b"user.b", b"2\n=\0"), xattr(b"user.a", b""), xattr(b"security.capability", capability),
            xattr(b"trusted.overlay.opaque", b"y"), xattr(b"user.overlay.redirect", b"/etc"),
            xattr(b"security.selinux"), xattr(b"system.posix_acl_access"), xattr(b"nonsense"),
            xattr(b"trusted.other"), (b"LIBARCHIVE.xattr.user.a", b"Zm9v"), (b"LIBARCHIVE.xattr.user.c", b"Zm9v"),
        ]),
        member(b"x"),
    ))  # fmt: skip
    assert layer.only().xattrs == (
        (b"security.capability", capability), (b"user.a", b""), (b"user.b", b"2\n=\0")
    )  # fmt: skip
    assert layer.dropped == {
        "trusted.overlay.* attribute": 1, "user.overlay.* attribute": 1, "security.* attribute": 1,
        "system.* attribute": 1, "trusted.* attribute": 1, "attribute of an unknown namespace": 1,
        "LIBARCHIVE.xattr.* record": 1,
    }  # fmt: skip


def test_b29_attributes_that_the_repository_cannot_hold() -> None:
    many = [xattr(b"user.%03d" % i) for i in range(300)]
    layer = read(archive(
        pax([xattr(b"user.a", bytes(255)), xattr(b"user.b", bytes(256))]), member(b"x"), pax(many), member(b"y"),
    ))  # fmt: skip
    assert [name for name, _ in layer.members[0].xattrs] == [b"user.a"]
    assert layer.members[1].xattrs == tuple((b"user.%03d" % i, b"v") for i in range(255))
    assert layer.dropped == {"xattr longer than 255 bytes": 1, "xattr beyond the first 255": 45}


@pytest.mark.parametrize("uid", [0, 2**31 - 1, 2**32 - 2])
def test_b30_owners(uid: int) -> None:
    layer = read(archive(
        member(b"x", uid=binary(uid, 8)), pax({b"uid": b"%d" % uid, b"gid": b"7"}), member(b"y"),
    ))  # fmt: skip
    assert [(m.uid, m.gid) for m in layer.members] == [(uid, 0), (uid, 7)]


TIMES = {
    "B31 negative": (b"-1", (-1, 0)),
    "B31 negative with a fraction": (b"-1.25", (-2, 750_000_000)),
    "B31 less than a second before 1970": (b"-0.000000001", (-1, 999_999_999)),
    "B31 nanoseconds": (b"12.000000034", (12, 34)),
    "B31 finer than nanoseconds": (b"12.9999999999", (12, 999_999_999)),
    "B31 coarser": (b"12.5", (12, 500_000_000)),
    "B31 point without a fraction": (b"12.", (12, 0)),
    "B31 year 9999": (b"253402300799", (253402300799, 0)),
}


@pytest.mark.parametrize("case", TIMES)
def test_b31_times(case: str) -> None:
    text, expected = TIMES[case]
    only = read(archive(pax({b"mtime": text}), member(b"x"))).only()
    assert (only.mtime, only.mtime_ns) == expected


def test_b31_negative_time_in_base_256() -> None:
    assert read(archive(member(b"x", mtime=binary(-5)))).only().mtime == -5


@pytest.mark.parametrize(("claimed", "true"), [(1, 600), (600, 1), (600, 0)])
def test_b33_size_in_the_pax_header_wins(claimed: int, true: int) -> None:
    content = bytes(true)
    layer = read(archive(pax({b"size": b"%d" % true}), member(b"x", content, size=claimed), member(b"y")))
    assert layer.paths() == [b"/x", b"/y"]
    assert len(layer.contents[b"/x"]) == true


def test_b34_signed_checksum_is_accepted() -> None:
    """Some writers summed signed characters; readers accept both."""
    name = b"\xff" * 40
    unsigned = int(header(name)[148:154], 8)
    signed = b"%06o\0 " % (unsigned - 256 * 40)
    assert read(archive(header(name, checksum=signed))).only().path == b"/" + name


@pytest.mark.parametrize("end", [b"", bytes(512)], ids=["nothing", "one block of zeros"])
def test_b35_end_of_archive_may_be_missing_if_digests_hold(end: bytes) -> None:
    layer = read(member(b"x", b"content") + end)
    assert layer.contents == {b"/x": b"content"}
    assert layer.dropped == {"end of archive not marked": 1}


def test_b36_truncation_is_refused_except_in_padding() -> None:
    tar = member(b"first") + member(b"x", b"content")
    for length in range(513, len(tar)):
        if length < 1024 + len(b"content"):
            with pytest.raises(MalformedArchive, match="the archive ends inside"):
                read(tar[:length])
        else:  # only padding is missing: Go's reader accepts that
            assert read(tar[:length]).contents[b"/x"] == b"content"


def test_b37_what_follows_the_end_is_ignored_but_hashed() -> None:
    assert read(archive(member(b"x")) + archive(member(b"y")) + b"garbage").paths() == [b"/x"]


def test_b38_last_record_wins_and_an_empty_one_restores() -> None:
    layer = read(archive(
        pax([(b"path", b"a"), (b"path", b"b")]), member(b"x"), pax([(b"path", b"a"), (b"path", b"")]), member(b"y"),
    ))  # fmt: skip
    assert layer.paths() == [b"/b", b"/y"]


def test_b40_global_headers_change_nothing() -> None:
    layer = read(archive(pax({b"path": b"evil", b"uid": b"7"}, b"g"), member(b"x"), member(b"y")))
    assert [(m.path, m.uid) for m in layer.members] == [(b"/x", 0), (b"/y", 0)]
    assert layer.dropped == {"global pax header": 1}


def test_b41_long_name_with_long_link() -> None:
    name, link = b"n/" * 200 + b"x", b"l/" * 200 + b"y"
    blocks = long_name(link, b"K") + long_name(name) + member(b"short", flag=SYMLINK, link=b"short", magic=GNU)
    only = read(archive(blocks)).only()
    assert (only.path, only.link) == (b"/" + name, link)


def test_b41_long_name_wins_over_pax() -> None:
    assert read(archive(pax({b"path": b"a"}), long_name(b"b"), member(b"x", magic=GNU))).paths() == [b"/b"]


def test_b44_links_have_no_content_whatever_their_size() -> None:
    layer = read(archive(
        member(b"a", flag=SYMLINK, link=b"t", size=4096), member(b"b", flag=HARDLINK, link=b"t", size=700),
        member(b"c", flag=DIRECTORY, size=9), member(b"d", b"content"),
    ))  # fmt: skip
    assert [m.size for m in layer.members] == [0, 0, 0, 7]


def test_b45_control_names_are_dropped() -> None:
    names = (b".cvmfscatalog", b"d/.cvmfsdirtab", b".cvmfs/x", b"d/.cvmfsgraft-x", b".wh..cvmfscatalog", b"a.cvmfs")
    layer = read(archive(*(member(name) for name in names)))
    assert layer.paths() == [b"/a.cvmfs"]
    assert layer.dropped == {"CernVM-FS control name": 5}


@pytest.mark.parametrize("zeros", [512, 1024, 10240])
def test_b47_empty_archive(zeros: int) -> None:
    assert read(bytes(zeros)).members == []


def test_ustar_prefix() -> None:
    assert read(archive(member(b"x", prefix=b"a/b"))).only().path == b"/a/b/x"


def test_prefix_is_not_read_in_gnu_headers() -> None:
    assert read(archive(member(b"x", prefix=b"00000000000", magic=GNU))).only().path == b"/x"


def test_prefix_that_old_go_programs_left_in_gnu_headers() -> None:
    assert read(archive(member(b"x", prefix=b"usr/share", magic=GNU))).only().path == b"/usr/share/x"


def test_prefix_is_shorter_in_star_headers() -> None:
    star = {345: b"p" * 131, 476: b"00000000000\0", 488: b"00000000000\0", 508: b"tar\0"}
    assert read(archive(member(b"x", patch=star))).only().path == b"/" + b"p" * 131 + b"/x"


def test_content_may_be_left_unread_or_read_in_pieces() -> None:
    large = os.urandom(3_000_000)
    reader = reader_of(
        archive(member(b"a", b"skipped"), member(b"b", large), member(b"c", large), member(b"d", b"end"))
    )
    seen = {}
    for found in reader:
        if found.path == b"/b":
            pieces = list(reader.pieces(100_000))
            assert max(map(len, pieces)) <= 100_000
            seen[found.path] = b"".join(pieces)
        elif found.path == b"/c":
            next(reader.pieces(10))  # and no more of it
        elif found.path == b"/d":
            seen[found.path] = reader.content()
    assert seen == {b"/b": large, b"/d": b"end"}


def test_errors_name_layer_member_and_reason() -> None:
    tar = archive(member(b"a"), member(b"b\xff\n/../c"))
    with pytest.raises(MalformedArchive) as error:
        read(tar)
    assert "member 'b\\xff\\n/../c': its name has a component '..'" in str(error.value)


def test_end_marker_alone_is_no_member() -> None:
    assert read(END).dropped == {}

"""Our reader against Go's `archive/tar`, which decides what a layer means to the container runtimes.

Whatever we read, Go reads the same; what Go refuses, we refuse. (We may refuse more.) The archives are those of
Python's `tarfile` in three formats and hand-made ones, and thousands of damaged copies of them, with checksums that
hold again, so that the damage is reached.
"""

import hashlib
import io
import json
import random
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ducc.layer.block import Header
from ducc.layer.tar import MalformedArchive, TarReader
from tests.unit.layer import test_members, test_sparse
from tests.unit.layer.archives import GNU, V7, archive, binary, long_name, member, pax

DAMAGED_COPIES = 6000

GO_READER = r"""
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
)

func text(s string) string { return hex.EncodeToString([]byte(s)) }

func read(archive []byte) map[string]any {
	members := []any{}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := reader.Next()
		if err == io.EOF {
			return map[string]any{"members": members}
		}
		if err != nil {
			return map[string]any{"error": err.Error()}
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if h.Size > 1 << 28 {
			return map[string]any{"error": "a file too large to compare"}
		}
		content := sha256.New()
		if _, err := io.Copy(content, reader); err != nil {
			return map[string]any{"error": err.Error()}
		}
		records := map[string]string{}
		for key, value := range h.PAXRecords {
			records[text(key)] = text(value)
		}
		members = append(members, []any{
			text(h.Name), h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.Unix(), h.ModTime.Nanosecond(),
			text(h.Linkname), h.Devmajor, h.Devminor, records, hex.EncodeToString(content.Sum(nil)),
		})
	}
}

func main() {
	input := bufio.NewReader(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	for {
		var size uint32
		if binary.Read(input, binary.LittleEndian, &size) != nil {
			return
		}
		archive := make([]byte, size)
		if _, err := io.ReadFull(input, archive); err != nil {
			panic(err)
		}
		if err := output.Encode(read(archive)); err != nil {
			panic(err)
		}
	}
}
"""

LARGEST_FILE = 1 << 28  # with its holes; a larger one ends the comparison, as in the Go program


@pytest.fixture(scope="module")
def go_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed (Debian: golang-go): our tar reader is not compared with Go's")
    directory = tmp_path_factory.mktemp("go")
    source, program = directory / "reader.go", directory / "reader"
    source.write_text(GO_READER)
    environment = {"HOME": str(directory), "PATH": "/usr/bin:/bin", "GO111MODULE": "off", "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", program, source], check=True, env=environment, cwd=directory)
    return program


def what_go_reads(program: Path, archives: list[bytes]) -> list[dict[str, list[object]]]:
    framed = b"".join(struct.pack("<I", len(data)) + data for data in archives)
    answer = subprocess.run([program], input=framed, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]


def what_we_read(data: bytes) -> list[list[object]] | None:
    reader = TarReader(io.BytesIO(data), "layer")
    members: list[list[object]] = []
    try:
        for found in reader:
            if found.size > LARGEST_FILE:
                return None
            members.append(as_go_says(found, reader))
    except MalformedArchive:
        return None
    return members


def as_go_says(found: Header, reader: TarReader) -> list[object]:
    content = hashlib.sha256()
    for piece in reader.pieces(1 << 20):
        content.update(piece)
    return [
        found.name.hex(), ord("0") if found.flag == b"\0" else ord(found.flag), found.mode, found.uid, found.gid,
        found.size, found.mtime, found.mtime_ns, found.link.hex(), found.major, found.minor,
        {key.hex(): value.hex() for key, value in found.records.items()}, content.hexdigest(),
    ]  # fmt: skip


def test_hand_made_archives_mean_what_go_reads(go_reader: Path) -> None:
    compare(go_reader, list(hand_made()))


def test_ordinary_archives_are_all_accepted(go_reader: Path) -> None:
    archives = list(ordinary())
    assert compare(go_reader, archives) == len(archives)


def test_damaged_archives_mean_what_go_reads(go_reader: Path) -> None:
    accepted = compare(go_reader, list(damaged(DAMAGED_COPIES)))
    assert accepted > DAMAGED_COPIES // 20, "the damage is too coarse to tell anything"


def compare(program: Path, archives: list[bytes]) -> int:
    """Fail where the readers differ; returns how many archives we accepted."""
    accepted = 0
    for number, (data, go) in enumerate(zip(archives, what_go_reads(program, archives), strict=True)):
        ours = what_we_read(data)
        if ours is None:
            continue
        accepted += 1
        assert "error" not in go, f"archive {number}: Go refuses it ({go['error']}), we read {ours}"
        assert ours == go["members"], f"archive {number} is read differently"
    return accepted


def hand_made() -> Iterator[bytes]:
    for blocks, _ in (*test_members.REFUSED.values(), *test_sparse.MALFORMED.values()):
        yield archive(blocks, member(b"last"))
    for name, _ in test_members.NAMES.values():
        yield archive(member(name))
    for time, _ in test_members.TIMES.values():
        yield archive(pax({b"mtime": time}), member(b"x"))
    for form in test_sparse.FORMS.values():
        yield archive(form(test_sparse.MAP), member(b"next", b"n"))
        for pairs, size in test_sparse.BAD_MAPS.values():
            yield archive(form(pairs, size))
    yield from odd_headers()
    for archived in list(odd_headers()):
        for length in range(0, len(archived), 100):
            yield archived[:length]


def odd_headers() -> Iterator[bytes]:
    star = {345: b"p" * 131, 476: b"00000000000\0", 488: b"00000000000\0", 508: b"tar\0"}
    yield archive(member(b"x", patch=star))
    yield archive(member(b"x", patch={**star, 345: bytes(131), 476: b"9" * 12}))
    yield archive(member(b"x", patch={508: b"tar\0"}, magic=GNU))
    for magic in (GNU, V7, b"ustar\0  ", b"ustar 00", b"ustar\x0099", b"ustar \0 "):
        for prefix in (b"prefix", b"\xff", b"00000000000", b"\x80" + bytes(11), b"0000000000088888888888"):
            yield archive(member(b"name", b"c", magic=magic, prefix=prefix, major=1, minor=2))
            yield archive(member(b"name/", b"\0", flag=b"\0", magic=magic, prefix=prefix, uid=b"       "))
    for number in (b"", b" 12\0", b"12\0 3", b"12 \0", b" \0 7 \0", b"-1", b"+1", b"0x1", b"7\n", b"1_0", b"12\x80"):
        yield archive(member(b"x", mode=number.ljust(8, b"\0")), member(b"y"))
    for value in (2**62, -(2**62), 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**80):
        yield archive(member(b"x", mtime=binary(value)), member(b"y"))
    yield archive(long_name(b"a\0b"), long_name(b"\0", b"K"), member(b"x", link=b"link", flag=b"2", magic=GNU))
    yield archive(long_name(b"directory/"), member(b"x", flag=b"\0", magic=GNU))


def ordinary() -> Iterator[bytes]:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for number, (name, kind) in enumerate(ORDINARY):
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.size = kind, "usr/target" if kind in b"12" else "", 0
                info.mode, info.uid, info.gid, info.mtime = 0o4755, number, 1000, 1_700_000_000
                info.devmajor, info.devminor = (8, number) if kind in b"34" else (0, 0)
                if form == tarfile.PAX_FORMAT:
                    info.mtime += 0.5
                    info.pax_headers = {"SCHILY.xattr.user.a": "b", "uid": "70000"}
                if kind == tarfile.REGTYPE:
                    info.size = 700 * number
                tar.addfile(info, io.BytesIO(b"x" * info.size))
        yield buffer.getvalue()
    for build in test_sparse.FORMS.values():
        yield archive(build(test_sparse.MAP), member(b"next", b"n"))


ORDINARY = [
    ("usr", tarfile.DIRTYPE), ("usr/file", tarfile.REGTYPE), ("usr/link", tarfile.SYMTYPE),
    ("usr/hard", tarfile.LNKTYPE), ("dev/tty", tarfile.CHRTYPE), ("dev/sda", tarfile.BLKTYPE),
    ("run/fifo", tarfile.FIFOTYPE), ("usr/" + "d" * 90 + "/" + "n" * 90, tarfile.REGTYPE),
    ("usr/\udcff\udcfe", tarfile.REGTYPE), ("usr/ümlaut", tarfile.REGTYPE),
]  # fmt: skip


def damaged(count: int) -> Iterator[bytes]:
    chance = random.Random(1)
    sound = [*ordinary(), *odd_headers(), archive(pax({b"mtime": b"1.5", b"size": b"3"}), member(b"x", b"abc"))]
    for _ in range(count):
        data = bytearray(chance.choice(sound))
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            at = chance.randrange(len(data) // 512) * 512 + chance.choice(TELLING_OFFSETS)
            data[at] = chance.choice(TELLING_BYTES) if chance.random() < 0.8 else chance.randrange(256)
            mend_checksum(data, at // 512 * 512)
        yield bytes(data[: chance.randrange(len(data))]) if chance.random() < 0.1 else bytes(data)


TELLING_OFFSETS = [*range(16), 99, *range(100, 160), *range(257, 265), *range(329, 360), *range(386, 412), 476, 482,
                   *range(483, 500), *range(508, 512)]  # fmt: skip
TELLING_BYTES = b"\0 0123456789-+.,=/\n\x80\xff\x01xgLKS57"


def mend_checksum(data: bytearray, start: int) -> None:
    """Make the checksum hold again, if the block at *start* looks like a header."""
    block = data[start : start + 512]
    if block[154:156] == b"\0 ":
        block[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(block)

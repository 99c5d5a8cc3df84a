"""Content read through the mount in every way there is: in order, at random, mapped, past the page cache, by many."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_client_survival import drop_caches, worker
from tests.end_to_end.test_mount import Site, site, wait_for
from tests.needs import need_program

__all__ = ["site"]  # a fixture

SIZE = 12 << 20
PIECES = [3_000_000, 5_000_001, 1, SIZE - 8_000_002]
READERS = 64
MANNERS = {
    "in order": ["--rw=read", "--bs=1m"],
    "in order, odd sizes": ["--rw=read", "--bs=12k"],
    "at random": ["--rw=randread", "--bs=4k"],
    "mapped": ["--rw=randread", "--bs=16k", "--ioengine=mmap"],
    "mapped, in order": ["--rw=read", "--bs=128k", "--ioengine=mmap"],
    "past the page cache": ["--rw=randread", "--bs=64k", "--direct=1"],
}


def stamped(directory: Path) -> bytes:
    """Content of which each block says what it holds and where it belongs, so that fio knows it."""
    path = directory / "source"
    fio("--rw=write", "--bs=4k", "--do_verify=0", "--fallocate=none", file=path)
    return path.read_bytes()


def fio(*words: str, file: Path, status: int = 0) -> list[dict[str, Any]]:
    """What fio reports of each job."""
    command = [
        need_program("fio"), "--name=job", f"--filename={file}", f"--size={SIZE}", "--output-format=json",
        "--verify=crc32c", "--verify_interval=4k", "--verify_fatal=1", "--verify_state_save=0", *words,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    jobs: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    return jobs


def in_pieces(content: bytes) -> list[bytes]:
    ends = [sum(PIECES[: number + 1]) for number in range(len(PIECES))]
    return [content[end - size : end] for end, size in zip(ends, PIECES, strict=True)]


def test_fio_finds_every_block_where_it_belongs(site: Site, tmp_path: Path) -> None:
    content = stamped(tmp_path)
    chunked, whole = site.publisher.chunked(b"chunked", *in_pieces(content)), site.publisher.file(b"whole", content)
    site.publish({b"/chunked": chunked, b"/whole": whole})
    site.mount()
    for manner in MANNERS.values():
        for name in ("chunked", "whole"):
            drop_caches()
            (job,) = fio("--readonly", *manner, file=site.root / name)
            assert job["read"]["io_bytes"] == SIZE
        if manner is MANNERS["mapped"]:
            os.kill(site.daemon(), signal.SIGKILL)  # the next one believes the disk's cache only when it has seen it
    assert (site.root / "chunked").read_bytes() == (site.root / "whole").read_bytes() == content


def test_fio_notices_blocks_that_are_not_where_they_belong(site: Site, tmp_path: Path) -> None:
    content = bytearray(stamped(tmp_path))
    content[4096:8192], content[8192:12288] = content[8192:12288], content[4096:8192]
    site.publish({b"/file": site.publisher.file(b"file", bytes(content))})
    site.mount()
    for manner in MANNERS.values():
        fio("--readonly", *manner, file=site.root / "file", status=1)


@pytest.mark.parametrize("manner", [["--direct=1"], ["--ioengine=mmap"]], ids=["past the page cache", "mapped"])
def test_none_of_many_readers_starves(manner: list[str], site: Site, tmp_path: Path) -> None:
    site.publish({b"/file": site.publisher.chunked(b"file", *in_pieces(stamped(tmp_path)))})
    site.mount()
    many = [f"--numjobs={READERS}", "--thread", "--time_based", "--runtime=3", "--rw=randread", "--bs=4k"]
    jobs = fio("--readonly", *many, *manner, file=site.root / "file")
    read = [job["read"]["total_ios"] for job in jobs]
    assert len(read) == READERS
    assert min(read) > sum(read) / READERS / 30, sorted(read)


def test_who_reads_what_is_here_does_not_wait_for_those_who_wait_for_the_server(site: Site) -> None:
    contents = {b"%d" % number: os.urandom(100_000) for number in range(2 * READERS)}
    site.publish({b"/" + name: site.publisher.file(name, data) for name, data in contents.items()})
    site.mount()
    here, missing = list(contents)[:READERS], list(contents)[READERS:]
    assert [read(site, name) for name in here] == [contents[name] for name in here]
    assert site.server is not None
    with ThreadPoolExecutor(READERS) as readers:
        site.server.send_signal(signal.SIGSTOP)
        try:
            waiting = [readers.submit(read, site, name) for name in missing]
            drop_caches()
            assert [read(site, name) for name in here] == [contents[name] for name in here]
            assert not any(one.done() for one in waiting)
        finally:
            site.server.send_signal(signal.SIGCONT)
        assert [one.result() for one in waiting] == [contents[name] for name in missing]


OPENS = """import os, signal, sys
path, worker = sys.argv[1], int(sys.argv[2])
with open(path, "rb") as file:
    os.isatty(file.fileno())  # as most versions of open() ask by themselves
    os.kill(worker, signal.SIGSTOP)
    try:
        sys.stdout.buffer.write(file.read())
    finally:
        os.kill(worker, signal.SIGCONT)
"""


def test_what_python_opens_is_there_before_it_is_read(site: Site) -> None:
    """If this machine has it, and it is small: else the reader would wait for a process that was stopped."""
    contents = {b"/%d" % size: os.urandom(size) for size in (1, 4095, 4096, 4097, 100_000, 1 << 17)}
    site.publish({path: site.publisher.file(path[1:], content) for path, content in contents.items()})
    site.mount()
    for path, content in contents.items():
        assert read(site, path[1:]) == content
    wait_for(lambda: {len(content) for content in contents.values()} <= cached_sizes(site))
    site.ducc("umount", site.root)
    site.mount()
    for path, content in contents.items():
        command = [sys.executable, "-c", OPENS, site.root / os.fsdecode(path[1:]), str(worker(site))]
        assert subprocess.run(command, capture_output=True, check=True, timeout=120).stdout == content


def cached_sizes(site: Site) -> set[int]:
    return {path.stat().st_size for path in site.cache.glob("[0-9a-f][0-9a-f]/*")}


def test_a_file_that_many_open_and_read_at_once_is_whole_for_each(site: Site) -> None:
    """Some read it while the kernel is being told the same."""
    contents = {b"%d" % number: os.urandom(50_000) for number in range(40)}
    site.publish({b"/" + name: site.publisher.file(name, data) for name, data in contents.items()})
    for _ in range(3):
        site.mount()
        with ThreadPoolExecutor(16) as readers:
            for name, content in contents.items():
                asked = [readers.submit(read, site, name) for _ in range(8)]
                asked += [readers.submit(read_plainly, site, name) for _ in range(8)]
                assert {one.result(timeout=120) for one in asked} == {content}
        site.ducc("umount", site.root)


def read_plainly(site: Site, name: bytes) -> bytes:
    """Without a question before the reading."""
    descriptor = os.open(site.root / os.fsdecode(name), os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    finally:
        os.close(descriptor)


def read(site: Site, name: bytes) -> bytes:
    return (site.root / os.fsdecode(name)).read_bytes()

"""The cache below a running mount: full, read-only, damaged, deleted, too small, asked by many; and revisions."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ducc.catalog.tree import Node
from tests.end_to_end.overlay import overlay
from tests.end_to_end.test_client_configuration import Configured, configured
from tests.end_to_end.test_client_survival import drop_caches
from tests.end_to_end.test_mount import Site, site, wait_for

__all__ = ["configured", "site"]  # fixtures

FILES = 40
OTHERS = 2  # certificate and catalog
TIERED = """\
CVMFS_CACHE_PRIMARY=both
CVMFS_CACHE_both_TYPE=tiered
CVMFS_CACHE_both_UPPER=disk
CVMFS_CACHE_both_LOWER=image
CVMFS_CACHE_both_LOWER_READONLY=yes
CVMFS_CACHE_disk_TYPE=posix
CVMFS_CACHE_disk_BASE={upper}
CVMFS_CACHE_image_TYPE=posix
CVMFS_CACHE_image_ALIEN={preloaded}
"""
CONTENT = os.urandom(50_000)


def content(number: int) -> bytes:
    return b"%d\n" % number + CONTENT


def published(site: Site) -> list[Path]:
    site.publish({b"/d/%d" % number: site.publisher.file(b"%d" % number, content(number)) for number in range(FILES)})
    return [site.root / "d" / str(number) for number in range(FILES)]


def assert_readable(files: list[Path]) -> None:
    drop_caches()
    assert [path.read_bytes() == content(int(path.name)) for path in files] == [True] * len(files)


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def kept(site: Site | Configured) -> list[Path]:
    return list(site.cache.glob("??/*"))


def test_a_full_disk_is_read_past_and_used_again_when_there_is_room(site: Site) -> None:
    with small_disk(site.cache, "1m"):
        files = published(site)
        site.mount()
        assert_readable(files)
        before = len(kept(site))
        assert before < FILES
        subprocess.run(["mount", "-o", "remount,size=10m", site.cache], check=True)
        assert_readable(files)
        wait_for(lambda: len(kept(site)) > before)
        site.ducc("umount", site.root)


def test_a_disk_that_becomes_read_only_is_read_past_and_used_again(site: Site) -> None:
    files = published(site)
    site.mount()
    assert_readable(files[:10])
    wait_for(lambda: len(kept(site)) >= 10 + OTHERS)
    subprocess.run(["mount", "--bind", site.cache, site.cache], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", site.cache], check=True)
        before = len(kept(site))
        assert_readable(files)
        assert len(kept(site)) == before
        site.publish({b"/new": site.publisher.file(b"new", b"new")})
        site.ducc("client", "reload", site.root)
        assert (site.root / "new").read_bytes() == b"new"
    finally:
        subprocess.run(["umount", "--lazy", site.cache], check=True)
    published(site)
    site.ducc("client", "reload", site.root)
    assert_readable(files)
    wait_for(lambda: len(kept(site)) >= FILES)


def test_what_is_preloaded_is_used_and_never_changed(configured: Configured) -> None:
    site = configured.site
    files = published(site)
    configured.mount()
    assert_readable(files)
    wait_for(lambda: len(kept(configured)) >= FILES)
    site.ducc("umount", site.root)
    damaged = max(kept(configured), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    for path in (site.repository / "data").glob("??/*"):
        if path.stat().st_size > len(CONTENT) and path != object_of(damaged, site):
            path.unlink()
    before = {path: path.read_bytes() for path in kept(configured)}
    configured.write("default.local", TIERED.format(preloaded=configured.cache, upper=site.directory / "upper"))
    subprocess.run(["mount", "--bind", "-o", "ro", configured.cache, configured.cache], check=True)
    try:
        configured.mount()
        assert_readable(files)
    finally:
        site.ducc("umount", site.root)
        subprocess.run(["umount", "--lazy", configured.cache], check=True)
    assert {path: path.read_bytes() for path in kept(configured)} == before
    upper = [path.name for path in (site.directory / "upper").glob("ducc/shared/??/*") if path.stat().st_size > 40_000]
    assert upper == [damaged.name]


def object_of(cached: Path, site: Site) -> Path:
    return site.repository / "data" / cached.parent.name / cached.name


def test_a_cache_that_is_deleted_in_use_is_filled_again(site: Site) -> None:
    files = published(site)
    site.mount()
    assert_readable(files)
    wait_for(lambda: len(kept(site)) >= FILES + OTHERS)  # what is read is kept a moment later
    for directory in site.cache.glob("??"):
        subprocess.run(["rm", "-r", directory], check=True)
    assert_readable(files)


def test_bits_that_flipped_while_nothing_was_mounted_are_never_shown(site: Site) -> None:
    files = published(site)
    site.mount()
    assert_readable(files)
    wait_for(lambda: len(kept(site)) >= FILES)
    site.ducc("umount", site.root)
    for path in kept(site):
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 4]))
    site.mount()  # the root catalog is damaged, too
    assert_readable(files)


def test_what_is_truncated_under_a_mount_is_fetched_again(site: Site) -> None:
    files = published(site)
    site.mount()
    assert_readable(files)
    for path in kept(site):
        if path.stat().st_size > len(CONTENT):
            os.truncate(path, 100)
    assert_readable(files)


def test_a_cache_much_smaller_than_what_is_read_stays_small(site: Site) -> None:
    files = published(site)
    limit = 1_000_000
    site.mount("--cache-limit", limit / (1 << 30))
    for _ in range(3):
        assert_readable(files)
    wait_for(lambda: sum(path.stat().st_blocks * 512 for path in kept(site)) <= limit)


def test_readers_at_once_cost_one_request_for_each_object(site: Site) -> None:
    files = published(site)
    site.mount()
    wrong: list[str] = []

    def read_all() -> None:
        wrong.extend(str(path) for path in files if path.read_bytes() != content(int(path.name)))

    readers = [threading.Thread(target=read_all) for _ in range(50)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []
    shown = site.ducc("client", "status", site.root, "--json").json
    (mount,) = shown.get("mounts", shown)
    assert mount["cache"]["misses"] <= FILES + OTHERS


@pytest.mark.parametrize(("number", "size"), [(40, 100_000), (1500, 300)])
@pytest.mark.parametrize("disk", ["1m", "30m"], ids=["full disk", "disk"])
def test_a_file_of_many_small_pieces_is_read_in_one_go(number: int, size: int, disk: str, site: Site) -> None:
    """One read of the kernel's needs more pieces than are held at a time, or than one system call can write."""
    pieces = [os.urandom(size) for _ in range(number)]
    with small_disk(site.cache, disk):
        site.publish({b"/file": site.publisher.chunked(b"file", *pieces)})
        site.mount()
        for _ in range(2):
            drop_caches()
            done = subprocess.run(["cat", site.root / "file"], capture_output=True, timeout=120, check=True)
            assert done.stdout == b"".join(pieces)
        site.ducc("umount", site.root)


def test_thousands_of_short_names_are_listed_through_an_overlay(site: Site, tmp_path: Path) -> None:
    """Overlayfs asks for more names at a time than anybody else."""
    entry = site.publisher.file(b"", b"x")
    site.publish({b"/d/%d" % number: entry._replace(name=b"%d" % number) for number in range(5000)})
    site.mount()
    with overlay([site.root], tmp_path / "overlay", writable=True) as merged:
        (merged / "d" / "new").touch()
        done = subprocess.run(["ls", "-f", merged / "d"], capture_output=True, text=True, timeout=120, check=True)
        assert set(done.stdout.split()) == {".", "..", "new", *map(str, range(5000))}
        assert len(os.listdir(site.root / "d")) == 5000


def test_ten_thousand_names_while_revisions_follow_one_another(site: Site) -> None:
    """Whoever lists sees each name that was there all the time, once; and whole revisions when he begins anew."""
    entry = site.publisher.file(b"", b"x")

    def revision(number: int) -> dict[bytes, Node]:
        names = [*range(0, 10_000, 2), *range(20_001 + number, 25_000 + number)]
        return {b"/d/%05d" % name: entry._replace(name=b"%05d" % name) for name in names}

    site.publish(revision(0))
    site.mount()
    always = {f"{number:05d}" for number in range(0, 10_000, 2)}
    done, wrong = threading.Event(), []

    def list_again_and_again() -> None:
        while not done.is_set():
            names = os.listdir(site.root / "d")
            if len(names) != len(set(names)) or not always <= set(names):
                wrong.append(f"{len(names)} names, {len(always - set(names))} missing")

    listers = [threading.Thread(target=list_again_and_again) for _ in range(2)]
    for lister in listers:
        lister.start()
    for number in range(1, 4):
        site.publish_and_follow(revision(number))
    done.set()
    for lister in listers:
        lister.join()
    assert wrong == []
    wait_for(lambda: len(os.listdir(site.root / "d")) == 5000 + 4999)
    assert "25002" in os.listdir(site.root / "d")

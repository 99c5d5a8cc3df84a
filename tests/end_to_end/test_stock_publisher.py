"""Repositories that the stock tools published, shown by both clients: the same trees, the same attributes.

Our mount is also what the stock publisher works on, as its read-only volume below the writable overlay.
"""

import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end import stock
from tests.end_to_end.published import Published, repository
from tests.end_to_end.test_client_configuration import OF_A_PROCESS, attribute
from tests.trees import Tree, differences, scan, without

FQRN = f"p{os.getpid()}.ducc.test"  # short, since it is part of names of sockets
CHUNKED = ("-p", "-l", "100000", "-a", "200000", "-h", "400000")  # smallest, average and largest chunk
ATTRIBUTES = (
    "hash", "lhash", "chunks", "chunk_list", "chunk_list~?", "compression", "direct_io", "external_file",
    "catalog_counters", "repo_counters", "root_hash", "revision", "fqrn", "tag", "host_list", "proxy_list",
)  # fmt: skip
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def fill(union: Path) -> None:
    """One of every kind, in nested catalogs."""
    noise = random.Random(1)
    for directory in ("dir/sub/deep", "nested/inner", "many"):
        (union / directory).mkdir(parents=True)
    for marker in ("nested", "nested/inner", "many"):
        (union / marker / ".cvmfscatalog").touch()
    for number in range(3000):
        (union / "many" / f"{number:04d}").write_bytes(b"%d" % (number % 7))
    (union / "dir" / "file").write_bytes(b"content\n")
    (union / "dir" / "empty").touch()
    (union / "dir" / "chunked").write_bytes(noise.randbytes(3_000_000))
    (union / "dir" / "zeros").write_bytes(bytes(2_000_000))
    (union / "dir" / "\udcff\udcfe name").write_bytes(b"not UTF-8")
    (union / "dir" / ("n" * 200)).write_bytes(b"long")
    for name in ("first", "second", "third"):
        (union / "dir" / "sub" / "one").exists() or (union / "dir" / "sub" / "one").write_bytes(b"linked")
        os.link(union / "dir" / "sub" / "one", union / "dir" / "sub" / name)
    for name, target in (("plain", "../file"), ("variable", "$(CVMFS_ARCH:-none)/$(NOT_SET)x"), ("broken", "nowhere")):
        os.symlink(target, union / "nested" / name)
    os.mkfifo(union / "nested" / "fifo")
    os.mknod(union / "nested" / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(union / "nested" / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 300))
    (union / "nested" / "inner" / "tool").write_bytes(b"#!/bin/sh\n")
    os.setxattr(union / "nested" / "inner" / "tool", "user.note", b"read me")
    os.setxattr(union / "nested" / "inner" / "tool", "security.capability", CAPABILITY)
    for path, mode, owner in (
        ("dir/file", 0o4751, (1000, 65534)),
        ("nested/inner", 0o1777, (3, 4)),
        ("many", 0o700, (0, 0)),
    ):
        os.chown(union / path, *owner)
        os.chmod(union / path, mode)
    os.utime(union / "dir" / "file", ns=(1, 1_234_567_890_987_654_321))


def change(union: Path) -> None:
    """Something of everything becomes something else."""
    (union / "dir" / "file").write_bytes(b"other content\n")
    (union / "dir" / "empty").unlink()
    (union / "dir" / "zeros").rename(union / "dir" / "moved")
    with (union / "dir" / "chunked").open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"a change in the middle")
    (union / "nested" / "inner" / ".cvmfscatalog").unlink()
    for number in range(0, 3000, 3):
        (union / "many" / f"{number:04d}").unlink()
    (union / "nested" / "new" / "deep").mkdir(parents=True)
    (union / "nested" / "new" / "deep" / "er").write_bytes(b"new")


def add_stored(union: Path) -> None:
    """A file that is to be kept as it is, uncompressed."""
    (union / "stored").write_bytes(b"7" * 999)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Site"]:
    stock.need_stock()
    directory = tmp_path_factory.mktemp("published-by-stock")
    with repository(directory / "made", fqrn=FQRN, init=False) as made, ExitStack() as stack:
        stock.create(made)
        url = stack.enter_context(made.served())
        yield Site(made, url, stack.enter_context(made.mounted(url)))


class Site:
    """The repository, and where our client shows it."""

    def __init__(self, made: Published, url: str, ours: Path) -> None:
        self.made, self.url, self.ours = made, url, ours

    def publish(self, act: Callable[[Path], None], *options: str) -> Tree:
        """Let the stock tools publish what *act* does, and our client follow; return what the publisher saw."""
        seen: list[Tree] = []

        def act_and_look(union: Path) -> None:
            act(union)
            seen.append(scan(union))

        stock.publish(self.made, self.url, self.ours, act_and_look, "-k", "-j", *options)
        self.made.ducc("client", "reload", self.ours)
        return shown(seen[0])


def shown(tree: Tree) -> Tree:
    """The tree less what the publisher's volume lists at its top."""
    return without(tree, b"")


@pytest.mark.parametrize(
    ("act", "options"),
    [
        (fill, CHUNKED),
        (change, CHUNKED),
        (add_stored, ("-Z", "none")),
    ],
    ids=["filled", "changed", "stored"],
)
def test_both_clients_show_what_was_published(
    act: Callable[[Path], None], options: tuple[str, ...], site: Site
) -> None:
    published = site.publish(act, *options)
    left = [line for line in differences(shown(scan(site.ours)), published, ["link_group"]) if "variable" not in line]
    assert left == []
    with stock.mounted(site.made, site.url) as theirs:
        assert differences(shown(scan(site.ours)), shown(scan(theirs))) == []
        wrong = [
            (path, name, attribute(site.ours / path, f"user.{name}"), attribute(theirs / path, f"user.{name}"))
            for path in sorted(map(os.fsdecode, published))
            if not path.startswith("many/") and not (theirs / path).is_symlink()
            for name in ATTRIBUTES
            if attribute(site.ours / path, f"user.{name}") != attribute(theirs / path, f"user.{name}")
        ]
        assert wrong == []
        listed = {name for name in os.listxattr(theirs) if name.removeprefix("user.") not in OF_A_PROCESS}
        assert listed <= set(os.listxattr(site.ours))
        told = [{name: attribute(root, name) for name in sorted(listed)} for root in (site.ours, theirs)]
        assert told[0] == told[1]


def test_a_stock_client_finds_nothing_wrong_afterwards(site: Site, tmp_path: Path) -> None:
    stock.check(site.made, site.url, tmp_path)

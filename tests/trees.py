"""File trees as values, so that two of them can be compared entry by entry.

`scan` reads a directory without following links; `differences` tells two scans apart in readable lines.
The oracle of what an image holds is `umoci unpack`.
"""

import errno
import hashlib
import os
import stat
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tests.needs import need_program, need_root

HASHING_THREADS = 8  # more than cores: on a network or FUSE mount most of them wait

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What a stranger can see of one entry. Fields that mean nothing for its type have their default."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0  # of regular files and symlinks; a directory's size is its file system's business
    sha256: str = ""
    link_group: bytes = b""  # first name of the same inode within the same directory, if there is another
    target: bytes = b""
    device: tuple[int, int] | None = None
    xattrs: Mapping[str, bytes] | None = None


Tree = dict[bytes, Row]  # path below the scanned directory, without leading slash; the directory itself is b""
COMPARED = tuple(field.name for field in fields(Row))


def scan(directory: Path | str | bytes) -> Tree:
    """Every entry at and below *directory*. Content is hashed by threads, each inode once."""
    top = os.fsencode(directory)
    status = dict(_walk(top))
    digests = _digests(top, status)
    groups = _link_groups(status)
    rows = {path: _row(_join(top, path), status[path], digests, groups.get(path, b"")) for path in status}
    return dict(sorted(rows.items()))


def differences(left: Tree, right: Tree, ignore: Collection[str] = ()) -> list[str]:
    """One line for each entry that only one tree has and for each field that differs, in path order.

    *ignore* names fields of `Row`. Times are compared in seconds where either side has no fraction.
    """
    unknown = set(ignore) - set(COMPARED)
    assert not unknown, f"no such fields: {unknown}"
    compared = [name for name in COMPARED if name not in ignore]
    return [line for path in sorted(left.keys() | right.keys()) for line in _compare(path, left, right, compared)]


def without(tree: Tree, *paths: bytes) -> Tree:
    """The tree less these entries and everything below them; b"" is only the top directory's own row."""
    return {path: row for path, row in tree.items() if not any(_is_within(path, gone) for gone in paths)}


def subtree(tree: Tree, path: bytes) -> Tree:
    """What *tree* has at and below *path*, as if *path* had been scanned."""
    inside = path + b"/"
    found = {name.removeprefix(inside): row for name, row in tree.items() if name.startswith(inside)}
    return {b"": tree[path], **found}


def without_xattrs(tree: Tree, *prefixes: str) -> Tree:
    """The tree less every extended attribute whose name starts with one of *prefixes*."""
    return {path: _drop_xattrs(row, prefixes) for path, row in tree.items()}


def unpack(layout: Path, tag: str, into: Path) -> Path:
    """Let `umoci unpack` lay out an image of an OCI layout in the new directory *into*; return its root."""
    need_root()
    command = [need_program("umoci"), "unpack", "--image", f"{layout}:{tag}", str(into)]
    subprocess.run(command, check=True, capture_output=True)
    return into / "rootfs"


# --- scanning ------------------------------------------------------------------------------


def _walk(top: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b"", os.lstat(top)
    pending = [b""]
    while pending:
        parent = pending.pop()
        with os.scandir(_join(top, parent)) as entries:
            for entry in entries:
                path = _join(parent, entry.name)
                status = entry.stat(follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)


def _join(parent: bytes, name: bytes) -> bytes:
    return b"%b/%b" % (parent, name) if parent and name else parent or name


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _digests(top: bytes, status: Mapping[bytes, os.stat_result]) -> dict[tuple[int, int], str]:
    """sha256 of every regular file, by inode."""
    chosen = {_inode(found): path for path, found in status.items() if stat.S_ISREG(found.st_mode)}
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        digests = pool.map(lambda path: _digest(_join(top, path)), chosen.values())
        return dict(zip(chosen, digests, strict=True))


def _digest(path: bytes) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _link_groups(status: Mapping[bytes, os.stat_result]) -> dict[bytes, bytes]:
    """Path → first name of its group, for entries that share an inode with another of their directory."""
    groups = defaultdict(list)
    for path, found in status.items():
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            groups[os.path.dirname(path), _inode(found)].append(path)
    shared = (paths for paths in groups.values() if len(paths) > 1)
    return {path: os.path.basename(min(paths)) for paths in shared for path in paths}


def _row(path: bytes, status: os.stat_result, digests: Mapping[tuple[int, int], str], group: bytes) -> Row:
    type_ = stat.S_IFMT(status.st_mode)
    is_device = type_ in (stat.S_IFCHR, stat.S_IFBLK)
    return Row(
        type=TYPES[type_],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if type_ in (stat.S_IFREG, stat.S_IFLNK) else 0,
        sha256=digests[_inode(status)] if type_ == stat.S_IFREG else "",
        link_group=group,
        target=os.readlink(path) if type_ == stat.S_IFLNK else b"",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None,
        xattrs=_xattrs(path),
    )


def _xattrs(path: bytes) -> dict[str, bytes] | None:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        names = []  # a file system without attributes
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)} or None


# --- comparing -----------------------------------------------------------------------------


def _compare(path: bytes, left: Tree, right: Tree, compared: list[str]) -> Iterator[str]:
    name = repr(path)[1:]
    if path not in right:
        yield f"{name}: only left ({left[path].type})"
    elif path not in left:
        yield f"{name}: only right ({right[path].type})"
    elif left[path] != right[path]:
        yield from (f"{name}: {line}" for line in _compare_rows(left[path], right[path], compared))


def _compare_rows(left: Row, right: Row, compared: list[str]) -> Iterator[str]:
    for name in compared:
        ours, theirs = getattr(left, name), getattr(right, name)
        if name == "mtime_ns":
            ours, theirs = _comparable_times(ours, theirs)
        if ours != theirs:
            show = oct if name == "mode" else repr
            yield f"{name} {show(ours)} left, {show(theirs)} right"


def _comparable_times(left: int, right: int) -> tuple[int, int]:
    second = 10**9
    if left % second and right % second:
        return left, right
    return left // second * second, right // second * second


def _is_within(path: bytes, parent: bytes) -> bool:
    return path == parent or (bool(parent) and path.startswith(parent + b"/"))


def _drop_xattrs(row: Row, prefixes: tuple[str, ...]) -> Row:
    kept = {name: value for name, value in (row.xattrs or {}).items() if not name.startswith(prefixes)}
    return replace(row, xattrs=kept or None)

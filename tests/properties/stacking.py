"""Layers put on top of one another the naive way: a model to judge `ducc.ingest` by, and the kernel to judge both.

A file system is a dict from path to `Thing`. A layer is applied as the OCI image-spec says ("Applying Changesets",
"Whiteouts"): what it hides concerns lower layers only, whatever the order of its members; the last member of a path
wins; parents that are only implied keep what lower layers say of them. Symbolic links in a member's parents are
followed inside its own layer; a directory takes the place of a lower layer's symbolic link, as in overlayfs. Nothing
of the code under test is used, but for the values that go in.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ducc.layer.entries import Kind, Member

DEFAULT = Member(b"", Kind.DIRECTORY, 0o755)
HOPS = 40


class Rejected(Exception):
    """The layer means nothing."""


@dataclass(frozen=True)
class Thing:
    """What stands at a path. *inode* is shared by names that are one file; across directories it says nothing."""

    member: Member
    inode: Any

    @property
    def is_directory(self) -> bool:
        return self.member.kind is Kind.DIRECTORY


FileSystem = dict[bytes, Thing]


def stack(layers: Iterable[Iterable[Member]]) -> FileSystem:
    """The file system that *layers*, base first, make."""
    found: FileSystem = {b"": Thing(DEFAULT, None)}
    for number, members in enumerate(layers):
        found = apply(found, members, number)
    return found


def apply(lower: FileSystem, members: Iterable[Member], number: int) -> FileSystem:
    """*lower* with one layer on top. Raises `Rejected`."""
    layer = _Layer(lower, number)
    for member in members:
        layer.add(member)
    return layer.result()


def above(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def ancestors(path: bytes) -> Iterator[bytes]:
    """All directories above *path*, the root last."""
    while path:
        path = above(path)
        yield path


@dataclass(frozen=True)
class _Link:
    """A name for a file of the layers below."""

    target: bytes


@dataclass
class _Layer:
    lower: FileSystem
    number: int
    own: dict[bytes, Thing | _Link] = field(default_factory=dict)
    implied: set[bytes] = field(default_factory=set)
    whiteouts: set[bytes] = field(default_factory=set)
    opaque: set[bytes] = field(default_factory=set)
    count: int = 0

    def __post_init__(self) -> None:
        self.own[b""] = Thing(DEFAULT, None)
        self.implied.add(b"")

    def add(self, member: Member) -> None:
        if member.kind is Kind.OPAQUE:
            if (path := self.place_of_whiteout(member.path)) is not None:
                self.opaque.add(path)
        elif member.kind is Kind.WHITEOUT:
            if (path := self.place_of_whiteout(above(member.path))) is not None:
                self.whiteouts.add(path + member.path[len(above(member.path)) :])
        elif not member.path:
            if member.kind is not Kind.DIRECTORY:
                raise Rejected
            self.own[b""] = Thing(member, None)
            self.implied.discard(b"")
        else:
            self.put(self.resolve(above(member.path), make=True) + b"/" + member.path.rpartition(b"/")[2], member)

    def place_of_whiteout(self, directory: bytes) -> bytes | None:
        """None where the layer itself has something that is no directory: then there is nothing to hide."""
        try:
            self.resolve(directory, make=False)
        except NotADirectoryError:
            return None
        return self.resolve(directory, make=True)

    def put(self, path: bytes, member: Member) -> None:
        if member.kind is Kind.HARDLINK:
            new: Thing | _Link = self.linked(member)
        else:
            self.count += 1
            new = Thing(member, (self.number, self.count))
        old = self.own.get(path)
        keeps_children = isinstance(old, Thing) and old.is_directory and isinstance(new, Thing) and new.is_directory
        if not keeps_children:
            self.forget_below(path)
        self.own[path] = new
        self.implied.discard(path)

    def forget_below(self, path: bytes) -> None:
        """What this layer said of anything below *path* is as if it had not been said."""
        self.own = {one: thing for one, thing in self.own.items() if path not in ancestors(one)}
        for said in (self.implied, self.whiteouts, self.opaque):
            said -= {one for one in said if path in ancestors(one)}
        self.opaque.discard(path)

    def linked(self, member: Member) -> Thing | _Link:
        if member.link == member.path:
            raise Rejected
        try:
            directory = self.resolve(above(member.link), make=False)
        except NotADirectoryError:
            raise Rejected from None
        if directory is None:
            return _Link(member.link)
        target = directory + b"/" + member.link.rpartition(b"/")[2]
        found = self.own.get(target)
        if isinstance(found, Thing) and found.is_directory:
            raise Rejected
        if found is None and target in self.whiteouts:
            raise Rejected
        return found or _Link(member.link)

    def resolve(self, path: bytes, make: bool) -> Any:
        """The real path of a directory, through this layer's symbolic links; None if this layer has none there."""
        at, hops = [b""], 0
        waiting = path.split(b"/")[1:]
        while waiting:
            name = waiting.pop(0)
            if name == b"..":
                at = at[:-1] or at
                continue
            if name in (b"", b"."):
                continue
            here = at[-1] + b"/" + name
            thing = self.own.get(here)
            if thing is None:
                if not make:
                    return None
                self.own[here] = thing = Thing(DEFAULT, None)
                self.implied.add(here)
            if isinstance(thing, Thing) and thing.is_directory:
                at.append(here)
                continue
            if isinstance(thing, _Link) or thing.member.kind is not Kind.SYMLINK:
                if make:
                    raise Rejected
                raise NotADirectoryError
            hops += 1
            if hops > HOPS:
                raise Rejected
            waiting = thing.member.link.split(b"/") + waiting
            at = at[:1] if thing.member.link.startswith(b"/") else at
        return at[-1]

    # --- the result ----------------------------------------------------------------------

    def result(self) -> FileSystem:
        new = {path: thing for path, thing in self.lower.items() if self.shows(path)}
        visible = dict(new)
        for path, thing in self.own.items():
            if isinstance(thing, _Link):
                new[path] = self.follow_link(path, thing, visible)
            elif path in self.implied:
                below = visible.get(path)
                new[path] = below if below and below.is_directory else thing
            else:
                new[path] = thing
        return new

    def shows(self, path: bytes) -> bool:
        """Is what lies below at *path* still to be seen, at least as the directory that something is put into?"""
        if path in self.whiteouts or any(one in self.whiteouts or one in self.opaque for one in ancestors(path)):
            return False
        for one in ancestors(path):
            mine = self.own.get(one)
            if isinstance(mine, _Link) or (mine and not mine.is_directory):
                return False
        mine = self.own.get(path)
        return mine is None or (isinstance(mine, Thing) and mine.is_directory and self.lower[path].is_directory)

    def follow_link(self, path: bytes, link: _Link, visible: FileSystem) -> Thing:
        directory = lower_directory(self.lower, above(link.target))
        target = None if directory is None else self.lower.get(directory + b"/" + link.target.rpartition(b"/")[2])
        if directory is None or target is None or target.is_directory:
            raise Rejected
        here = above(path)
        if here == above(link.target) and here in visible and visible[here].is_directory and here not in self.opaque:
            return target
        return Thing(target.member, ("link", self.number, above(link.target), target.inode))


def lower_directory(found: Mapping[bytes, Thing], path: bytes) -> bytes | None:
    """The real path of a directory, through all symbolic links; None if there is none."""
    at, hops = [b""], 0
    waiting = path.split(b"/")[1:]
    while waiting:
        name = waiting.pop(0)
        if name == b"..":
            at = at[:-1] or at
        elif name not in (b"", b"."):
            here = at[-1] + b"/" + name
            thing = found.get(here)
            if thing and thing.member.kind is Kind.SYMLINK and hops < HOPS:
                hops += 1
                waiting = thing.member.link.split(b"/") + waiting
                at = at[:1] if thing.member.link.startswith(b"/") else at
            elif thing and thing.is_directory:
                at.append(here)
            else:
                return None
    return at[-1]


# --- as rows that can be compared ----------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """An entry as anybody sees it. *group* holds the names of its directory that are the same file."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    target: bytes
    content: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    group: tuple[bytes, ...] = ()


TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}


def content_of(member: Member) -> bytes:
    """A file's content is made of what tells it from others."""
    return b"%d %d" % (member.size, member.mtime) if member.kind is Kind.FILE else b""


def as_rows(found: FileSystem) -> dict[bytes, Row]:
    groups: dict[Any, list[bytes]] = {}
    for path, thing in found.items():
        if not thing.is_directory:
            groups.setdefault((above(path), thing.inode), []).append(path.rpartition(b"/")[2])
    rows = {}
    for path, thing in found.items():
        names = groups.get((above(path), thing.inode), [])
        row = _row(thing.member)
        rows[path] = replace(row, group=tuple(sorted(names))) if len(names) > 1 else row
    return rows


def _row(member: Member) -> Row:
    size = {Kind.FILE: len(content_of(member)), Kind.SYMLINK: len(member.link)}.get(member.kind, member.device)
    target = member.link if member.kind is Kind.SYMLINK else b""
    return Row(
        TYPES[member.kind], member.mode, member.uid, member.gid, member.mtime * 10**9 + member.mtime_ns, size, target,
        content_of(member), member.xattrs,
    )  # fmt: skip


def seen(top: bytes) -> dict[bytes, Row]:
    """A directory of this machine, by the same rows; overlayfs' own attributes left out."""
    found, inodes = {}, {}
    pending = [b""]
    while pending:
        path = pending.pop()
        here = top + path
        about = os.lstat(here)
        found[path] = _seen_row(here, about)
        if stat.S_ISDIR(about.st_mode):
            pending += [path + b"/" + name for name in os.listdir(here)]
        else:
            inodes.setdefault((above(path), about.st_ino), []).append(path.rpartition(b"/")[2])
    for (directory, _), names in inodes.items():
        for name in names if len(names) > 1 else ():
            path = directory + b"/" + name
            found[path] = replace(found[path], group=tuple(sorted(names)))
    return found


def _seen_row(path: bytes, about: os.stat_result) -> Row:
    kind = stat.S_IFMT(about.st_mode)
    target = os.readlink(path) if kind == stat.S_IFLNK else b""
    content = b""
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            content = file.read()
    size = about.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0 if kind == stat.S_IFDIR else about.st_size
    xattrs = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    own = [name for name in sorted(xattrs) if b"overlay." not in name]
    values = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in own)
    return Row(
        kind, stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid, about.st_mtime_ns, size, target, content, values
    )

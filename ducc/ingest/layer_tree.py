"""The names of one layer become a tree, in archive order: what a container runtime would have put on disk.

Later entries win over earlier ones. Symbolic links among a name's parents are followed inside the layer and never
out of it. What a layer says about layers below (whiteouts, links to their files, directories that it only passes
through) cannot be answered here: it is noted, and `graft` answers it when the layers below are known.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from ducc.catalog.tree import Directory, Node, names_of
from ducc.cvmfs import xattrs
from ducc.cvmfs.entry import Entry
from ducc.errors import DuccError
from ducc.ingest.contents import Content
from ducc.ingest.notes import LayerNotes
from ducc.ingest.overlay import opaque, whiteout
from ducc.layer.entries import Kind, Member
from ducc.layer.whiteout import MAX_PATH

MAX_LINK_HOPS = 40
MAX_NAMES = 5_000_000  # of a layer, directories that are only implied included
DIRECTORY_BYTES = 4096  # what a catalog gives as a directory's size, by custom

_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}


class ImpossibleEntry(DuccError):
    """A layer's entry can't be where it says, or link to what it says."""

    exit_code = 46

    def __init__(self, layer: str, path: bytes, reason: str) -> None:
        super().__init__(f"layer {layer}: {path.decode(errors='backslashreplace')!r}: {reason}")


class NoDirectory(ImpossibleEntry):
    """An entry is below something that the same layer makes a file."""

    def __init__(self, layer: str, path: bytes) -> None:
        super().__init__(layer, path, "passes through something that is no directory")


class TooManyNames(ImpossibleEntry):
    """A few bytes of archive can imply thousands of directories each; memory has an end."""

    def __init__(self, layer: str, path: bytes) -> None:
        super().__init__(layer, path[:256], f"is one name too many: a layer may have {MAX_NAMES}")


class TooLong(ImpossibleEntry):
    """Where symbolic links lead is further down than a path can say."""

    def __init__(self, layer: str, path: bytes) -> None:
        super().__init__(
            layer, path[:256], f"its place, after symbolic links, has a path of more than {MAX_PATH} bytes"
        )


@dataclass(slots=True)
class _Inode:
    """What one or more names stand for. *names* counts them; *entry* still lacks name, content and group."""

    entry: Entry
    content: Content | None
    names: int = 1


@dataclass(slots=True, frozen=True)
class _LowerLink:
    """A name for a file that this layer does not have."""

    target: bytes


@dataclass(slots=True, frozen=True)
class _Whiteout:
    pass


@dataclass(slots=True)
class _Directory:
    """*member* is None while the directory is only implied by what is in it.

    *fresh* is one that takes the place of what a whiteout has removed: it has nothing of the directory below.
    """

    member: Member | None = None
    fresh: bool = False
    opaque: bool = False
    children: "dict[bytes, _Node]" = field(default_factory=dict)


_Node = _Inode | _LowerLink | _Whiteout | _Directory
_WHITEOUT = _Whiteout()


class LayerTreeBuilder:
    """Takes a layer's members in archive order; `finish` gives the tree and the notes."""

    def __init__(self, layer: str) -> None:
        """*layer* names the layer in messages."""
        self._layer = layer
        self._root = _Directory()
        self._last: tuple[bytes, _Directory] = b"", self._root  # the directory that was last added to
        self._names = 0  # made so far

    def add(self, member: Member, content: Content | None) -> None:
        """Add one member; *content* is where a file's bytes go."""
        if self._hides_nothing(member):
            return
        if member.kind is Kind.OPAQUE:
            self._directory(member.path).opaque = True
        elif not member.path:
            self._add_root(member)
        else:
            above, _, name = member.path.rpartition(b"/")
            self._add_child(self._parent(above), name, member, content)

    def finish(self) -> tuple[Directory, LayerNotes]:
        """Return the layer's tree and what it says about layers below; contents must be complete."""
        return _Finish(self._layer).run(self._root)

    def _add_root(self, member: Member) -> None:
        if member.kind is not Kind.DIRECTORY:
            raise ImpossibleEntry(self._layer, b"/", "the root of a layer must be a directory")
        self._root.member = member

    def _add_child(self, parent: _Directory, name: bytes, member: Member, content: Content | None) -> None:
        self._count_name(member.path)
        old = parent.children.get(name)
        if old is not None:
            self._last = b"", self._root  # it may have been reached through what is replaced
        if member.kind is Kind.WHITEOUT:
            self._hide(parent, name, old)
        elif member.kind is Kind.HARDLINK:
            parent.children[name] = self._link(member)
        elif member.kind is not Kind.DIRECTORY:
            parent.children[name] = _Inode(_leaf_entry(member), content)
        elif isinstance(old, _Directory):
            old.member = member
        else:
            parent.children[name] = _Directory(member, fresh=old is _WHITEOUT)

    def _count_name(self, path: bytes) -> None:
        self._names += 1
        if self._names > MAX_NAMES:
            raise TooManyNames(self._layer, path)

    def _hides_nothing(self, member: Member) -> bool:
        """Is it a whiteout in what was a directory, and is a file in this layer? (umoci writes them.)"""
        if member.kind not in (Kind.WHITEOUT, Kind.OPAQUE):
            return False
        try:
            self._existing(member.path if member.kind is Kind.OPAQUE else member.path.rpartition(b"/")[0])
        except NoDirectory:
            return True
        return False

    def _hide(self, parent: _Directory, name: bytes, old: _Node | None) -> None:
        """A whiteout is about layers below: what this layer itself puts there stays, whichever comes first."""
        if old is None:
            parent.children[name] = _WHITEOUT
        elif isinstance(old, _Directory):
            old.fresh = True

    def _link(self, member: Member) -> _Node:
        target = member.link
        if target == member.path:
            raise ImpossibleEntry(self._layer, member.path, "is a hard link to itself")
        above, _, name = target.rpartition(b"/")
        parent = self._existing(above)
        node = parent.children.get(name) if parent else None
        if isinstance(node, _Directory):
            raise ImpossibleEntry(self._layer, member.path, "is a hard link to a directory")
        if isinstance(node, _Inode):
            node.names += 1
            return node
        if isinstance(node, _Whiteout):
            raise ImpossibleEntry(self._layer, member.path, "is a hard link to a file that the same layer removes")
        return node or _LowerLink(target)

    def _parent(self, path: bytes) -> _Directory:
        if self._last[0] != path:
            self._last = path, self._directory(path)
        return self._last[1]

    def _directory(self, path: bytes) -> _Directory:
        """Return the directory at *path*, through symbolic links; make what is missing."""
        directory = self._walk(path, make=True)
        assert directory is not None
        return directory

    def _existing(self, path: bytes) -> _Directory | None:
        return self._walk(path, make=False)

    def _walk(self, path: bytes, make: bool) -> _Directory | None:
        trail, hops = [self._root], 0
        pending = names_of(path)[::-1]
        while pending:
            name = pending.pop()
            if name == b"..":
                trail = trail[:-1] or trail
                continue
            if name in (b"", b"."):
                continue
            node = trail[-1].children.get(name)
            if isinstance(node, _Inode):
                hops += 1
                trail = self._follow(path, node, hops, trail, pending)
                continue
            if isinstance(node, _LowerLink):
                raise NoDirectory(self._layer, path)
            if not isinstance(node, _Directory):
                if not make:
                    return None
                self._count_name(path)
                node = trail[-1].children[name] = _Directory(fresh=node is _WHITEOUT)
            trail.append(node)
            if len(trail) > MAX_PATH // 2:
                raise TooLong(self._layer, path)
        return trail[-1]

    def _follow(
        self, path: bytes, node: _Inode, hops: int, trail: list[_Directory], pending: list[bytes]
    ) -> list[_Directory]:
        if not node.entry.is_symlink:
            raise NoDirectory(self._layer, path)
        if hops > MAX_LINK_HOPS:
            raise ImpossibleEntry(self._layer, path, f"passes through more than {MAX_LINK_HOPS} symbolic links")
        target = node.entry.symlink
        pending.extend(reversed(target.split(b"/")))
        return trail[:1] if target.startswith(b"/") else trail


class _Finish:
    """Turns the builder's directories into a tree, and collects the notes on the way."""

    def __init__(self, layer: str) -> None:
        self._layer = layer
        self._implied: list[bytes] = []
        self._whiteouts: list[bytes] = []
        self._opaque: list[bytes] = []
        self._lower_links: list[tuple[bytes, bytes]] = []

    def run(self, root: _Directory) -> tuple[Directory, LayerNotes]:
        tree = self._empty(b"", b"", root)
        pending = [(b"", root, tree)]
        while pending:
            path, source, target = pending.pop()
            pending.extend(self._fill(path, source, target))
        implied, whiteouts, opaque_ones = (tuple(sorted(n)) for n in (self._implied, self._whiteouts, self._opaque))
        notes = LayerNotes(implied, whiteouts, opaque_ones, tuple(sorted(self._lower_links)))
        return tree, notes

    def _fill(
        self, path: bytes, source: _Directory, target: Directory
    ) -> Iterator[tuple[bytes, _Directory, Directory]]:
        groups: dict[int, int] = {}
        for name, node in source.children.items():
            below = path + b"/" + name
            if len(below) > MAX_PATH:
                raise TooLong(self._layer, below)
            if isinstance(node, _Directory):
                directory = self._empty(below, name, node)
                target.children[name] = directory
                yield below, node, directory
            elif isinstance(node, _LowerLink):
                self._lower_links.append((below, node.target))
            else:
                target.children[name] = self._leaf(below, name, node, groups)
        source.children.clear()  # memory for one tree, not for two

    def _leaf(self, path: bytes, name: bytes, node: _Inode | _Whiteout, groups: dict[int, int]) -> Node:
        if isinstance(node, _Whiteout):
            self._whiteouts.append(path)
            return whiteout(name)
        group = groups.setdefault(id(node), len(groups) + 1) if node.names > 1 else 0
        digest, chunks = (node.content.digest, node.content.chunks) if node.content else (None, ())
        return node.entry._replace(name=name, content=digest, chunks=chunks, link_group=group)

    def _empty(self, path: bytes, name: bytes, source: _Directory) -> Directory:
        if source.member is None and not source.fresh:
            self._implied.append(path)
        entry = _directory_entry(name, source.member)
        if source.opaque or source.fresh:
            self._opaque.append(path)
            entry = opaque(entry)
        return Directory(entry)


def _directory_entry(name: bytes, member: Member | None) -> Entry:
    if member is None:
        return Entry(name, stat.S_IFDIR | 0o755, size=DIRECTORY_BYTES)
    return Entry(
        name, stat.S_IFDIR | member.mode, member.uid, member.gid, DIRECTORY_BYTES,
        member.mtime, member.mtime_ns, xattrs=xattrs.encode(member.xattrs),
    )  # fmt: skip


def _leaf_entry(member: Member) -> Entry:
    size, symlink = member.size, b""
    if member.kind is Kind.SYMLINK:
        size, symlink = len(member.link), member.link
    elif member.kind is not Kind.FILE:
        size = member.device
    return Entry(
        b"", _TYPES[member.kind] | member.mode, member.uid, member.gid, size, member.mtime, member.mtime_ns, symlink,
        xattrs=xattrs.encode(member.xattrs),
    )  # fmt: skip

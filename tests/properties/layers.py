"""What `ducc.ingest` makes of layers given as members, and directories and overlay mounts made of it."""

import ctypes
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ducc.catalog.split import SplitPolicy
from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import Directory, Nested, entry_of
from ducc.catalog.writer import write_tree
from ducc.cvmfs import xattrs
from ducc.ingest.contents import Content
from ducc.ingest.graft import Layer, graft
from ducc.ingest.layer_tree import LayerTreeBuilder
from ducc.layer.entries import Kind, Member
from tests.memory import forgetful, nodes
from tests.properties.stacking import Row, above, content_of

TINY = SplitPolicy(heavy=4, light=2, limit=50)


def ingested(members: Iterable[Member], catalogs: CatalogStore, policy: SplitPolicy = TINY, name: str = "x") -> Layer:
    """One layer, written and loaded again by somebody who knows nothing of it."""
    builder = LayerTreeBuilder(name)
    for member in members:
        is_file = member.kind is Kind.FILE
        size = len(content_of(member))
        content = Content(content_of(member).ljust(20, b"\0")) if is_file else None
        builder.add(member._replace(size=size) if is_file else member, content)
    root, notes = builder.finish()
    ref = write_tree(root, catalogs, policy).ref
    return Layer(name, forgetful(catalogs).load(ref), notes)


@dataclass
class Grafted:
    image: Directory
    completed: list[Directory]
    catalogs: CatalogStore

    def rows(self) -> dict[bytes, Row]:
        return rows_of(self.image, self.catalogs)


def grafted(layers: Sequence[Iterable[Member]], catalogs: CatalogStore, policy: SplitPolicy = TINY) -> Grafted:
    image, completed = graft([ingested(members, catalogs, policy) for members in layers], catalogs)
    return Grafted(image, completed, catalogs)


def rows_of(root: Directory, catalogs: CatalogStore) -> dict[bytes, Row]:
    groups: dict[tuple[bytes, int], list[bytes]] = {}
    found: dict[bytes, Row] = {}
    for path, node in nodes(root, catalogs):
        entry = entry_of(node)
        kind = stat.S_IFMT(entry.mode)
        found[path] = Row(
            kind, stat.S_IMODE(entry.mode), entry.uid, entry.gid, entry.mtime * 10**9 + entry.mtime_ns,
            0 if entry.is_directory else entry.size, entry.symlink, (entry.content or b"").rstrip(b"\0"),
            tuple(sorted(xattrs.decode(entry.xattrs).items())),
        )  # fmt: skip
        if entry.link_group:
            groups.setdefault((above(path), entry.link_group), []).append(path.rpartition(b"/")[2])
    for (directory, _), names in groups.items():
        for name in names if len(names) > 1 else ():
            path = directory + b"/" + name
            found[path] = replace(found[path], group=tuple(sorted(names)))
    return found


# --- on this machine's kernel --------------------------------------------------------------


def lay_out(root: Directory, catalogs: CatalogStore, top: bytes) -> None:
    """Make *top* hold a tree, as a mount of it would show it."""
    found = list(nodes(root, catalogs))
    firsts: dict[tuple[bytes, int], bytes] = {}
    for path, node in found:
        entry, here = entry_of(node), top + path
        first = firsts.setdefault((above(path), entry.link_group), here) if entry.link_group else here
        if isinstance(node, Directory | Nested):
            os.mkdir(here)
        elif first != here:
            os.link(first, here, follow_symlinks=False)
            continue
        elif entry.is_symlink:
            os.symlink(entry.symlink, here)
        elif entry.is_regular:
            with open(here, "xb") as file:
                file.write((entry.content or b"").rstrip(b"\0"))
        else:
            os.mknod(here, stat.S_IFMT(entry.mode) | 0o600, entry.size)
        os.chown(here, entry.uid, entry.gid, follow_symlinks=False)
        if not entry.is_symlink:
            os.chmod(here, stat.S_IMODE(entry.mode))
        for name, value in xattrs.decode(entry.xattrs).items():
            os.setxattr(here, name, value, follow_symlinks=False)
    for path, node in reversed(found):
        entry = entry_of(node)
        time = entry.mtime * 10**9 + entry.mtime_ns
        os.utime(top + path, ns=(time, time), follow_symlinks=False)


_libc = ctypes.CDLL(None, use_errno=True)
_READ_ONLY, _DETACH = 1, 2


@contextmanager
def mounted(kind: str, at: str, options: str, flags: int = 0) -> Iterator[None]:
    if _libc.mount(b"none", os.fsencode(at), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"{kind}: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        _libc.umount2(os.fsencode(at), _DETACH)


@contextmanager
def overlaid(directories: Sequence[str], empty: str, at: str) -> Iterator[None]:
    """Mount *directories*, base first, over one another at *at*; *empty* is a directory with nothing in it."""
    lower = ":".join([empty, *reversed(directories)])
    with mounted("overlay", at, f"lowerdir={lower}", _READ_ONLY):
        yield

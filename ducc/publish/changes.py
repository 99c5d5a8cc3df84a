"""What a commit changes: values that say what is to stand at a path, whatever stood there before.

They can be applied to any revision, so a publisher that was overtaken applies them once more to the new head.
"""

import json
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from ducc import layout
from ducc.catalog.schema import CatalogRef
from ducc.catalog.tree import Bind, Directory, Node, TreeEditor
from ducc.catalog.writer import WrittenTree
from ducc.cvmfs.entry import Entry
from ducc.publish.repository import Head, Repository


@dataclass(frozen=True, slots=True)
class BindTree:
    """Mount a published tree at *path*. *tags* are further trees that must live as long as this one."""

    path: bytes
    tree: WrittenTree
    tags: tuple[CatalogRef, ...] = ()


@dataclass(frozen=True, slots=True)
class PutFile:
    """A small file of the trunk itself."""

    path: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class PutLink:
    """A symbolic link of the trunk."""

    path: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Remove:
    """Nothing is to stand at *path*; if nothing does, nothing changes."""

    path: bytes


@dataclass(frozen=True, slots=True)
class AddToList:
    """A small JSON file `{key: [texts]}`: *texts* are to be among its list, which is sorted; others stay."""

    path: bytes
    key: str
    texts: tuple[str, ...]


Change = BindTree | PutFile | PutLink | Remove | AddToList


def apply(changes: Iterable[Change], repository: Repository, head: Head, now: int) -> Directory:
    """Return the trunk of *head* with *changes* made; new files, links and directories bear the time *now*."""
    editor = TreeEditor(repository.tree(head), repository.catalogs.open_nested)
    directory = Entry(b"", stat.S_IFDIR | 0o755, size=4096, mtime=now)
    nested: set[bytes] = set()
    for change in changes:
        if isinstance(change, Remove):
            editor.remove(change.path)
            continue
        for root in layout.catalog_roots(change.path):
            if root not in nested:
                editor.nest(root, directory)
                nested.add(root)
        if isinstance(change, AddToList):
            change = _extended(change, editor.find(change.path), repository)
        editor.put(change.path, _node(change, repository, now), directory)
    return editor.root


def _extended(change: AddToList, before: Node | None, repository: Repository) -> PutFile:
    known = json.loads(repository.read(before))[change.key] if isinstance(before, Entry) else []
    values = {change.key: sorted({*known, *change.texts})}
    return PutFile(change.path, json.dumps(values, indent=1).encode() + b"\n")


def _node(change: BindTree | PutFile | PutLink, repository: Repository, now: int) -> Node:
    name = change.path.rpartition(b"/")[2]
    if isinstance(change, BindTree):
        return Bind(change.tree.entry._replace(name=name), change.tree.ref)
    if isinstance(change, PutLink):
        return Entry(name, stat.S_IFLNK | 0o777, size=len(change.target), mtime=now, symlink=change.target)
    content = repository.put(change.data).digest
    return Entry(name, stat.S_IFREG | 0o644, size=len(change.data), mtime=now, content=content)

"""What a commit changes: values that say what is to stand at a path, whatever stood there before.

They can be applied to any revision, so a publisher that was overtaken applies them once more to the new head.
"""

import json
import logging
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ducc import layout
from ducc.catalog.tree import Bind, Directory, Node, TreeEditor
from ducc.catalog.writer import WrittenTree
from ducc.cvmfs.compression import BadObject
from ducc.cvmfs.entry import Entry
from ducc.publish.repository import ForgedObject, Head, Repository
from ducc.storage.base import ObjectMissing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BindTree:
    """Mount a published tree at *path*."""

    path: bytes
    tree: WrittenTree


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
class EditList:
    """A small JSON file `{key: [texts]}`: of its list, which is sorted, *without* are to go and *texts* to be there."""

    path: bytes
    key: str
    texts: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EditRows:
    """A JSON file `[{"id": …}, …]`, sorted by id: *rows* are to be there, each in place of the one with its id.

    Of what stands there as a list or a mapping, what it held before stays. Each of *names* is to stand in the list
    `names` of the row with that id, and in no other row's.
    """

    path: bytes
    rows: tuple[Mapping[str, Any], ...]
    names: Mapping[str, str] = field(default_factory=dict)


Change = BindTree | PutFile | PutLink | Remove | EditList | EditRows


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
        put = _edited(change, editor, repository) if isinstance(change, EditList | EditRows) else change
        if put is not None:
            editor.put(put.path, _node(put, repository, now), directory)
    return editor.root


def _edited(change: EditList | EditRows, editor: TreeEditor, repository: Repository) -> PutFile | None:
    """The file as it is to be; None when it is."""
    before = editor.find(change.path)
    known = _list_in(before, change, repository) if isinstance(before, Entry) else None
    if isinstance(change, EditRows):
        rows = _edited_rows(known or [], change)
        return None if rows == known else PutFile(change.path, rows_to_json_bytes(rows))
    after = sorted({*(known or []), *change.texts} - {*change.without})
    if after == known or (before is None and not after):
        return None
    return PutFile(change.path, to_json_bytes({change.key: after}))


def _edited_rows(known: Iterable[Mapping[str, Any]], change: EditRows) -> list[dict[str, Any]]:
    rows = {row["id"]: dict(row) for row in known}
    for row in rows.values():
        if change.names.keys() & set(row.get("names") or ()):
            row["names"] = [name for name in row["names"] if name not in change.names]
    for added in change.rows:
        rows[added["id"]] = joined_row(rows.get(added["id"], {}), added)
    for name, row_id in change.names.items():
        rows[row_id]["names"] = sorted([*rows[row_id]["names"], name])
    return [rows[row_id] for row_id in sorted(rows)]


def joined_row(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """*row*, whose lists and mappings hold, too, what those of *before* did."""
    return {key: _joined(before.get(key), value) for key, value in row.items()}


def _joined(before: Any, value: Any) -> Any:
    if isinstance(value, list) and isinstance(before, list):
        return sorted({*before, *value})
    return {**before, **value} if isinstance(value, dict) and isinstance(before, dict) else value


def _list_in(file: Entry, change: EditList | EditRows, repository: Repository) -> list[Any] | None:
    """The list that a file has; None if it can't be read: then it is begun anew, and the commit goes on."""
    try:
        value = json.loads(repository.read(file))
        if isinstance(change, EditRows):
            known, is_fit = value, all(isinstance(row["id"], str) for row in value)
        else:
            known = value[change.key]
            is_fit = all(isinstance(text, str) for text in known)
        if isinstance(known, list) and is_fit:
            return known
        reason = "no such list is in it"
    except (ForgedObject, ObjectMissing, BadObject, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = str(error)
    log.warning("published list unreadable, begun anew: path=%s reason=%s", change.path.decode(), reason)
    return None


def _node(change: BindTree | PutFile | PutLink, repository: Repository, now: int) -> Node:
    name = change.path.rpartition(b"/")[2]
    if isinstance(change, BindTree):
        return Bind(change.tree.entry._replace(name=name), change.tree.ref)
    if isinstance(change, PutLink):
        return Entry(name, stat.S_IFLNK | 0o777, size=len(change.target), mtime=now, symlink=change.target)
    content = repository.put(change.data).digest
    return Entry(name, stat.S_IFREG | 0o644, size=len(change.data), mtime=now, content=content)


def rows_to_json_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as they are published: a line each, for there may be many."""
    lines = ",\n".join(json.dumps(row, sort_keys=True, separators=(",", ":")) for row in rows)
    return f"[{lines}]\n".encode()


def to_json_bytes(values: Any) -> bytes:
    """JSON as it is published: readable, the same for equal values."""
    return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"

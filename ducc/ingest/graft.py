"""Layer trees become an image tree, without a look at any content.

Every subtree that only one layer touches is taken over by its catalog's hash; what is written anew are the catalogs
on the way to where layers meet. So the cost is what differs between the image and its layers, not its size.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import Directory, Nested, Node, TreeEditor, find, names_of
from ducc.cvmfs.entry import Entry
from ducc.errors import DuccError
from ducc.ingest.layer_tree import DIRECTORY_BYTES, MAX_LINK_HOPS
from ducc.ingest.notes import LayerNotes
from ducc.ingest.overlay import is_opaque, not_opaque, opaque

EMPTY_ROOT = Directory(Entry(b"", stat.S_IFDIR | 0o755, size=DIRECTORY_BYTES))


class UnresolvableLink(DuccError):
    """A layer links to a file that no layer below it has."""

    exit_code = 25

    def __init__(self, layer: str, path: bytes, target: bytes) -> None:
        name, aim = (text.decode(errors="backslashreplace") for text in (path, target))
        super().__init__(f"layer {layer}: {name!r} is a hard link to {aim!r}, which no layer below has as a file")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's tree, for grafting: *name* for messages, *root* as loaded, *notes* as ingested."""

    name: str
    root: Directory
    notes: LayerNotes


def graft(layers: Sequence[Layer], catalogs: CatalogStore) -> tuple[Directory, list[Directory]]:
    """Stack *layers*, base first. Returns the image's tree, and each layer's tree completed.

    A completed tree is what overlayfs needs as that layer's directory: `complete` says what is added.
    """
    image, completed = EMPTY_ROOT, list[Directory]()
    for layer in layers:
        root = complete(layer, image, catalogs)
        merge = _Merge(layer.notes, catalogs)
        image = merge.over(b"", image, root) if completed else merge.opened(merge.alone(b"", root))
        completed.append(root)
    return image, completed


def complete(layer: Layer, lower: Directory, catalogs: CatalogStore) -> Directory:
    """Return the layer's tree with all that depends on the layers below, whose union is *lower*.

    Directories that the layer only passes through get the attributes that they have below; hard links to files below
    become files, together with those names in the same directory that share the inode; whiteouts that hide nothing
    go. Raises `UnresolvableLink`.
    """
    notes, open_nested = layer.notes, catalogs.open_nested
    editor = TreeEditor(layer.root, open_nested)
    for path in notes.implied:
        below = find(lower, path, open_nested)
        if isinstance(below, Directory | Nested):
            editor.set_entry(path, _with_attributes(_directory_at(editor, path), below.entry))
    for path in notes.whiteouts:
        if find(lower, path, open_nested) is None:
            editor.remove(path)
    copy_up = _CopyUp(editor, lower, catalogs)
    for path, target in notes.lower_links:
        if not copy_up.link(path, target):
            raise UnresolvableLink(layer.name, path, target)
    return editor.root


def _directory_at(editor: TreeEditor, path: bytes) -> Entry:
    node = editor.find(path)
    assert isinstance(node, Directory | Nested), path
    return node.entry


def _with_attributes(directory: Entry, other: Entry) -> Entry:
    """The attributes of *other* under the name of *directory*; whether it is opaque stays."""
    taken = not_opaque(other)._replace(name=directory.name)
    return opaque(taken) if is_opaque(directory) else taken


class _CopyUp:
    """Gives a layer its own copies of files below that it links to."""

    def __init__(self, editor: TreeEditor, lower: Directory, catalogs: CatalogStore) -> None:
        self._editor, self._lower, self._catalogs = editor, lower, catalogs
        self._groups: dict[tuple[bytes, bytes], int] = {}  # (directory, least name below) → group in this layer

    def link(self, path: bytes, target: bytes) -> bool:
        """Put the file at *target* at *path*; in one directory, with all names that share its inode."""
        above, _, name = path.rpartition(b"/")
        target_above, _, target_name = target.rpartition(b"/")
        parent = _follow(self._lower, target_above, self._catalogs)
        node = parent.children.get(target_name) if parent else None
        if parent is None or not isinstance(node, Entry):
            return False
        if above != target_above:
            self._put(above, node._replace(name=name, link_group=0))
            return True
        linked = [one for one in parent.children.values() if isinstance(one, Entry) and _share_inode(one, node)]
        least = min(one.name for one in linked)
        group = self._groups.setdefault((above, least), -1 - len(self._groups))  # positive ones are the layer's own
        for one in [*linked, node._replace(name=name)]:
            self._put(above, one._replace(link_group=group))
        return True

    def _put(self, above: bytes, entry: Entry) -> None:
        self._editor.put(above + b"/" + entry.name, entry, EMPTY_ROOT.entry)


def _share_inode(one: Entry, other: Entry) -> bool:
    return one is other or (one.link_group != 0 and one.link_group == other.link_group)


def _follow(root: Directory, path: bytes, catalogs: CatalogStore) -> Directory | None:
    """Return the directory at *path*, through symbolic links that stay inside *root*; None if there is none."""
    trail, pending, hops = [root], names_of(path)[::-1], 0
    while pending:
        name = pending.pop()
        if name == b"..":
            trail = trail[:-1] or trail
            continue
        node: Node | None = trail[-1] if name in (b"", b".") else trail[-1].children.get(name)
        if isinstance(node, Entry) and node.is_symlink and hops < MAX_LINK_HOPS:
            hops += 1
            pending.extend(reversed(node.symlink.split(b"/")))
            trail = trail[:1] if node.symlink.startswith(b"/") else trail
            continue
        if isinstance(node, Nested):
            node = catalogs.open_nested(node)
        if not isinstance(node, Directory):
            return None
        if node is not trail[-1]:
            trail.append(node)
    return trail[-1]


class _Merge:
    """Puts one layer on top of what lies below it."""

    def __init__(self, notes: LayerNotes, catalogs: CatalogStore) -> None:
        self._notes, self._open_nested = notes, catalogs.open_nested

    def over(self, path: bytes, lower: Directory, upper: Directory) -> Directory:
        """*upper*'s directory over *lower*'s: attributes of the upper, names of both."""
        children = dict(lower.children)
        first_group = 1 + max((n.link_group for n in children.values() if isinstance(n, Entry)), default=0)
        for name, node in upper.children.items():
            if isinstance(node, Directory | Nested):
                children[name] = self._directory(path + b"/" + name, children.get(name), node)
            elif isinstance(node, Entry) and node.is_whiteout:
                children.pop(name, None)
            elif isinstance(node, Entry):
                children[name] = _regrouped(node, first_group)
        return replace(lower, entry=not_opaque(upper.entry), children=children, nested=lower.nested or upper.nested)

    def _directory(self, path: bytes, below: Node | None, node: Directory | Nested) -> Directory | Nested:
        if isinstance(below, Directory | Nested) and not is_opaque(node.entry):
            if isinstance(node, Directory) and not node.children and _equal(node.entry, below.entry):
                return below
            return self.over(path, self.opened(below), self.opened(node))
        return self.alone(path, node)

    def alone(self, path: bytes, node: Directory | Nested) -> Directory | Nested:
        """A directory that nothing lies below: all that speaks of lower layers goes."""
        if not self._notes.hides_below(path):
            return node
        opened = self.opened(node)
        children: dict[bytes, Node] = {}
        for name, child in opened.children.items():
            if isinstance(child, Directory | Nested):
                children[name] = self.alone(path + b"/" + name, child)
            elif isinstance(child, Entry) and not child.is_whiteout:
                children[name] = child
        return replace(opened, entry=not_opaque(opened.entry), children=children)

    def opened(self, node: Node) -> Directory:
        directory = self._open_nested(node) if isinstance(node, Nested) else node
        assert isinstance(directory, Directory)
        return directory


def _equal(one: Entry, other: Entry) -> bool:
    """Do two directories have the same attributes? How many directories they contain is not one."""
    return one._replace(linkcount=0, size=0) == other._replace(linkcount=0, size=0)


def _regrouped(entry: Entry, first_group: int) -> Entry:
    """Keep groups of the upper layer apart from those of the same directory below."""
    if not entry.link_group:
        return entry
    return entry._replace(link_group=first_group + abs(entry.link_group) * 2 + (entry.link_group < 0))

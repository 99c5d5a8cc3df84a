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
from ducc.ingest.overlay import is_opaque, not_opaque, opaque, whiteout

EMPTY_ROOT = Directory(Entry(b"", stat.S_IFDIR | 0o755, size=DIRECTORY_BYTES))


class UnresolvableLink(DuccError):
    """A layer links to a file that no layer below it has."""

    exit_code = 47

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
        upper = replace(root, entry=_with_attributes(root.entry, image.entry)) if layer.notes.implies(b"") else root
        image = _Merge(layer.notes, catalogs).put(upper, image if completed else None)
        completed.append(root)
    return image, completed


def complete(layer: Layer, lower: Directory, catalogs: CatalogStore) -> Directory:
    """Return the layer's tree with all that depends on the layers below, whose union is *lower*.

    Directories that the layer only passes through get the attributes that they have below; hard links to files below
    become files, together with those names in the same directory that share the inode; whiteouts that hide nothing
    go. The root stays as it is: in an overlay its upper directory's attributes are seen, and taking over the time of
    the one below would make each layer another one on each base. Raises `UnresolvableLink`.
    """
    notes, open_nested = layer.notes, catalogs.open_nested
    editor = TreeEditor(layer.root, open_nested)
    for path in filter(None, notes.implied):
        below = None if notes.is_hidden(path) else find(lower, path, open_nested)
        if isinstance(below, Directory | Nested):
            editor.set_entry(path, _with_attributes(_directory_at(editor, path), below.entry))
    for path in notes.whiteouts:
        if notes.is_hidden(path) or find(lower, path, open_nested) is None:
            editor.remove(path)
    copy_up = _CopyUp(layer, editor, lower, catalogs)
    for path, target in notes.lower_links:
        if not copy_up.link(path, target):
            raise UnresolvableLink(layer.name, path, target)
    if notes.is_opaque(b""):
        _hide_each_name(editor, lower)
    return editor.root


def _hide_each_name(editor: TreeEditor, lower: Directory) -> None:
    """Say of every name below that it is hidden: overlayfs does not look whether the root of a layer is opaque."""
    for name, below in lower.children.items():
        node = editor.root.children.get(name)
        if node is None:
            editor.put(b"/" + name, whiteout(name), EMPTY_ROOT.entry)
        elif isinstance(node, Directory | Nested) and isinstance(below, Directory | Nested):
            editor.set_entry(b"/" + name, opaque(node.entry))


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

    def __init__(self, layer: Layer, editor: TreeEditor, lower: Directory, catalogs: CatalogStore) -> None:
        self._layer, self._editor, self._lower, self._catalogs = layer, editor, lower, catalogs
        self._links = {path for path, _ in layer.notes.lower_links}
        self._groups: dict[tuple[bytes, bytes, bytes], int] = {}  # (link's directory, target's, least name there)

    def link(self, path: bytes, target: bytes) -> bool:
        """Put the file at *target* at *path*; in one directory, with all names that still share its inode."""
        above, _, name = path.rpartition(b"/")
        target_above, _, target_name = target.rpartition(b"/")
        parent = _follow(self._lower, target_above, self._catalogs)
        node = parent.children.get(target_name) if parent else None
        if parent is None or not isinstance(node, Entry):
            return False
        linked = [one for one in parent.children.values() if isinstance(one, Entry) and _share_inode(one, node)]
        least = min(one.name for one in linked)
        group = self._groups.setdefault((above, target_above, least), -1 - len(self._groups))  # the layer's own are > 0
        others = linked if above == target_above and self._shows_through(above) else []
        for one in [*(other for other in others if self._leaves_alone(above, other.name)), node._replace(name=name)]:
            self._editor.put(above + b"/" + one.name, one._replace(link_group=group), EMPTY_ROOT.entry)
        return True

    def _shows_through(self, path: bytes) -> bool:
        """Is the layer's directory at *path* one with what lies below?"""
        notes, below = self._layer.notes, find(self._lower, path, self._catalogs.open_nested)
        return isinstance(below, Directory | Nested) and not notes.is_opaque(path) and not notes.is_hidden(path)

    def _leaves_alone(self, above: bytes, name: bytes) -> bool:
        """Does the layer itself neither put something there nor hide what is there?"""
        path = above + b"/" + name
        return path not in self._links and find(self._layer.root, path, self._catalogs.open_nested) is None


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


@dataclass(frozen=True, slots=True)
class _Meeting:
    """A directory of the image that is still to be filled; *lower* is None where nothing lies below *upper*."""

    path: bytes
    directory: Directory
    lower: Directory | None
    upper: Directory


class _Merge:
    """Puts one layer on top of what lies below it. No recursion: a path may have 2,000 levels."""

    def __init__(self, notes: LayerNotes, catalogs: CatalogStore) -> None:
        self._notes, self._open_nested = notes, catalogs.open_nested
        self._pending: list[_Meeting] = []

    def put(self, upper: Directory, lower: Directory | None) -> Directory:
        """Return the union of two trees; None is the lowest layer's lower one."""
        root = self._opened(self._directory(b"", lower, upper))
        while self._pending:
            self._fill(self._pending.pop())
        return root

    def _directory(self, path: bytes, below: Node | None, node: Directory | Nested) -> Directory | Nested:
        """Whatever is to stand at *path*: a known subtree, or a new directory, which is filled later."""
        lower: Directory | None = None
        if isinstance(below, Directory | Nested) and not is_opaque(node.entry):
            if isinstance(node, Directory) and not node.children and _equal(node.entry, below.entry):
                return below
            lower = self._opened(below)
        elif not is_opaque(node.entry) and not self._notes.hides_below(path):
            return node
        upper = self._opened(node)
        known, nested = (lower, lower.nested or upper.nested) if lower else (upper, upper.nested)
        directory = replace(known, entry=not_opaque(upper.entry), children={}, nested=nested)
        self._pending.append(_Meeting(path, directory, lower, upper))
        return directory

    def _fill(self, meeting: _Meeting) -> None:
        """The names of both; all that speaks of lower layers goes."""
        below = meeting.lower.children if meeting.lower else {}
        children = meeting.directory.children
        children.update(below)
        first_group = 1 + max([0, *(n.link_group for n in below.values() if isinstance(n, Entry))])
        for name, node in meeting.upper.children.items():
            if isinstance(node, Directory | Nested):
                children[name] = self._directory(meeting.path + b"/" + name, below.get(name), node)
            elif isinstance(node, Entry) and node.is_whiteout:
                children.pop(name, None)
            elif isinstance(node, Entry):
                children[name] = _regrouped(node, first_group)

    def _opened(self, node: Node) -> Directory:
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

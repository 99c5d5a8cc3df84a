"""Trees: what many catalogs say together, as one value that can be changed and written again.

A tree is directories of nodes. A `Nested` node is a subtree that lies in a catalog of its own and has not been
opened: whoever doesn't look into it keeps it, by its hash, at the cost of one row. Values are never changed in
place, so what a `CatalogStore` has loaded may be shared by any number of trees; `TreeEditor` copies what it changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ducc.catalog.schema import CatalogRef, Counters
from ducc.cvmfs.entry import Entry

MARKER = b".cvmfscatalog"  # every nested catalog has one in its root; we give it the hidden flag


class Nested(NamedTuple):
    """A subtree in a catalog of the same coordinates. *entry* repeats the catalog's root row."""

    entry: Entry
    ref: CatalogRef


class Bind(NamedTuple):
    """A tree with coordinates of its own, mounted here. *entry* repeats the tree's root row, but for the name."""

    entry: Entry
    ref: CatalogRef


class Origin(NamedTuple):
    """What the catalog that a directory was loaded from said of the catalogs nested in it."""

    subtree: Counters
    nested: frozenset[CatalogRef]


@dataclass(slots=True)
class Directory:
    """A directory and what is in it, by name. Do not change one that you did not make.

    *nested*: it was the root of a catalog and should become one again. *entry*'s linkcount means nothing: it is
    counted when the directory is written.
    """

    entry: Entry
    children: "dict[bytes, Node]" = field(default_factory=dict)
    nested: bool = False
    origin: Origin | None = None


Node = Entry | Directory | Nested | Bind
Opener = Callable[[Nested], Directory]


def entry_of(node: Node) -> Entry:
    """The attributes of whatever stands under a name."""
    return node if isinstance(node, Entry) else node.entry


def renamed(node: Node, name: bytes) -> Node:
    """The same node under another name; children keep theirs."""
    if isinstance(node, Entry):
        return node._replace(name=name)
    if isinstance(node, Directory):
        return replace(node, entry=node.entry._replace(name=name))
    return node._replace(entry=node.entry._replace(name=name))


def directories(root: Directory, at: bytes = b"") -> Iterator[tuple[bytes, Directory]]:
    """Walk the opened part of a tree, parents first, names in order; *at* is the path of *root*."""
    pending = [(at, root)]
    while pending:
        path, directory = pending.pop()
        yield path, directory
        below = sorted((name for name, node in directory.children.items() if type(node) is Directory), reverse=True)
        pending.extend((path + b"/" + name, directory.children[name]) for name in below)  # type: ignore[misc]


def names_of(path: bytes) -> list[bytes]:
    """Split `/a/b` into its names; the root has none."""
    return path.split(b"/")[1:] if path else []


def find(root: Directory, path: bytes, open_nested: Opener) -> Node | None:
    """What stands at *path*, or None. Binds are not entered, symbolic links not followed."""
    node: Node | None = root
    for name in names_of(path):
        if isinstance(node, Nested):
            node = open_nested(node)
        if not isinstance(node, Directory):
            return None
        node = node.children.get(name)
    return node


class TreeEditor:
    """Path-addressed changes to a tree; `root` is the changed tree, the tree given stays as it was."""

    def __init__(self, root: Directory, open_nested: Opener) -> None:
        self.root = root
        self._open_nested = open_nested
        self._owned: dict[int, Directory] = {}

    def find(self, path: bytes) -> Node | None:
        return find(self.root, path, self._open_nested)

    def put(self, path: bytes, node: Node, parent: Entry) -> None:
        """Let *node* (which bears the last name of *path*) stand at *path*, whatever stood there before.

        Parents that are missing are made with the attributes of *parent*; what is no directory gives way to one.
        """
        *above, name = names_of(path)
        self._directory(above, parent).children[name] = node

    def set_entry(self, path: bytes, entry: Entry) -> None:
        """Give the directory at *path*, which exists, other attributes."""
        self._directory(names_of(path), entry).entry = entry

    def nest(self, path: bytes, attributes: Entry) -> None:
        """Let the directory at *path* be the root of a catalog of its own; make it if it is missing."""
        self._directory(names_of(path), attributes).nested = True

    def remove(self, path: bytes) -> bool:
        """Take away what stands at *path*, with all below it; False when there is nothing."""
        *above, name = names_of(path)
        if self.find(path) is None:
            return False
        del self._directory(above, self.root.entry).children[name]
        return True

    def _directory(self, names: list[bytes], attributes: Entry) -> Directory:
        self.root = directory = self._own(self.root)
        for name in names:
            child = directory.children.get(name)
            if isinstance(child, Nested):
                child = self._open_nested(child)
            if not isinstance(child, Directory):
                child = Directory(attributes._replace(name=name))
            directory.children[name] = directory = self._own(child)
        return directory

    def _own(self, directory: Directory) -> Directory:
        if id(directory) in self._owned:
            return directory
        mine = replace(directory, children=dict(directory.children))
        self._owned[id(mine)] = mine
        return mine

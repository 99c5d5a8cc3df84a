"""The catalogs of a repository, each where it is mounted, as one tree of inodes.

One catalog object may be mounted at any number of places. Each place is an `Attachment`, with inodes of its own; paths
within are in the catalog's own coordinates, which begin at its prefix. All here is answered at once or not at all:
what needs a catalog that is not open raises `CatalogNeeded`, and is asked again when it has been loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ducc.catalog.reader import BadCatalog, Catalog, Mount, Row
from ducc.catalog.schema import CatalogRef
from ducc.client.catalogs import Catalogs
from ducc.client.inodes import ROOT_INODE, Inodes, Numbering
from ducc.cvmfs.entry import PathKey, path_key
from ducc.errors import DuccError

_DEEPEST = 2048  # more directories than a path the kernel takes can name
_MOST_REMEMBERED = 20_000  # directories, link groups; beyond, all are forgotten and found again
_MOST_PAST = 8  # revisions for which a listing that has begun can be finished as it began


class StaleInode(DuccError):
    """An inode of a former revision, of which nothing is left in this one."""

    exit_code = 51

    def __init__(self, inode: int) -> None:
        super().__init__(f"inode {inode} is of a revision that was replaced")


class NotADirectoryInode(DuccError):
    """A name was looked for in something that has none."""

    exit_code = 52

    def __init__(self, inode: int) -> None:
        super().__init__(f"inode {inode} is not a directory")


@dataclass(slots=True, eq=False)
class Attachment:
    """A catalog at a place: the directory *inode*, which is *path* in the coordinates of *above*."""

    inode: int
    above: "Attachment | None"
    path: bytes
    ref: CatalogRef
    prefix: bytes
    numbering: Numbering = field(init=False)
    children: "dict[bytes, Attachment]" = field(default_factory=dict)
    past: list[tuple[int, CatalogRef]] = field(default_factory=list)  # what it showed, each until which generation

    def ref_at(self, generation: int) -> CatalogRef:
        """What it showed in a generation of the tree."""
        return next((ref for until, ref in self.past if generation < until), self.ref)

    def place(self) -> bytes:
        """Its path in the repository."""
        if self.above is None:
            return b""
        return self.above.place() + self.path.removeprefix(self.above.prefix)

    def succeed(self, generation: int, ref: CatalogRef, prefix: bytes, numbering: Numbering) -> None:
        """Show another catalog from *generation* on."""
        self.past = [*self.past[1 - _MOST_PAST :], (generation, self.ref)]
        self.ref, self.prefix, self.numbering = ref, prefix, numbering

    def everything(self) -> "list[Attachment]":
        """This one and all that is attached below it."""
        return [self, *(one for child in self.children.values() for one in child.everything())]


class Node(NamedTuple):
    """A row that can be asked for again by its number."""

    inode: int
    row: Row


class Directory(NamedTuple):
    """Where the children of a directory are to be found."""

    attachment: Attachment
    path: bytes
    key: PathKey


class Listing(NamedTuple):
    """A directory as it was when it was opened."""

    inode: int
    directory: Directory
    catalog: Catalog


class Leaving(NamedTuple):
    """Rows that are no more, but whose inodes somebody may have open."""

    numbering: Numbering
    ref: CatalogRef
    rowids: Sequence[int]


class Untold(NamedTuple):
    """What the kernel must be told to forget: names in directories, attributes of inodes."""

    names: list[tuple[int, bytes]]
    inodes: list[int]


class TreeState(NamedTuple):
    """All that a tree needs to go on in another process under the same inodes."""

    root: Attachment
    numbers: Inodes[Attachment]
    attached: int
    generation: int
    leaving: list[Leaving]
    former: dict[int, Row]
    untold: list[Untold]


class Tree:
    """Nodes by inode and by name. To be used by one thread at a time, but for `attached` and `numbers`."""

    def __init__(self, catalogs: Catalogs, root: CatalogRef) -> None:
        """The catalog *root* must have been loaded."""
        self._catalogs = catalogs
        self.numbers = Inodes[Attachment]()
        self.attached = 0  # how often a catalog was attached so far
        self.generation = 0  # grows whenever another revision is shown
        self.leaving: list[Leaving] = []  # until it is known which of them the kernel has
        self.former: dict[int, Row] = {}  # what is no more, by the inodes under which the kernel still has it
        self.untold: list[Untold] = []
        self.changed: Callable[[], None] = _nobody_asks  # called before anybody can learn of a new inode
        self._directories: dict[int, Directory] = {}
        self._link_groups: dict[tuple[bytes, PathKey], dict[int, int]] = {}
        self.root = self._attach(ROOT_INODE, None, b"", root)

    def state(self) -> TreeState:
        return TreeState(
            self.root, self.numbers, self.attached, self.generation, self.leaving, self.former, self.untold
        )

    def resume(self, state: TreeState) -> None:
        """Go on where another tree has ended. The root's catalog must have been loaded."""
        self.root, self.numbers, self.attached, self.generation, self.leaving, self.former, self.untold = state
        self.forget_places()
        self._link_groups.clear()

    def node(self, inode: int) -> Node:
        if inode == ROOT_INODE:
            return Node(inode, self._catalogs.get(self.root.ref).root())
        attachment = self.numbers.owner(inode)
        rowid = attachment.numbering.rowid(inode) if attachment else 0
        if attachment is None or not rowid:
            return Node(inode, self._gone(inode))
        row = self._catalogs.get(attachment.ref).row_by_id(rowid)
        if row is None:
            raise StaleInode(inode)
        return Node(inode, row)

    def row_of(self, one: Leaving, rowid: int) -> Row | None:
        return self._catalogs.get(one.ref).row_by_id(rowid)

    def catalogs_in_use(self) -> set[bytes]:
        """Digests of what it shows, and of what it has shown and may be asked for."""
        used = {one.ref.digest for one in self.leaving}
        for attachment in self.root.everything():
            used.update((attachment.ref.digest, *(ref.digest for _, ref in attachment.past)))
        return used

    def child(self, parent: int, name: bytes) -> Node | None:
        """What *name* stands for in the directory *parent*, if for anything; hidden names are found, too."""
        directory = self._directory(parent)
        row = self._catalogs.get(directory.attachment.ref).row(directory.path + b"/" + name)
        return None if row is None else self._numbered(directory.attachment, row)

    def listing(self, inode: int, generation: int | None = None) -> Listing:
        """A directory as it is, or as it was in a former generation if that is remembered."""
        directory = self._directory(inode)
        ref = directory.attachment.ref if generation is None else directory.attachment.ref_at(generation)
        return Listing(inode, directory, self._catalogs.get(ref))

    def page(self, listing: Listing, after: int, limit: int) -> list[tuple[int, Node | None]]:
        """The next *limit* nodes of a listing, hidden ones too, each with its position; *after* is 0 or a position.

        A listing that was begun in a former revision goes on with the names of that one, as they are now; None stands
        for a name that is no more.
        """
        rows = listing.catalog.page(listing.directory.key, after, limit)
        directory = self._directory(listing.inode)
        if self._catalogs.get(directory.attachment.ref) is listing.catalog:
            return [(row.rowid, self._numbered(directory.attachment, row)) for row in rows]
        return [(row.rowid, self.child(listing.inode, row.entry.name)) for row in rows]

    def parent(self, inode: int) -> int:
        """The directory that holds the directory *inode*; the root's is the root."""
        attachment, path, _ = self._directory(inode)
        if path == attachment.prefix:
            if attachment.above is None:
                return ROOT_INODE
            attachment, path = attachment.above, attachment.path
        above = path.rpartition(b"/")[0]
        if above == attachment.prefix:
            return attachment.inode
        row = self._catalogs.get(attachment.ref).row(above)
        return inode if row is None else attachment.numbering.inode(row.rowid)

    def forget_places(self) -> None:
        """To be called whenever an attachment was changed."""
        self._directories.clear()

    def _gone(self, inode: int) -> Row:
        """What an inode was that is no more: content that somebody has open stays what it was."""
        row = self.former.get(inode)
        if row is not None:
            return row
        for one in self.leaving:
            rowid = one.numbering.rowid(inode)
            row = self.row_of(one, rowid) if rowid else None
            if row is not None and not row.entry.is_directory:
                return row
        raise StaleInode(inode)

    def _place(self, inode: int) -> tuple[Attachment, int]:
        attachment = self.numbers.owner(inode)
        rowid = attachment.numbering.rowid(inode) if attachment else 0
        if attachment is None or not rowid:
            raise StaleInode(inode)
        return attachment, rowid

    def _numbered(self, attachment: Attachment, row: Row) -> Node:
        rowid = row.rowid
        if row.entry.link_group:
            rowid = self._links(attachment, row.parent).get(row.entry.link_group, rowid)
        return Node(attachment.numbering.inode(rowid), row)

    def _links(self, attachment: Attachment, directory: PathKey) -> dict[int, int]:
        key = (attachment.ref.digest, directory)
        groups = self._link_groups.get(key)
        if groups is None:
            groups = self._catalogs.get(attachment.ref).link_groups(directory)
            if len(self._link_groups) >= _MOST_REMEMBERED // 10:
                self._link_groups.clear()
            self._link_groups[key] = groups
        return groups

    def _directory(self, inode: int) -> Directory:
        directory = self._directories.get(inode)
        if directory is None:
            directory = self._find_directory(inode)
            if len(self._directories) >= _MOST_REMEMBERED:
                self._directories.clear()
            self._directories[inode] = directory
        return directory

    def _find_directory(self, inode: int) -> Directory:
        if inode == ROOT_INODE:
            return _top(self.root)
        attachment, _ = self._place(inode)
        row = self.node(inode).row
        if not row.entry.is_directory:
            raise NotADirectoryInode(inode)
        path = self._path(attachment, row)
        if row.mount in (Mount.NESTED, Mount.BIND):
            return _top(attachment.children.get(path) or self._attach_at(inode, attachment, path, row.mount))
        return Directory(attachment, path, row.key)

    def _path(self, attachment: Attachment, row: Row) -> bytes:
        """A row's path, found by climbing to the catalog's root."""
        catalog = self._catalogs.get(attachment.ref)
        names, root, parent = [row.entry.name], path_key(catalog.prefix), row.parent
        while parent != root:
            above = catalog.name_and_parent(parent)
            if above is None or len(names) >= _DEEPEST:
                raise BadCatalog(str(attachment.ref), f"the parents of row {row.rowid} do not lead to its root")
            names.append(above[0])
            parent = above[1]
        return catalog.prefix + b"".join(b"/" + name for name in reversed(names))

    def _attach_at(self, inode: int, above: Attachment, path: bytes, mount: Mount) -> Attachment:
        ref = self._catalogs.get(above.ref).mounted_at(path, mount)
        if ref is None:
            raise BadCatalog(str(above.ref), f"it does not say which catalog is mounted at {path!r}")
        return self._attach(inode, above, path, ref)

    def _attach(self, inode: int, above: Attachment | None, path: bytes, ref: CatalogRef) -> Attachment:
        catalog = self._catalogs.get(ref)
        catalog.root()  # a catalog without one is refused
        attachment = Attachment(inode, above, path, ref, catalog.prefix)
        attachment.numbering = self.numbers.number(attachment, catalog.last_rowid())
        self.attached += 1
        if above is not None:
            above.children[path] = attachment
            self.changed()
        return attachment


def _nobody_asks() -> None:
    pass


def _top(attachment: Attachment) -> Directory:
    return Directory(attachment, attachment.prefix, path_key(attachment.prefix))

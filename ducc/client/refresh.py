"""From one revision to the next, beneath whoever uses the mount.

A plan is made beside the running mount: it fetches the new catalogs of what is attached and compares them with the
old ones. Applying it is a matter of moments and happens between two requests.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from ducc.catalog.reader import Catalog, Mount
from ducc.catalog.schema import CatalogRef
from ducc.client.attachments import Attachment, Leaving, Tree, Untold
from ducc.client.catalogs import Catalogs
from ducc.client.changes import Changes, compare
from ducc.client.inodes import ROOT_INODE, Numbering
from ducc.cvmfs.entry import path_key

_CHILDREN_AT_ONCE = 1000


class _Succession(NamedTuple):
    """Another catalog takes an attachment's place."""

    attachment: Attachment
    ref: CatalogRef
    prefix: bytes
    numbering: Numbering


@dataclass(slots=True)
class Plan:
    """What to do, and what the kernel must forget afterwards: *names* in directories, attributes of *inodes*."""

    made_at: int
    successions: list[_Succession] = field(default_factory=list)
    departures: list[Attachment] = field(default_factory=list)
    names: list[tuple[int, bytes]] = field(default_factory=list)
    inodes: list[int] = field(default_factory=lambda: [ROOT_INODE])
    leaving: list[Leaving] = field(default_factory=list)

    def apply(self, tree: Tree) -> bool:
        """Make *tree* show the new revision; False, and nothing done, if it has grown since the plan was made."""
        if tree.attached != self.made_at:
            return False
        tree.generation += 1
        tree.leaving += self.leaving
        tree.untold.append(Untold(self.names, self.inodes))
        for attachment, ref, prefix, numbering in self.successions:
            attachment.succeed(tree.generation, ref, prefix, numbering)
        for gone in self.departures:
            if gone.above:
                del gone.above.children[gone.path]
            for attachment in gone.everything():
                tree.numbers.forget(attachment)
        tree.forget_places()
        tree.changed()
        return True


def plan_refresh(tree: Tree, catalogs: Catalogs, root: CatalogRef) -> Plan:
    """Plan how *tree* is to show the catalog *root*; takes its time and may fetch."""
    plan = Plan(tree.attached)
    pending = [(tree.root, root)]
    while pending:
        attachment, ref = pending.pop()
        if attachment.ref.digest != ref.digest:
            new = catalogs.load(ref)
            _succeed(plan, tree, attachment, catalogs.load(attachment.ref), ref, new)
            pending.extend(_children(plan, catalogs, attachment, new))
    return plan


def _succeed(plan: Plan, tree: Tree, attachment: Attachment, old: Catalog, ref: CatalogRef, new: Catalog) -> None:
    new.root()  # a catalog without one is refused
    changes: Changes = compare(old, new)
    before = attachment.numbering
    after = tree.numbers.renumber(attachment, before, changes.kept, new.last_rowid())
    plan.successions.append(_Succession(attachment, ref, new.prefix, after))
    plan.leaving.append(Leaving(before, attachment.ref, changes.gone))
    plan.inodes.extend(after.inode(rowid) for rowid in changes.touched)
    plan.names.extend(
        (before.inode(directory) if directory else attachment.inode, name) for directory, name in changes.names
    )


def _children(
    plan: Plan, catalogs: Catalogs, attachment: Attachment, new: Catalog
) -> list[tuple[Attachment, CatalogRef]]:
    """What is attached below and stays, with what it is to show; what does not stay is planned to go."""
    staying = []
    for path, child in list(attachment.children.items()):
        row = new.row(path)
        ref = new.mounted_at(path, row.mount) if row and row.mount in (Mount.NESTED, Mount.BIND) else None
        if ref is not None:
            staying.append((child, ref))
        else:
            plan.departures.append(child)
            plan.names.extend((child.inode, name) for name in _names(catalogs.load(child.ref)))
            plan.leaving.extend(_whole(one) for one in child.everything())
    return staying


def _whole(gone: Attachment) -> Leaving:
    rowids = range(1, len(gone.numbering))
    return Leaving(gone.numbering, gone.ref, rowids)


def _names(catalog: Catalog) -> list[bytes]:
    """All names in a catalog's root directory."""
    names: list[bytes] = []
    after, key = 0, path_key(catalog.prefix)
    while page := catalog.page(key, after, _CHILDREN_AT_ONCE):
        names.extend(row.entry.name for row in page)
        after = page[-1].rowid
    return names

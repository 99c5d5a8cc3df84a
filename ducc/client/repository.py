"""A repository, opened for reading: its trusted head, and the tree that the head stands for.

The mount asks by inode, through `tree`; programs ask by path. Whoever asks by path waits for what has to be fetched.
"""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import ParamSpec, TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ducc.catalog.reader import BadCatalog
from ducc.catalog.schema import CatalogRef
from ducc.client.attachments import Leaving, Node, Tree
from ducc.client.cache import Cache
from ducc.client.catalogs import CatalogNeeded, Catalogs
from ducc.client.fetch import Fetcher, Wanted
from ducc.client.head import Head
from ducc.client.inodes import ROOT_INODE
from ducc.client.refresh import Plan, plan_refresh
from ducc.cvmfs.entry import Chunk, Entry
from ducc.cvmfs.manifest import Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.errors import DuccError
from ducc.storage.base import ReadableStore

log = logging.getLogger(__name__)

_LISTED_AT_ONCE = 1000

Question = ParamSpec("Question")
Answer = TypeVar("Answer")


class CannotResume(DuccError):
    """It is not known any more what the kernel knows under which inodes."""

    exit_code = 71

    def __init__(self, path: Path, reason: Exception) -> None:
        super().__init__(f"{path}: {type(reason).__name__}: {reason}")


class Repository:
    """One repository at the revision that `manifest` names. `open` makes one; `close` it when done."""

    def __init__(self, head: Head, manifest: Manifest, fetcher: Fetcher) -> None:
        self._head, self.manifest, self.fetcher = head, manifest, fetcher
        self.catalogs = Catalogs(fetcher)
        root = _root_of(manifest)
        self.catalogs.load(root)
        self.tree = Tree(self.catalogs, root)
        self.lock = Lock()  # to be held by whoever asks the tree

    @classmethod
    def open(
        cls,
        fqrn: str,
        store: ReadableStore,
        cache: Cache,
        master_keys: Sequence[RSAPublicKey],
        clock: Callable[[], datetime],
    ) -> "Repository":
        """Verify the whole chain of trust and load the root catalog, nothing else."""
        fetcher = Fetcher(store, cache)
        head = Head(fqrn, store, fetcher, master_keys, clock)
        return cls(head, head.first(), fetcher)

    def close(self) -> None:
        self.fetcher.close()

    # --- following the publisher ------------------------------------------------------------

    def newer_manifest(self, pushed: bytes | None = None) -> Manifest | None:
        """Ask the server whether there is a revision to follow, unless it has *pushed* one."""
        return self._head.newer(self.manifest, pushed)

    def plan(self, manifest: Manifest) -> Plan:
        """Plan how to show a newer revision; may take long, and runs beside everything else."""
        return plan_refresh(self.tree, self.catalogs, _root_of(manifest))

    def apply(self, plan: Plan, manifest: Manifest) -> bool:
        """Show the revision that *plan* was made for; False if the plan has been overtaken: make another."""
        with self.lock:
            before, self.manifest = self.manifest, manifest
            if not plan.apply(self.tree):
                self.manifest = before
                return False
            self.catalogs.keep_only(self.tree.catalogs_in_use())
        return True

    def let_go(self, is_known: Callable[[int], bool]) -> None:
        """Of what has left with the last revisions, keep what somebody may have open: whose inode *is_known*."""
        with self.lock:
            leaving = list(self.tree.leaving)
        for one in leaving:
            for rowid in one.rowids:
                inode = one.numbering.inode(rowid)
                if is_known(inode):
                    self._remember(one, rowid, inode)
        with self.lock:
            del self.tree.leaving[: len(leaving)]
            self.tree.untold.clear()
            self.catalogs.keep_only(self.tree.catalogs_in_use())
            self.tree.changed()

    def _remember(self, one: Leaving, rowid: int, inode: int) -> None:
        row = self._wait(self.tree.row_of, one, rowid)
        if row is not None and not row.entry.is_directory:
            with self.lock:
                self.tree.former[inode] = row

    def forgotten(self, inodes: Sequence[int]) -> None:
        """The kernel has dropped *inodes*."""
        if self.tree.former:
            with self.lock:
                for inode in inodes:
                    self.tree.former.pop(inode, None)

    def refresh(self) -> bool:
        """Show the newest revision; True if it is another than before."""
        manifest = self.newer_manifest()
        if manifest is None:
            return False
        while not self.apply(self.plan(manifest), manifest):
            pass
        self.let_go(lambda _: False)
        return True

    # --- going on where another process was killed -------------------------------------------

    def keep_state_in(self, path: Path) -> None:
        """From now on, keep in *path* what the next process needs to answer for the same inodes."""
        self.tree.changed = lambda: _keep(path, pickle.dumps((self.manifest, self.tree.state())))
        with self.lock:
            self.tree.changed()

    def resume(self, path: Path) -> None:
        """Show the revision that another process has shown, under its inodes.

        Only the owner of the run-time directory can write there. Raises `CannotResume`.
        """
        try:
            manifest, state = pickle.loads(path.read_bytes())  # noqa: S301 - see above
            self.catalogs.load(_root_of(manifest))
        except Exception as error:
            raise CannotResume(path, error) from error
        with self.lock:
            self.tree.resume(state)
            self.manifest = manifest
            self.catalogs.keep_only(self.tree.catalogs_in_use())

    # --- asking by path ---------------------------------------------------------------------

    def entry(self, path: bytes) -> Entry | None:
        """What stands at *path* (`b""` is the root); symbolic links are not followed."""
        node = self._node(path)
        return None if node is None else node.row.entry

    def listing(self, path: bytes) -> Iterator[Entry]:
        """What the directory at *path* shows, in no particular order; nothing if there is no such directory."""
        node = self._node(path)
        if node is None:
            return
        listing = self._wait(self.tree.listing, node.inode)
        after = 0
        while page := self._wait(self.tree.page, listing, after, _LISTED_AT_ONCE):
            yield from (node.row.entry for _, node in page if node and not node.row.entry.hidden)
            after = page[-1][0]

    def read(self, path: bytes) -> bytes | None:
        """The whole content of the regular file at *path*, if there is one."""
        node = self._node(path)
        if node is None or not node.row.entry.is_regular:
            return None
        return b"".join(self.fetcher.content(one).whole() for one in pieces(node.row.entry))

    def _node(self, path: bytes) -> Node | None:
        node: Node | None = self._wait(self.tree.node, ROOT_INODE)
        for name in path.split(b"/")[1:]:
            if node is None or not node.row.entry.is_directory:
                return None
            node = self._wait(self.tree.child, node.inode, name)
        return node

    def _wait(self, question: Callable[Question, Answer], *args: Question.args, **kwargs: Question.kwargs) -> Answer:
        while True:
            try:
                with self.lock:
                    return question(*args, **kwargs)
            except CatalogNeeded as needed:
                self.catalogs.load(needed.ref)


def pieces(entry: Entry) -> list[Wanted]:
    """The objects that make up a regular file, in their order."""
    if entry.chunks:
        return [piece(entry, chunk) for chunk in entry.chunks]
    if entry.content is None:
        raise BadCatalog("(open)", f"the file {entry.name!r} has no content")
    return [Wanted(ObjectName(entry.content, Suffix.FILE), entry.size, entry.compression)]


def piece(entry: Entry, chunk: Chunk) -> Wanted:
    return Wanted(ObjectName(chunk.digest, Suffix.CHUNK), chunk.size, entry.compression)


def _keep(path: Path, data: bytes) -> None:
    """All of it or nothing; rather nothing than what is no longer true."""
    new = path.with_suffix(".new")
    try:
        new.write_bytes(data)
        new.replace(path)
    except OSError as error:
        log.warning("a successor could not go on from here: file=%s reason=%s", path, error)
        path.unlink(missing_ok=True)


def _root_of(manifest: Manifest) -> CatalogRef:
    return CatalogRef(manifest.root_hash, manifest.root_size)

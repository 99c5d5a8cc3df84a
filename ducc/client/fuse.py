"""The tree as the kernel wants it: requests of pyfuse3, answers, and the only place where an error becomes an errno.

Content never changes under an inode, and every name that changes is taken back from the kernel by hand, so it may
keep all it was told for ever: what is asked here, is asked for the first time. Answers that need nothing but open
catalogs and cached files are given without awaiting; the network, whole catalogs and disks that have to be waited for
are left to threads. After any wait the question is asked anew, of the revision that is then shown.
"""

import asyncio
import errno
import functools
import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData

from ducc.client import xattrs
from ducc.client.attachments import Listing, Node, NotADirectoryInode, StaleInode
from ducc.client.cache import Cache, Content
from ducc.client.catalogs import CatalogNeeded
from ducc.client.fetch import Wanted
from ducc.client.repository import Repository, pieces
from ducc.client.view import View
from ducc.cvmfs.entry import Flags
from ducc.errors import DuccError

log = logging.getLogger(__name__)

FOR_EVER_SECONDS = 10 * 365 * 24 * 3600
LONGEST_NAME = 255
_BLOCK = 4096
_PAGE = 512  # entries of a directory asked for at once
_THREADS = 16
_DIRECT_IO, _SPECIAL = int(Flags.DIRECT_IO), int(Flags.SPECIAL)
_DOTS = 2  # positions in a listing that "." and ".." take

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
Handler = Callable[Concatenate["Mounted", Arguments], Coroutine[Any, Any, Answer]]


def _answering(handler: "Handler[Arguments, Answer]") -> "Handler[Arguments, Answer]":
    """Let nothing but errnos out of a handler: anything else would end the mount."""

    @functools.wraps(handler)
    async def answer(self: "Mounted", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            raise FUSEError(_errno(error, handler.__name__)) from None

    return answer


def _errno(error: Exception, request: str) -> int:
    if isinstance(error, StaleInode):
        return errno.ESTALE
    if isinstance(error, NotADirectoryInode):
        return errno.ENOTDIR
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return error.errno
    if isinstance(error, DuccError):
        log.warning("input/output error: request=%s reason=%s", request, error)
    else:
        log.error("input/output error by a fault of this program: request=%s", request, exc_info=error)
    return errno.EIO


class _File:
    """An open file: its pieces, and the last ones read. Holds what it was opened with, whatever happens to the tree."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.size = node.row.entry.size
        self.pieces = pieces(node.row.entry)
        self._offsets = [chunk.offset for chunk in node.row.entry.chunks] or [0]
        self._contents: dict[int, Content] = {}

    def parts(self, offset: int, size: int) -> list[tuple[int, int, int]]:
        """The pieces that hold the range: index, offset within, bytes wanted."""
        end = min(offset + size, self.size)
        parts = []
        index = bisect_right(self._offsets, offset) - 1
        while offset < end:
            begin = self._offsets[index]
            until = min(end, self._offsets[index + 1] if index + 1 < len(self._offsets) else self.size)
            parts.append((index, offset - begin, until - offset))
            offset, index = until, index + 1
        return parts

    def held(self, index: int) -> Content | None:
        return self._contents.get(index)

    def hold(self, index: int, content: Content) -> None:
        if len(self._contents) > 1:
            del self._contents[min(self._contents)]
        self._contents[index] = content


class Mounted(pyfuse3.Operations):
    """Answers for one mounted repository."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, repository: Repository, cache: Cache, view: View | None = None) -> None:
        super().__init__()
        self._view = view or View()
        self._repository, self._tree, self._cache = repository, repository.tree, cache
        self._catalog_threads = ThreadPoolExecutor(_THREADS, "catalog")
        self._disk_threads = ThreadPoolExecutor(_THREADS, "disk")
        self._numbers = count(1)
        self._files: dict[int, _File] = {}
        self._listings: dict[int, _OpenListing] = {}

    # --- names and attributes ---------------------------------------------------------------

    @_answering
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if len(name) > LONGEST_NAME:
            raise FUSEError(errno.ENAMETOOLONG)
        node = await self._ask(self._tree.child, parent_inode, name)
        return _NO_SUCH_NAME if node is None else attributes(node, self._view)

    @_answering
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return attributes(await self._node(inode), self._view)

    @_answering
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self._view.of((await self._node(inode)).row.entry).symlink

    @_answering
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return xattrs.visible_names((await self._node(inode)).row.entry, ctx.uid)

    @_answering
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        value = xattrs.value((await self._node(inode)).row.entry, name)
        if value is None:
            raise FUSEError(errno.ENODATA)
        return value

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing was remembered."""

    # --- directories ------------------------------------------------------------------------

    @_answering
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        listing = await self._ask(self._tree.listing, inode)  # what can't be listed can't be opened
        handle = next(self._numbers)
        self._listings[handle] = _OpenListing(listing)
        return handle

    @_answering
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        opened = self._listings[fh]
        if start_id == 0:  # from the beginning, so as it is now
            opened.listing = await self._ask(self._tree.listing, opened.listing.inode)
            opened.page = []
        for position in range(start_id, _DOTS):
            if not pyfuse3.readdir_reply(token, b"." * (position + 1), await self._dot(opened, position), position + 1):
                return
        after = max(start_id - _DOTS, 0)
        while nodes := await self._beyond(opened, after):
            for after, node in nodes:
                if node is None or node.row.entry.hidden:
                    continue
                if not pyfuse3.readdir_reply(token, node.row.entry.name, attributes(node, self._view), after + _DOTS):
                    return  # the kernel's buffer is full

    @_answering
    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    async def _beyond(self, opened: "_OpenListing", after: int) -> list[tuple[int, Node | None]]:
        """The next nodes of a listing with their positions: the rest of a page, or the next one; none at the end."""
        nodes = opened.rest(after)
        if not nodes and not opened.ends_at(after):
            opened.page = nodes = await self._ask(self._tree.page, opened.listing, after, _PAGE)
        return nodes

    async def _dot(self, opened: "_OpenListing", position: int) -> EntryAttributes:
        inode = opened.listing.inode
        entry = EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode if position == 0 else await self._ask(self._tree.parent, inode))
        entry.st_mode = pyfuse3.ModeT(0o040755)
        return entry

    # --- content ----------------------------------------------------------------------------

    @_answering
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        node = await self._node(inode)
        if not node.row.entry.is_regular:
            raise FUSEError(errno.EINVAL)
        file = _File(node)
        if len(file.pieces) == 1:
            file.hold(0, await self._content(file.pieces[0]))
        handle = next(self._numbers)
        self._files[handle] = file
        return FileInfo(fh=handle, keep_cache=True, direct_io=bool(node.row.flags & _DIRECT_IO))

    @_answering
    async def read(self, fh: int, off: int, size: int) -> bytes | bytearray:  # type: ignore[override]  # any buffer
        file = self._files[fh]
        parts = [await self._part(file, *part) for part in file.parts(off, size)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @_answering
    async def release(self, fh: int) -> None:
        del self._files[fh]

    @_answering
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        status = StatvfsData()
        used = self._cache.used_bytes
        limit = self._cache.limit_bytes or used
        status.f_bsize = status.f_frsize = _BLOCK
        status.f_blocks = limit // _BLOCK
        status.f_bfree = status.f_bavail = max(limit - used, 0) // _BLOCK
        status.f_namemax = LONGEST_NAME
        return status

    async def _part(self, file: _File, index: int, offset: int, size: int) -> bytearray:
        content = file.held(index)
        if content is None:
            content = await self._content(file.pieces[index])
            file.hold(index, content)
        data = _read_now(content, offset, size)
        if data is None:
            data = await self._on(self._disk_threads, _read_all, content, offset, size)
        return data

    async def _content(self, wanted: Wanted) -> Content:
        fetcher, digest = self._repository.fetcher, wanted.name.digest
        content = self._cache.open_at_once(digest, wanted.size)
        if content is None and self._cache.has(digest):
            content = await self._on(self._disk_threads, fetcher.cached, wanted)
        if content is None:
            content = await asyncio.wrap_future(fetcher.fetch(wanted))
        return content

    # --- asking and waiting -----------------------------------------------------------------

    async def _node(self, inode: int) -> Node:
        return await self._ask(self._tree.node, inode)

    async def _ask(
        self, question: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Ask the tree, and again each time a catalog that it needed has been loaded."""
        while True:
            try:
                return question(*args, **kwargs)
            except CatalogNeeded as needed:
                await self._on(self._catalog_threads, self._repository.catalogs.load, needed.ref)

    async def _on(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(threads, functools.partial(work, *args, **kwargs))


class _OpenListing:
    """A directory that is being read, and the page of it that was read last."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.page: list[tuple[int, Node | None]] = []

    def rest(self, after: int) -> list[tuple[int, Node | None]]:
        """What the last page still has beyond the position *after*."""
        if not self.page or not self.page[0][0] <= after < self.page[-1][0]:
            return []
        return self.page[bisect_right(self.page, after, key=_position) :]

    def ends_at(self, after: int) -> bool:
        """Is it known that nothing comes beyond the position *after*?"""
        return 0 < len(self.page) < _PAGE and after == self.page[-1][0]


def attributes(node: Node, view: View) -> EntryAttributes:
    """An entry as `stat` shows it."""
    inode, row = node
    entry = view.of(row.entry)
    found = EntryAttributes()
    found.st_ino = pyfuse3.InodeT(inode)
    found.entry_timeout = found.attr_timeout = FOR_EVER_SECONDS
    found.st_mode = pyfuse3.ModeT(entry.mode)
    found.st_nlink = entry.linkcount
    found.st_uid, found.st_gid = entry.uid, entry.gid
    if row.flags & _SPECIAL:
        found.st_rdev = entry.size
    else:
        found.st_size = entry.size
        found.st_blocks = 1 + entry.size // 512
    found.st_atime_ns = found.st_mtime_ns = found.st_ctime_ns = entry.mtime * 1_000_000_000 + entry.mtime_ns
    return found


def _position(item: tuple[int, Node | None]) -> int:
    return item[0]


def _read_now(content: Content, offset: int, size: int) -> bytearray | None:
    """The bytes, if they are in memory; None if a disk would have to be waited for."""
    buffer = bytearray(size)
    try:
        read = os.preadv(content.descriptor, [buffer], offset, os.RWF_NOWAIT)
    except OSError:  # would block, or a file system that can't say
        return None
    return buffer if read == size else None


def _read_all(content: Content, offset: int, size: int) -> bytearray:
    """The bytes, waited for; fewer would look to the kernel like the end of the file."""
    data = bytearray(os.pread(content.descriptor, size, offset))
    if len(data) != size:
        raise OSError(errno.EIO, "a file of the cache was cut off")
    return data


def _no_such_name() -> EntryAttributes:
    """Tells the kernel to remember that there is nothing."""
    nothing = EntryAttributes()
    nothing.st_ino = pyfuse3.InodeT(0)
    nothing.entry_timeout = FOR_EVER_SECONDS
    return nothing


_NO_SUCH_NAME = _no_such_name()

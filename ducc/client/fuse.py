"""The tree as the kernel wants it: what each request is answered, and the only place where an error becomes an errno.

Content never changes under an inode, and every name that changes is taken back from the kernel by hand, so it may
keep all it was told for ever: what is asked here, is asked for the first time. Files and directories are not even
opened: the kernel is told once that there is no need to ask, reads by inode, and keeps listings, too. What needs
nothing but open catalogs and cached files is answered at once; anything else says what it has to wait for, and is asked
anew by a thread that may, of the revision that is then shown.
"""

import errno
import logging
import os
import termios
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar

from ducc.client import wire, xattrs
from ducc.client.attachments import Node, NotADirectoryInode, StaleInode
from ducc.client.cache import Cache, Content, NotAtOnce
from ducc.client.catalogs import CatalogNeeded
from ducc.client.connection import Buffer, MustWait, Patience, Refused
from ducc.client.magic import Magic
from ducc.client.prefetch import Prefetcher
from ducc.client.repository import Repository, pieces
from ducc.client.view import View
from ducc.client.wire import Attributes, Op, Request
from ducc.cvmfs.entry import Flags
from ducc.errors import DuccError

log = logging.getLogger(__name__)

FOR_EVER_SECONDS = 10 * 365 * 24 * 3600
LONGEST_NAME = 255
_BLOCK = 4096
_SPECIAL = int(Flags.SPECIAL)
_MOST_FILES = 512  # that are kept at hand since they were read last
_MOST_IN_MEMORY = 16  # pieces that are at hand and not in the cache
_MOST_TOLD_BYTES = 1 << 17  # of a file that somebody begins to read
_MOST_TOLD = 20_000  # such files that are remembered
_PIECES_HELD = 2
_PIECES_AHEAD = 2
_SMALLEST_LISTED = 160  # bytes that an entry of a listing takes at least
_DOT, _DOT_DOT = 1, 2  # positions in a listing; a row's is its rowid more
_GENERATION_SHIFT, _GENERATION_MASK = 40, (1 << 22) - 1  # the revision a listing began in is part of a position
_WITHIN = (1 << _GENERATION_SHIFT) - 1

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
Answers = Sequence[Buffer]


class _File:
    """A regular file that is being read: its pieces, and the contents of the last ones."""

    def __init__(self, node: Node) -> None:
        entry = node.row.entry
        self.inode = node.inode
        self.size = entry.size
        self.pieces = pieces(entry)
        self._offsets = [chunk.offset for chunk in entry.chunks] or [0]
        self._contents: OrderedDict[int, Content] = OrderedDict()
        self._lock = Lock()

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
        with self._lock:
            self._contents[index] = content
            while len(self._contents) > _PIECES_HELD:
                self._contents.popitem(last=False)

    def let_go(self, index: int) -> None:
        with self._lock:
            self._contents.pop(index, None)


class Mounted:
    """Answers for one mounted repository. Every method may be called by any thread.

    Not *with_xattrs*: nothing has an extended attribute, which the kernel is told once and for the whole mount.
    """

    def __init__(
        self,
        repository: Repository,
        cache: Cache,
        view: View | None = None,
        magic: Magic | None = None,
        *,
        with_xattrs: bool = True,
        prefetcher: Prefetcher | None = None,
    ) -> None:
        self._view, self._magic, self._prefetcher = view or View(), magic, prefetcher
        self._repository, self._tree, self._cache = repository, repository.tree, cache
        self._files: OrderedDict[int, _File] = OrderedDict()
        self._in_memory: OrderedDict[tuple[_File, int], None] = OrderedDict()
        self._files_lock = Lock()
        self._latest: Node | None = None  # what was looked up last, since it is mostly read next
        self._told: set[int] = set()  # files whose content the kernel has without having asked for it
        self._answers: dict[int, Callable[[Request, Patience], Answers]] = {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.READLINK: self._readlink,
            Op.READ: self._read,
            Op.READDIR: self._readdir,
            Op.READDIRPLUS: self._readdir,
            Op.STATFS: self._statfs,
        }
        if with_xattrs:
            self._answers |= {Op.GETXATTR: self._getxattr, Op.LISTXATTR: self._listxattr}

    def answer(self, request: Request, patience: Patience) -> Answers:
        """Raises `MustWait` if *patience* is not enough, else nothing but `Refused`."""
        answer = self._answers.get(request.operation)
        if answer is None:
            raise Refused(errno.ENOSYS)  # to be asked no more; to opening: it succeeds without us
        try:
            return answer(request, patience)
        except (MustWait, Refused):
            raise
        except Exception as error:  # noqa: BLE001 - anything else would end the mount
            raise self.refusal(request, error) from None

    def ahead(self, request: Request) -> Answers:
        """The content of a small file that somebody begins to read, if it is here; else nothing.

        Python asks of each file that it is going to read whether it is a terminal.
        """
        if request.operation != Op.IOCTL:
            return []
        try:
            return self._small_content(request.inode) if wire.ioctl_in(request.body) == termios.TCGETS else []
        except Exception:  # noqa: BLE001 - whoever reads it waits, or is told what is wrong
            return []

    def rest(self) -> Callable[[], None] | None:
        """What has to be kept of what this thread has fetched to answer."""
        return self._repository.fetcher.rest()

    def refusal(self, request: Request, error: BaseException) -> Refused:
        """What to say when that for which a request waited does not arrive."""
        number = _errno(error, Op(request.operation).name)
        if number == errno.EIO and self._magic is not None:
            self._magic.io_errors.add()
        return Refused(number)

    def forgotten(self, inodes: Sequence[int]) -> None:
        self._told.difference_update(inodes)
        self._repository.forgotten(inodes)

    # --- names and attributes ---------------------------------------------------------------

    def _lookup(self, request: Request, patience: Patience) -> Answers:
        name = wire.name_in(request.body)
        if len(name) > LONGEST_NAME:
            raise Refused(errno.ENAMETOOLONG)
        node = self._latest = self._ask(patience, self._tree.child, request.inode, name)
        return [_NO_SUCH_NAME if node is None else wire.entry(attributes(node, self._view), FOR_EVER_SECONDS)]

    def _getattr(self, request: Request, patience: Patience) -> Answers:
        return [wire.attributes(attributes(self._node(request, patience), self._view), FOR_EVER_SECONDS)]

    def _readlink(self, request: Request, patience: Patience) -> Answers:
        return [self._view.of(self._node(request, patience).row.entry).symlink]

    def _listxattr(self, request: Request, patience: Patience) -> Answers:
        room, _ = wire.getxattr_in(request.body)
        node = self._node(request, patience)
        names = xattrs.visible_names(node.row.entry, request.uid) + (self._magic.names(node) if self._magic else [])
        return _fitting(b"".join(name + b"\0" for name in names), room)

    def _getxattr(self, request: Request, patience: Patience) -> Answers:
        room, name = wire.getxattr_in(request.body)
        node = self._node(request, patience)
        value = xattrs.value(node.row.entry, name)
        if value is None and self._magic is not None:
            value = self._ask(patience, self._magic.value, node, name)
        if value is None:
            value = self._waited_for(node, name, patience)
        if value is None:
            raise Refused(errno.ENODATA)
        return _fitting(value, room)

    def _waited_for(self, node: Node, name: bytes, patience: Patience) -> bytes | None:
        """An attribute that is only known when something has been read."""
        ask = self._magic.waited_for(node, name) if self._magic is not None else None
        if ask is not None and patience < Patience.NETWORK:
            raise MustWait(Patience.NETWORK)
        return ask() if ask is not None else None

    def _statfs(self, request: Request, patience: Patience) -> Answers:
        used = self._cache.used_bytes
        limit = self._cache.limit_bytes or used
        return [wire.statfs(_BLOCK, limit // _BLOCK, max(limit - used, 0) // _BLOCK, LONGEST_NAME)]

    # --- directories ------------------------------------------------------------------------

    def _readdir(self, request: Request, patience: Patience) -> Answers:
        """As much of a listing as fits; it goes on in the revision in which it began."""
        position, room = wire.read_in(request.body)
        begun = position >> _GENERATION_SHIFT if position else self._tree.generation & _GENERATION_MASK
        listed = self._listed_plus if request.operation == Op.READDIRPLUS else _listed
        parts: list[bytes] = []
        for where, name, node in self._listing(request.inode, begun, position & _WITHIN, room, patience):
            part = listed(begun << _GENERATION_SHIFT | where, name, node)
            room -= len(part)
            if room < 0:
                break
            parts.append(part)
        return parts

    def _listing(
        self, inode: int, begun: int, after: int, room: int, patience: Patience
    ) -> Iterator[tuple[int, bytes, Node]]:
        """Positions, names and nodes beyond the position *after*; about as many as there is *room* for."""
        if after < _DOT:
            yield _DOT, b".", self._ask(patience, self._tree.node, inode)
        if after < _DOT_DOT:
            yield _DOT_DOT, b"..", self._ask(patience, self._parent, inode)
        rowid = max(after - _DOT_DOT, 0)
        limit = max(room // _SMALLEST_LISTED, 1)
        while page := self._ask(patience, self._page, inode, begun, rowid, limit):
            for rowid, node in page:
                if node is not None and not node.row.entry.hidden:
                    yield rowid + _DOT_DOT, node.row.entry.name, node

    def _page(self, inode: int, begun: int, after: int, limit: int) -> list[tuple[int, Node | None]]:
        now = self._tree.generation
        generation = now - ((now - begun) & _GENERATION_MASK)  # of which the position has only the last bits
        return self._tree.page(self._tree.listing(inode, generation), after, limit)

    def _parent(self, inode: int) -> Node:
        return self._tree.node(self._tree.parent(inode))

    def _listed_plus(self, position: int, name: bytes, node: Node) -> bytes:
        if position & _WITHIN <= _DOT_DOT:
            return _NOT_REMEMBERED + _listed(position, name, node)
        return wire.entry(attributes(node, self._view), FOR_EVER_SECONDS) + _listed(position, name, node)

    # --- content ----------------------------------------------------------------------------

    def _read(self, request: Request, patience: Patience) -> Answers:
        offset, size = wire.read_in(request.body)
        file = self._file(request.inode, patience)
        room = request.room
        parts: list[Buffer] = []
        wanted = file.parts(offset, size)
        if len(wanted) > _PIECES_HELD and patience < Patience.NETWORK and not self._are_here(file, wanted):
            raise MustWait(Patience.NETWORK)  # while one arrives another might be let go: one thread takes all
        for index, begin, length in wanted:
            parts.append(self._part(file, index, begin, length, patience, room))
            room = room[length:]
        return parts

    def _small_content(self, inode: int) -> Answers:
        """What tells the kernel all of a small file; nothing if it knows that. Raises `MustWait` and `Refused`."""
        if inode in self._told or inode in self._files:
            return []
        file = self._file(inode, Patience.NOTHING)
        if not 0 < file.size <= _MOST_TOLD_BYTES or len(file.pieces) > 1:
            return []
        content = self._part(file, 0, 0, file.size, Patience.NOTHING, wire.NO_ROOM)
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add(inode)
        return [wire.store(inode, file.size), content]

    def _are_here(self, file: _File, parts: Sequence[tuple[int, int, int]]) -> bool:
        """Does this machine have all the pieces? What is missing is on its way then."""
        missing = [one for one in (file.pieces[index] for index, *_ in parts) if not self._cache.has(one.name.digest)]
        for one in missing:
            self._repository.fetcher.fetch(one)
        return not missing

    def _file(self, inode: int, patience: Patience) -> _File:
        with self._files_lock:
            file = self._files.get(inode)
            if file is not None:
                self._files.move_to_end(inode)
                return file
        node = self._latest
        if node is None or node.inode != inode:
            node = self._ask(patience, self._tree.node, inode)
        if not node.row.entry.is_regular:
            raise Refused(errno.EINVAL)
        file = _File(node)
        with self._files_lock:
            self._files[inode] = file
            if len(self._files) > _MOST_FILES:
                self._files.popitem(last=False)
        return file

    def _part(self, file: _File, index: int, offset: int, size: int, patience: Patience, room: memoryview) -> Buffer:
        """A range of one piece. What the disk can't read, though it was there, is fetched again."""
        content = file.held(index) or self._begin(file, index, patience)
        if content.path is None:
            self._hold_few_in_memory(file, index)
        data = content.in_hand(offset, size) or _read_now(content, offset, size, room)
        if data is not None:
            return data
        if patience < Patience.DISK:
            raise MustWait(Patience.DISK)
        try:
            return _read_all(content, offset, size)
        except OSError:
            file.let_go(index)
            self._cache.drop(file.pieces[index].name.digest)
            content = self._begin(file, index, patience)
            return _read_all(content, offset, size)

    def _hold_few_in_memory(self, file: _File, index: int) -> None:
        """What the cache does not take is not to fill the memory."""
        with self._files_lock:
            self._in_memory[file, index] = None
            self._in_memory.move_to_end((file, index))
            others = len(self._in_memory) - _MOST_IN_MEMORY
            oldest = self._in_memory.popitem(last=False)[0] if others > 0 else None
        if oldest is not None:
            held = oldest[0].held(oldest[1])
            if held is not None and held.path is None:
                oldest[0].let_go(oldest[1])

    def _begin(self, file: _File, index: int, patience: Patience) -> Content:
        """Have a piece at hand, and in sequential reading the next ones soon."""
        if index and file.held(index - 1):
            for wanted in file.pieces[index + 1 : index + 1 + _PIECES_AHEAD]:
                if not self._cache.was_compared(wanted.name.digest):
                    self._repository.fetcher.fetch(wanted)
        content = self._content(file, index, patience)
        if not content.is_lent:
            file.hold(index, content)
        return content

    def _content(self, file: _File, index: int, patience: Patience) -> Content:
        fetcher, wanted = self._repository.fetcher, file.pieces[index]
        try:
            content = fetcher.at_once(wanted)
        except NotAtOnce:
            if patience < Patience.DISK:
                raise MustWait(Patience.DISK) from None
            content = fetcher.cached(wanted)
        if content is None and patience == Patience.NETWORK:
            if self._prefetcher is not None:
                self._prefetcher.waited_for(file.inode)
            return fetcher.fetch_here(wanted)
        if content is None:
            arriving = fetcher.coming(wanted)
            if arriving is not None:
                arriving.add_done_callback(partial(_hold, file, index))
            raise MustWait(Patience.NETWORK, arriving)
        return content

    # --- asking and waiting -----------------------------------------------------------------

    def _node(self, request: Request, patience: Patience) -> Node:
        return self._ask(patience, self._tree.node, request.inode)

    def _ask(
        self,
        patience: Patience,
        question: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Ask the tree, and again each time a catalog that it needed has been loaded."""
        while True:
            try:
                with self._repository.lock:
                    return question(*args, **kwargs)
            except CatalogNeeded as needed:
                least = Patience.DISK if self._cache.has(needed.ref.digest) else Patience.NETWORK
                if patience < least:
                    raise MustWait(least) from None
                self._repository.catalogs.load(needed.ref)


def attributes(node: Node, view: View) -> Attributes:
    """An entry as `stat` shows it."""
    inode, row = node
    entry = view.of(row.entry)
    size, blocks, device = entry.size, 1 + entry.size // 512, 0
    if row.flags & _SPECIAL:
        size, blocks, device = 0, 0, entry.size
    return Attributes(
        inode, entry.mode, entry.linkcount, entry.uid, entry.gid, size, blocks, device, entry.mtime, entry.mtime_ns
    )


def _listed(position: int, name: bytes, node: Node) -> bytes:
    return wire.directory_entry(node.inode, node.row.entry.mode, name, position)


def _hold(file: _File, index: int, arrived: "Future[Content]") -> None:
    if not arrived.cancelled() and arrived.exception() is None:
        file.hold(index, arrived.result())


def _fitting(value: bytes, room: int) -> Answers:
    """An attribute, or how large it is for who has no room at all."""
    if not room:
        return [wire.xattr_size(len(value))]
    if len(value) > room:
        raise Refused(errno.ERANGE)
    return [value]


def _errno(error: BaseException, request: str) -> int:
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


def _read_now(content: Content, offset: int, size: int, room: memoryview) -> Buffer | None:
    """The bytes, in *room* if it has enough, if they are in memory; None if a disk would have to be waited for."""
    buffer = room[:size] if size <= len(room) else bytearray(size)  # new memory takes as long as all the rest
    try:
        read = content.read_into(buffer, offset, os.RWF_NOWAIT)
    except OSError:  # would block, or a file system that can't say
        return None
    return buffer if read == size else None


def _read_all(content: Content, offset: int, size: int) -> Buffer:
    """The bytes, waited for; fewer would look to the kernel like the end of the file."""
    data = content.read(offset, size)
    if len(data) != size:
        raise OSError(errno.EIO, "a file of the cache was cut off")
    return data


_NO_SUCH_NAME = wire.no_entry(FOR_EVER_SECONDS)  # tells the kernel to remember that there is nothing
_NOT_REMEMBERED = wire.no_entry(0)

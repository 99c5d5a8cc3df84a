"""Extended attributes that tell about the mount and about entries: the stock client's, by its names.

Those of the mount can be asked for at every file and directory, and are listed at the root (or everywhere, or nowhere).
A text that does not fit into one attribute is cut into pages at the ends of lines: `NAME~N` is page N, `NAME~?` says
`num_pages, N`, `NAME@N` begins with a comment, and `NAME` is page 0. Source: format, "File system semantics".

`problem`, which is our own, says why no newer state can be shown. Not said: `external_url` and `authz`, since neither
is supported. What counts opened files is 0, since the kernel opens them without telling.
"""

import hashlib
import logging
import os
import resource
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ducc import __version__
from ducc.catalog.reader import Catalog
from ducc.catalog.schema import Counters
from ducc.client.attachments import Attachment, Node
from ducc.client.cache import Content
from ducc.client.fetch import Wanted
from ducc.client.head import Head
from ducc.client.inodes import ROOT_INODE
from ducc.client.network.settings import DIRECT, NetworkSettings
from ducc.client.network.store import NetworkStore, Traffic
from ducc.client.opening import MountSettings
from ducc.client.repository import Repository, pieces
from ducc.cvmfs.entry import STORED, Chunk, Entry, Flags
from ducc.cvmfs.objectname import ObjectName, Suffix

_PREFIX = b"user."
_RAW_LINK = (b"user.rawlink", b"xfsroot.rawlink")  # user attributes of links are out of the kernel's reach
_PAGE_BYTES = 32 * 1024
_READ_AT_ONCE = 1 << 20
_LINES_REMEMBERED = 100
_NOT_CACHED = b"Not in cache"
_NO_METAINFO = b"no metainfo"


class LogBuffer(logging.Handler):
    """The last lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=_LINES_REMEMBERED)

    def emit(self, record: logging.LogRecord) -> None:
        when = datetime.fromtimestamp(record.created, UTC)
        self._lines.append(f"[{when:%d %b %Y %H:%M:%S UTC}] {record.getMessage()}\n")

    def __str__(self) -> str:
        return "".join(self._lines)


class IoErrors:
    """How often whoever reads was told of an input/output error, and when last."""

    def __init__(self) -> None:
        self.number = 0
        self.last = 0  # unix seconds

    def add(self) -> None:
        self.number += 1
        self.last = int(time.time())


class Magic:
    """The attributes of one mount. To be asked with the repository's lock held; may raise `CatalogNeeded`."""

    def __init__(self, settings: MountSettings, repository: Repository, head: Head) -> None:
        self._settings, self._repository, self._head = settings, repository, head
        self._tree = repository.tree
        self._started = time.monotonic()
        self.log, self.io_errors = LogBuffer(), IoErrors()
        self._of_mount = self._mounts()
        self._listed = [_PREFIX + name for name in (*self._of_mount, b"repo_metainfo")]

    def names(self, node: Node) -> list[bytes]:
        """What is listed of *node*."""
        listed = self._settings.attributes_listed
        if listed == "never" or (listed == "rootonly" and node.inode != ROOT_INODE):
            return []
        entry = node.row.entry
        if entry.is_symlink:
            return [_RAW_LINK[1]]
        return self._listed + [_PREFIX + name for name in (*_of_entry(entry, node.row.flags), *_read(entry))]

    def value(self, node: Node, name: bytes) -> bytes | None:
        """An attribute, or a page of one; None if there is none of that name."""
        entry = node.row.entry
        if name in _RAW_LINK:
            return entry.symlink if entry.is_symlink else None
        if not name.startswith(_PREFIX):
            return None
        base, how, page = _page_named(name[len(_PREFIX) :])
        say = _of_entry(entry, node.row.flags).get(base) or self._of_mount.get(base)
        if base == b"catalog_counters":
            text: bytes | None = self._catalog_counters(node)
        else:
            text = say() if say else None
        return None if text is None else _page(text, how, page)

    def waited_for(self, node: Node, name: bytes) -> Callable[[], bytes | None] | None:
        """How to find out about an attribute that has to be read or fetched, without the lock; None if it has not."""
        base, how, page = _page_named(name.removeprefix(_PREFIX))
        entry = node.row.entry
        if base == b"repo_metainfo":
            return lambda: _page(self._metainfo(), how, page)
        if base in _read(entry):
            return lambda: _page(self._local_hash(entry), how, page)
        return None

    def _metainfo(self) -> bytes:
        digest = self._repository.manifest.metainfo
        if digest is None:
            return _NO_METAINFO
        return bytes(self._repository.fetcher.content(Wanted(ObjectName(digest, Suffix.METAINFO), None)).whole())

    def _local_hash(self, entry: Entry) -> bytes:
        """The hash that the file in the cache would be published under, compressed as the stock tools do."""
        content = self._repository.fetcher.cached(*pieces(entry)) if entry.size else Content.in_memory(b"")
        if content is None:
            return _NOT_CACHED
        compressing, digest, offset = zlib.compressobj(), hashlib.sha1(), 0
        while data := content.read(offset, _READ_AT_ONCE):
            digest.update(compressing.compress(data))
            offset += len(data)
        digest.update(compressing.flush())
        return digest.hexdigest().encode()

    def _mounts(self) -> Mapping[bytes, Callable[[], bytes]]:
        """All that is the same for every entry."""
        repository, network = self._repository, _Network(self._settings)
        says: dict[str, Callable[[], object]] = {
            "catalog_counters": lambda: "",
            "expires": self._expires,
            "external_host": lambda: "",
            "external_timeout": lambda: f"{network.settings().direct_timeout_seconds:g}",
            "fqrn": lambda: self._settings.fqrn,
            "hitrate": self._hit_rate,
            "host": network.host,
            "host_list": network.hosts,
            "inode_max": lambda: self._tree.numbers.last,
            "logbuffer": lambda: self.log,
            "maxfd": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "ncleanup24": lambda: repository.fetcher.cache.cleanups_of_a_day(),
            "nclg": lambda: len(self._tree.root.everything()),
            "ndiropen": lambda: 0,
            "ndownload": lambda: network.traffic().requests,
            "nioerr": lambda: self.io_errors.number,
            "nopen": lambda: 0,
            "pid": os.getpid,
            "problem": lambda: self._head.problem,
            "proxy": network.proxy,
            "proxy_list": network.proxies,
            "proxy_list_external": network.proxies,
            "pubkeys": self._keys,
            "repo_counters": lambda: _counted(repository.catalogs.get(self._tree.root.ref)),
            "revision": lambda: repository.manifest.revision,
            "root_hash": lambda: repository.manifest.root_hash.hex(),
            "rx": lambda: network.traffic().received_bytes // 1024,
            "speed": network.speed,
            "tag": lambda: self._settings.pin.tag if self._settings.pin else "",
            "timeout": lambda: f"{network.settings().proxy_timeout_seconds:g}",
            "timeout_direct": lambda: f"{network.settings().direct_timeout_seconds:g}",
            "timestamp_last_ioerr": lambda: self.io_errors.last,
            "uptime": lambda: int(time.monotonic() - self._started) // 60,
            "useddirp": lambda: 0,
            "usedfd": lambda: len(os.listdir("/proc/self/fd")),
            "version": lambda: __version__,
        }
        return {name.encode(): _said(say) for name, say in says.items()}

    def _expires(self) -> object:
        """Minutes until a newer revision is asked for."""
        seconds = self._settings.pause_seconds(self._repository.manifest.ttl_seconds)
        if seconds is None:
            return "never"
        return max(int(self._head.asked_at + seconds - time.monotonic()), 0) // 60

    def _hit_rate(self) -> str:
        fetcher = self._repository.fetcher
        asked = fetcher.hits + fetcher.misses
        return f"{100 * fetcher.hits / asked if asked else 0:.3f}"

    def _keys(self) -> str:
        return "".join(
            key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            for key in self._settings.master_keys
        )

    def _catalog_counters(self, node: Node) -> bytes:
        """What the catalog that holds the entry, or that is mounted there, contains with all below it."""
        if node.row.entry.is_directory:
            attachment = self._tree.listing(node.inode).directory.attachment
        else:
            attachment = self._tree.numbers.owner(node.inode) or self._tree.root
        catalog = self._repository.catalogs.get(attachment.ref)
        lines = b"catalog_hash: %b\ncatalog_mountpoint: %b\n" % (
            attachment.ref.digest.hex().encode(),
            _place(attachment),
        )
        return lines + _counted(catalog).encode()


class _Network:
    """Where a mount's objects come from, in words."""

    def __init__(self, settings: MountSettings) -> None:
        self._store = settings.store

    def host(self) -> str:
        return self._store.present_route()[1] if isinstance(self._store, NetworkStore) else ""

    def hosts(self) -> str:
        return ";".join(self._store.hosts.all) if isinstance(self._store, NetworkStore) else ""

    def proxy(self) -> str:
        return self._store.present_route()[0] if isinstance(self._store, NetworkStore) else DIRECT

    def proxies(self) -> str:
        """A line for each group."""
        return "".join(f"{'|'.join(group)}\n" for group in self.settings().proxies)

    def traffic(self) -> Traffic:
        return self._store.traffic if isinstance(self._store, NetworkStore) else Traffic()

    def speed(self) -> str:
        """KiB a second, while waiting for answers."""
        traffic = self.traffic()
        return f"{traffic.received_bytes / 1024 / traffic.seconds:.0f}" if traffic.seconds else "n/a"

    def settings(self) -> NetworkSettings:
        return self._store.settings if isinstance(self._store, NetworkStore) else NetworkSettings(())


def _of_entry(entry: Entry, flags: int) -> dict[bytes, Callable[[], bytes]]:
    """What a regular file's entry tells; nothing, for all others."""
    if not entry.is_regular:
        return {}
    pieces = entry.chunks or ((Chunk(0, entry.size, entry.content),) if entry.content is not None else ())
    says: dict[str, Callable[[], object]] = {
        "chunk_list": lambda: "hash,offset,size\n" + "".join(map(_piece, pieces)),
        "chunks": lambda: len(pieces),
        "compression": lambda: "none" if entry.compression == STORED else "zlib",
        "direct_io": lambda: int(bool(flags & Flags.DIRECT_IO)),
        "external_file": lambda: int(bool(flags & Flags.EXTERNAL)),
    }
    if entry.content is not None:
        says["hash"] = entry.content.hex
    return {name.encode(): _said(say) for name, say in says.items()}


def _read(entry: Entry) -> tuple[bytes, ...]:
    """What is told of an entry only after its content was read."""
    return (b"lhash",) if entry.is_regular and entry.content is not None and not entry.chunks else ()


def _piece(chunk: Chunk) -> str:
    return f"{chunk.digest.hex()},{chunk.offset},{chunk.size}\n"


def _said(say: Callable[[], object]) -> Callable[[], bytes]:
    return lambda: str(say()).encode()


def _counted(catalog: Catalog) -> str:
    own, below = catalog.counters()
    total: Counters = own.plus(below)
    return "".join(f"{name},{value}\n" for name, value in sorted(total._asdict().items()))


def _place(attachment: Attachment) -> bytes:
    """Where it is mounted, as a path in the repository."""
    if attachment.above is None:
        return b""
    return _place(attachment.above) + attachment.path[len(attachment.above.prefix) :]


def _page_named(name: bytes) -> tuple[bytes, bytes, int]:
    """Name, how its page is wanted (`~`, `@`, `?` or nothing), and which; page -1 is none at all."""
    for mark in (b"~", b"@"):
        base, found, page = name.rpartition(mark)
        if found:
            if mark == b"~" and page == b"?":
                return base, b"?", 0
            return base, mark, int(page) if page.isdigit() and len(page) < 9 else -1
    return name, b"", 0


def _page(text: bytes, how: bytes, number: int) -> bytes | None:
    pages = _pages(text)
    if how == b"?":
        return b"num_pages, %d" % len(pages)
    if not 0 <= number < len(pages):
        return None
    if how == b"@":
        return b"# page %d of %d, counted from 0\n" % (number, len(pages)) + pages[number]
    return pages[number]


def _pages(text: bytes) -> list[bytes]:
    """Whole lines, as many as fit."""
    pages = [b""]
    for line in text.splitlines(keepends=True):
        if len(pages[-1]) + len(line) > _PAGE_BYTES and pages[-1]:
            pages.append(b"")
        pages[-1] += line
    return pages

"""The process behind a mount: it opens the repository, mounts it, answers, follows the publisher, and ends.

Signals: SIGTERM and SIGINT unmount and end it; SIGHUP makes it ask at once whether there is a new revision.
"""

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ducc.client import control, wire
from ducc.client.background import Start
from ducc.client.cache import Cache
from ducc.client.connection import Connection, mount
from ducc.client.fuse import Mounted
from ducc.client.magic import Magic
from ducc.client.mountpoint import (
    MOUNT_TYPE,
    MountFailed,
    claimed,
    detach,
    forget,
    mounted_at,
    read_more_ahead,
    state_path,
)
from ducc.client.notices import Notices
from ducc.client.opening import MountSettings, open_repository
from ducc.client.orders import Orders
from ducc.client.prefetch import Prefetcher
from ducc.client.renewal import Renewal
from ducc.client.repository import CannotResume, Repository
from ducc.errors import DuccError

log = logging.getLogger(__name__)

_RETRY_SECONDS = 180  # after a refresh that failed, unless the TTL is shorter
_SWITCH_SECONDS = 0.0005  # a thread that computes must not keep the answering one waiting for long
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # names of settings in malloc.h
_DRAIN_SECONDS = 10.0  # for answers under way, before a successor takes over
_LARGE_BYTES = (1 << 20) + 4096  # more than a read of the kernel's, which should be fast


class HangUps:
    """Hears SIGHUP from now on. It is obeyed as soon as somebody can, and ends nothing that is starting or ending."""

    def __init__(self) -> None:
        self._obey: Callable[[], object] | None = None
        self._is_due = False
        signal.signal(signal.SIGHUP, lambda number, frame: self._heard())

    def lead_to(self, obey: Callable[[], object] | None) -> None:
        """Let *obey* be called for each; at once, if there was one that nobody obeyed. None: they wait."""
        self._obey = obey
        if self._is_due:
            self._heard()

    def _heard(self) -> None:
        self._is_due = self._obey is None
        if self._obey is not None:
            self._obey()


def run_mount(settings: MountSettings, start: Start, renewal: Renewal) -> None:
    """Mount, or go on where another process has left a mount, and answer until it is unmounted or to be left."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    hang_ups = HangUps()
    _give_memory_back()
    _allow_many_files()
    with claimed(settings.mountpoint):
        cache = Cache(settings.cache_directory, settings.cache_limit_bytes, settings.preloaded)
        repository, head = open_repository(settings, cache, _now)
        orders = Orders(settings, repository, head, cache, renewal)
        with closing(repository), control.answering(settings.mountpoint, orders.answer, renewal.proceed):
            line = _line(settings, repository, start)
            log.info(
                "mounted: fqrn=%s at=%s revision=%d", settings.fqrn, settings.mountpoint, repository.manifest.revision
            )
            magic = Magic(settings, repository, head)
            logging.getLogger("ducc").addHandler(magic.log)
            prefetcher = Prefetcher(repository) if settings.prefetch else None
            mounted = Mounted(
                repository, cache, settings.view, magic, with_xattrs=settings.with_xattrs, prefetcher=prefetcher
            )
            connection = Connection(line, mounted, start.alive)
            renewal.by(connection.end)
            if line == start.line:
                connection.take_over()
            _answer(settings, repository, connection, start.ready, renewal, hang_ups)
            os.close(line)
        if not renewal.wanted:
            forget(settings.mountpoint)
    log.info("%s: fqrn=%s at=%s", "left" if renewal.wanted else "unmounted", settings.fqrn, settings.mountpoint)


def _line(settings: MountSettings, repository: Repository, start: Start) -> int:
    """The line to the kernel: what a killed process has left, or that of a new mount."""
    state = state_path(settings.mountpoint)
    line = start.line
    if line is not None:
        try:
            repository.resume(state)
        except CannotResume as error:
            log.warning("what is open on the old mount is lost, mounting anew: %s", error)
            detach(settings.mountpoint)
            os.close(line)  # the last one but the watching process's, which it gives up for the new one
            line = None
    if line is None:
        line = _mount(settings)
        start.keep(line)
    repository.keep_state_in(state)
    return line


def _mount(settings: MountSettings) -> int:
    """Mount, and return the line to the kernel."""
    if settings.cache_directory.resolve().is_relative_to(settings.mountpoint):
        raise MountFailed(f"the cache {settings.cache_directory} would be hidden by the mount: choose another place")
    mounted = mounted_at(settings.mountpoint)  # asked first, since what is mounted may not answer
    if mounted is not None and mounted.type == MOUNT_TYPE:
        log.warning("taking away a mount that nobody answers any more: at=%s", settings.mountpoint)
        detach(settings.mountpoint)  # whoever was behind it would hold the lock that we hold
        mounted = mounted_at(settings.mountpoint)
    if mounted is not None:
        raise MountFailed(f"something is mounted at {settings.mountpoint} already; see ducc umount")
    if not settings.mountpoint.is_dir():
        raise MountFailed(f"{settings.mountpoint} is not a directory")
    options = ["ro", "nosuid", "nodev", "noatime", "default_permissions", "subtype=ducc", f"fsname={settings.fqrn}"]
    if os.geteuid() == 0:
        options.append("allow_other")
    return mount(settings.mountpoint, options)


def _answer(
    settings: MountSettings,
    repository: Repository,
    connection: Connection,
    ready: Callable[[], None],
    renewal: Renewal,
    hang_ups: HangUps,
) -> None:
    try:
        start = partial(_start, repository, connection, settings.mountpoint, ready)
        asyncio.run(_answer_and_follow(settings, repository, connection, start, hang_ups))
    finally:
        connection.close(_DRAIN_SECONDS if renewal.wanted else 0)
        if not renewal.wanted:
            detach(settings.mountpoint)


def _start(repository: Repository, connection: Connection, mountpoint: Path, ready: Callable[[], None]) -> None:
    """See the mount answer, tune it, and tell whoever waits. Not for the thread that answers. Raises `MountFailed`."""
    if repository.tree.untold:
        _make_kernel_forget(repository, connection)
    try:
        os.statvfs(mountpoint)
        read_more_ahead(mountpoint)  # the kernel's first question would undo it
    except OSError as error:
        raise MountFailed(f"{mountpoint} was mounted and does not answer: {error.strerror}") from error
    ready()


async def _answer_and_follow(
    settings: MountSettings,
    repository: Repository,
    connection: Connection,
    start: Callable[[], None],
    hang_ups: HangUps,
) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    pushed: deque[bytes] = deque(maxlen=1)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, connection.end)
    hang_ups.lead_to(partial(loop.call_soon_threadsafe, _ask_a_server, asked, pushed))
    answering = loop.run_in_executor(ThreadPoolExecutor(1, "answer"), connection.serve)
    threads = ThreadPoolExecutor(1, "follow")  # not the loop's own, for which its end would wait
    started = loop.run_in_executor(threads, start)
    started.add_done_callback(partial(_end_if_failed, connection))
    if settings.notices_url and settings.pause_seconds(0) is not None:
        _listen_for_news(settings, loop, asked, pushed)
    following = asyncio.create_task(_follow(settings, repository, connection, asked, pushed, threads))
    try:
        await answering
    finally:
        hang_ups.lead_to(None)
        following.cancel()
    if started.done():
        started.result()


def _end_if_failed(connection: Connection, started: "asyncio.Future[None]") -> None:
    if not started.cancelled() and started.exception() is not None:
        connection.end()


def _ask_a_server(asked: asyncio.Event, pushed: deque[bytes]) -> None:
    """What was pushed until now may be older than what whoever asks knows of."""
    pushed.clear()
    asked.set()


async def _follow(
    settings: MountSettings,
    repository: Repository,
    connection: Connection,
    asked: asyncio.Event,
    pushed: deque[bytes],
    threads: ThreadPoolExecutor,
) -> None:
    """Show each new revision when the old one's time is over, when asked, or when its manifest was pushed."""
    pause = settings.pause_seconds(repository.manifest.ttl_seconds)
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), pause)
        asked.clear()
        retry = min(repository.manifest.ttl_seconds, _RETRY_SECONDS)
        try:
            await _refresh(repository, connection, pushed.pop() if pushed else None, threads)
            retry = repository.manifest.ttl_seconds
        except (DuccError, OSError) as error:
            log.warning("staying at revision %d: %s", repository.manifest.revision, error)
        except Exception:  # else nobody would hear of it, and newer revisions would never be seen
            log.exception("staying at revision %d by a fault of this program", repository.manifest.revision)
        pause = settings.pause_seconds(retry)


def _listen_for_news(
    settings: MountSettings, loop: asyncio.AbstractEventLoop, asked: asyncio.Event, pushed: deque[bytes]
) -> None:
    def heard(manifest: bytes) -> None:
        pushed.append(manifest)
        with suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(asked.set)

    notices = Notices(settings.notices_url, settings.fqrn, heard)
    threading.Thread(target=notices.listen, name="notices", daemon=True).start()


async def _refresh(
    repository: Repository, connection: Connection, pushed: bytes | None, threads: ThreadPoolExecutor
) -> None:
    run = partial(asyncio.get_running_loop().run_in_executor, threads)
    manifest = await run(repository.newer_manifest, pushed)
    if manifest is None:
        return
    plan = await run(repository.plan, manifest)
    while not repository.apply(plan, manifest):
        plan = await run(repository.plan, manifest)
    await run(_make_kernel_forget, repository, connection)
    log.info("new revision: fqrn=%s revision=%d changes=%d", manifest.fqrn, manifest.revision, len(plan.names))


def _make_kernel_forget(repository: Repository, connection: Connection) -> None:
    """Listings after names: whoever is listing a directory meanwhile is waited for by the names.

    Blocks while a name is being looked up, so it must not run where the look-ups are answered.
    """
    for names, inodes in list(repository.tree.untold):
        for inode, name in names:
            connection.notify(wire.forget_name(inode, name))
        for inode in {directory for directory, _ in names}:
            connection.notify(wire.forget_inode(inode, content=True))
        for inode in inodes:
            connection.notify(wire.forget_inode(inode, content=False))
    repository.let_go(lambda inode: connection.notify(wire.forget_inode(inode, content=False)))


def _now() -> datetime:
    return datetime.now(UTC)


def _give_memory_back() -> None:
    """Large buffers go back to the system when they are freed, and threads share what is kept (glibc only)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)


def _allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

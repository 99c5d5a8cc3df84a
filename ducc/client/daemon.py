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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyfuse3
import pyfuse3.asyncio
import uvloop
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ducc.client.cache import DEFAULT_LIMIT_BYTES, Cache
from ducc.client.fuse import Mounted
from ducc.client.mountpoint import MountFailed, claimed, mounted_at, read_more_ahead
from ducc.client.refresh import Plan
from ducc.client.repository import Repository
from ducc.errors import DuccError
from ducc.storage.base import ReadableStore

log = logging.getLogger(__name__)

_SHORTEST_TTL_SECONDS = 5
_RETRY_SECONDS = 180  # after a refresh that failed, unless the TTL is shorter
_SWITCH_SECONDS = 0.0005  # a thread that computes must not keep the answering one waiting for long
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # names of settings in malloc.h
_LARGE_BYTES = (1 << 20) + 4096  # more than a read of the kernel's, which should be fast


@dataclass(frozen=True, slots=True)
class MountSettings:
    """What to mount and where. *mountpoint* is an absolute path to a directory."""

    fqrn: str
    mountpoint: Path
    store: ReadableStore
    master_keys: Sequence[RSAPublicKey]
    cache_directory: Path
    cache_limit_bytes: int = DEFAULT_LIMIT_BYTES


def run_mount(settings: MountSettings, ready: Callable[[], None]) -> None:
    """Mount and answer until unmounted; *ready* is called when the kernel may ask."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    _give_memory_back()
    _allow_many_files()
    with claimed(settings.mountpoint):
        cache = Cache(settings.cache_directory, settings.cache_limit_bytes)
        repository = Repository.open(settings.fqrn, settings.store, cache, settings.master_keys, _now)
        with closing(repository):
            _mount(settings, Mounted(repository, cache))
            log.info(
                "mounted: fqrn=%s at=%s revision=%d", settings.fqrn, settings.mountpoint, repository.manifest.revision
            )
            _answer(repository, settings.mountpoint, ready)
    log.info("unmounted: fqrn=%s at=%s", settings.fqrn, settings.mountpoint)


def _mount(settings: MountSettings, operations: Mounted) -> None:
    if settings.cache_directory.resolve().is_relative_to(settings.mountpoint):
        raise MountFailed(f"the cache {settings.cache_directory} would be hidden by the mount: choose another place")
    if mounted_at(settings.mountpoint):  # asked first, since what is mounted may not answer
        raise MountFailed(f"something is mounted at {settings.mountpoint} already; see ducc umount")
    if not settings.mountpoint.is_dir():
        raise MountFailed(f"{settings.mountpoint} is not a directory")
    options = {"ro", "nosuid", "nodev", "noatime", "default_permissions", "subtype=ducc", f"fsname={settings.fqrn}"}
    if os.geteuid() == 0:
        options.add("allow_other")
    pyfuse3.asyncio.enable()
    try:
        pyfuse3.init(operations, str(settings.mountpoint), options)
    except RuntimeError as error:
        raise MountFailed(
            f"{settings.mountpoint}: the kernel refuses the mount ({error}); is fuse3 installed?"
        ) from error


def _answer(repository: Repository, mountpoint: Path, ready: Callable[[], None]) -> None:
    try:
        uvloop.run(_answer_and_follow(repository, partial(_start, mountpoint, ready)))
    finally:
        pyfuse3.close(unmount=mounted_at(mountpoint) is not None)


def _start(mountpoint: Path, ready: Callable[[], None]) -> None:
    """See the mount answer, tune it, and tell whoever waits. Not for the thread that answers."""
    os.statvfs(mountpoint)
    read_more_ahead(mountpoint)  # the kernel's first question would undo it
    ready()


async def _answer_and_follow(repository: Repository, start: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pyfuse3.terminate)
    threads = ThreadPoolExecutor(1, "follow")  # not the loop's own, for which its end would wait
    threads.submit(start)
    following = asyncio.create_task(_follow(repository, asked, threads))
    try:
        await pyfuse3.main()
    finally:
        following.cancel()


async def _follow(repository: Repository, asked: asyncio.Event, threads: ThreadPoolExecutor) -> None:
    """Show each new revision when the old one's time is over, or when asked."""
    pause = _ttl(repository)
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), pause)
        asked.clear()
        try:
            await _refresh(repository, threads)
            pause = _ttl(repository)
        except (DuccError, OSError) as error:
            log.warning("staying at revision %d: %s", repository.manifest.revision, error)
            pause = min(_ttl(repository), _RETRY_SECONDS)


async def _refresh(repository: Repository, threads: ThreadPoolExecutor) -> None:
    run = partial(asyncio.get_running_loop().run_in_executor, threads)
    manifest = await run(repository.newer_manifest)
    if manifest is None:
        return
    plan = await run(repository.plan, manifest)
    while not repository.apply(plan, manifest):
        plan = await run(repository.plan, manifest)
    await run(_make_kernel_forget, plan)
    log.info("new revision: fqrn=%s revision=%d changes=%d", manifest.fqrn, manifest.revision, len(plan.names))


def _make_kernel_forget(plan: Plan) -> None:
    """Blocks while a name is being looked up, so it must not run where the look-ups are answered."""
    for inode, name in plan.names:
        with suppress(OSError):  # mostly: the kernel does not know it
            pyfuse3.invalidate_entry(pyfuse3.InodeT(inode), pyfuse3.FileNameT(name))
    for inode in plan.inodes:
        with suppress(OSError):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(inode), attr_only=True)


def _ttl(repository: Repository) -> int:
    return max(repository.manifest.ttl_seconds, _SHORTEST_TTL_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)


def _give_memory_back() -> None:
    """Large buffers go back to the system when they are freed, and threads share what is kept (glibc only)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

"""What can be asked of a running mount, and what it can be told to do.

status   what it shows, from where, and what it has cost so far
probe    ask every server now
reload   read the configuration again, and show the newest revision now
renew    let a process of the program as it is now installed take this one's place
pin      fetch everything below a path and keep it at hand as long as the mount lives
evict    drop everything below a path from the cache
record   begin to note which objects are wanted; end, and say which were, in their order
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from ducc import __version__
from ducc.client.cache import Cache, Content
from ducc.client.control import Message, OrderFailed
from ducc.client.fetch import Recording, Wanted
from ducc.client.head import Head
from ducc.client.network.settings import DIRECT
from ducc.client.network.store import NetworkStore
from ducc.client.opening import MountSettings
from ducc.client.renewal import Renewal
from ducc.client.repository import Repository, pieces
from ducc.cvmfs.manifest import Manifest
from ducc.errors import BadInput, DuccError
from ducc.storage.base import MANIFEST
from ducc.storage.connections import NoAnswer
from ducc.urls import redacted

_RELOAD_SECONDS = 60.0
_PROBE_SECONDS = 10.0
_LARGEST_MANIFEST = 1 << 20


class Orders:
    """Answers for one mount. Every method may be called by any thread."""

    def __init__(
        self, settings: MountSettings, repository: Repository, head: Head, cache: Cache, renewal: Renewal
    ) -> None:
        self._settings, self._repository, self._head, self._cache = settings, repository, head, cache
        self._renewal = renewal
        self._started = time.monotonic()
        self._pinned: dict[Wanted, Content] = {}
        self._commands: dict[str, Callable[[Message], Message]] = {
            "status": self.status,
            "probe": self.probe,
            "reload": self.reload,
            "renew": self.renew,
            "pin": self.pin,
            "evict": self.evict,
            "record": self.record,
        }

    def answer(self, message: Message) -> Message:
        """Raises `DuccError` for what can't be done."""
        command = self._commands.get(str(message.get("command")))
        if command is None:
            raise BadInput(f"no such command: {message.get('command')!r}")
        return command(message)

    def status(self, message: Message) -> Message:
        manifest, fetcher = self._repository.manifest, self._repository.fetcher
        with self._repository.lock:
            catalogs = len(self._repository.tree.root.everything())
        return {
            "fqrn": self._settings.fqrn,
            "mountpoint": str(self._settings.mountpoint),
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "revision": manifest.revision,
            "root_hash": manifest.root_hash.hex(),
            "published": manifest.timestamp,
            "pinned_revision": self._head.is_pinned,
            "problem": self._head.problem,
            "catalogs": catalogs,
            "cache": {
                "directory": str(self._settings.cache_directory),
                "limit_bytes": self._cache.limit_bytes,
                "used_bytes": self._cache.used_bytes,
                "hits": fetcher.hits,
                "misses": fetcher.misses,
                "prefetched": fetcher.prefetched,
                "pinned_objects": len(self._pinned),
            },
            "network": self._network(),
        }

    def probe(self, message: Message) -> Message:
        store = self._settings.store
        if isinstance(store, NetworkStore):
            proxy, _ = store.present_route()
            return {"servers": [_probed(store, proxy, host) for host in store.hosts.all]}
        raw = store.read_file(MANIFEST)
        return {"servers": [{"ok": raw is not None, "revision": Manifest.parse(raw).revision if raw else None}]}

    def renew(self, message: Message) -> Message:
        self._renewal.begin()
        return {"pid": os.getpid(), "renewed": True}

    def reload(self, message: Message) -> Message:
        if self._renewal.is_outdated():
            return self.renew(message)
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGHUP)
        while self._head.answered_as_of <= began or self._is_behind():  # what was asked before may know nothing new
            if time.monotonic() > began + _RELOAD_SECONDS:
                raise OrderFailed("no answer about a newer revision in time; it goes on being asked for")
            time.sleep(0.02)
        if self._head.problem:
            raise OrderFailed(f"staying at revision {self._repository.manifest.revision}: {self._head.problem}")
        return {"revision": self._repository.manifest.revision}

    def pin(self, message: Message) -> Message:
        fetcher, fetched = self._repository.fetcher, 0
        for wanted in self._wanted(message):
            if wanted not in self._pinned:
                content = fetcher.content(wanted)
                content.pin()
                self._pinned[wanted] = content
                fetched += 1
        return {"objects": fetched}

    def evict(self, message: Message) -> Message:
        dropped = 0
        for wanted in self._wanted(message):
            self._pinned.pop(wanted, None)
            self._cache.drop(wanted.name.digest)
            dropped += 1
        return {"objects": dropped}

    def record(self, message: Message) -> Message:
        fetcher = self._repository.fetcher
        recording, fetcher.recording = fetcher.recording, Recording() if message.get("on") else None
        if recording is None:
            return {"objects": []}
        return {"objects": [{"name": str(one.name), "bytes": one.size} for one in list(recording.wanted)]}

    def _is_behind(self) -> bool:
        offered = self._head.offered
        return offered is not None and offered.root_hash != self._repository.manifest.root_hash

    def _network(self) -> dict[str, Any] | None:
        store = self._settings.store
        if not isinstance(store, NetworkStore):
            return None
        proxy, host = store.present_route()
        traffic = store.traffic
        return {
            "host": redacted(host),
            "hosts": [redacted(one) for one in store.hosts.all],
            "proxy": _shown(proxy),
            "proxies": [_shown(one) for one in store.proxies.all],
            "requests": traffic.requests,
            "received_bytes": traffic.received_bytes,
            "seconds": round(traffic.seconds, 3),
            "failures": traffic.failures,
            "damaged": traffic.damaged,
            "problem": traffic.problem,
        }

    def _wanted(self, message: Message) -> Iterator[Wanted]:
        """The objects of all files at and below the path that the message names."""
        path = os.fsencode(str(message.get("path", ""))).strip(b"/")
        path = b"/" + path if path else b""
        if self._repository.entry(path) is None:
            raise BadInput(f"{os.fsdecode(path)}: there is nothing of that name")
        waiting = [path]
        while waiting:
            path = waiting.pop()
            entry = self._repository.entry(path)
            if entry is None:
                continue  # gone with a new revision
            if entry.is_regular:
                yield from pieces(entry)
            elif entry.is_directory:
                waiting += [path + b"/" + child.name for child in self._repository.listing(path)]


def _probed(store: NetworkStore, proxy: str, host: str) -> dict[str, Any]:
    began = time.monotonic()
    said: dict[str, Any] = {"host": redacted(host), "proxy": _shown(proxy), "ok": False}
    try:
        answer = store.request(proxy, f"{host}/{MANIFEST}", _LARGEST_MANIFEST, {}, began + _PROBE_SECONDS)
        if answer.status == 200:
            said |= {"ok": True, "revision": Manifest.parse(answer.body).revision}
        else:
            said["problem"] = f"answers {answer.status}"
    except (NoAnswer, DuccError) as error:
        said["problem"] = str(error)
    return {**said, "seconds": round(time.monotonic() - began, 3)}


def _shown(proxy: str) -> str:
    return proxy if proxy == DIRECT else redacted(proxy)

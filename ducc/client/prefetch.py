"""Fetching ahead what a start will need, as others were seen to need it.

For an image, and for each of its layers, a *prefetch list* may be published: the objects that a start was seen to want,
each with its place in the order in which they were wanted (`ducc client record`, `ducc prefetch`). Whoever is the first
to wait for a file of such a tree sets off the fetching of what is on the list, in the background and at the lowest
priority: one object after the other, and several at a time where servers take long to answer. A list is a hint: what
can't be had is passed over.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ducc import layout
from ducc.client.fetch import Wanted
from ducc.client.repository import Repository
from ducc.cvmfs.objectname import ObjectName, Suffix, parse_hash
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.storage.base import StoreUnavailable

log = logging.getLogger(__name__)

_MOST_LISTED = 50_000  # objects of one list
_VERSION = 1
_HASH_DIGITS = 40
_LOWEST_PRIORITY = 19
_FAR_SECONDS = 0.005  # longer for each of several objects: it is the network that takes so long, not this machine
_SAMPLE = 8
_MOST_FETCHING = 16
_PART_OF_CACHE = 4  # so much of it a list may fill at most
_AGAIN_SECONDS = 600.0  # a tree whose objects were dropped from the cache is fetched ahead once more


class BadPrefetchList(DuccError):
    """What is published as a prefetch list is none that this version can read."""

    exit_code = 72

    def __init__(self, path: bytes) -> None:
        super().__init__(f"{path.decode()}: not a prefetch list; it was published by another version of this program")


class Listed(NamedTuple):
    """An object on a list, and its place in the order of a start."""

    place: int
    wanted: Wanted


def to_bytes(listed: Iterable[Listed]) -> bytes:
    """The list as it is published: `{"version": 1, "objects": [[place, name, bytes, compression], …]}`.

    Of too many objects, those that are wanted first.
    """
    first = sorted(listed)[:_MOST_LISTED]
    rows = [[place, str(name), size, compression] for place, (name, size, compression) in first]
    return json.dumps({"version": _VERSION, "objects": rows}, separators=(",", ":")).encode()


def from_bytes(data: bytes, path: bytes) -> list[Listed]:
    """Read a list; *path* is for the error. Raises `BadPrefetchList`."""
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError("version")
        return [_listed(*row) for row in document["objects"][:_MOST_LISTED]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DuccError) as error:
        raise BadPrefetchList(path) from error


def _listed(place: int, name: str, size: int, compression: int) -> Listed:
    for number in (place, size, compression):
        if type(number) is not int or number < 0:
            raise ValueError(name)
    suffix = Suffix(name[_HASH_DIGITS:])
    return Listed(place, Wanted(ObjectName(parse_hash(name[:_HASH_DIGITS]), suffix), size, compression))


class Prefetcher:
    """Fetches ahead for one mount. Every method may be called by any thread."""

    def __init__(self, repository: Repository, clock: Callable[[], float] = time.monotonic) -> None:
        self._repository, self._clock = repository, clock
        self._begun: dict[Digest, float] = {}  # when each tree's list was last looked for
        self._coming: list[Listed] = []  # what is to be fetched, earliest place last
        self._fetching = 0  # threads
        self._lock = threading.Lock()

    def waited_for(self, inode: int) -> None:
        """Somebody has to wait for content of the file *inode*."""
        tree = self._tree(inode)
        if tree is None:
            return
        now = self._clock()
        with self._lock:
            if now - self._begun.get(tree, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
                return
            self._begun[tree] = now
        threading.Thread(target=self._begin, args=(tree,), name="prefetch-list", daemon=True).start()

    def _tree(self, inode: int) -> Digest | None:
        attachment = self._repository.tree.numbers.owner(inode)
        return None if attachment is None else layout.tree_at(attachment.place())

    def _begin(self, tree: Digest) -> None:
        _give_way()
        path = layout.prefetch_list(tree)
        try:
            data = self._repository.read(path)
            listed = [] if data is None else from_bytes(data, path)
        except DuccError as error:
            log.warning("nothing is fetched ahead: tree=%s reason=%s", tree, error)
            return
        limit = self._repository.fetcher.cache.limit_bytes
        first = list(_first(listed, None if limit is None else limit // _PART_OF_CACHE))
        with self._lock:
            self._coming = sorted([*self._coming, *first], reverse=True)
        self._help(most=1)

    def _help(self, most: int = _MOST_FETCHING) -> None:
        """Let one more thread fetch, if there is work for it and there are not the *most* that there may be."""
        with self._lock:
            if not self._coming or self._fetching >= most:
                return
            self._fetching += 1
        threading.Thread(target=self._fetch, name="prefetch", daemon=True).start()

    def _fetch(self) -> None:
        _give_way()
        try:
            self._fetch_all()
        except BaseException:  # by a fault of this program: the next list is to have its thread all the same
            with self._lock:
                self._fetching -= 1
            raise

    def _fetch_all(self) -> None:
        fetcher, seconds = self._repository.fetcher, list[float]()
        while (wanted := self._next()) is not None:
            began = self._clock()
            error = fetcher.prefetch(wanted)
            seconds.append(self._clock() - began)
            if isinstance(error, StoreUnavailable) or not fetcher.cache.keeps:
                self._give_up()
            elif error is not None:
                log.debug("not fetched ahead: object=%s reason=%s", wanted.name, error)
            if len(seconds) == _SAMPLE:
                if min(seconds) > _FAR_SECONDS:
                    self._help()
                seconds.clear()

    def _next(self) -> Wanted | None:
        with self._lock:
            if self._coming:
                return self._coming.pop().wanted
            self._fetching -= 1
            return None

    def _give_up(self) -> None:
        """There is no server, or no room for what it has."""
        with self._lock:
            self._coming.clear()


def _first(listed: Iterable[Listed], most_bytes: int | None) -> Iterator[Listed]:
    """What is wanted first, in order, up to so much content."""
    total = 0
    for one in sorted(listed):
        total += one.wanted.size or 0
        if most_bytes is not None and total > most_bytes:
            return
        yield one


def _give_way() -> None:
    """Let this thread compute only where no other has to."""
    with suppress(OSError):  # forbidden, where somebody forbids even that
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)

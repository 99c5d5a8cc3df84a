"""What to mount, and the repository opened accordingly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ducc.client.blacklist import Blacklist
from ducc.client.breadcrumb import Breadcrumbs
from ducc.client.cache import DEFAULT_LIMIT_BYTES, Cache
from ducc.client.fetch import Fetcher
from ducc.client.head import Head
from ducc.client.pin import Pin
from ducc.client.repository import Repository
from ducc.client.view import View
from ducc.storage.base import ReadableStore

_SHORTEST_TTL_SECONDS = 5


@dataclass(frozen=True, slots=True)
class MountSettings:
    """What to mount and where. *mountpoint* is an absolute path to a directory; None as a limit: none."""

    fqrn: str
    mountpoint: Path
    store: ReadableStore
    master_keys: Sequence[RSAPublicKey]
    cache_directory: Path
    cache_limit_bytes: int | None = DEFAULT_LIMIT_BYTES
    preloaded: tuple[Path, ...] = ()  # caches that are used and never changed
    view: View = field(default_factory=View)
    pin: Pin | None = None
    blacklist: Blacklist = field(default_factory=Blacklist)
    max_ttl_seconds: int | None = None
    auto_update: bool = True
    notices_url: str = ""  # of a server that pushes news
    attributes_listed: str = "rootonly"  # which entries list the magic attributes: rootonly, always, never
    prefetch: bool = True  # is fetched ahead what published lists say that a start needs?
    with_xattrs: bool = True  # are there any extended attributes, published or magic?

    def pause_seconds(self, published_ttl: int) -> int | None:
        """When to ask for a newer revision than one that is good for so long; None: only when told to."""
        if self.pin or not self.auto_update:
            return None
        return max(min(published_ttl, self.max_ttl_seconds or published_ttl), _SHORTEST_TTL_SECONDS)


def open_repository(settings: MountSettings, cache: Cache, clock: Callable[[], datetime]) -> tuple[Repository, Head]:
    """Verify the whole chain of trust, as far as it is asked for, and load the root catalog, nothing else."""
    fetcher = Fetcher(settings.store, cache)
    head = Head(
        settings.fqrn, settings.store, fetcher, settings.master_keys, clock,
        breadcrumbs=Breadcrumbs(settings.cache_directory, settings.fqrn),
        pin=settings.pin, blacklist=settings.blacklist,
    )  # fmt: skip
    return Repository(head, head.first(), fetcher), head

"""The stock client's parameters as values that the client works with; each name is spelled here and nowhere else."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from ducc.client.configuration import Configuration
from ducc.client.network.settings import DIRECT, NetworkSettings
from ducc.client.pin import Pin
from ducc.client.view import Owners, View, machines_variables
from ducc.cvmfs.objectname import MalformedObjectName, parse_hash

log = logging.getLogger(__name__)

_CACHE_BASE = "/var/lib/cvmfs"
_MEBIBYTE = 1 << 20
_OF_PLAIN_CACHE = {  # what the parameters of a cache are called where none has a name
    "ALIEN": "CVMFS_ALIEN_CACHE",
    "BASE": "CVMFS_CACHE_BASE",
    "QUOTA_LIMIT": "CVMFS_QUOTA_LIMIT",
    "SHARED": "CVMFS_SHARED_CACHE",
}

# Without an effect here, whatever their value: said by other means, or a matter of the stock client's inside.
_WITHOUT_EFFECT = frozenset(
    {
        "CVMFS_BASE_ENV", "CVMFS_CACHE_SYMLINKS", "CVMFS_CATALOG_WATERMARK", "CVMFS_CHECK_PERMISSIONS",
        "CVMFS_CONFIG_REPOSITORY", "CVMFS_DEFAULT_DOMAIN", "CVMFS_KCACHE_TIMEOUT", "CVMFS_MEMCACHE_SIZE",
        "CVMFS_MOUNT_DIR", "CVMFS_NFILES", "CVMFS_RELOAD_SOCKETS", "CVMFS_REPOSITORIES", "CVMFS_STATFS_CACHE_TIMEOUT",
        "CVMFS_STRICT_MOUNT", "CVMFS_SYSLOG_FACILITY", "CVMFS_SYSLOG_LEVEL", "CVMFS_USE_CDN", "CVMFS_USER",
        "CVMFS_USYSLOG", "CVMFS_WORKSPACE",
    }
)  # fmt: skip
# Supported with these values only (and empty).
_ONLY = {
    "CVMFS_ENFORCE_ACLS": ("no", "off", "0"),
    "CVMFS_EXTERNAL_URL": (),
    "CVMFS_IGNORE_SIGNATURE": ("no", "off", "0"),
    "CVMFS_NFS_SOURCE": ("no", "off", "0"),
    "CVMFS_SUID": ("no", "off", "0"),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """How one repository is to be mounted. *unsupported* are names that say what is not done here."""

    fqrn: str
    network: NetworkSettings
    key_files: tuple[Path, ...]
    cache_directory: Path
    cache_limit_bytes: int | None
    preloaded: tuple[Path, ...] = ()
    view: View = field(default_factory=View)
    pin: Pin | None = None
    blacklist: Path | None = None
    max_ttl_seconds: int | None = None
    auto_update: bool = True
    notices_url: str = ""
    attributes_listed: str = "rootonly"
    prefetch: bool = True
    unsupported: tuple[str, ...] = ()

    @classmethod
    def of(cls, configuration: Configuration, uid: int, gid: int, environment: Mapping[str, str]) -> "Parameters":
        """*uid* and *gid* are those of whoever mounts. Raises `BadConfiguration`."""
        reading = _Reading(configuration)
        return cls(
            fqrn=configuration.fqrn,
            network=reading.network(),
            key_files=reading.key_files(),
            cache_directory=reading.cache_directory(),
            cache_limit_bytes=reading.cache_limit(),
            preloaded=reading.preloaded(),
            view=reading.view(uid, gid, environment),
            pin=reading.pin(),
            blacklist=Path(reading.text("CVMFS_BLACKLIST", str(configuration.directory / "blacklist"))),
            max_ttl_seconds=int(reading.number("CVMFS_MAX_TTL", 0) * 60) or None,
            auto_update=reading.is_on("CVMFS_AUTO_UPDATE", True),
            notices_url=reading.notices_url(),
            attributes_listed=reading.attributes_listed(),
            prefetch=reading.is_on("DUCC_PREFETCH", True),
            unsupported=reading.unsupported(),
        )

    def tell(self) -> None:
        """Log, once, what the configuration asks for in vain."""
        if self.unsupported:
            log.warning("parameters without an effect here: fqrn=%s names=%s", self.fqrn, " ".join(self.unsupported))


class _Reading:
    """One configuration being read; remembers which parameters it was asked for."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._asked: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        self._asked.add(name)
        return self._configuration.text(name, default)

    def number(self, name: str, default: float, least: float = 0) -> float:
        self._asked.add(name)
        return self._configuration.number(name, default, least)

    def is_on(self, name: str, default: bool) -> bool:
        self._asked.add(name)
        return self._configuration.is_on(name, default)

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        """A word of *choices*, of which the first is the default."""
        value = self.text(name, choices[0]).lower()
        if value not in choices:
            raise self._configuration.bad(name, " or ".join(choices))
        return value

    def unsupported(self) -> tuple[str, ...]:
        return tuple(sorted(self._unsupported()))

    def _unsupported(self) -> Iterator[str]:
        for name, value in self._configuration.values.items():
            if not name.startswith("CVMFS_") or name in self._asked or name in _WITHOUT_EFFECT or not value:
                continue
            if value.lower() not in _ONLY.get(name, ()):
                yield name

    # --- groups of parameters ---------------------------------------------------------------

    def network(self) -> NetworkSettings:
        number = self.number
        return NetworkSettings(
            hosts=self._hosts(),
            proxies=self._proxies(),
            proxy_timeout_seconds=number("CVMFS_TIMEOUT", 5, 0.1),
            direct_timeout_seconds=number("CVMFS_TIMEOUT_DIRECT", 5, 0.1),
            slowest_bytes_per_second=number("CVMFS_LOW_SPEED_LIMIT", 1024),
            retries=int(number("CVMFS_MAX_RETRIES", 1)),
            first_pause_seconds=number("CVMFS_BACKOFF_INIT", 2),
            longest_pause_seconds=number("CVMFS_BACKOFF_MAX", 10),
            proxy_reset_seconds=number("CVMFS_PROXY_RESET_AFTER", 300),
            host_reset_seconds=number("CVMFS_HOST_RESET_AFTER", 1800),
            follow_redirects=self.is_on("CVMFS_FOLLOW_REDIRECTS", False),
            by_distance=self.is_on("CVMFS_USE_GEOAPI", False),
            most_hosts=int(number("CVMFS_MAX_SERVERS", 0)) or None,
        )

    def _hosts(self) -> tuple[str, ...]:
        name = "CVMFS_SERVER_URL"
        urls = [url.strip().rstrip("/") for url in self.text(name).replace("|", ";").replace(",", ";").split(";")]
        hosts = tuple(url for url in urls if url)
        if not hosts or not all(map(_is_url, hosts)):
            raise self._configuration.bad(name, "http://HOST/cvmfs/@fqrn@, several separated by ';'")
        return hosts

    def _proxies(self) -> tuple[tuple[str, ...], ...]:
        name = "CVMFS_HTTP_PROXY"
        text = self.text(name, DIRECT if self.text("CVMFS_CLIENT_PROFILE") == "single" else "")
        groups = self._groups(name, text) + self._groups("CVMFS_FALLBACK_PROXY", self.text("CVMFS_FALLBACK_PROXY"))
        if not groups:
            raise self._configuration.bad(
                name, "http://PROXY:PORT or DIRECT; groups are separated by ';', members by '|'"
            )
        return groups

    def _groups(self, name: str, text: str) -> tuple[tuple[str, ...], ...]:
        groups = tuple(tuple(one.strip() for one in group.split("|") if one.strip()) for group in text.split(";"))
        return tuple(tuple(self._proxy(name, one) for one in group) for group in groups if group)

    def _proxy(self, name: str, text: str) -> str:
        """A proxy's URL, or `DIRECT`."""
        if text.upper() == DIRECT:
            return DIRECT
        url = text if "://" in text else f"http://{text}"
        if not _is_url(url) or urlsplit(url).scheme != "http" or text == "auto":
            raise self._configuration.bad(name, "http://PROXY:PORT or DIRECT (automatic proxies are not supported)")
        return url.rstrip("/")

    def key_files(self) -> tuple[Path, ...]:
        named = tuple(Path(one) for one in self.text("CVMFS_PUBLIC_KEY").split(":") if one)
        directory = Path(self.text("CVMFS_KEYS_DIR", str(self._configuration.directory / "keys")))
        found = named or tuple(sorted(directory.glob("*.pub")))
        if not found:
            raise self._configuration.bad("CVMFS_KEYS_DIR", f"a directory with keys FQRN.pub ({directory} has none)")
        return found

    def cache_directory(self) -> Path:
        base = Path(self._of_cache("BASE", _CACHE_BASE))
        shared = self.is_on(self._cache_parameter("SHARED"), True)
        own = base / "ducc" / ("shared" if shared else self._configuration.fqrn)
        directory = Path(self._of_cache("ALIEN") or self.text("CVMFS_CACHE_DIR") or own)
        if not directory.is_absolute():
            raise self._configuration.bad(self._cache_parameter("BASE"), "an absolute path")
        return directory

    def cache_limit(self) -> int | None:
        """Bytes; None for a cache that somebody else keeps in bounds."""
        megabytes = self.number(self._cache_parameter("QUOTA_LIMIT"), 4000, least=-1)
        return None if megabytes < 0 or self._of_cache("ALIEN") else int(megabytes * _MEBIBYTE)

    def preloaded(self) -> tuple[Path, ...]:
        """The lower of two tiers."""
        lower = self.text(f"CVMFS_CACHE_{self._tiers()}_LOWER") if self._tiers() else ""
        if not lower:
            return ()
        directory = self.text(f"CVMFS_CACHE_{lower}_ALIEN")
        if not Path(directory).is_absolute():
            raise self._configuration.bad(f"CVMFS_CACHE_{lower}_ALIEN", "the absolute path of a preloaded cache")
        self._asked |= {f"CVMFS_CACHE_{lower}_{name}" for name in ("TYPE", "QUOTA_LIMIT", "SHARED")}
        self._asked.add(f"CVMFS_CACHE_{self._tiers()}_LOWER_READONLY")
        return (Path(directory),)

    def _tiers(self) -> str:
        """The name of a cache of two tiers, if that is what is configured."""
        name = self.text("CVMFS_CACHE_PRIMARY")
        return name if name and self.text(f"CVMFS_CACHE_{name}_TYPE") == "tiered" else ""

    def _of_cache(self, name: str, default: str = "") -> str:
        return self.text(self._cache_parameter(name), default)

    def _cache_parameter(self, name: str) -> str:
        """What a parameter of the cache that is written to is called."""
        instance = self.text("CVMFS_CACHE_PRIMARY")
        if self._tiers():
            instance = self.text(f"CVMFS_CACHE_{instance}_UPPER")
        if instance and self.one_of(f"CVMFS_CACHE_{instance}_TYPE", ("posix",)):
            return f"CVMFS_CACHE_{instance}_{name}"
        return _OF_PLAIN_CACHE[name]

    def view(self, uid: int, gid: int, environment: Mapping[str, str]) -> View:
        claimed = self.is_on("CVMFS_CLAIM_OWNERSHIP", False)
        users, groups = (self._owners(f"CVMFS_{kind}_MAP") for kind in ("UID", "GID"))
        return View(
            variables={**machines_variables(environment), **self._configuration.values},
            users=users or Owners(rest=uid if claimed else None),
            groups=groups or Owners(rest=gid if claimed else None),
        )

    def _owners(self, name: str) -> Owners:
        """A file of lines `<id or *> <id>`."""
        if not self.text(name):
            return Owners()
        ids: dict[str, int] = {}
        try:
            for line in Path(self.text(name)).read_text().splitlines():
                words = line.partition("#")[0].split()
                if words:
                    published, shown = words
                    ids[published if published == "*" else str(int(published))] = int(shown)
        except (OSError, ValueError):
            raise self._configuration.bad(name, "a file of lines `ID ID` or `* ID`") from None
        rest = ids.pop("*", None)
        return Owners({int(published): shown for published, shown in ids.items()}, rest)

    def notices_url(self) -> str:
        url = self.text("CVMFS_NOTIFICATION_SERVER")
        if url and not _is_url(url):
            raise self._configuration.bad("CVMFS_NOTIFICATION_SERVER", "http://HOST:PORT/api/v1")
        return url

    def attributes_listed(self) -> str:
        listed = self.one_of("CVMFS_MAGIC_XATTRS_VISIBILITY", ("rootonly", "always", "never"))
        return "never" if self.is_on("CVMFS_HIDE_MAGIC_XATTRS", False) else listed

    def pin(self) -> Pin | None:
        """The revision to stay at, if there is to be one; a hash wins over a tag, a tag over a date."""
        root_hash, tag, date = (
            self.text(f"CVMFS_{name}") for name in ("ROOT_HASH", "REPOSITORY_TAG", "REPOSITORY_DATE")
        )
        if root_hash:
            try:
                return Pin(root_hash=parse_hash(root_hash))
            except MalformedObjectName:
                raise self._configuration.bad("CVMFS_ROOT_HASH", "40 hexadecimal digits") from None
        if tag:
            return Pin(tag=tag)
        if date:
            try:
                return Pin(before=datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC))
            except ValueError:
                raise self._configuration.bad("CVMFS_REPOSITORY_DATE", "a time like 2026-03-04T05:06:07Z") from None
        return None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False

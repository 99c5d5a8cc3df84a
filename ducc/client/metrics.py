"""A mount's status as Prometheus reads it: lines of text, one a figure."""

from collections.abc import Iterable, Mapping
from typing import Any

# name: (type, help, where it stands in the status)
_FIGURES = {
    "up": ("gauge", "1 while the mount's process answers", ()),
    "revision": ("gauge", "revision shown", ("revision",)),
    "published_timestamp_seconds": ("gauge", "when that revision was published", ("published",)),
    "stale": ("gauge", "1 while no newer state can be asked for", ("problem",)),
    "uptime_seconds": ("gauge", "since the mount's process began", ("uptime_seconds",)),
    "catalogs": ("gauge", "catalogs attached", ("catalogs",)),
    "cache_used_bytes": ("gauge", "bytes of the cache in use", ("cache", "used_bytes")),
    "cache_limit_bytes": ("gauge", "bytes that the cache may use", ("cache", "limit_bytes")),
    "cache_hits_total": ("counter", "objects found in the cache", ("cache", "hits")),
    "cache_misses_total": ("counter", "objects not found in the cache", ("cache", "misses")),
    "prefetched_total": ("counter", "objects fetched before anybody asked", ("cache", "prefetched")),
    "requests_total": ("counter", "requests sent", ("network", "requests")),
    "received_bytes_total": ("counter", "bytes of answers", ("network", "received_bytes")),
    "request_seconds_total": ("counter", "time that requests took", ("network", "seconds")),
    "failures_total": ("counter", "requests that led to no good answer", ("network", "failures")),
    "damaged_total": ("counter", "answers that were not what was asked for", ("network", "damaged")),
}


def prometheus(statuses: Iterable[Mapping[str, Any]]) -> str:
    """The figures of several mounts, grouped by name as the format wants it."""
    statuses = list(statuses)
    lines = []
    for name, (kind, text, place) in _FIGURES.items():
        values = [(status, _figure(status, place)) for status in statuses]
        if any(value is not None for _, value in values):
            lines += [f"# HELP ducc_client_{name} {text}", f"# TYPE ducc_client_{name} {kind}"]
        for status, value in values:
            if value is not None:
                lines.append(f"ducc_client_{name}{{{_labels(status)}}} {value}")
    return "".join(f"{line}\n" for line in lines)


def _figure(status: Mapping[str, Any], place: tuple[str, ...]) -> float | None:
    value: Any = status
    for key in place:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not place:
        return 1
    return int(bool(value)) if isinstance(value, str) else value


def _labels(status: Mapping[str, Any]) -> str:
    return ",".join(f'{name}="{_escaped(str(status[name]))}"' for name in ("fqrn", "mountpoint"))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""URLs that others name: whose they are, and what of them may be said."""

import ipaddress
from urllib.parse import urlsplit

Origin = tuple[str, str, int | None]

DEFAULT_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> Origin:
    """Scheme, host and port: what must stay the same for a secret to be sent again."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme)


def is_this_machine(host: str) -> bool:
    """Does the host stand for the machine that this runs on?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def redacted(url: str) -> str:
    """The URL without what may be secret in it: user, password, query and fragment."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return ascii(f"{parts.scheme}://{place}{parts.path}")[1:-1][:300]

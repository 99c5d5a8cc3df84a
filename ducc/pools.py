"""Connections that are kept open, as urllib3 keeps them: to servers, or to the proxies that the environment names."""

import os
from collections.abc import Mapping

import urllib3

from ducc.reach import Reach
from ducc.urls import Origin

_MAX_SERVERS = 1000  # redirects may name ever new hosts
_CONNECTIONS = 10  # that are kept of one server


class Pools:
    """The connections of one thread. What the environment says of a server is looked up once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Origin, Reach], urllib3.PoolManager] = {}

    def to(self, place: Origin, url: str, reach: Reach) -> urllib3.PoolManager:
        """Who sends requests to *place*, which is where *url* is. Raises `OSError` and `ValueError`."""
        pool = self._known.get((place, reach))
        if pool is None:
            if len(self._known) >= _MAX_SERVERS:
                self._known.clear()
            pool = self._known[place, reach] = _pool(url, reach)
        return pool


def _pool(url: str, reach: Reach) -> urllib3.PoolManager:
    context = reach.tls() if url.startswith("https:") else None
    proxy, headers = _environments_proxy(url)
    if proxy is None:
        return urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=context)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, maxsize=_CONNECTIONS, ssl_context=context)


def _environments_proxy(url: str) -> tuple[str | None, Mapping[str, str] | None]:
    """The proxy for *url*, if there is one, and what it wants to be told; networks and ports in `no_proxy` count."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None, None
    from requests import utils  # who has no proxy does not wait for this import

    proxy = utils.select_proxy(url, utils.get_environ_proxies(url))
    if proxy is None:
        return None, None
    user, password = utils.get_auth_from_url(proxy)
    headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
    return str(utils.prepend_scheme_if_needed(proxy, "http")), headers  # type: ignore[no-untyped-call]

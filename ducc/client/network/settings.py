"""The rules by which servers and proxies are asked; defaults are the stock client's."""

from dataclasses import dataclass

DIRECT = "DIRECT"  # in place of a proxy: none


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """*hosts* are URLs of the repository, in the order in which they are asked. *proxies* are groups of proxies' URLs:
    a group is asked when all of the groups before it have failed; within a group each client has an order of its own.
    """

    hosts: tuple[str, ...]
    proxies: tuple[tuple[str, ...], ...] = ((DIRECT,),)
    proxy_timeout_seconds: float = 5
    direct_timeout_seconds: float = 5
    slowest_bytes_per_second: float = 1024
    retries: int = 1  # how often all of them are asked once more when all have failed
    first_pause_seconds: float = 2
    longest_pause_seconds: float = 10
    proxy_reset_seconds: float = 300
    host_reset_seconds: float = 1800
    follow_redirects: bool = False
    by_distance: bool = False  # let a server say which one is the nearest, and ask that first
    most_hosts: int | None = None  # of those that come first; None: all
    deadline_seconds: float = 60  # for one object or file, whatever happens; what is long and on its way gets more

"""One pass for one repository: wishes are looked at, what is missing is converted, and all of it is one revision.

This is what a command and a daemon have in common: nothing here reads arguments or an environment, or prints.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import closing
from threading import Event

from ducc.convert.fetch import FetchElsewhere, Workplace
from ducc.convert.observer import Observer, Unobserved
from ducc.convert.plan import Step, plan
from ducc.convert.published import Published
from ducc.convert.report import Report
from ducc.convert.run import Conversion
from ducc.convert.stop import Stop, Stopped, Threads, Watched
from ducc.publish.keys import SigningKeys
from ducc.publish.repository import Repository
from ducc.registry.client import Registry
from ducc.wishlist.wish import BrokenWish, Wish

ASKERS = 16  # registries are asked for so many digests at a time


def look(
    wishes: Iterable[Wish | BrokenWish], repository: Repository, registry: Registry, stop: Stop | None = None
) -> tuple[Published, list[Step]]:
    """What is to be done for *wishes*, and the revision for which that holds. Changes nothing. Raises `Stopped`."""
    stop = stop or Stop()
    published = Published(repository, repository.head())
    with Threads(ASKERS, "ask", stop) as askers:
        return published, plan(wishes, published, registry, askers, stop)


def grant(
    wishes: Iterable[Wish | BrokenWish],
    repository: Repository,
    keys: SigningKeys,
    registry: Registry,
    workplace: Workplace,
    *,
    observer: Observer | None = None,
    executor: Executor | None = None,
    stop: Event | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Publish what is missing of *wishes*, all or some of a repository's, in one revision; each fails alone.

    Layers are ingested by *executor*, if there is one. Once *stop* is set no image is begun, those under way end or
    are left, and those that are complete by then are committed: that takes `LAST_SECONDS` and a commit. Raises what
    concerns all wishes: the store, the keys, or the repository can't be used.
    """
    started = time.monotonic()
    ending = Stop(stop)
    observer = observer or Unobserved()
    try:
        published, steps = look(wishes, repository, registry, ending)
    except Stopped:
        return Report((), None, time.monotonic() - started, stopped=True)
    elsewhere = FetchElsewhere(executor, workplace, Watched(observer, ending)) if executor else None
    with closing(workplace.content_index(repository.settings.compressor)) as index:
        spool = workplace.spool()
        conversion = Conversion(
            repository, keys, registry, index, spool, observer, workplace.workers, elsewhere, clock, ending
        )
        return conversion.run(steps, published)

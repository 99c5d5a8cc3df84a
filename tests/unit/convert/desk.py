"""A registry, a repository and somebody who converts from one into the other, all in this process."""

import json
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ducc.catalog.schema import CatalogRef
from ducc.catalog.tree import Bind
from ducc.convert.fetch import FetchLayer
from ducc.convert.observer import Unobserved
from ducc.convert.plan import Step, plan
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.convert.report import Report
from ducc.convert.run import Conversion
from ducc.convert.spool import Spool
from ducc.convert.stop import Stop
from ducc.image.reference import Reference
from ducc.ingest.index import ContentIndex
from ducc.publish.repository import Repository
from ducc.registry.client import Registry
from ducc.storage.memory import MemoryStore
from ducc.transport import Transport
from ducc.wishlist.parse import parse_wishlist
from ducc.wishlist.wish import Wishlist
from tests import builders
from tests.fakes.registry import FakeRegistry, fake_registry
from tests.memory import CLOCK, FQRN, errors, new_repository, nodes


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def wishlist(*wishes: str | dict[str, object], fqrn: str = FQRN) -> Wishlist:
    """Wishes as lines of text, or as mappings with settings."""
    lines = "".join(f"  - {wish if isinstance(wish, str) else json.dumps(wish)}\n" for wish in wishes)
    return parse_wishlist(f"version: 1\ncvmfs_repo: {fqrn}\ninput:\n{lines}".encode(), "w.yaml")


def quick_registry() -> Registry:
    return Registry(Transport(sleep=lambda _: None, attempts=2))


class Desk:
    """Converts images of *server* into a new repository."""

    def __init__(self, server: FakeRegistry, fqrn: str = FQRN) -> None:
        self.server = server
        self._directory = TemporaryDirectory()  # goes with the desk
        self.spool = Spool(Path(self._directory.name))
        self.repository, self.keys = new_repository(fqrn)
        self.registry = quick_registry()
        self.observer = Unobserved()
        self.clock = CLOCK
        self.elsewhere: FetchLayer | None = None

    @property
    def store(self) -> MemoryStore:
        return self.repository.store

    def hold(self, image: builders.Image | builders.Index, tag: str = "tag", name: str = "some/image") -> str:
        """Put an image into the registry; return the wish for it."""
        self.server.hold_image(image, tag, name)
        return self.server.reference(f":{tag}", name)

    def plan(self, *wishes: str | dict[str, object], published: Published | None = None) -> list[Step]:
        written = wishlist(*wishes)
        published = published or self.published()
        with ThreadPoolExecutor(4) as askers:
            return plan([*written.wishes, *written.broken], published, self.registry, askers, Stop())

    def convert(self, *wishes: str | dict[str, object], workers: int = 2) -> Report:
        published = self.published()
        return self.run(self.plan(*wishes, published=published), workers, published)

    def run(self, steps: Iterable[Step], workers: int = 2, published: Published | None = None) -> Report:
        index = ContentIndex(None)
        conversion = Conversion(
            self.repository,
            self.keys,
            self.registry,
            index,
            self.spool,
            self.observer,
            workers,
            self.elsewhere,
            clock=lambda: self.clock,
        )
        try:
            return conversion.run(list(steps), published or self.published())
        finally:
            index.close()

    def published(self) -> Published:
        fresh = Repository(self.repository.fqrn, self.store)
        return Published(fresh, fresh.head())

    def record(self, wish: str, build: str = "") -> ImageRecord | None:
        return self.published().image(Reference.parse(wish), build)

    def trees(self) -> dict[bytes, CatalogRef]:
        """All that is bound, by path."""
        fresh = Repository(self.repository.fqrn, self.store)
        found = nodes(fresh.tree(fresh.head()), fresh.catalogs)
        return {path: node.ref for path, node in found if isinstance(node, Bind)}

    def image_rows(self, wish: str) -> dict[bytes, object]:
        """The root file system of an image, less apptainer's own files."""
        catalogs = self.repository.catalogs
        found = nodes(catalogs.load(self.record(wish).image_tree), catalogs)
        return {path: node for path, node in found if not path.startswith(b"/.singularity.d")}

    def errors(self) -> list[object]:
        return errors(self.store, self.keys)

    def blobs_asked(self) -> list[str]:
        return [path for path in self.server.asked() if "/blobs/" in path]


@contextmanager
def desk() -> Iterator[Desk]:
    with fake_registry() as server:
        yield Desk(server)


def statuses(report: Report) -> list[str]:
    return [outcome.status for outcome in report.outcomes]

"""Where benchmarks play: a registry on loopback with the images in it, and as many fresh repositories as wanted."""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Cost, run
from ducc.storage.durable import spread_below
from tests.registry import Registry, running_registry

FQRN = "bench.ducc.test"
SCRIPT = Path(sys.executable).with_name("ducc")


@dataclass(frozen=True, slots=True)
class Place:
    """One repository: storage, keys, cache and logs of its own."""

    directory: Path

    @property
    def storage(self) -> str:
        return f"file://{self.directory}/storage"

    @property
    def objects(self) -> Path:
        return self.directory / "storage" / FQRN / "data"

    def ducc(self, *words: str | Path) -> Cost:
        """Run one command of ours on this repository, and return what it took."""
        where = ("--storage", self.storage, "--keys", self.directory / "keys")
        return run([SCRIPT, *words, *where], self.directory / "log")

    def convert(self, wishlist: Path, *options: str) -> Cost:
        return self.ducc("convert", wishlist, "--cache", self.directory / "cache", *options)

    def stored_bytes(self) -> int:
        """Bytes of all objects, as files (not as blocks)."""
        return sum(path.stat().st_size for path in self.objects.rglob("*") if path.is_file())


@dataclass(frozen=True, slots=True)
class Stage:
    """The registry, and a scratch directory that is removed after the last figure."""

    registry: Registry
    scratch: Path

    def place(self, name: str, *options: str) -> Place:
        """Make a fresh repository."""
        place = Place(self.scratch / name)
        place.directory.mkdir(parents=True)
        place.ducc("init", FQRN, *options)
        return place

    def wishlist(self, name: str, references: Iterable[str]) -> Path:
        path = self.scratch / f"{name}.yaml"
        lines = "".join(f"  - http://{reference}\n" for reference in references)
        path.write_text(f"version: 1\ncvmfs_repo: {FQRN}\ninput:\n{lines}")
        return path

    def push(self, layout: Path, tag: str, name: str) -> str:
        """Copy an image of an OCI layout into the registry; return its reference."""
        return self.registry.copy_from(f"oci:{layout}:{tag}", name, tag)


@contextmanager
def stage() -> Iterator[Stage]:
    """Set the stage on a real file system, and clear it away.

    What is made directly in the scratch directory does not suffer from what was deleted there before.
    """
    scratch = Path(tempfile.mkdtemp(prefix="ducc-bench-", dir="/var/tmp"))
    spread_below(str(scratch))
    try:
        with running_registry(scratch / "registry") as registry:
            yield Stage(registry, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

"""A repository of a test's own: made, filled, served, mounted and checked by the console script, as by a stranger.

with repository(directory) as made:
    report = made.convert(image.wish)
    with made.served() as url, made.mounted(url) as root: ...
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests

from ducc.catalog.tree import Bind, Directory, Nested
from ducc.convert import apptainer
from ducc.cvmfs.manifest import Manifest
from ducc.image.digest import Digest
from ducc.publish.repository import Repository
from ducc.rootfs.locate import MountedRepository, stacked
from ducc.storage.local import LocalStore
from tests.console import Console, Result, stop
from tests.images.pushed import PushedImage
from tests.registry import free_port
from tests.trees import Row, Tree, without

FQRN = "images.ducc.test"
ANSWER_SECONDS = 60
LONGEST_XATTR = 255  # bytes of a value that the repository format can hold


@dataclass
class Published:
    """One repository *fqrn* in a store of its own, and the files of those who publish and read it."""

    directory: Path
    ducc: Console
    fqrn: str = FQRN
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @property
    def storage(self) -> Path:
        return self.directory / "storage"

    @property
    def root(self) -> Path:
        """Where the repository's own files lie."""
        return self.storage / self.fqrn

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    @property
    def public_key(self) -> Path:
        return self.keys / f"{self.fqrn}.pub"

    @property
    def where(self) -> list[str]:
        return ["--storage", f"file://{self.storage}"]

    @property
    def publisher(self) -> list[str]:
        """The options of every command that publishes."""
        return [*self.where, "--keys", str(self.keys), "--cache", str(self.directory / "publisher")]

    # --- publishing ---

    def init(self) -> Result:
        return self.ducc("init", self.fqrn, *self.where, "--keys", self.keys)

    def wishlist(self, *wishes: str) -> Path:
        """A new file that asks for *wishes*, line by line."""
        path = self.directory / f"wishlist-{next(self._numbers)}.yaml"
        lines = ["version: 1", f"cvmfs_repo: {self.fqrn}", "input:", *(f"  - {wish}" for wish in wishes)]
        path.write_text("\n".join(lines) + "\n")
        return path

    def convert(self, *wishes: str, options: Sequence[object] = (), status: int | None = 0) -> dict[str, Any]:
        """What `ducc convert --json` reports of a wishlist with *wishes*."""
        done = self.ducc("convert", self.wishlist(*wishes), *self.publisher, "--json", *options, status=status)
        assert "Traceback" not in done.stderr, done.stderr
        (report,) = done.json["repositories"]
        return report

    def check(self) -> str:
        """Verify everything, every object included; what was found fails the test."""
        done = self.ducc("check", self.fqrn, *self.where, "--keys", self.keys, "--data", status=None)
        assert done.status == 0, f"`ducc check` ended with {done.status}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    # --- reading back ---

    @property
    def manifest(self) -> Manifest:
        return Manifest.parse((self.root / ".cvmfspublished").read_bytes())

    @property
    def revision(self) -> int:
        return self.manifest.revision

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every file in the store, by path."""
        paths = [path for path in self.root.rglob("*") if not path.is_dir()]
        return {str(path.relative_to(self.root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}

    def images(self) -> list[dict[str, Any]]:
        return self.ducc("images", self.fqrn, *self.where, "--json").json["images"]

    def trees(self) -> dict[str, str]:
        """Root hash of every tree, by the path where it is mounted."""
        repository = Repository(self.fqrn, LocalStore(self.root))
        found, pending = {}, [(b"", repository.tree(repository.head()))]
        while pending:
            path, node = pending.pop()
            if isinstance(node, Nested):
                node = repository.catalogs.open_nested(node)
            if isinstance(node, Bind):
                found[path.decode()] = str(node.ref)
            elif isinstance(node, Directory):
                pending.extend((path + b"/" + name, child) for name, child in node.children.items())
        return found

    def staged(self) -> list[str]:
        """What unfinished publications have left in the store."""
        scratch = self.root / "data" / "txn"
        return sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*") if path.name != "lock")

    # --- serving and mounting ---

    @contextmanager
    def served(self) -> Iterator[str]:
        """`ducc serve`: the repository's URL, until the block ends."""
        port = free_port()
        process = self.ducc.start("serve", *self.where, "--port", port)
        try:
            url = f"http://127.0.0.1:{port}/cvmfs/{self.fqrn}"
            wait_for(f"{url}/.cvmfspublished")
            yield url
        finally:
            stop(process)

    @contextmanager
    def mounted(self, url: str) -> Iterator[Path]:
        """`ducc mount` with a new cache: where everything is seen, until the block ends."""
        with self.mounted_from(self.directory / f"cache-{next(self._numbers)}", url) as mountpoint:
            yield mountpoint

    @contextmanager
    def mounted_twice(self, url: str, *options: str) -> Iterator[tuple[Path, Path]]:
        """The same, and a second mount without extended attributes, with one new cache."""
        cache = self.directory / f"cache-{next(self._numbers)}"
        with (
            self.mounted_from(cache, url, *options) as first,
            self.mounted_from(cache, url, *options, "--no-xattrs") as second,
        ):
            yield first, second

    @contextmanager
    def mounted_from(self, cache: Path, url: str, *options: str) -> Iterator[Path]:
        mountpoint = self.directory / f"mount-{next(self._numbers)}"
        mountpoint.mkdir()
        client = ["--url", url, "--public-key", self.public_key, "--cache", cache]
        self.ducc("mount", self.fqrn, mountpoint, *client, *options)
        try:
            yield mountpoint
        finally:
            self.unmount(mountpoint)

    def unmount(self, mountpoint: Path) -> None:
        """A clean `ducc umount`; if that fails, the test does, but nothing stays behind."""
        try:
            self.ducc("umount", mountpoint)
        finally:
            if os.path.ismount(mountpoint):
                subprocess.run(["umount", "--lazy", mountpoint], check=False)


@contextmanager
def repository(directory: Path, *, fqrn: str = FQRN, init: bool = True) -> Iterator[Published]:
    """A new repository in the new directory *directory*; what it runs is stopped with the block."""
    (directory / "home").mkdir(parents=True)
    with Console(directory / "home") as ducc:
        made = Published(directory, ducc, fqrn)
        if init:
            made.init()
        yield made


@contextmanager
def copied(made: Published, directory: Path) -> Iterator[Published]:
    """The same repository and keys in another place; objects are shared, since nobody writes into them."""

    def copy(source: str, target: str) -> None:
        (shutil.copy2 if os.path.basename(source).startswith(".cvmfs") else os.link)(source, target)

    with repository(directory, fqrn=made.fqrn, init=False) as other:
        shutil.copytree(made.keys, other.keys)
        shutil.copytree(made.root, other.root, copy_function=copy)
        yield other


def wait_for(url: str, seconds: float = ANSWER_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers at {url}")


# --- what must be seen -----------------------------------------------------------------------


def image_path(root: Path, image: PushedImage) -> Path:
    """Where users find the image; the trailing slash of `scan` is theirs to write."""
    return (root / image.public_path).resolve(strict=True)


def layer_paths(root: Path, image: PushedImage) -> list[Path]:
    """The directories of an image's layers, base first, by its manifest's and its config's word."""
    described = root / ".metadata" / image.public_path
    manifest, config = (json.loads((described / name).read_bytes()) for name in ("manifest.json", "config.json"))
    digests = [Digest.parse(layer["digest"]) for layer in manifest["layers"]]
    diff_ids = [Digest.parse(diff_id) for diff_id in config["rootfs"]["diff_ids"]]
    repository = MountedRepository("mounted", root)
    return [repository.layer(layer) for layer in stacked(digests, diff_ids)]


def expected(image: PushedImage) -> Tree:
    """The image as umoci unpacks it, less those attributes that no repository can hold."""
    return {path: _storable(row) for path, row in image.tree.items()}


def less_apptainer_files(tree: Tree, image: Tree) -> Tree:
    """*tree* without what was added for apptainer: what *image* does not have, at the paths that are named for it."""
    names = [apptainer.ROOT, *apptainer.DIRECTORIES, *apptainer.EMPTY_FILES, *apptainer.LINKS]
    paths = {name[1:].encode() for name in names}
    parents = {os.path.dirname(path) for path in paths} - {b""}
    return without(tree, *((paths | parents) - image.keys()))


def _storable(row: Row) -> Row:
    kept = {name: value for name, value in (row.xattrs or {}).items() if len(value) <= LONGEST_XATTR}
    return replace(row, xattrs=kept or None)

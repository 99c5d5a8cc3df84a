"""How images are built and kept: recipes, the cache, and umoci.

A recipe is a module of this package with `PARENT`, the image it stands on or None, and `build(workshop)`, which
changes an unpacked root and seals its layers. Only what ended well is remembered, so a build may be cut anywhere.
"""

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from tests.builders import Entry, tar
from tests.needs import need_program, need_root
from tests.registry import Registry

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "images"
LAYOUT = CACHE / "oci"
RECIPES = ("base", "python", "scientific", "pruned")
SHARED_SOURCES = (HERE / "workshop.py", HERE / "debian.py", HERE.parent / "builders.py")


@dataclass(frozen=True)
class Built:
    """An image in the cache: *layout* and *tag* say where umoci and skopeo find it.

    *files* counts the entries of its tree when a layer was last sealed, *size* their bytes; *seconds* is what
    building took, without what it stands on.
    """

    name: str
    layout: Path
    tag: str
    layers: int
    files: int
    size: int
    seconds: float

    def push(self, registry: Registry) -> str:
        """Copy it to the registry; return its reference, host/name:tag."""
        return registry.copy_from(f"oci:{self.layout}:{self.tag}", f"test/{self.name}", "latest")


class Workshop:
    """One image in the making: its unpacked root, and the layers sealed so far."""

    def __init__(self, name: str, parent: str | None, bundle: Path) -> None:
        self.name, self.bundle, self.root = name, bundle, bundle / "rootfs"
        self.image = f"{LAYOUT}:{name}"
        if parent is None:
            _umoci("new", "--image", self.image)
        else:
            _umoci("tag", "--image", f"{LAYOUT}:{parent}", name)
        _umoci("unpack", "--image", self.image, str(bundle))

    def seal(self, made_by: str) -> None:
        """Make a layer of everything that changed in the root since the last one."""
        _umoci("repack", "--refresh-bundle", "--history.created_by", made_by, "--image", self.image, str(self.bundle))

    def add(self, made_by: str, *entries: Entry) -> None:
        """Make a layer of exactly these entries. The unpacked root does not show them: seal nothing after it."""
        layer = self.bundle / "layer.tar"
        layer.write_bytes(tar(entries))
        _umoci("raw", "add-layer", "--history.created_by", made_by, "--image", self.image, str(layer))

    def configure(self, **settings: str) -> None:
        """Set members of the image's config, by the names of `umoci config`'s options."""
        options = [f"--config.{key}={value}" for key, value in settings.items()]
        _umoci("config", "--no-history", "--image", self.image, *options)


def build(name: str) -> Built:
    """The image of that recipe, from the cache or newly made, with whatever it stands on."""
    need_root()
    need_program("umoci")
    with locked(CACHE):
        if not LAYOUT.exists():
            _umoci("init", "--layout", str(LAYOUT))
        return _build(name)[0]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other builders of the same cache out until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(name: str) -> tuple[Built, str]:
    """The image and its key; the key names the recipe and everything that it rests on."""
    recipe = importlib.import_module(f"{__package__}.{name}")
    parent_key = _build(recipe.PARENT)[1] if recipe.PARENT else ""
    key = _key(recipe, parent_key)
    return _remembered(name, key) or _remember(_make(name, recipe), key), key


def _key(recipe: ModuleType, parent_key: str) -> str:
    sources = (Path(recipe.__file__), *getattr(recipe, "SOURCES", ()), *SHARED_SOURCES)
    return hashlib.sha256(b"".join([parent_key.encode(), *map(Path.read_bytes, sources)])).hexdigest()


def _make(name: str, recipe: ModuleType) -> Built:
    bundle = CACHE / f"{name}.bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    started = time.monotonic()
    workshop = Workshop(name, recipe.PARENT, bundle)
    recipe.build(workshop)
    seconds = time.monotonic() - started
    files, size = _weigh(workshop.root)
    shutil.rmtree(bundle)
    _umoci("gc", "--layout", str(LAYOUT))
    return Built(name, LAYOUT, name, _count_layers(name), files, size, seconds)


def _remembered(name: str, key: str) -> Built | None:
    try:
        record = json.loads(_record(name).read_text())
    except FileNotFoundError:
        return None
    if record.pop("key") != key:
        return None
    return Built(layout=LAYOUT, **record)


def _remember(built: Built, key: str) -> Built:
    record = {field: value for field, value in asdict(built).items() if field != "layout"}
    _record(built.name).write_text(json.dumps({**record, "key": key}))
    return built


def _record(name: str) -> Path:
    return CACHE / f"{name}.json"


def _weigh(root: Path) -> tuple[int, int]:
    """Entries below *root*, and the bytes of its regular files."""
    paths = [os.path.join(parent, name) for parent, *inside in os.walk(root) for names in inside for name in names]
    found = [os.lstat(path) for path in paths]
    return len(found), sum(entry.st_size for entry in found if stat.S_ISREG(entry.st_mode))


def _count_layers(tag: str) -> int:
    manifests = json.loads((LAYOUT / "index.json").read_text())["manifests"]
    named = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in manifests}
    manifest = LAYOUT / "blobs" / named[tag].replace(":", "/")
    return len(json.loads(manifest.read_text())["layers"])


def _umoci(*arguments: str) -> None:
    subprocess.run(["umoci", *arguments], check=True)

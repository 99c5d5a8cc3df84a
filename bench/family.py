"""A family of images made from values: ten layers in common, and as many versions as wanted."""

import random
from collections.abc import Iterable, Sequence
from functools import cache

from tests.builders import Entry, Image, Layer, directory, file, push
from tests.registry import Registry

LAYERS = 10
BASE_FILES, LAYER_FILES = 6_000, 400
CHANGED_BYTES = 5_000_000
WORDS = [b"%x" % number for number in range(4096)]


@cache
def common_layers() -> tuple[Layer, ...]:
    """A base with thousands of files, and applications on it, each in a directory of its own and in `/usr/bin`."""
    base = _files("usr/share/base", BASE_FILES, seed=0)
    applications = (
        [*_files(f"opt/application{number}", LAYER_FILES, number), *_files("usr/bin", 10, number, f"a{number}-")]
        for number in range(1, LAYERS)
    )
    return tuple(Layer.of(*entries) for entries in (base, *applications))


def changed_layer(version: int) -> Layer:
    """A top layer of 5 MB that no other version has."""
    source = random.Random(version)
    return Layer.of(directory("srv"), *(file(f"srv/data{n}", source.randbytes(CHANGED_BYTES // 50)) for n in range(50)))


def push_version(registry: Registry, name: str, version: int, layers: Sequence[Layer]) -> str:
    """Push one version; its config says which, so no two are the same image. Returns the reference."""
    push(registry.host, name, f"v{version}", Image(layers, {"Env": [f"VERSION={version}"], "Cmd": ["/usr/bin/a1-0"]}))
    return f"{registry.host}/{name}:v{version}"


def stack(version: int) -> tuple[Layer, ...]:
    """The layers of one version: the base, and some of the applications in their order."""
    base, *applications = common_layers()
    chosen = sorted(random.Random(version).sample(range(len(applications)), k=1 + version % len(applications)))
    return base, *(applications[number] for number in chosen)


def _files(top: str, count: int, seed: int, prefix: str = "") -> Iterable[Entry]:
    """Files of some kilobytes of words, a hundred a directory."""
    source = random.Random(seed)
    parents = [top[:end] for end in (at for at, sign in enumerate(top + "/") if sign == "/")]
    yield from map(directory, parents)
    for number in range(count):
        place = f"{top}/{number // 100}" if count > 100 else top
        if count > 100 and number % 100 == 0:
            yield directory(place)
        yield file(
            f"{place}/{prefix}{number}", b" ".join(source.choices(WORDS, k=source.randrange(10, 2000))), mode=0o755
        )

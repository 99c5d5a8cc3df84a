"""Three tiny layers around a static busybox, wholly made by hand: seconds matter here.

The same tree travels in four ways, so that whatever is true of one image holds for the others.
"""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.builders import (
    Attestation,
    Image,
    Index,
    Layer,
    directory,
    file,
    hard_link,
    opaque,
    push,
    symlink,
    whiteout,
    write_layout,
)
from tests.images.workshop import CACHE, Built, locked
from tests.needs import need_program
from tests.registry import Registry

APPLETS = ("cat", "echo", "env", "id", "ls", "pwd", "sha256sum", "sh", "sleep", "stat", "true")
SETTINGS = {
    "Env": ["PATH=/bin", 'GREETING=it\'s a "test" for $HOME'],
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ['echo "hello from $0, it\'s small"'],
    "Labels": {"org.example.purpose": "tests"},
    "WorkingDir": "/home/alice",
}


@dataclass(frozen=True)
class BuiltSmall(Built):
    """Pushed byte for byte, without skopeo, which would rewrite manifests."""

    image: Image | Index

    def push(self, registry: Registry) -> str:
        name = f"test/{self.name}"
        push(registry.host, name, "latest", self.image)
        return f"{registry.host}/{name}:latest"


def write_small(name: str) -> BuiltSmall:
    """The variant, and an OCI layout with the plain image (tag `small`), whose tree all variants share."""
    started = time.monotonic()
    image = VARIANTS[name]()
    layout = CACHE / "small"
    with locked(CACHE):
        write_layout(layout, {"small": small()})
    return BuiltSmall(name, layout, "small", 3, 34, 0, time.monotonic() - started, image)


@cache
def small() -> Image:
    return _image(("gzip", "gzip", "gzip"))


@cache
def small_docker() -> Image:
    return _image(("gzip", "gzip", "gzip"), flavour="docker")


@cache
def small_mixed() -> Image:
    return _image(("gzip", "zstd", "none"))


@cache
def small_index() -> Index:
    """The image wanted stands last but one, behind an attestation and another platform."""
    foreign = Image([Layer.of(file("only-on-arm"))], platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    return Index([Attestation(foreign), foreign, small(), Attestation(small())])


VARIANTS = {
    "small": small,
    "small-docker": small_docker,
    "small-mixed": small_mixed,
    "small-index": small_index,
}


def _image(compressions: tuple[str, str, str], flavour: str = "oci") -> Image:
    layers = [Layer(archive, compression) for archive, compression in zip(_archives(), compressions, strict=True)]
    return Image(layers, SETTINGS, flavour=flavour)


@cache
def _archives() -> tuple[bytes, bytes, bytes]:
    layers = Layer.of(*system()), Layer.of(*additions()), Layer.of(*removals())
    return tuple(layer.tar for layer in layers)


def system() -> list:
    busybox = Path(need_program("busybox")).read_bytes()
    return [
        *(directory(name) for name in ("bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/share")),
        directory("tmp", mode=0o1777),
        directory("root", mode=0o700),
        directory("home/alice", uid=1000, gid=1000),
        file("bin/busybox", busybox, mode=0o755),
        *(hard_link(f"bin/{name}", "bin/busybox", mode=0o755) for name in APPLETS),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
        file("etc/group", b"root:x:0:\nalice:x:1000:\n"),
        file("etc/motd", b"welcome\n"),
        symlink("etc/resolv.conf", "/run/resolv.conf"),
        directory("usr/share/old"),
        file("usr/share/old/one", b"1"),
        file("usr/share/old/two", b"2"),
    ]


def additions() -> list:
    return [
        directory("etc"),
        file("etc/motd", b"welcome back\n"),
        file("etc/issue", b"ducc\n"),
        file("home/alice/notes", b"by alice\n", uid=1000, gid=1000, xattrs={"user.mood": b"good"}),
        hard_link("home/alice/passwd", "etc/passwd"),
        file(b"home/alice/caf\xe9", b"latin-1\n", uid=1000, gid=1000),
        directory("opt"),
        file("opt/big", b"".join(b"%08d" % number for number in range(600_000)), mode=0o444),
    ]


def removals() -> list:
    return [
        whiteout("etc/issue"),
        directory("usr/share/old", mode=0o711),
        opaque("usr/share/old"),
        file("usr/share/old/three", b"3"),
    ]

"""The stranger's demo: one line of a wishlist becomes a program that runs from the mounted repository.

Run by `make demo`. Each step says what it does and the command it runs, so that it can be repeated by hand.
Everything happens on loopback and in one temporary directory, and is tidied up also after a failure.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.console import SCRIPT, clean_environment, stop
from tests.images import build
from tests.needs import need_fuse, need_root
from tests.registry import Registry, free_port, running_registry

FQRN = "demo.ducc.test"
IMAGE = "python"
PROGRAM = 'import platform, sys; print("hello from Python", platform.python_version(), "at", sys.prefix)'

WISHLIST = """\
version: 1
cvmfs_repo: {fqrn}
input:
  - http://{reference}
"""


class Demo:
    """Paths and the commands' words; every command is shown before it runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = directory / "keys"
        self.mountpoint = directory / "mnt"
        self.storage = ["--storage", f"file://{directory / 'storage'}"]
        self.environment = clean_environment(directory)

    def ducc(self, *words: object) -> None:
        self.run(SCRIPT, *words)

    def run(self, *words: object) -> None:
        show(words)
        subprocess.run(list(map(str, words)), cwd=self.directory, env=self.environment, check=True)

    @contextlib.contextmanager
    def in_background(self, *words: object) -> Iterator[None]:
        show([*words, "&"])
        process = subprocess.Popen(list(map(str, words)), cwd=self.directory, env=self.environment)
        try:
            yield
        finally:
            stop(process)


def main() -> int:
    # A terminated demo tidies up like a failed one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        need_root()
        need_fuse()
        with ExitStack() as tidying_up:
            play(tidying_up)
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"demo: a step failed: exit status {failed.returncode}")
    step("That was all: everything is unmounted, stopped and removed")
    return 0


def play(tidying_up: ExitStack) -> None:
    demo = Demo(Path(tidying_up.enter_context(tempfile.TemporaryDirectory(prefix="ducc-demo-"))))
    registry, reference = an_image_in_a_registry(demo, tidying_up)
    wishlist = a_wishlist(demo, reference)
    a_new_repository(demo)
    the_conversion(demo, wishlist)
    url = a_server(demo, tidying_up)
    the_mount(demo, url, tidying_up)
    a_program_from_the_mount(demo, reference)
    the_conversion_again(demo, wishlist, registry)


def an_image_in_a_registry(demo: Demo, tidying_up: ExitStack) -> tuple[Registry, str]:
    step("Start a container registry on loopback")
    registry = tidying_up.enter_context(running_registry(demo.directory / "registry"))
    show(["docker-registry", "serve", demo.directory / "registry" / "config.yml", "&"])
    step(f"Build the image `{IMAGE}` from Debian's packages (about a minute, unless it was built before)")
    show(["python", "-m", "tests.images", "build", IMAGE])
    image = build(IMAGE)
    step(f"Push its {image.layers} layers to the registry")
    show(
        ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{image.layout}:{image.tag}", f"docker://{registry.host}/…"]
    )
    return registry, image.push(registry)


def a_wishlist(demo: Demo, reference: str) -> Path:
    step("Write a wishlist with one wish")
    wishlist = demo.directory / "wishlist.yaml"
    wishlist.write_text(WISHLIST.format(fqrn=FQRN, reference=reference))
    demo.run("cat", wishlist)
    return wishlist


def a_new_repository(demo: Demo) -> None:
    step("Make an empty, signed repository")
    demo.ducc("init", FQRN, *demo.storage, "--keys", demo.keys)


def the_conversion(demo: Demo, wishlist: Path) -> None:
    step("Grant the wish: pull, ingest, graft, publish")
    demo.ducc("convert", wishlist, *demo.storage, "--keys", demo.keys)
    step("See what is published")
    demo.ducc("images", FQRN, *demo.storage)
    step("Check the whole repository, every object included")
    demo.ducc("check", FQRN, *demo.storage, "--data", "--keys", demo.keys)


def a_server(demo: Demo, tidying_up: ExitStack) -> str:
    step("Serve it by http")
    port = free_port()
    tidying_up.enter_context(demo.in_background(SCRIPT, "serve", *demo.storage, "--port", port))
    url = f"http://127.0.0.1:{port}/cvmfs/{FQRN}"
    wait_for(f"{url}/.cvmfspublished")
    return url


def the_mount(demo: Demo, url: str, tidying_up: ExitStack) -> None:
    step("Mount it by our own FUSE client, as any machine that has the public key could")
    demo.mountpoint.mkdir()
    client = ["--url", url, "--public-key", demo.keys / f"{FQRN}.pub", "--cache", demo.directory / "cache"]
    demo.ducc("mount", FQRN, demo.mountpoint, *client)
    tidying_up.callback(the_umount, demo)


def the_umount(demo: Demo) -> None:
    step("Unmount")
    demo.ducc("umount", demo.mountpoint)


def a_program_from_the_mount(demo: Demo, reference: str) -> None:
    public_path = demo.mountpoint / reference
    step("Look at the image where users find it")
    demo.run("ls", "-l", public_path)
    demo.run("ls", f"{public_path}/")
    step("Run a program of the image from the mount: only what it touches is fetched")
    demo.run("chroot", public_path, "python3", "-c", PROGRAM)
    demo.run("du", "-sh", demo.directory / "cache")


def the_conversion_again(demo: Demo, wishlist: Path, registry: Registry) -> None:
    step("Convert again: what is published is not fetched again")
    before = len(registry.blob_fetches())
    demo.ducc("convert", wishlist, *demo.storage, "--keys", demo.keys)
    fetched = len(registry.blob_fetches()) - before
    print(f"blobs fetched: {fetched} (the first time: {before})", flush=True)
    if fetched:
        sys.exit("demo: converting again was expected to fetch nothing")


# --- showing -------------------------------------------------------------------------------


def step(title: str) -> None:
    print(f"\n=== {title}", flush=True)


def show(words: list[object] | tuple[object, ...]) -> None:
    spelled = ["ducc" if word == SCRIPT else str(word) for word in words]
    quoted = [word if word == "&" else shlex.quote(word) for word in spelled]
    print(f"$ {' '.join(quoted)}", flush=True)


def wait_for(url: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        time.sleep(0.1)
    sys.exit(f"demo: nothing answers at {url}")


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main())

"""A byte of a blob is fetched once, ever: killed half-way, a conversion goes on where it was."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from tests.console import Console
from tests.images.pushed import PushedImage
from tests.registry import Registry, running_registry

FQRN = "egress.ducc.test"
KILL_ABOVE = 3_000_000  # bytes of one blob that have come


def test_a_conversion_killed_in_mid_blob_fetches_only_the_rest(
    ducc: Console, images: Callable[[str], PushedImage], tmp_path: Path
) -> None:
    built = images("base").built
    with running_registry(tmp_path / "own") as registry:
        reference = f"http://{built.push(registry)}"
        where = ["--storage", f"file://{tmp_path}/store", "--keys", tmp_path / "keys"]
        ducc("init", FQRN, *where)
        command = ["convert-single-image", reference, FQRN, *where, "--cache", tmp_path / "cache"]
        spool = tmp_path / "cache" / FQRN / "blobs"
        kill_in_mid_blob(ducc, command, spool)
        here = {path.name: path.stat().st_size for path in spool.iterdir()}
        asked = requests_when_all_are_logged(registry, [name for name, size in here.items() if size])
        ducc(*command)
        ducc("check", FQRN, *where, "--data")
        assert any(fetch.status == 206 for fetch in registry.blob_fetches()), "nothing was asked for by range"
        assert sum(here.values()) + fetched_after(registry, asked) == unique_bytes(built.layout, built.tag)
        before = len(registry.blob_fetches())
        ducc(*command)
        assert len(registry.blob_fetches()) == before
    assert list(spool.iterdir()) == []


def kill_in_mid_blob(ducc: Console, command: list[object], spool: Path) -> None:
    process = ducc.start(*command)
    while process.poll() is None:
        if spool.is_dir() and any(path.stat().st_size > KILL_ABOVE for path in spool.iterdir()):
            process.kill()
        time.sleep(0.002)
    assert process.returncode == -9, "it was faster than we could kill it"


def requests_when_all_are_logged(registry: Registry, blobs: list[str]) -> int:
    """How many requests there were: one that was broken off is logged only when the registry notices."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        paths = [fetch.path for fetch in registry.blob_fetches()]
        if all(any(path.endswith(blob) for path in paths) for blob in blobs):
            return len(registry.requests())
        time.sleep(0.05)
    raise AssertionError("the registry does not log what was broken off")


def fetched_after(registry: Registry, number: int) -> int:
    """Bytes of blobs that the registry sent, by its own log; those of broken connections too."""
    requests = registry.requests()[number:]
    return sum(request.size for request in requests if request.is_blob and request.method == "GET")


def unique_bytes(layout: Path, tag: str) -> int:
    """What one image weighs, each blob once."""
    blobs = layout / "blobs" / "sha256"
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    (entry,) = (one for one in entries if one["annotations"]["org.opencontainers.image.ref.name"] == tag)
    manifest = json.loads((blobs / entry["digest"].removeprefix("sha256:")).read_text())
    sizes = {blob["digest"]: blob["size"] for blob in [manifest["config"], *manifest["layers"]]}
    return sum(sizes.values())

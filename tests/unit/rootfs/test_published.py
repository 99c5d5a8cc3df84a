"""Several repositories are asked for a layer: in order, within a deadline."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ducc.image.digest import Digest
from ducc.rootfs.locate import LayerAbsent, RepositoryUnavailable, StackedLayer, stacked
from ducc.rootfs.published import LayersUnavailable, NotPublished, PublishedLayers

DIGEST = Digest("1a" * 32)
LAYER = StackedLayer(DIGEST, None, DIGEST)
PLACE = Path("/somewhere")


@dataclass(frozen=True)
class Scripted:
    """A repository that answers as the test says."""

    fqrn: str
    answer: Callable[[], Path]

    def layer(self, wanted: StackedLayer) -> Path:
        return self.answer()

    def layers(self, wanted: Sequence[StackedLayer]) -> list[Path]:
        return [self.layer(layer) for layer in wanted]


def raising(error: Exception) -> Callable[[], Path]:
    def answer() -> Path:
        raise error

    return answer


ABSENT = Scripted("absent.test", raising(LayerAbsent("no")))
SILENT = Scripted("silent.test", raising(RepositoryUnavailable("silent.test is not mounted")))
FULL = Scripted("full.test", lambda: PLACE)


@pytest.mark.parametrize("before", [[], [ABSENT], [SILENT], [ABSENT, SILENT]])
def test_the_first_repository_that_has_a_layer_gives_it(before: list[Scripted]) -> None:
    found = PublishedLayers([*before, FULL, Scripted("later.test", lambda: Path("/later"))], 60).find(LAYER)
    assert (found.fqrn, found.directory) == ("full.test", PLACE)


def test_absent_is_only_what_no_repository_has() -> None:
    with pytest.raises(NotPublished):
        PublishedLayers([ABSENT, ABSENT], 60).find(LAYER)
    with pytest.raises(LayersUnavailable, match=r"silent\.test is not mounted"):
        PublishedLayers([ABSENT, SILENT], 60).find(LAYER)


def test_a_repository_that_hangs_costs_each_caller_its_deadline_and_no_more() -> None:
    ended = threading.Event()

    def hang() -> Path:
        ended.wait(60)
        return PLACE

    layers = PublishedLayers([Scripted("hanging.test", hang)], 0.05)
    started = time.monotonic()
    try:
        for _ in range(10):
            with pytest.raises(LayersUnavailable, match=r"hanging\.test did not answer within 0\.05 s"):
                layers.find(LAYER)
        assert time.monotonic() - started < 60
    finally:
        ended.set()


def test_a_chain_waits_once_for_a_repository_that_hangs_which_is_asked_again_later() -> None:
    ended = threading.Event()
    asked: list[None] = []

    def hang() -> Path:
        asked.append(None)
        ended.wait(60)
        return Path("/first")

    layers = PublishedLayers([Scripted("hanging.test", hang), FULL], 1)
    assert {layers.find(LAYER).fqrn for _ in range(40)} == {"full.test"}
    assert len(asked) < 40
    ended.set()
    deadline = time.monotonic() + 60
    while layers.find(LAYER).fqrn != "hanging.test":
        assert time.monotonic() < deadline
        time.sleep(0.05)


HANGING = """
import threading
from ducc.image.digest import Digest
from ducc.rootfs.locate import StackedLayer
from ducc.rootfs.published import LayersUnavailable, PublishedLayers

class Hanging:
    fqrn = "hanging.test"
    def layer(self, wanted):
        threading.Event().wait()

try:
    PublishedLayers([Hanging()], 0.05).find(StackedLayer(Digest("aa" * 32), None, Digest("aa" * 32)))
except LayersUnavailable as error:
    print(error)
"""


def test_a_process_ends_while_a_repository_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=120, check=True)
    assert "did not answer" in done.stdout


def test_an_image_is_the_directories_of_its_layers_topmost_first() -> None:
    image = stacked([Digest("1a" * 32), Digest("2b" * 32)], [Digest("3c" * 32), Digest("4d" * 32)])
    published = PublishedLayers([Named("images.test")], 60)
    assert published.directories(image) == [Path("/2b"), Path("/1a")]
    with pytest.raises(NotPublished):
        PublishedLayers([ABSENT], 60).directories(image)
    assert PublishedLayers([ABSENT], 60).directories([]) == []


def test_several_layers_may_be_in_several_repositories() -> None:
    upper = StackedLayer(Digest("2b" * 32), DIGEST, Digest("2b" * 32))
    published = PublishedLayers([Named("first.test", hidden="2b"), Named("second.test")], 60)
    found = published.find_all([upper, LAYER])
    assert [(layer.fqrn, layer.directory) for layer in found] == [
        ("second.test", Path("/2b")), ("first.test", Path("/1a")),
    ]  # fmt: skip
    with pytest.raises(LayersUnavailable):
        PublishedLayers([SILENT, Named("second.test", hidden="2b")], 60).find_all([upper, LAYER])


@dataclass(frozen=True)
class Named:
    """A repository that has layers by the first digits of their digests."""

    fqrn: str
    hidden: str = ""  # those that it does not have

    def layer(self, wanted: StackedLayer) -> Path:
        if wanted.digest.hex[:2] == self.hidden:
            raise LayerAbsent("no")
        return Path("/") / wanted.digest.hex[:2]

    def layers(self, wanted: Sequence[StackedLayer]) -> list[Path]:
        return [self.layer(layer) for layer in wanted]

"""From labels to a layer: several repositories, in order, within a deadline."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ducc.image.digest import Digest, MalformedDigest
from ducc.rootfs.locate import LayerAbsent, RepositoryUnavailable
from snapshotter.remote import LAYER_LABELS, LayersUnavailable, NotPublished, Published, layer_of

LAYER = Digest("1a" * 32)
PLACE = Path("/somewhere")


@dataclass(frozen=True)
class Scripted:
    """A repository that answers as the test says."""

    fqrn: str
    answer: Callable[[], Path]

    def layer(self, digest: Digest) -> Path:
        return self.answer()


def raising(error: Exception) -> Callable[[], Path]:
    def answer() -> Path:
        raise error

    return answer


ABSENT = Scripted("absent.test", raising(LayerAbsent("no")))
SILENT = Scripted("silent.test", raising(RepositoryUnavailable("silent.test is not mounted")))
FULL = Scripted("full.test", lambda: PLACE)


@pytest.mark.parametrize("before", [[], [ABSENT], [SILENT], [ABSENT, SILENT]])
def test_the_first_repository_that_has_a_layer_gives_it(before: list[Scripted]) -> None:
    found = Published([*before, FULL, Scripted("later.test", lambda: Path("/later"))], 5).find(LAYER)
    assert (found.fqrn, found.directory) == ("full.test", PLACE)


def test_absent_is_only_what_no_repository_has() -> None:
    with pytest.raises(NotPublished):
        Published([ABSENT, ABSENT], 5).find(LAYER)
    with pytest.raises(LayersUnavailable, match=r"silent\.test is not mounted"):
        Published([ABSENT, SILENT], 5).find(LAYER)


def test_a_repository_that_hangs_costs_each_caller_its_deadline_and_no_more() -> None:
    ended = threading.Event()

    def hang() -> Path:
        ended.wait(60)
        return PLACE

    layers = Published([Scripted("hanging.test", hang)], 0.05)
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

    def hang() -> Path:
        ended.wait(60)
        return Path("/first")

    layers = Published([Scripted("hanging.test", hang), FULL], 0.3)
    started = time.monotonic()
    assert {layers.find(LAYER).fqrn for _ in range(40)} == {"full.test"}
    assert time.monotonic() - started < 12
    ended.set()
    deadline = time.monotonic() + 60
    while layers.find(LAYER).fqrn != "hanging.test":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("label", LAYER_LABELS)
def test_both_families_of_labels_say_the_layer(label: str) -> None:
    assert layer_of({label: str(LAYER), "other": "x"}) == LAYER


@pytest.mark.parametrize(
    "text", ["", "sha256:..", "1a" * 32, "sha256:" + "1a" * 31, "sha512:" + "1a" * 64, "sha256:/\0"]
)
def test_a_label_that_is_no_digest_names_no_layer(text: str) -> None:
    with pytest.raises(MalformedDigest):
        layer_of({LAYER_LABELS[0]: text})


def test_without_labels_no_layer_is_named() -> None:
    with pytest.raises(MalformedDigest, match="annotate"):
        layer_of({})

"""A list of a thousand wishes, thirty of them wildcards: what a pass asks for, and what it publishes.

Times are not looked at here, but what they follow from: requests, blobs and revisions.
"""

import random
import signal
import time
from collections import Counter

import pytest

from ducc.convert.grant import ASKERS
from tests.builders import Image, Layer, file, sha256
from tests.end_to_end.daemon import Daemon
from tests.end_to_end.published import copied, repository
from tests.registry import running_registry

SEED = 20261121
NAMES, WILDCARDS, WISHES, TAGS = (
    30,
    30,
    1000,
    11,
)  # image names, those of wildcards, lines of the list, tags of a wildcard
IMAGES = WISHES - WILDCARDS + WILDCARDS * TAGS
KILLS = 2
CHANGED = 10
LONG_SECONDS = 300

COMMON = Layer.of(file("etc/common", b"the same in all"))


def image(text, *layers):
    return Image([COMMON, *layers], {"Env": [f"IMAGE={text}"]})


class Shelf:
    """A registry with as many images as the list stands for, and the list."""

    def __init__(self, registry):
        self.registry = registry
        single = [(f"group/single{number % NAMES}", f"v{number}") for number in range(WISHES - WILDCARDS)]
        many = [(f"group/many{number}", f"v{tag}") for number in range(WILDCARDS) for tag in range(TAGS)]
        self.tags = [*single, *many]
        for name, tag in self.tags:
            registry.put(name, tag, image(f"{name}:{tag}"))
        self.lines = [f"'{self.reference(*one)}'" for one in single]
        self.lines += [f"'{self.reference(f'group/many{number}', '*')}'" for number in range(WILDCARDS)]
        random.Random(SEED).shuffle(self.lines)

    def reference(self, name, tag):
        return f"{self.registry.url}/{name}:{tag}"

    def change(self, word):
        """Let some tags name other images, each with a layer of its own; return those, and their blobs."""
        chosen = random.Random(word).sample(self.tags, CHANGED)
        images = [
            image(f"{word} {name}:{tag}", Layer.of(file("new", f"{word} {name}:{tag}".encode())))
            for name, tag in chosen
        ]
        for (name, tag), changed in zip(chosen, images, strict=True):
            self.registry.put(name, tag, changed)
        blobs = {sha256(blob) for changed in images for blob in changed.blobs} - {sha256(COMMON.blob)}
        return {self.reference(*one) for one in chosen}, blobs

    def asked_since(self, position):
        """How often what was asked for: manifests by method, tag lists, blobs by digest, and whatever else."""
        kinds, blobs = Counter(), Counter()
        for one in self.registry.requests()[position:]:
            if one.is_blob:
                blobs[one.path.rpartition("/")[2]] += 1
            elif "/manifests/" in one.path:
                kinds[one.method] += 1
            else:
                kinds["tags" if "/tags/list" in one.path else one.path] += 1
        return kinds, blobs

    @property
    def position(self):
        return len(self.registry.requests())


LOOKED_AT = {"HEAD": IMAGES, "tags": WILDCARDS}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield Shelf(running)


@pytest.fixture(scope="module")
def granted(shelf, tmp_path_factory):
    """A repository with all of it; its daemon was killed now and then."""
    dice = random.Random(SEED)
    with repository(tmp_path_factory.mktemp("thousand") / "made") as made:
        wishlist, before = made.wishlist(*shelf.lines), {}
        for _ in range(KILLS):
            daemon, revision = Daemon(made, wishlist, "--interval", "1h"), made.revision
            daemon.until(lambda revision=revision: made.revision > revision, LONG_SECONDS)
            time.sleep(dice.uniform(0, 1))
            daemon.process.kill()
            daemon.process.wait()
            after = published_at(made)
            assert len(before) < len(after)
            assert before.items() <= after.items(), "what was granted before is granted again"
            before = after
        daemon = Daemon(made, wishlist, "--interval", "1h")
        daemon.until(lambda: is_granted(daemon), LONG_SECONDS)
        assert daemon.stop()[0] == 0
        assert before.items() <= published_at(made).items()
        yield made


@pytest.fixture
def made(granted, tmp_path):
    with copied(granted, tmp_path / "copy") as copy:
        yield copy


def published_at(made):
    return {one["image"]: one["published_at"] for one in made.images()}


def is_granted(daemon):
    return Counter(daemon.statuses().values()) == {"granted": IMAGES}


def test_killed_again_and_again_a_daemon_grants_a_thousand_wishes(shelf, granted):
    assert published_at(granted).keys() == {shelf.reference(*one) for one in shelf.tags}
    assert "no problems found" in granted.check()


def test_a_pass_without_changes_costs_one_request_a_wish_and_the_tag_lists(shelf, made):
    position, revision = shelf.position, made.revision
    report = made.convert(*shelf.lines)
    assert Counter(one["status"] for one in report["images"]) == {"unchanged": IMAGES}
    assert shelf.asked_since(position) == (LOOKED_AT, {})
    assert made.revision == revision


def test_a_round_of_the_daemon_without_changes_costs_the_same(shelf, made):
    position, revision = shelf.position, made.revision
    daemon = Daemon(made, made.wishlist(*shelf.lines), "--interval", "1h")
    daemon.until(lambda: is_granted(daemon))
    assert shelf.asked_since(position) == (LOOKED_AT, {})
    daemon.process.send_signal(signal.SIGHUP)  # a second round, now that it knows them all
    daemon.until(lambda: shelf.asked_since(position)[0].total() == 2 * sum(LOOKED_AT.values()))
    assert daemon.stop()[0] == 0
    assert (shelf.asked_since(position)[1], made.revision) == ({}, revision)


def test_of_ten_changed_tags_a_pass_fetches_only_those(shelf, made):
    images, blobs = shelf.change("convert")
    position, revision = shelf.position, made.revision
    report = made.convert(*shelf.lines)
    assert {one["image"] for one in report["images"] if one["status"] == "published"} == images
    assert shelf.asked_since(position) == ({**LOOKED_AT, "GET": CHANGED}, dict.fromkeys(blobs, 1))
    assert made.revision == revision + 1


def test_of_ten_changed_tags_a_killed_daemon_publishes_only_those_and_fetches_them_once(shelf, made):
    made.convert(*shelf.lines)
    images, blobs = shelf.change("loop")
    before, position, revision = published_at(made), shelf.position, made.revision
    wishlist = made.wishlist(*shelf.lines)
    killed = Daemon(made, wishlist, "--interval", "1h")
    killed.until(lambda: shelf.position > position + IMAGES // 2)
    killed.process.kill()
    killed.process.wait()
    position = shelf.position
    daemon = Daemon(made, wishlist, "--interval", "1h")
    daemon.until(lambda: is_granted(daemon))
    assert daemon.stop()[0] == 0
    after = published_at(made)
    assert {one for one in after if after[one] != before[one]} == images
    kinds, fetched = shelf.asked_since(position)
    assert 0 <= kinds.pop("HEAD") - IMAGES - CHANGED <= ASKERS  # the killed one's last questions are answered, too
    assert kinds == {"tags": WILDCARDS, "GET": CHANGED}
    assert fetched == dict.fromkeys(blobs, 1)
    assert made.revision <= revision + CHANGED

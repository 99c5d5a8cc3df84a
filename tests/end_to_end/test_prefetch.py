"""A start that was noted once is fetched ahead everywhere: from `ducc client record` over `ducc prefetch` to a node
that goes on when its server has gone."""

import json
from pathlib import Path

import pytest

from ducc import layout
from ducc.image.digest import Digest
from tests.builders import Image, Layer, directory, file, push, sha256
from tests.end_to_end import stock
from tests.end_to_end.published import repository
from tests.end_to_end.test_mount import wait_for
from tests.needs import need_fuse
from tests.registry import running_registry

MODULES = 60


def modules(kind: str) -> Layer:
    files = [file(f"lib/{kind}-{number}", f"{kind} {number}\n".encode() * 400) for number in range(MODULES)]
    return Layer.of(directory("lib"), *files)


LOWER, UPPER = modules("lower"), modules("upper")
EVERY_SECOND = [f"lib/{kind}-{number}" for number in range(0, MODULES, 2) for kind in ("upper", "lower")]


class Shelf:
    """A published image, its repository on a server, and what a start of it wanted."""

    def __init__(self, made, image):
        self.made, self.image = made, image

    def place(self, mountpoint, path):
        """A file of the image, in the layer that has it."""
        layer = LOWER if "lower" in path else UPPER
        tree = layout.layer_tree(Digest.parse(sha256(layer.blob))).decode()
        return Path(f"{mountpoint}{tree}/{path}")

    def start(self, mountpoint, paths=EVERY_SECOND):
        for path in paths:
            assert self.place(mountpoint, path).read_bytes()

    def note(self, url):
        """A file with what a start wants on a node that has nothing yet."""
        with self.made.mounted(url) as mountpoint:
            self.made.ducc("client", "record", "start", mountpoint)
            self.start(mountpoint)
            noted = self.made.directory / "start"
            noted.write_text(self.made.ducc("client", "record", "stop", mountpoint).stdout)
            return noted

    def publish(self, *files, image=None, status=0):
        words = ["prefetch", self.made.fqrn, image or self.image, *files, *self.made.where, "--keys", self.made.keys]
        return self.made.ducc(*words, "--json", status=status)

    def cache(self, mountpoint):
        return self.made.ducc("client", "status", mountpoint, "--json").json["mounts"][0]["cache"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    need_fuse()
    with running_registry(tmp_path_factory.mktemp("registry")) as registry:
        push(registry.host, "app", "1", Image([LOWER, UPPER]))
        with repository(tmp_path_factory.mktemp("repository") / "made") as made:
            image = f"http://{registry.host}/app:1"
            made.convert(image)
            yield Shelf(made, image)


def test_what_was_noted_is_there_before_it_is_asked_for(shelf):
    made = shelf.made
    with made.served() as url:
        published = shelf.publish(shelf.note(url)).json
        assert published["objects"] == len(EVERY_SECOND)
        assert "no problems found" in made.check()
        others = [path.replace("-0", "-1") for path in EVERY_SECOND[:2]]
        with made.mounted(url) as mountpoint, made.mounted_from(made.directory / "c", url, "--no-prefetch") as plain:
            for mounted in (mountpoint, plain):
                shelf.start(mounted, others)  # one file of each layer, and none of the list
            wait_for(lambda: shelf.cache(mountpoint)["prefetched"] == len(EVERY_SECOND))
            before = shelf.cache(mountpoint)["misses"]
            shelf.start(mountpoint)
            assert shelf.cache(mountpoint)["misses"] == before
            assert shelf.cache(plain)["prefetched"] == 0


def test_a_node_starts_what_was_fetched_ahead_though_its_server_has_gone(shelf):
    made = shelf.made
    with made.served() as url:
        shelf.publish(shelf.note(url))
        cache = made.directory / "cache-of-a-node"
        with made.mounted_from(cache, url) as mountpoint:
            shelf.start(mountpoint, EVERY_SECOND[:2])
            wait_for(lambda: shelf.cache(mountpoint)["prefetched"] >= len(EVERY_SECOND) - 2)
            wait_for(lambda: len(list(cache.glob("??/*"))) >= len(EVERY_SECOND))
            made.root.rename(made.root.with_suffix(".gone"))
            try:
                shelf.start(mountpoint)
            finally:
                made.root.with_suffix(".gone").rename(made.root)


def test_the_stock_checker_finds_nothing(shelf, tmp_path):
    stock.need_stock()
    with shelf.made.served() as url:
        shelf.publish(shelf.note(url))
        stock.check(shelf.made, url, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no object\n", "line 1"),
        ("0" * 40 + " 5\n" + "../../etc/passwd\n", "line 2"),
        ("0" * 40 + " 5\n", "none of the 1 objects"),
        ("é\n", "not text"),
    ],
)
def test_what_is_no_start_of_the_image_is_refused_in_one_line(shelf, tmp_path, text, said):
    path = tmp_path / "noted"
    path.write_text(text)
    before = shelf.made.revision
    done = shelf.publish(path, status=2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert shelf.made.revision == before


def test_an_image_that_is_not_there_and_a_file_that_is_not_there_are_named(shelf, tmp_path):
    (tmp_path / "noted").write_text("0" * 40 + "\n")
    assert (
        "nowhere.example/a:b" in shelf.publish(tmp_path / "noted", image="https://nowhere.example/a:b", status=2).stderr
    )
    assert "no such file" in shelf.publish(tmp_path / "missing", status=2).stderr


def test_what_is_published_can_be_read_by_anybody(shelf):
    with shelf.made.served() as url:
        shelf.publish(shelf.note(url))
        with shelf.made.mounted(url) as mountpoint:
            path = layout.prefetch_list(Digest.parse(sha256(UPPER.blob))).decode()
            document = json.loads(Path(f"{mountpoint}{path}").read_text())
    assert document["version"] == 1
    assert len(document["objects"]) == MODULES // 2

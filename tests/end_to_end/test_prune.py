"""`ducc prune` with a real registry: what goes, what stays, and that the repository is whole afterwards."""

import json
from collections import Counter

import pytest

from ducc import layout
from ducc.convert.published import Published as Revision
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.publish.repository import Repository
from ducc.storage.local import LocalStore
from tests.builders import Image, Index, Layer, file, push
from tests.end_to_end import stock
from tests.end_to_end.published import repository
from tests.registry import free_port, running_registry

COMMON = Layer.of(file("common", b"in all"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        for tag in ("a", "b", "c", "1.0", "1.1"):
            push(running.host, "app", tag, image(tag))
        push(running.host, "app", "same-as-a", image("a"))
        both = [image(f"multi {arch}", arch) for arch in ("amd64", "arm64")]
        push(running.host, "deep/er/multi", "1", Index(both))
        yield running


def image(content, architecture="amd64"):
    own = Layer.of(file("own", content.encode()))
    return Image([COMMON, own], platform={"os": "linux", "architecture": architecture})


def own_layer(content):
    return Digest.of(image(content).layers[1].blob)


class Desk:
    """A repository, and who prunes it."""

    def __init__(self, made, shelf):
        self.made, self.shelf = made, shelf
        self.path = made.directory / "list.yaml"

    def wish(self, *images, settings=""):
        """Write the list; *settings* is more YAML of each item."""
        lines = ["version: 1", f"cvmfs_repo: {self.made.fqrn}", "input:"]
        for one in images or ["http://nowhere.example/x:1"]:
            lines += [f"  - image: '{self.image(one)}'", *([f"    {settings}"] if settings else [])]
        self.path.write_text("\n".join(lines) + "\n")

    def image(self, name):
        return name if "://" in name else f"http://{self.shelf.host}/{name}"

    def publish(self, *images, settings=""):
        self.wish(*images, settings=settings)
        self.made.ducc("convert", self.path, *self.made.publisher)

    def prune(self, *words, status=0):
        """Fate of each image, by what it is called below the registry."""
        keys = ["--keys", self.made.keys]
        words = ["prune", self.path, *self.made.where, *keys, "--json", "--most", "100%", *words]
        done = self.made.ducc(*words, status=status)
        assert "Traceback" not in done.stderr, done.stderr
        if status or "--undo" in words:
            return done
        (result,) = done.json["repositories"]
        return {one["image"].removeprefix(self.image("")): one["fate"] for one in result["images"]}

    def remove(self, *words):
        """Schedule, and remove at once."""
        self.prune("--apply", "--grace", "1s", *words)
        import time

        time.sleep(1.1)
        return self.prune("--apply", "--grace", "1s", *words)

    def names(self):
        return {one["image"].removeprefix(self.image("")) for one in self.made.images()}

    def revision(self):
        opened = Repository(self.made.fqrn, LocalStore(self.made.root))
        return Revision(opened, opened.head()), opened

    def paths(self):
        """Every path of the trunk."""
        from ducc.catalog.tree import Directory, Nested

        _, opened = self.revision()
        pending, found = [(b"", opened.tree(opened.head()))], set()
        while pending:
            path, node = pending.pop()
            found.add(path.decode())
            node = opened.catalogs.open_nested(node) if isinstance(node, Nested) else node
            if isinstance(node, Directory):
                pending += [(path + b"/" + name, child) for name, child in node.children.items()]
        return found

    def origins(self, layer):
        revision, _ = self.revision()
        return json.loads(revision.file(layout.layer_file(layer, "origin.json")))["origin"]

    def check(self, tmp_path):
        assert "no problems found" in self.made.check()
        stock.need_stock()
        with self.made.served() as url:
            stock.check(self.made, url, tmp_path)


@pytest.fixture
def desk(shelf, tmp_path):
    with repository(tmp_path / "made") as made:
        yield Desk(made, shelf)


def test_what_nobody_wishes_for_goes_with_all_that_only_it_had(desk, tmp_path):
    desk.publish("app:a", "app:b", "app:same-as-a")
    desk.wish("app:a")
    assert desk.remove() == {"app:a": "kept", "app:b": "removed", "app:same-as-a": "removed"}
    assert desk.names() == {"app:a"}
    paths = desk.paths()
    a, b = (Digest.of(image(name).config) for name in "ab")
    assert layout.flat_image(a).decode() in paths  # two names had it
    assert layout.flat_image(b).decode() not in paths
    assert layout.layer(own_layer("a")).decode() in paths
    assert layout.layer(own_layer("b")).decode() not in paths
    assert not [path for path in paths if path.endswith(("app:b", "app:same-as-a"))]
    assert desk.origins(Digest.of(COMMON.blob)) == [str(a)]
    desk.check(tmp_path)


def test_what_was_removed_leaves_no_empty_directories(desk, tmp_path):
    desk.publish("app:a")
    before = desk.paths()
    desk.publish("app:a", "deep/er/multi:1")
    assert desk.paths() > before
    desk.wish("app:a")
    desk.remove()
    assert desk.paths() == before
    desk.check(tmp_path)


def test_all_builds_of_an_image_go_together(desk, tmp_path):
    desk.publish("deep/er/multi:1", "app:a", settings="platforms: all")
    assert any(".multiarch/arm64" in path for path in desk.paths())
    desk.wish("app:a")
    assert desk.remove() == {"app:a": "kept", "deep/er/multi:1": "removed"}
    assert not [path for path in desk.paths() if "deep" in path]
    assert not [
        path for path in desk.paths() if layout.flat_image(Digest.of(image("multi arm64").config)).decode() in path
    ]
    desk.check(tmp_path)


def test_without_apply_nothing_changes(desk):
    desk.publish("app:a", "app:b")
    desk.wish("app:a")
    before = desk.made.files()
    assert desk.prune() == {"app:a": "kept", "app:b": "scheduled"}
    assert desk.made.files() == before


def test_nothing_goes_before_its_time_and_the_schedule_is_published(desk, tmp_path):
    desk.publish("app:a", "app:b")
    desk.wish("app:a")
    assert desk.prune("--apply")["app:b"] == "scheduled"
    revision = desk.made.revision
    assert desk.prune("--apply")["app:b"] == "waiting"
    assert desk.made.revision == revision
    assert desk.names() == {"app:a", "app:b"}
    seen, _ = desk.revision()
    (removal,) = json.loads(seen.file(b"/.metadata/.removals.json"))["removals"].values()
    assert removal["due"] - removal["since"] == 14 * 24 * 3600
    status = desk.made.ducc("status", desk.made.fqrn, *desk.made.where, "--state", desk.made.directory, "--json").json
    assert [one.get("due") for one in status["images"]] == [None, removal["due"]]
    desk.check(tmp_path)


def test_until_then_it_can_be_taken_back(desk):
    desk.publish("app:a", "app:b")
    desk.wish("app:a")
    desk.prune("--apply")
    desk.prune("--undo", desk.image("app:b"))
    assert desk.prune() == {"app:a": "kept", "app:b": "scheduled"}
    assert desk.prune("--undo", desk.image("app:b"), status=2).stderr.count("\n") == 1


def test_who_is_wished_for_again_stays(desk):
    desk.publish("app:a", "app:b")
    desk.wish("app:a")
    desk.prune("--apply", "--grace", "1s")
    desk.wish("app:a", "app:b")
    assert desk.prune("--apply") == {"app:a": "kept", "app:b": "kept"}
    desk.wish("app:a")
    assert desk.prune()["app:b"] == "scheduled"


@pytest.mark.parametrize("most", ["0%", "10%", "49%"])
def test_more_than_the_share_is_refused_whole(desk, most):
    desk.publish("app:a", "app:b", "app:c", "app:1.0")
    desk.wish("app:a", "app:b")
    before = desk.made.files()
    done = desk.prune("--apply", "--most", most, status=91)
    assert done.stderr.startswith("ducc: images.ducc.test: 2 of 4 images would be scheduled")
    assert done.stdout == ""
    shown = desk.prune("--most", most, status=91)
    fates = {one["image"]: one["fate"] for one in shown.json["repositories"][0]["images"]}
    assert Counter(fates.values()) == {"kept": 2, "scheduled": 2}  # what an operator has to look at
    assert shown.stderr == done.stderr
    assert desk.made.files() == before


def test_a_registry_that_is_down_removes_nothing(desk):
    desk.publish("app:a", "app:1.0", "app:1.1")
    down = f"http://127.0.0.1:{free_port()}"
    desk.wish("app:a", f"{down}/other:*")
    assert desk.remove()["app:1.0"] == "removed"  # nobody wishes for it, and that is known
    desk.publish("app:a", "app:1.0", "app:1.1")
    desk.wish("app:1.*")
    assert desk.prune() == {"app:a": "scheduled", "app:1.0": "kept", "app:1.1": "kept"}


def test_a_tag_list_that_fails_removes_nothing_that_it_may_mean(desk, tmp_path):
    with running_registry(tmp_path / "passing") as passing:
        for tag in ("1.0", "1.1", "x"):
            push(passing.host, "app", tag, image(f"passing {tag}"))
        names = [f"http://{passing.host}/app:{tag}" for tag in ("1.0", "1.1", "x")]
        desk.publish(*names)
    desk.wish(f"http://{passing.host}/app:1.*")
    assert desk.remove() == {names[0]: "unknown", names[1]: "unknown", names[2]: "removed"}
    assert desk.names() == {*names[:2]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: 1\ncvmfs_repo: images.ducc.test\ninput: [", "list.yaml:4"),
        ("version: 1\ncvmfs_repo: images.ducc.test\ninput: [3.10]\n", "nothing is removed"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_can_not_be_read_whole_removes_nothing(desk, text, reason):
    desk.publish("app:a")
    before = desk.made.files()
    desk.path.unlink()
    if text is not None:
        desk.path.write_text(text)
    done = desk.prune("--apply", "--grace", "1s", status=2)
    assert reason in done.stderr
    assert desk.made.files() == before


def test_tags_that_a_wish_wants_no_more_stay_as_long_as_it_says(desk):
    desk.publish("app:1.*")
    newest = "tags: {newest: 1}"
    desk.wish("app:1.*", settings=newest)
    assert desk.prune() == {"app:1.0": "scheduled", "app:1.1": "kept"}
    desk.path.write_text(desk.path.read_text() + "    keep: forever\n")
    assert desk.prune() == {"app:1.0": "kept", "app:1.1": "kept"}
    desk.wish("app:1.*", settings=newest)
    desk.path.write_text(desk.path.read_text() + "    keep: 90d\n")
    desk.prune("--apply")
    seen, _ = desk.revision()
    (removal,) = json.loads(seen.file(b"/.metadata/.removals.json"))["removals"].values()
    assert removal["due"] - removal["since"] == 90 * 24 * 3600


def test_a_record_that_can_not_be_read_stops_everything(desk):
    from ducc.publish.changes import PutFile
    from ducc.publish.commit import commit
    from ducc.publish.keys import KeyDirectory

    desk.publish("app:a", "app:b")
    _, opened = desk.revision()
    path = layout.metadata_file(Reference.parse(desk.image("app:a")), "record.json")
    with opened.store.session():
        commit(opened, KeyDirectory(desk.made.keys, desk.made.fqrn).load(), [PutFile(path, b"{}")])
    desk.wish()
    before = desk.made.files()
    desk.prune("--apply", "--grace", "1s", status=68)
    assert desk.made.files() == before


def test_an_image_that_was_removed_can_be_had_again(desk, tmp_path):
    desk.publish("app:a", "app:b")
    desk.wish("app:a")
    desk.remove()
    desk.publish("app:a", "app:b")
    assert desk.names() == {"app:a", "app:b"}
    desk.check(tmp_path)

"""A run grants what can be granted in one revision: each wish for itself, each layer once, always the same trees."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from ducc import layout
from ducc.catalog.tree import Bind, entry_of, find
from ducc.convert import assembly
from ducc.convert.fetch import LayerWish
from ducc.convert.layers import LayerPool
from ducc.convert.observer import LayerProgress, Unobserved
from ducc.convert.plan import Convert, GiveUp, Keep
from ducc.errors import UnexpectedFailure
from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.layer.entries import DiffIdMismatch
from ducc.publish.changes import Remove
from ducc.publish.commit import commit
from ducc.publish.repository import Repository
from tests import builders
from tests.builders import Image, Layer
from tests.fakes.registry import Answer, fake_registry
from tests.memory import nodes
from tests.unit.convert.desk import Desk, desk, noise, statuses

BASE = Layer.of(
    builders.directory("etc"), builders.file("etc/os", b"base"), builders.hard_link("etc/os2", "etc/os"),
    *(builders.file(f"usr/{one}/{two}", b"%d" % two) for one in range(8) for two in range(90)),
)  # fmt: skip
APPS = [Layer.of(builders.file(f"app/{n}", b"%d" % n), builders.whiteout(f"usr/0/{n}")) for n in range(6)]
IMAGES = [Image([BASE, app], {"Cmd": ["run", str(n)], "Env": [f"N={n}"]}) for n, app in enumerate(APPS)]


@pytest.fixture
def table():
    with desk() as made:
        yield made


def blob_path(layer: Layer, name: str = "some/image") -> str:
    return f"/v2/{name}/blobs/{builders.sha256(layer.blob)}"


# --- one image -----------------------------------------------------------------------------


def test_an_image_is_published_under_its_public_name(table: Desk):
    wish = table.hold(IMAGES[0])
    report = table.convert(wish)
    assert (statuses(report), report.revision, report.failed) == (["published"], 2, [])
    record, published = table.record(wish), table.published()
    reference = Reference.parse(wish)
    assert record == report.outcomes[0].record
    assert published.bound(layout.flat_image(record.config_digest)) == record.image_tree
    assert [published.bound(layout.layer_tree(digest)) is not None for digest in record.layers] == [True, True]
    assert published.file(layout.metadata_file(reference, "manifest.json")) == IMAGES[0].manifest
    assert published.file(layout.metadata_file(reference, "config.json")) == IMAGES[0].config
    assert record.published_at == int(table.clock)
    assert table.errors() == []


def test_the_image_is_what_its_layers_make(table: Desk):
    wish = table.hold(IMAGES[1])
    table.convert(wish)
    rows = table.image_rows(wish)
    assert b"/usr/0/1" not in rows
    assert {b"/usr/0/0", b"/app/1", b"/etc/os"} <= rows.keys()
    assert table.repository.read(entry_of(rows[b"/app/1"])) == b"1"


def test_asking_again_publishes_nothing_and_fetches_nothing(table: Desk):
    wish = table.hold(IMAGES[0])
    table.convert(wish)
    table.server.seen.clear()
    report = table.convert(wish)
    assert (statuses(report), report.revision) == (["unchanged"], None)
    assert table.blobs_asked() == []


def test_a_moved_tag_is_published_anew_and_fetches_only_what_is_new(table: Desk):
    wish = table.hold(IMAGES[0])
    table.convert(wish)
    table.hold(IMAGES[1])
    table.server.seen.clear()
    assert statuses(table.convert(wish)) == ["published"]
    assert blob_path(BASE) not in table.blobs_asked()
    assert blob_path(APPS[1]) in table.blobs_asked()
    assert table.record(wish).config_digest == Digest.parse(builders.sha256(IMAGES[1].config))
    assert table.errors() == []


@pytest.mark.parametrize("count", [0, 1, 127])
def test_an_image_may_have_any_number_of_layers(table: Desk, count):
    layers = [Layer.of(builders.file(f"f{number}", b"x"), compression="none") for number in range(count)]
    wish = table.hold(Image(layers))
    assert statuses(table.convert(wish)) == ["published"]
    assert sum(path.startswith(b"/f") for path in table.image_rows(wish)) == count
    assert len(table.record(wish).layers) == count
    assert table.errors() == []


def test_the_same_layer_may_be_in_an_image_twice(table: Desk):
    wish = table.hold(Image([BASE, APPS[0], BASE]))
    assert statuses(table.convert(wish)) == ["published"]
    assert b"/usr/0/0" in table.image_rows(wish)
    assert table.server.asked().count(blob_path(BASE)) == 1
    assert table.errors() == []


def test_an_index_is_published_beside_its_image(table: Desk):
    wish = table.hold(builders.Index([IMAGES[0]]))
    table.convert(wish)
    path = layout.metadata_file(Reference.parse(wish), "index.json")
    assert table.published().file(path) == builders.Index([IMAGES[0]]).manifest


def test_two_names_of_one_image_share_its_tree(table: Desk):
    wishes = [table.hold(IMAGES[0], "one"), table.hold(IMAGES[0], "two")]
    assert statuses(table.convert(*wishes)) == ["published"] * 2
    assert table.record(wishes[0]).image_tree == table.record(wishes[1]).image_tree
    assert len([path for path in table.trees() if path.startswith(b"/.flat")]) == 1


def test_what_was_left_out_of_an_image_is_said(table: Desk):
    odd = Layer.of(builders.file("f", xattrs={"trusted.overlay.opaque": b"y"}), builders.file(".cvmfscatalog"))
    wish = table.hold(Image([odd], {"Env": ["NO-NAME=1"]}))
    table.convert(wish)
    text = "\n".join(table.record(wish).warnings)
    assert "trusted.overlay" in text
    assert "NO-NAME" in text
    assert "control name" in text
    assert table.errors() == []


def test_apptainers_files_are_in_the_image(table: Desk):
    wish = table.hold(Image([BASE], {"Cmd": ["it's", "me"]}))
    table.convert(wish)
    fresh = Repository(table.repository.fqrn, table.store)
    root = fresh.catalogs.load(table.record(wish).image_tree)
    entry = find(root, b"/.singularity.d/runscript", fresh.catalogs.open_nested)
    assert b"me" in fresh.read(entry)


# --- many images ---------------------------------------------------------------------------


def test_all_that_is_granted_becomes_visible_in_one_revision(table: Desk):
    wishes = [table.hold(image, f"t{number}") for number, image in enumerate(IMAGES)]
    report = table.convert(*wishes)
    assert statuses(report) == ["published"] * 6
    assert report.revision == 2
    assert table.errors() == []


def test_a_layer_of_many_images_is_fetched_once(table: Desk):
    wishes = [table.hold(image, f"t{number}", f"some/image{number}") for number, image in enumerate(IMAGES)]
    table.convert(*wishes, workers=4)
    fetched = [path for path in table.blobs_asked() if path.endswith(builders.sha256(BASE.blob))]
    assert len(fetched) == 1
    for layer in APPS:
        assert len([path for path in table.blobs_asked() if path.endswith(builders.sha256(layer.blob))]) == 1


def test_which_images_a_layer_belongs_to_is_published_and_grows(table: Desk):
    table.convert(table.hold(IMAGES[0], "t0"))
    table.convert(table.hold(IMAGES[1], "t1"), table.hold(IMAGES[2], "t2"))
    path = layout.layer_file(Digest.parse(builders.sha256(BASE.blob)), "origin.json")
    text = table.published().file(path).decode()
    assert all(builders.sha256(image.config) in text for image in IMAGES[:3])


def corrupted(layer: Layer) -> Layer:
    return Layer(layer.tar, layer.compression, layer.diff_id, layer.blob[:-9] + b"\0" * 9)


def linking() -> Layer:
    return Layer.of(builders.hard_link("a", "nobody/has/this"))


BROKEN = {
    "a damaged layer": (Image([BASE, corrupted(APPS[0])]), None),
    "a hard link to nothing": (Image([BASE, linking()]), None),
    "a layer that lies about its tar": (Image([Layer(APPS[5].tar, diff_id=builders.sha256(b"other"))]), None),
    "a layer that leaves its root": (Image([Layer.of(builders.file("../x"))]), None),
    "a missing layer": (Image([Layer.of(builders.file("missing"))]), Answer(404)),
    "a layer that cannot be had": (Image([Layer.of(builders.file("failing"))]), Answer(500)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_image_that_fails_leaves_the_others_granted(table: Desk, name):
    image, answer = BROKEN[name]
    good = [table.hold(IMAGES[0], "a"), table.hold(IMAGES[1], "z")]
    bad = table.hold(image, "m")
    if answer:
        table.server.say_always(blob_path(image.layers[0]), answer)
    report = table.convert(good[0], bad, good[1])
    assert statuses(report) == ["published", "failed", "published"]
    assert report.failed[0].image == bad
    assert not isinstance(report.failed[0].error, UnexpectedFailure)
    assert report.revision == 2
    assert table.record(bad) is None
    assert table.errors() == []
    assert [type(step) for step in table.plan(good[0], bad, good[1])] == [Keep, Convert, Keep]


def test_when_nothing_can_be_granted_nothing_is_published(table: Desk):
    report = table.convert(table.hold(Image([linking()])))
    assert (statuses(report), report.revision) == (["failed"], None)
    assert table.repository.head().manifest.revision == 1
    assert table.store._staged == {}


def test_a_fault_of_ours_in_one_image_costs_that_image_alone(caplog, monkeypatch, table: Desk):
    wishes = [table.hold(image, f"t{number}") for number, image in enumerate(IMAGES[:3])]
    real = assembly.with_apptainer_files

    def with_apptainer_files(root, config, repository):
        if config.cmd == ("run", "1"):
            raise ZeroDivisionError("oh")
        return real(root, config, repository)

    monkeypatch.setattr(assembly, "with_apptainer_files", with_apptainer_files)
    report = table.convert(*wishes)
    assert statuses(report) == ["published", "failed", "published"]
    assert isinstance(report.failed[0].error, UnexpectedFailure)
    assert "ZeroDivisionError: oh" in str(report.failed[0].error)
    assert wishes[1] in caplog.text
    assert "Traceback" in caplog.text
    assert table.errors() == []


def test_a_fault_of_ours_while_fetching_costs_that_image_alone(caplog, monkeypatch, table: Desk):
    wishes = [table.hold(image, f"t{number}", f"n/{number}") for number, image in enumerate(IMAGES[:3])]
    real = table.registry.resolve_platforms

    def resolve_platforms(reference, *which):
        if reference.repository == "n/1":
            raise RuntimeError("unforeseen")
        return real(reference, *which)

    monkeypatch.setattr(table.registry, "resolve_platforms", resolve_platforms)
    assert statuses(table.convert(*wishes)) == ["published", "failed", "published"]


def test_what_was_given_up_before_is_reported_in_its_place(table: Desk):
    wish = table.hold(IMAGES[0])
    report = table.convert(table.server.reference(name="no/such"), wish)
    assert statuses(report) == ["failed", "published"]


def test_the_observer_hears_of_every_layer_and_every_image(table: Desk):
    heard, bytes_seen = [], {}

    class Counting(LayerProgress):
        def __init__(self, digest):
            self.digest = digest

        def advance(self, size):
            bytes_seen[self.digest] = bytes_seen.get(self.digest, 0) + size

    class Listening(Unobserved):
        def layer(self, digest, size):
            heard.append((digest, size))
            return nullcontext(Counting(digest))

        def image(self, name, status, reason):
            heard.append((name, status, bool(reason)))

    table.observer = Listening()
    wish, bad = table.hold(IMAGES[0], "a"), table.hold(Image([linking()]), "b")
    table.convert(wish, bad)
    digest = Digest.parse(builders.sha256(BASE.blob))
    assert (digest, len(BASE.blob)) in heard
    assert bytes_seen[digest] == len(BASE.blob)
    assert heard[-2:] == [(wish, "published", False), (bad, "failed", True)]


# --- what images do to one another (F46) ---------------------------------------------------


@pytest.mark.parametrize("liar_first", [True, False])
def test_an_image_that_lies_about_a_shared_layer_fails_alone(table: Desk, liar_first):
    liar = Image([Layer(BASE.tar, BASE.compression, builders.sha256(b"a lie"), BASE.blob), APPS[0]])
    lie, truth = table.hold(liar, "lie", "n/lie"), table.hold(IMAGES[1], "truth", "n/truth")
    for name in ("n/lie", "n/truth"):
        table.server.say(blob_path(BASE, name), Answer(body=BASE.blob, silence_seconds=0.2))
    report = table.convert(*((lie, truth) if liar_first else (truth, lie)))
    by_image = {outcome.image: outcome for outcome in report.outcomes}
    assert by_image[truth].status == "published"
    assert isinstance(by_image[lie].error, DiffIdMismatch)
    assert table.errors() == []


def test_an_image_that_lies_about_a_published_layer_fails(table: Desk):
    table.convert(table.hold(IMAGES[0]))
    liar = Image([Layer(BASE.tar, BASE.compression, builders.sha256(b"a lie"), BASE.blob)])
    report = table.convert(table.hold(liar, "lie"))
    assert isinstance(report.failed[0].error, DiffIdMismatch)


@pytest.mark.parametrize("answer", [Answer(404, silence_seconds=0.2), Answer(403, silence_seconds=0.2)])
def test_a_layer_that_one_image_name_does_not_have_is_got_under_the_next(table: Desk, answer):
    wishes = [table.hold(image, "t", f"n/{number}") for number, image in enumerate(IMAGES[:4])]
    table.server.say_always(blob_path(BASE, "n/0"), answer)
    report = table.convert(*wishes)
    assert statuses(report) in (["failed", *["published"] * 3], ["published"] * 4)
    assert all(table.record(wish) for wish in wishes[1:])
    assert table.errors() == []


def test_a_layer_that_nobody_can_read_is_not_fetched_again_for_each_image_of_one_name(table: Desk):
    bad = corrupted(BASE)
    wishes = [table.hold(Image([bad, app]), f"t{number}") for number, app in enumerate(APPS)]
    assert statuses(table.convert(*wishes)) == ["failed"] * 6
    assert table.server.asked().count(blob_path(bad)) <= 12  # a retry each at most


def test_a_pool_gives_a_layer_once_to_any_number_who_ask_at_once():
    made, barrier = [], threading.Barrier(8)

    class Nothing:
        def layer(self, digest):
            return None

    def fetch(wanted):
        made.append(wanted.descriptor)
        return "tree"

    descriptor = SimpleNamespace(digest=Digest.of(b""))
    reference = Reference.parse("registry.example.org/some/image:tag")
    with ThreadPoolExecutor(2) as fetchers, ThreadPoolExecutor(8) as askers:
        pool = LayerPool(Nothing(), fetch, fetchers)

        def ask(_):
            barrier.wait()
            return pool.request(LayerWish(reference, descriptor, Digest.of(b"x")))()

        got = list(askers.map(ask, range(8)))
    assert [one.tree for one in got] == ["tree"] * 8
    assert [one.fetched for one in got].count(True) == 1
    assert len(made) == 1


SHARED = {
    "links to what differs": (builders.hard_link("etc/link", "etc/both"), False),
    "passes through": (builders.file("etc/new"), False),
    "is opaque at its root": (builders.opaque(""), False),
    "hides what only the second has": (builders.whiteout("second"), True),
    "is opaque": (builders.directory("etc"), builders.opaque("etc"), True),
    "passes through what it makes opaque": (builders.file("etc/new"), builders.opaque("etc"), False),
    "puts a file": (builders.file("new"), True),
}
NAMES = (b"first", b"second")


def two_stacks(table: Desk, *shared: object) -> tuple[Layer, list[str], list[Digest]]:
    """One layer in two images, on different ones: it, the wishes for the images, and the stacks' chain ids."""
    layer = Layer.of(*shared, builders.file("own"))
    below = [
        Layer.of(builders.directory("etc", mode=0o700 + n), builders.file("etc/both", name), builders.file(name))
        for n, name in enumerate(NAMES)
    ]
    wishes = [table.hold(Image([one, layer], {"Cmd": [str(n)]}), f"t{n}") for n, one in enumerate(below)]
    stacks = [chain_ids([Digest.parse(one.diff_id), Digest.parse(layer.diff_id)])[1] for one in below]
    return layer, wishes, stacks


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0,), (1,)])
def test_a_shared_layer_is_completed_for_each_stack_and_says_whether_it_fits_others(table: Desk, shared, order):
    *members, anywhere = SHARED[shared]
    layer, wishes, stacks = two_stacks(table, *members)
    for number in order:
        assert not table.convert(wishes[number]).failed
    digest, published = Digest.parse(builders.sha256(layer.blob)), table.published()
    tree = published.layer(digest)
    assert tree is not None
    assert published.bound(layout.layer_tree(digest)) == tree.ref
    assert (published.file(layout.layer_anywhere(digest)) is not None) == anywhere
    if not anywhere:
        completed = [published.bound(layout.stacked_layer(digest, stack)) for stack in stacks]
        assert [number for number, bound in enumerate(completed) if bound] == sorted(order)
        assert len(set(completed)) == 2  # what differs below differs here, or is not there
    assert table.errors() == []


def test_a_whiteout_that_hides_nothing_in_one_stack_is_not_shown_there(table: Desk):
    """Overlayfs would list its name, wherever nothing of another layer is in the same directory."""
    layer, wishes, stacks = two_stacks(table, builders.whiteout("second"))
    table.convert(*wishes)
    digest, published = Digest.parse(builders.sha256(layer.blob)), table.published()
    catalogs = table.repository.catalogs
    first, second = (published.bound(layout.stacked_layer(digest, stack)) for stack in stacks)
    assert first is not None
    assert second is None  # there, the layer's own tree is right
    assert catalogs.load(first).children.keys() == {b"own"}
    assert catalogs.load(published.bound(layout.layer_tree(digest))).children.keys() == {b"own", b"second"}


@pytest.mark.parametrize("layers", [assembly.MOST_LAYERS_APART, assembly.MOST_LAYERS_APART + 1])
def test_an_image_of_many_layers_is_published_in_one_directory_too(table: Desk, layers):
    stack = [Layer.of(builders.file(f"d/{n}"), builders.whiteout(f"d/{n - 2}")) for n in range(layers)]
    table.convert(table.hold(Image(stack)))
    top = Digest.parse(builders.sha256(stack[-1].blob))
    chain = chain_ids([Digest.parse(layer.diff_id) for layer in stack])[-1]
    whole, catalogs = table.published().bound(layout.whole_stack(top, chain)), table.repository.catalogs
    assert (whole is not None) == (layers > assembly.MOST_LAYERS_APART)
    if whole is not None:
        expected = {b"", b"/d", *(b"/d/%d" % n for n in (layers - 2, layers - 1))}
        assert {path for path, _ in nodes(catalogs.load(whole), catalogs)} == expected
    assert table.errors() == []


def test_layers_are_the_same_trees_whichever_of_two_stacks_comes_first(table: Desk):
    _, wishes, _ = two_stacks(table, builders.hard_link("etc/link", "etc/both"), builders.whiteout("second"))
    table.convert(*wishes)
    with fake_registry() as server:
        other = Desk(server)
        _, wishes, _ = two_stacks(other, builders.hard_link("etc/link", "etc/both"), builders.whiteout("second"))
        for wish in reversed(wishes):
            other.convert(wish)
        assert other.trees() == table.trees()


def test_layers_of_a_publisher_that_did_not_say_where_they_fit_are_published_anew_without_fetching(table: Desk):
    wish = table.hold(IMAGES[0])
    table.convert(wish)
    trees, layers = table.trees(), [Digest.parse(builders.sha256(layer.blob)) for layer in IMAGES[0].layers]
    with table.store.session():
        marks = [
            Remove(path) for layer in layers for path in (layout.layer_anywhere(layer), layout.layer_stacks(layer))
        ]
        commit(table.repository, table.keys, marks, lambda: table.clock)
    table.server.seen.clear()
    assert statuses(table.convert(wish)) == ["published"]
    assert (table.trees(), table.blobs_asked()) == (trees, [])
    assert statuses(table.convert(wish)) == ["unchanged"]
    assert table.errors() == []


def test_a_directory_that_a_shared_layer_passes_through_is_exact_in_each_image(table: Desk):
    passing = Layer.of(builders.file("etc/new", b"n"))
    below = [Layer.of(builders.directory("etc", mode=mode)) for mode in (0o700, 0o711)]
    wishes = [table.hold(Image([one, passing], {"Cmd": [str(n)]}), f"t{n}") for n, one in enumerate(below)]
    table.convert(*wishes)
    assert [entry_of(table.image_rows(wish)[b"/etc"]).mode & 0o777 for wish in wishes] == [0o700, 0o711]
    assert table.errors() == []


# --- the same trees, always ----------------------------------------------------------------

BIG = Layer.of(
    builders.file("big", noise(1, 1 << 20) * 18), builders.file("big2", noise(2, 3 << 20)), compression="none"
)


def converted(order: list[int], workers: int, fqrn: str = "test.example.org", together: bool = True):
    """All trees of all images, by where they are bound; config digests and layer digests are in those paths."""
    images = [*IMAGES, Image([BIG])]
    with fake_registry() as server:
        table = Desk(server, fqrn)
        wishes = [table.hold(images[number], f"t{number}") for number in order]
        for some in [wishes] if together else [[wish] for wish in wishes]:
            assert not table.convert(*some, workers=workers).failed
        assert table.errors() == []
        return table.trees()


def test_trees_depend_on_nothing_but_the_images():
    order = list(range(7))
    shuffled = random.Random(5).sample(order, 7)
    expected = converted(order, 1)
    assert len(expected) == 7 + 8 + 7  # images, layers, and those layers that pass through directories, in their stacks
    assert all(isinstance(ref, tuple) for ref in expected.values())
    assert converted(order, 4) == expected
    assert converted(shuffled, 3, "another.example.org", together=False) == expected


def test_a_run_after_a_run_that_was_lost_gives_the_same(table: Desk):
    """The store forgets what was not flushed; a second run begins with some objects there, and some not."""
    wish = table.hold(IMAGES[0])
    steps = table.plan(wish)
    table.run(steps)
    expected = table.trees()
    with fake_registry() as server:
        other = Desk(server)
        objects = list(table.store.objects.items())
        other.store.objects.update(objects[::2])
        other.convert(other.hold(IMAGES[0]))
        assert other.trees() == expected
        assert other.errors() == []


def test_a_bind_repeats_its_trees_root(table: Desk):
    wish = table.hold(IMAGES[0])
    table.convert(wish)
    record = table.record(wish)
    node = table.repository.find(table.repository.head(), layout.flat_image(record.config_digest))
    assert isinstance(node, Bind)
    root = table.repository.catalogs.load(node.ref).entry
    assert node.entry == root._replace(name=record.config_digest.hex.encode())


def test_wishes_that_were_given_up_make_no_revision(table: Desk):
    steps = table.plan(table.server.reference(name="no/such"))
    assert isinstance(steps[0], GiveUp)
    assert table.run(steps).revision is None

"""The stores for podman say of every published image what podman would say of it had it pulled it, and no more."""

import json
import random

import pytest

from ducc import layout
from ducc.catalog.tree import Bind
from ducc.convert.podman import IMAGES, LAYERS, LOCKS, MOST_LAYERS, file_name, layer_ids, names_of
from ducc.daemon.prune import Wished, plan_prune
from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.publish.changes import EditRows, PutFile, Remove
from ducc.publish.commit import commit
from ducc.publish.repository import Repository
from tests import builders
from tests.builders import Image, Index, Layer, sha256
from tests.unit.convert.desk import Desk, desk, statuses

STORE, FLAT = b"/podmanStore", b"/podmanStore/flat"
BASE, APP, OTHER = (Layer.of(builders.file(name, name.encode())) for name in ("base", "app", "other"))
PLAIN_BASE = Layer(BASE.tar, "none")
ONE, TWO = Image([BASE, APP], {"Cmd": ["one"]}), Image([BASE, OTHER], {"Cmd": ["two"]})
ARM = Image([BASE, OTHER], {"Cmd": ["arm"]}, {"os": "linux", "architecture": "arm64"})


@pytest.fixture
def table():
    with desk() as made:
        yield made


class Store:
    """What podman would find."""

    def __init__(self, table: Desk, path: bytes = STORE) -> None:
        self.published, self.path = table.published(), path
        self.images = {row["id"]: row for row in self._rows(IMAGES)}
        self.layers = {row["id"]: row for row in self._rows(LAYERS)}

    def _rows(self, table: bytes) -> list[dict]:
        data = self.published.file(self.path + table)
        return json.loads(data) if data else []

    def image(self, name: str) -> dict:
        (found,) = [row for row in self.images.values() if name in row["names"]]
        return found

    def stack(self, name: str) -> list[dict]:
        """The layers of an image, topmost first."""
        found, layer = [], self.image(name).get("layer")
        while layer:
            found.append(self.layers[layer])
            layer = self.layers[layer].get("parent")
        return found

    def directory(self, layer: str) -> bytes:
        """Where a layer's link leads."""
        path = self.path + f"/overlay/{layer}".encode()
        target = self.published.link(path + b"/diff")
        assert target.startswith(b"../" * path.count(b"/"))
        return b"/" + target.replace(b"../", b"")

    def text(self, layer: str, name: str) -> str:
        return (self.published.file(self.path + f"/overlay/{layer}/{name}".encode()) or b"").decode()

    def errors(self) -> list[str]:
        """What is not as it should be: dangling, missing, or there for no layer and no image."""
        short = {self.text(layer, "link"): layer for layer in self.layers}
        expected = {"l", *self.layers}
        found = {path.rpartition(b"/")[2].decode() for path in self.published.below(self.path + b"/overlay")}
        errors = [f"overlay/{name}" for name in expected ^ found] if self.layers else []
        links = {path.rpartition(b"/")[2].decode() for path in self.published.below(self.path + b"/overlay/l")}
        errors += [f"overlay/l/{name}" for name in links ^ short.keys()]
        for layer, row in self.layers.items():
            below, parent = [], row.get("parent")
            while parent:
                below.append(f"l/{self.text(parent, 'link')}")
                parent = self.layers[parent].get("parent")
            if self.text(layer, "lower") != ":".join(below):
                errors.append(f"overlay/{layer}/lower")
            if not isinstance(self.published._find(self.directory(layer)), Bind):
                errors.append(f"overlay/{layer}/diff")
        images = {path.rpartition(b"/")[2].decode() for path in self.published.below(self.path + b"/overlay-images")}
        errors += [f"overlay-images/{name}" for name in images ^ {*self.images, "images.json", "images.lock"}]
        names = [name for row in self.images.values() for name in row["names"]]
        return errors + [f"{name} twice" for name in names if names.count(name) > 1]


def name(table: Desk, tag: str) -> str:
    return f"{table.server.host}/some/image:{tag}"


# --- one image -----------------------------------------------------------------------------


def test_an_image_has_the_layers_that_podman_would_give_it(table: Desk):
    table.convert(table.hold(ONE, "1"))
    store = Store(table)
    top, base = store.stack(name(table, "1"))
    assert base["id"] == BASE.diff_id.removeprefix("sha256:")
    assert [top["id"]] == layer_ids([Digest.parse(BASE.diff_id), Digest.parse(APP.diff_id)])[1:]
    assert (top["diff-digest"], top["compressed-diff-digest"]) == (APP.diff_id, sha256(APP.blob))
    assert (top["diff-size"], top["compressed-size"], top["compression"]) == (len(APP.tar), len(APP.blob), 2)
    assert store.directory(top["id"]) == layout.layer_tree(Digest.parse(sha256(APP.blob)))
    assert store.errors() == []


def test_ids_of_layers_are_those_of_podman():
    """As podman 4.3 names the layers of a real image."""
    diff_ids = [
        "7771041e29f697d3c3c35ecf59cc3ccddc1990adece80b7520f441e9aa04b651",
        "ee0de60520d935db79ed7622f87b72adf753e02368119afdef93919d93397032",
    ]
    assert layer_ids([Digest(one) for one in diff_ids]) == [
        "7771041e29f697d3c3c35ecf59cc3ccddc1990adece80b7520f441e9aa04b651",
        "37f396e9c67544dca65cafd0f2c0dc98eda87fa09fb006d6b71867ff327aeb9f",
    ]


def test_an_image_has_its_documents_under_the_names_that_podman_looks_for(table: Desk):
    table.convert(table.hold(ONE, "1"))
    store = Store(table)
    image = store.image(name(table, "1"))
    manifest, config = sha256(ONE.manifest), sha256(ONE.config)
    documents = {"manifest": ONE.manifest, f"manifest-{manifest}": ONE.manifest, config: ONE.config}
    assert (image["id"], image["digest"]) == (config[7:], manifest)
    assert image["big-data-names"] == sorted(documents)
    for key, data in documents.items():
        assert image["big-data-sizes"][key] == len(data)
        assert image["big-data-digests"][key] == sha256(data)
        at = f"/overlay-images/{image['id']}/".encode() + file_name(key)
        assert store.published.file(STORE + at) == data
    assert all(store.published.file(STORE + lock) == b"" for lock in LOCKS)


@pytest.mark.parametrize(
    ("key", "file"), [("manifest", b"manifest"), ("a.0", b"a.0"), ("sha256:ab", b"=c2hhMjU2OmFi"), ("A", b"=QQ==")]
)
def test_documents_have_the_file_names_that_podman_gives_them(key, file):
    assert file_name(key) == file


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ("registry.example.org:5000/a/b:1", ["registry.example.org:5000/a/b:1"]),
        ("ubuntu", ["registry.hub.docker.com/library/ubuntu:latest", "docker.io/library/ubuntu:latest"]),
        (f"h.example.org/a@{sha256(b'')}", [f"h.example.org/a@{sha256(b'')}"]),
        (f"h.example.org/a:1@{sha256(b'')}", ["h.example.org/a:1"]),
    ],
)
def test_an_image_goes_by_the_names_that_people_use(reference, names):
    assert names_of(Reference.parse(reference)) == names


@pytest.mark.parametrize(
    "created", [None, "", "yesterday", "2020-01-02", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]
)
def test_no_date_of_an_image_makes_the_whole_store_unreadable(table: Desk, created):
    image = Image([BASE], platform={"os": "linux", "architecture": "amd64"} | ({"created": created} if created else {}))
    assert statuses(table.convert(table.hold(image, "1"))) == ["published"]
    assert all(len(row["created"]) == 20 and row["created"].endswith("Z") for row in Store(table).images.values())


# --- many ----------------------------------------------------------------------------------


def test_several_tags_of_one_image_are_names_of_one(table: Desk):
    wishes = [table.hold(ONE, tag) for tag in ("1", "2")]
    table.convert(*wishes)
    table.convert(*wishes, table.hold(ONE, "3"))
    store = Store(table)
    (image,) = store.images.values()
    assert image["names"] == [name(table, tag) for tag in "123"]
    assert store.errors() == []


def test_images_share_layers_and_each_layer_lies_on_what_it_lies_on(table: Desk):
    """One layer has another id over another one: with one id it could have one parent only."""
    images = [ONE, TWO, Image([APP, BASE]), Image([BASE, BASE]), Image([APP, OTHER, BASE])]
    table.convert(*(table.hold(image, str(number)) for number, image in enumerate(images)))
    store = Store(table)
    assert store.errors() == []
    for number, image in enumerate(images):
        digests = [row["diff-digest"] for row in store.stack(name(table, str(number)))]
        assert digests[::-1] == [layer.diff_id for layer in image.layers]


def test_a_tag_that_moves_takes_its_name_along_and_leaves_the_image_to_who_runs_it(table: Desk):
    wish = table.hold(ONE, "1")
    table.convert(wish)
    table.hold(TWO, "1")
    table.convert(wish)
    store = Store(table)
    assert store.image(name(table, "1"))["id"] == sha256(TWO.config)[7:]
    assert store.images[sha256(ONE.config)[7:]]["names"] == []
    assert store.errors() == []


def test_one_image_in_two_compressions_is_one_with_two_manifests(table: Desk):
    other = Image([PLAIN_BASE, APP], ONE.settings)
    assert other.config == ONE.config
    table.convert(table.hold(ONE, "1"), table.hold(other, "2"))
    (image,) = Store(table).images.values()
    assert {f"manifest-{sha256(one.manifest)}" for one in (ONE, other)} <= set(image["big-data-names"])
    assert Store(table).errors() == []


def test_any_order_of_wishes_makes_the_same_store(table: Desk):
    wishes = [table.hold(image, str(number)) for number, image in enumerate([ONE, TWO, Image([APP, BASE]), Image([])])]
    table.convert(*wishes)
    with desk() as other:
        other.server = table.server
        for wish in random.Random(1).sample(wishes, len(wishes)):
            other.convert(wish)
        for path in (STORE, FLAT):
            assert Store(other, path).images == Store(table, path).images
            assert Store(other, path).layers == Store(table, path).layers


# --- flat ----------------------------------------------------------------------------------


def test_the_flat_store_has_each_image_as_one_layer(table: Desk):
    table.convert(table.hold(ONE, "1"), table.hold(TWO, "2"))
    store = Store(table, FLAT)
    for tag, image in (("1", ONE), ("2", TWO)):
        (layer,) = store.stack(name(table, tag))
        assert store.directory(layer["id"]) == layout.flat_image(Digest.parse(sha256(image.config)))
        assert layer["diff-digest"] == f"sha256:{layer['id']}"  # podman takes one without for damaged
    assert store.errors() == []


def test_the_flat_store_has_the_documents_of_the_other(table: Desk):
    table.convert(table.hold(ONE, "1"))
    at = f"/overlay-images/{sha256(ONE.config)[7:]}".encode()
    target = Store(table, FLAT).published.link(FLAT + at)
    assert target.replace(b"../", b"") == STORE[1:] + at
    assert target.count(b"../") == 3


def test_what_is_wished_for_without_its_root_file_system_is_in_the_layered_store_alone(table: Desk):
    table.convert({"image": table.hold(ONE, "1"), "products": ["layers"]})
    assert Store(table).errors() == []
    assert len(Store(table).images) == 1
    assert Store(table, FLAT).images == {}


@pytest.mark.parametrize("count", [0, MOST_LAYERS, MOST_LAYERS + 1])
def test_an_image_of_more_layers_than_mount_options_have_room_for_has_one(table: Desk, count):
    layers = [Layer.of(builders.file(f"f{number}"), compression="none") for number in range(count)]
    table.convert(table.hold(Image(layers), "1"))
    store = Store(table)
    assert len(store.stack(name(table, "1"))) == (count if count <= MOST_LAYERS else 1)
    assert store.errors() == []


# --- platforms -----------------------------------------------------------------------------


def test_builds_for_other_processors_have_a_store_of_their_own(table: Desk):
    table.convert({"image": table.hold(Index([ONE, ARM]), "1"), "platforms": "all"})
    usual, arm = Store(table), Store(table, b"/.multiarch/arm64/podmanStore")
    assert usual.image(name(table, "1"))["id"] == sha256(ONE.config)[7:]
    assert arm.image(name(table, "1"))["id"] == sha256(ARM.config)[7:]
    assert (usual.errors(), arm.errors()) == ([], [])
    assert Store(table, b"/.multiarch/arm64/podmanStore/flat").errors() == []


# --- removal -------------------------------------------------------------------------------


def prune(table: Desk, *kept: str) -> None:
    """Remove every image but these: scheduled first, then, since it is due, gone."""
    wished = Wished(frozenset(layout.public_link(Reference.parse(wish)) for wish in kept), (), ())
    for _ in range(2):
        fresh = Repository(table.repository.fqrn, table.store)
        with fresh.store.session():
            plan = plan_prune(fresh, fresh.head(), wished, int(table.clock), grace_seconds=0)
            commit(fresh, table.keys, plan.changes, lambda: table.clock)


def test_what_prune_removes_is_gone_from_both_stores_and_shared_layers_stay(table: Desk):
    one, two = table.hold(ONE, "1"), table.hold(TWO, "2")
    table.convert(one, two)
    prune(table, two)
    for path in (STORE, FLAT):
        store = Store(table, path)
        assert list(store.images) == [sha256(TWO.config)[7:]]
        assert [row["diff-digest"] for row in store.stack(name(table, "2"))][:1] != [APP.diff_id]
        assert store.errors() == []
    assert len(Store(table).layers) == 2
    assert table.errors() == []


def test_a_name_that_prune_removes_leaves_the_image_s_others(table: Desk):
    first, second = (table.hold(ONE, tag) for tag in "12")
    table.convert(first, second)
    prune(table, second)
    assert Store(table).image(name(table, "2"))["names"] == [name(table, "2")]
    assert Store(table).errors() == []


def test_prune_removes_images_that_lost_their_names(table: Desk):
    moving, removed = table.hold(ONE, "1"), table.hold(Image([APP]), "2")
    table.convert(moving, removed)
    table.hold(TWO, "1")
    table.convert(moving)
    prune(table, moving)
    assert list(Store(table).images) == [sha256(TWO.config)[7:]]
    assert Store(table).errors() == []


def test_a_layer_that_is_published_twice_leads_to_the_one_that_stays(table: Desk):
    gone, stays = table.hold(Image([PLAIN_BASE, APP], {"Cmd": ["x"]}), "1"), table.hold(ONE, "2")
    table.convert(stays)
    table.convert(gone)
    prune(table, stays)
    assert Store(table).errors() == []
    prune(table)


def test_without_images_there_are_no_stores(table: Desk):
    table.convert({"image": table.hold(Index([ONE, ARM]), "1"), "platforms": "all"}, table.hold(TWO, "2"))
    prune(table)
    published = table.published()
    assert published.below(STORE) == published.below(b"/.multiarch/arm64/podmanStore") == []


# --- repositories that are there -----------------------------------------------------------


def test_a_repository_without_a_store_gets_all_of_it_with_its_next_revision(table: Desk):
    old = table.hold(ONE, "1")
    table.convert(old)
    with table.repository.store.session():
        commit(table.repository, table.keys, [Remove(STORE)], lambda: table.clock)
    assert Store(table).images == {}
    table.convert(old, table.hold(TWO, "2"))
    store = Store(table)
    assert [store.image(name(table, tag))["id"] for tag in "12"] == [sha256(one.config)[7:] for one in (ONE, TWO)]
    assert store.errors() == []


def test_a_table_that_can_not_be_read_is_begun_anew(table: Desk, caplog):
    table.convert(table.hold(ONE, "1"))
    for nonsense in (b"{", b"{}", b'["x"]', b'[{"id": 1}]'):
        with table.repository.store.session():
            rows = EditRows(STORE + IMAGES, ({"id": "a", "names": []},), {"name": "a"})
            commit(table.repository, table.keys, [PutFile(rows.path, nonsense), rows], lambda: table.clock)
        assert Store(table).image("name")["id"] == "a"
    assert "begun anew" in caplog.text


def test_a_layer_that_needs_those_below_is_the_one_completed_for_them(table):
    below = Layer.of(builders.directory("etc", mode=0o700), builders.file("etc/below", b"below"))
    upper = Layer.of(builders.hard_link("etc/link", "etc/below"))
    wish = table.hold(Image([below, upper]))
    table.convert(wish)
    store = Store(table)
    (name,) = names_of(Reference.parse(wish))
    top, bottom = store.stack(name)
    digests = [Digest.parse(sha256(layer.blob)) for layer in (below, upper)]
    stack = chain_ids([Digest.parse(layer.diff_id) for layer in (below, upper)])[1]
    assert store.directory(bottom["id"]) == layout.layer_tree(digests[0])
    assert store.directory(top["id"]) == layout.stacked_layer(digests[1], stack)
    assert store.published.bound(store.directory(top["id"])) is not None

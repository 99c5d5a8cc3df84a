"""Images for several platforms: a build for each, one public link that clients expand, and no build costs another."""

import json

import pytest

from ducc import layout
from ducc.catalog.tree import entry_of
from ducc.convert.builds import SomeBuildsFailed
from ducc.convert.plan import Convert, Keep
from ducc.image.digest import Digest
from ducc.image.platform import NoSuchPlatform
from ducc.image.reference import Reference
from ducc.publish.changes import PutFile, Remove
from ducc.publish.commit import commit
from tests import builders
from tests.builders import Attestation, Image, Index, Layer
from tests.fakes.registry import Answer
from tests.memory import CLOCK, nodes
from tests.unit.convert.desk import Desk, desk, statuses

SHARED = Layer.of(builders.file("etc/shared", b"for all"))


def image(architecture: str, variant: str = "", mark: bytes = b"", os: str = "linux") -> Image:
    own = Layer.of(builders.file("etc/arch", architecture.encode() + variant.encode() + mark))
    platform = {"os": os, "architecture": architecture} | ({"variant": variant} if variant else {})
    return Image([SHARED, own], {"Cmd": [architecture]}, platform)


AMD, ARM64, V7, V6, I386 = image("amd64"), image("arm64", "v8"), image("arm", "v7"), image("arm", "v6"), image("386")
EVERYTHING = Index([AMD, Attestation(AMD), ARM64, V7, V6, I386, image("amd64", os="windows")])
ALL = "all"


@pytest.fixture
def table():
    with desk() as made:
        yield made


def wish(name: str, platforms: object, **settings: object) -> dict[str, object]:
    return {"image": name, "platforms": platforms, **settings}


def builds(table: Desk, name: str) -> list[str]:
    return [record.build for record in table.published().builds(Reference.parse(name))]


def arch(table: Desk, name: str, build: str) -> bytes:
    """What /etc/arch of a build says."""
    record = table.record(name, build)
    assert record is not None
    catalogs = table.repository.catalogs
    rows = dict(nodes(catalogs.load(record.image_tree), catalogs))
    return table.repository.read(entry_of(rows[b"/etc/arch"]))


def blob_path(layer: Layer) -> str:
    return f"/v2/some/image/blobs/{builders.sha256(layer.blob)}"


@pytest.mark.parametrize(
    ("platforms", "expected"),
    [
        (ALL, {"amd64": b"amd64", "arm64": b"arm64v8", "arm:v7": b"armv7", "arm:v6": b"armv6", "386": b"386"}),
        (["linux/amd64", "linux/arm64"], {"amd64": b"amd64", "arm64": b"arm64v8"}),
        (["linux/arm/v7", "linux/aarch64"], {"arm:v7": b"armv7", "arm64": b"arm64v8"}),
        (["linux/amd64/v3", "linux/arm/v8"], {"amd64:v3": b"amd64", "arm:v8": b"armv7"}),  # the best that runs there
        (["linux/amd64", "linux/s390x"], {"amd64": b"amd64"}),
    ],
)
def test_each_platform_that_is_wished_for_has_its_own_build(table: Desk, platforms, expected):
    name = table.hold(EVERYTHING)
    report = table.convert(wish(name, platforms))
    assert statuses(report) == ["published"]
    assert {build: arch(table, name, build) for build in builds(table, name)} == expected
    assert table.published().link(layout.public_link(Reference.parse(name))) == layout.variant_target(
        Reference.parse(name)
    )
    assert table.errors() == []
    assert [type(step) for step in table.plan(wish(name, platforms))] == [Keep]


@pytest.mark.parametrize("platforms", [None, ["linux/amd64"], ["linux/arm64"], ["linux/s390x", "linux/amd64"]])
def test_one_platform_keeps_the_paths_that_it_always_had(table: Desk, platforms):
    name = table.hold(EVERYTHING)
    one = name if platforms is None else wish(name, platforms[-1:])
    table.convert(one)
    reference, record = Reference.parse(name), table.record(name)
    assert table.published().link(layout.public_link(reference)) == layout.public_target(
        reference, record.config_digest
    )
    assert builds(table, name) == [""]
    assert [type(step) for step in table.plan(one)] == [Keep]


def test_the_registrys_bytes_stand_beside_each_build(table: Desk):
    name = table.hold(EVERYTHING)
    table.convert(wish(name, ALL))
    published, reference = table.published(), Reference.parse(name)
    assert published.file(layout.metadata_file(reference, "index.json")) == EVERYTHING.manifest
    for build, made in (("amd64", AMD), ("arm64", ARM64), ("arm:v6", V6)):
        assert published.file(layout.metadata_file(reference, "manifest.json", build)) == made.manifest
        assert published.file(layout.metadata_file(reference, "config.json", build)) == made.config
        assert table.record(name, build).source_digest == Digest.parse(builders.sha256(EVERYTHING.manifest))
    assert published.link(b"/.multiarch/aarch64") == b"arm64"
    assert published.link(b"/.multiarch/x86_64") == b"amd64"
    assert published.link(b"/.multiarch/armel") == b"arm:v6"


def test_every_build_is_listed_once(table: Desk):
    name, plain = table.hold(EVERYTHING), table.hold(AMD, "plain")
    table.convert(wish(name, ["linux/amd64", "linux/arm64"]), plain)
    listed = [(record.reference, record.build) for record in table.published().records()]
    assert sorted(listed) == sorted([(plain, ""), (name, "amd64"), (name, "arm64")])


def test_builds_share_what_they_have_in_common(table: Desk):
    name = table.hold(EVERYTHING)
    report = table.convert(wish(name, ALL))
    assert table.server.asked().count(blob_path(SHARED)) == 1
    effort = report.outcomes[0].effort
    assert (
        effort.layer_bytes
        == effort.fetched_bytes
        == len(SHARED.blob) + sum(len(one.layers[1].blob) for one in (AMD, ARM64, V7, V6, I386))
    )


def test_an_image_that_is_no_index_is_the_same_for_all_clients(table: Desk):
    name = table.hold(AMD)
    assert statuses(table.convert(wish(name, ALL))) == ["published"]
    assert builds(table, name) == [""]
    assert [type(step) for step in table.plan(wish(name, ALL))] == [Keep]


def test_what_an_index_does_not_have_is_a_warning_and_none_of_it_an_error(table: Desk):
    name = table.hold(Index([AMD]))
    report = table.convert(wish(name, ["linux/amd64", "linux/s390x"]))
    assert statuses(report) == ["published"]
    assert "s390x" in "".join(report.outcomes[0].record.warnings)
    other = table.hold(Index([AMD]), "other")
    (failed,) = table.convert(wish(other, ["linux/s390x", "linux/ppc64le"])).failed
    assert isinstance(failed.error, NoSuchPlatform)


# --- a build that fails --------------------------------------------------------------------


def damaged() -> Image:
    layer = ARM64.layers[1]
    return Image(
        [SHARED, Layer(layer.tar, diff_id=layer.diff_id, blob=layer.blob[:-9] + b"\0" * 9)], {}, ARM64.platform
    )


def unplaceable() -> Image:
    return Image([Layer.of(builders.hard_link("a", "nobody/has/this"))], {}, ARM64.platform)


@pytest.mark.parametrize("platforms", [ALL, ["linux/arm64", "linux/amd64", "linux/arm/v7"]])
@pytest.mark.parametrize("broken", [damaged(), unplaceable()])
def test_a_build_that_cannot_be_published_costs_no_other(table: Desk, platforms, broken):
    name = table.hold(Index([AMD, broken, V7]))
    report = table.convert(wish(name, platforms))
    (failed,) = report.failed
    assert isinstance(failed.error, SomeBuildsFailed)
    assert "linux/arm64" in str(failed.error)
    assert [record.build for record in failed.records] == sorted(builds(table, name))
    assert builds(table, name) == ["amd64", "arm:v7"]
    assert report.revision == 2
    assert table.errors() == []


@pytest.mark.parametrize("platforms", [ALL, ["linux/arm64", "linux/amd64"]])
@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_build_whose_manifest_cannot_be_had_costs_no_other_and_comes_later(table: Desk, platforms, status):
    name = table.hold(Index([AMD, ARM64]))
    path = f"/v2/some/image/manifests/{builders.sha256(ARM64.manifest)}"
    table.server.say(path, *[Answer(status)] * 6)
    (failed,) = table.convert(wish(name, platforms)).failed
    assert isinstance(failed.error, SomeBuildsFailed)
    assert builds(table, name) == ["amd64"]
    table.server._script.clear()
    (step,) = table.plan(wish(name, platforms))
    assert isinstance(step, Convert)
    published_at = table.record(name, "amd64").published_at
    table.clock += 100
    table.server.seen.clear()
    report = table.run([step])
    assert statuses(report) == ["published"]
    assert [record.build for record in report.outcomes[0].records] == ["arm64"]
    assert blob_path(AMD.layers[1]) not in table.blobs_asked()
    assert table.record(name, "amd64").published_at == published_at
    assert [type(step) for step in table.plan(wish(name, platforms))] == [Keep]
    assert table.errors() == []


@pytest.mark.parametrize("architecture", ["../../x", "a/b", "armv7l", "$(id)", "", "a" * 300])
def test_an_index_that_gives_platforms_hostile_names_publishes_the_others(table: Desk, architecture):
    odd = Image([SHARED], {"Cmd": ["odd"]}, {"os": "linux", "architecture": architecture})
    name = table.hold(Index([AMD, odd]))
    report = table.convert(wish(name, ALL))
    assert statuses(report) == ["published"]
    assert builds(table, name) == ["amd64"]
    assert "can't be published" in "".join(report.outcomes[0].warnings)
    assert table.errors() == []


# --- what changes --------------------------------------------------------------------------


def test_a_moved_tag_moves_all_builds_and_fetches_only_what_is_new(table: Desk):
    name = table.hold(Index([AMD, ARM64]))
    table.convert(wish(name, ALL))
    table.hold(Index([image("amd64", mark=b"2"), ARM64]))
    table.server.seen.clear()
    assert statuses(table.convert(wish(name, ALL))) == ["published"]
    assert (arch(table, name, "amd64"), arch(table, name, "arm64")) == (b"amd642", b"arm64v8")
    assert len({table.record(name, build).source_digest for build in builds(table, name)}) == 1
    assert len([path for path in table.blobs_asked() if path != blob_path(SHARED)]) <= 3  # two configs and a layer
    assert blob_path(SHARED) not in table.blobs_asked()
    assert table.errors() == []


def test_a_platform_that_leaves_the_index_stays_published_and_is_told(table: Desk):
    name = table.hold(Index([AMD, ARM64]))
    table.convert(wish(name, ALL))
    table.hold(Index([image("amd64", mark=b"2")]))
    (outcome,) = table.convert(wish(name, ALL)).outcomes
    assert "arm64 is one of an earlier index" in "".join(outcome.warnings)
    assert (arch(table, name, "amd64"), arch(table, name, "arm64")) == (b"amd642", b"arm64v8")
    assert [type(step) for step in table.plan(wish(name, ALL))] == [Keep]


def test_from_one_platform_to_many_and_back_nobody_loses_an_image(table: Desk):
    name = table.hold(Index([AMD, ARM64]))
    reference = Reference.parse(name)
    table.convert(name)
    assert statuses(table.convert(wish(name, ALL))) == ["published"]
    assert builds(table, name) == ["amd64", "arm64"]
    assert table.errors() == []
    assert statuses(table.convert(name)) == ["published"]
    assert table.published().link(layout.public_link(reference)).startswith(b"../../.flat/")
    assert builds(table, name) == ["", "amd64", "arm64"]
    assert table.errors() == []


@pytest.mark.parametrize("first", [AMD, V6])
def test_what_all_clients_saw_becomes_a_build_when_its_successor_fails(table: Desk, first):
    """A tag is an image for one platform; then it is an index, of which only another build can be had."""
    name = table.hold(first)
    table.convert(name)
    before = table.record(name)
    table.hold(Index([damaged(), V7]))
    assert statuses(table.convert(wish(name, ALL))) == ["failed"]
    own = "amd64" if first is AMD else "arm:v6"
    assert builds(table, name) == sorted([own, "arm:v7"])
    assert table.record(name, own).image_tree == before.image_tree
    assert table.errors() == []


def test_another_single_platform_is_another_image(table: Desk):
    name = table.hold(EVERYTHING)
    table.convert(name)
    (step,) = table.plan(wish(name, ["linux/arm64"]))
    assert isinstance(step, Convert)
    table.run([step])
    assert arch(table, name, "") == b"arm64v8"
    assert [type(step) for step in table.plan(wish(name, ["linux/arm64"]))] == [Keep]


def test_a_tag_that_moves_during_a_pull_is_the_image_that_was_planned(table: Desk):
    old, new = Index([AMD, ARM64]), Index([image("amd64", mark=b"2"), image("arm64", mark=b"2")])
    name = table.hold(old)
    steps = table.plan(wish(name, ALL))
    table.hold(new)
    table.run(steps)
    assert (arch(table, name, "amd64"), arch(table, name, "arm64")) == (b"amd64", b"arm64v8")
    recorded = {table.record(name, build).source_digest for build in builds(table, name)}
    assert recorded == {Digest.parse(builders.sha256(old.manifest))}
    assert statuses(table.convert(wish(name, ALL))) == ["published"]
    assert (arch(table, name, "amd64"), arch(table, name, "arm64")) == (b"amd642", b"arm642")


def test_a_build_published_in_part_only_is_made_again(table: Desk):
    name = table.hold(Index([AMD, ARM64]))
    table.convert(wish(name, ALL))
    reference = Reference.parse(name)
    for part in (
        layout.public_link(reference),
        layout.public_link(reference, "arm64"),
        layout.flat_image(table.record(name, "arm64").config_digest),
        layout.metadata_file(reference, "record.json", "arm64"),
        layout.metadata_file(reference, "index.json"),
    ):
        with table.store.session():
            commit(table.repository, table.keys, [Remove(part)], lambda: CLOCK)
        (step,) = table.plan(wish(name, ALL))
        assert isinstance(step, Convert), part
        table.run([step])
        assert [type(step) for step in table.plan(wish(name, ALL))] == [Keep], part
        assert table.errors() == []


# --- what can't be read back ---------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{}", b"null", json.dumps({"schema": 99}).encode()])
@pytest.mark.parametrize("which", ["record", "build", "layer"])
def test_what_cannot_be_read_back_is_published_again_with_one_warning(table: Desk, caplog, data, which):
    name = table.hold(Index([AMD, ARM64]))
    one = wish(name, ALL) if which == "build" else name
    table.convert(one)
    reference = Reference.parse(name)
    path = {
        "record": layout.metadata_file(reference, "record.json"),
        "build": layout.metadata_file(reference, "record.json", "arm64"),
        "layer": layout.layer_file(Digest.parse(builders.sha256(SHARED.blob)), "tree.json"),
    }[which]
    changes = [PutFile(path, data)]
    with table.store.session():
        commit(table.repository, table.keys, changes, lambda: CLOCK)
    if which == "layer":
        name = one = table.hold(Image([SHARED], {"Cmd": ["new"]}), "new")
    assert statuses(table.convert(one)) == ["published"]
    assert caplog.text.count("unreadable") == 1
    caplog.clear()
    assert [type(step) for step in table.plan(one)] == [Keep]
    other = table.hold(Image([SHARED], {"Cmd": ["other"]}), "third")
    table.server.seen.clear()
    assert statuses(table.convert(other)) == ["published"]
    assert blob_path(SHARED) not in table.blobs_asked()
    assert caplog.text == ""
    assert table.errors() == []

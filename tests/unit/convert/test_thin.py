"""A thin image is made of what is published alone: the same bytes for the same revision, whoever makes them."""

import gzip
import io
import json
import tarfile

import pytest

from ducc.convert.thin import UnusableThinName, thin_name, thin_push
from ducc.errors import BadInput
from ducc.image.reference import Reference
from ducc.image.thin import ThinImage
from tests import builders
from tests.builders import Image, Index, Layer, sha256
from tests.unit.convert.desk import Desk, desk

BASE, APP = Layer.of(builders.file("base", b"b")), Layer.of(builders.file("app", b"a"))
ONE = Image([BASE, APP], {"Env": ["A=1", "CVMFS_IMAGE=no"], "Cmd": ["x"], "User": "7"}, flavour="docker")
ARM = Image([BASE], {"Cmd": ["arm"]}, {"os": "linux", "architecture": "arm", "variant": "v7"})
DIGEST = sha256(b"")


@pytest.fixture
def table():
    with desk() as made:
        yield made


def pushed(table: Desk, wish: str):
    return thin_push(table.repository.fqrn, Reference.parse(wish), table.published())


def file_in(layer: bytes) -> tuple[tarfile.TarInfo, bytes]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as archive:
        (member,) = archive.getmembers()
        return member, archive.extractfile(member).read()


@pytest.mark.parametrize(
    ("template", "reference", "name"),
    [
        ("https://out.example.org/$(repository)_thin$(reference)", "h.example.org/a/b:1", "out.example.org/a/b_thin:1"),
        ("https://out.example.org/$(image)", f"h.example.org/a:1@{DIGEST}", "out.example.org/a:1"),
        ("$(scheme)://$(registry)/thin/$(image)", "h.example.org/a:1", "h.example.org/thin/a:1"),
    ],
)
def test_a_thin_image_is_named_by_a_tag(template, reference, name):
    assert thin_name(template, Reference.parse(reference)) == Reference.parse(name)


@pytest.mark.parametrize(
    ("template", "reference"),
    [
        ("$(scheme)://$(registry)/$(image)", "h.example.org/a:1"),
        ("http://h.example.org/$(image)", "https://h.example.org/a:1"),
        ("https://h.example.org/$(image)", f"h.example.org/a:1@{DIGEST}"),
        ("https://out.example.org/$(image)", f"h.example.org/a@{DIGEST}"),
    ],
)
def test_no_name_is_that_of_the_image_itself_or_a_digest(template, reference):
    with pytest.raises(UnusableThinName) as refused:
        thin_name(template, Reference.parse(reference))
    assert isinstance(refused.value, BadInput)


def test_the_layer_has_one_file_that_says_where_all_others_are(table: Desk):
    wish = table.hold(ONE)
    table.convert(wish)
    image = pushed(table, wish)
    layer, config = image.blobs
    member, data = file_in(layer)
    assert (member.name, member.mode, member.mtime, member.uid, member.gid) == ("thin.json", 0o644, 0, 0, 0)
    thin = ThinImage.parse(data)
    assert thin.origin == wish
    assert [str(one.digest) for one in thin.layers] == [sha256(BASE.blob), sha256(APP.blob)]
    assert all(table.published().bound(one.path.encode()) for one in thin.layers)
    manifest = json.loads(image.manifests[-1].data)
    assert [part["digest"] for part in (manifest["config"], *manifest["layers"])] == [sha256(config), sha256(layer)]
    assert json.loads(config)["rootfs"]["diff_ids"] == [sha256(gzip.decompress(layer))]
    assert json.loads(config)["config"] == {"Env": ["A=1", "CVMFS_IMAGE=true"], "Cmd": ["x"], "User": "7"}


def test_the_same_images_make_the_same_bytes_in_any_revision(table: Desk):
    wish = table.hold(ONE)
    table.convert(wish)
    first = pushed(table, wish)
    table.convert(wish, table.hold(ARM, "other"))
    assert pushed(table, wish) == first


def test_an_index_has_the_builds_that_are_published(table: Desk):
    wish = table.hold(Index([ONE, ARM]))
    table.convert({"image": wish, "platforms": "all"})
    *builds, index = pushed(table, wish).manifests
    entries = json.loads(index.data)["manifests"]
    assert [entry["digest"] for entry in entries] == [str(build.digest) for build in builds]
    assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm"]


def test_what_is_not_published_has_no_thin_image(table: Desk):
    assert pushed(table, table.hold(ONE)) is None

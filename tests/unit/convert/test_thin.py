"""A thin image leads to what its layers have to be in their stack."""

import io
import json
import tarfile
import zlib

import pytest

from ducc import layout
from ducc.convert.thin import thin_push
from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.image.thin import FILE, ThinImage
from tests import builders
from tests.builders import Image, Layer, sha256
from tests.memory import FQRN
from tests.unit.convert.desk import desk

BELOW = Layer.of(builders.directory("etc", mode=0o700), builders.file("etc/below", b"below"))


@pytest.fixture
def table():
    with desk() as made:
        yield made


def thin_paths(table, wish) -> list[str]:
    """Where the layers of the image's thin image are said to be, base first."""
    push = thin_push(FQRN, Reference.parse(wish), table.published())
    digest = json.loads(push.manifests[0].data)["layers"][0]["digest"]
    (layer,) = (blob for blob in push.blobs if sha256(blob) == digest)
    with tarfile.open(fileobj=io.BytesIO(zlib.decompress(layer, wbits=31))) as archive:
        data = archive.extractfile(FILE).read()
    return [one.path for one in ThinImage.parse(data).layers]


def test_a_layer_that_fits_anywhere_stands_at_its_plain_path(table):
    upper = Layer.of(builders.file("own", b"own"))
    wish = table.hold(Image([BELOW, upper]))
    table.convert(wish)
    digests = [Digest.parse(sha256(layer.blob)) for layer in (BELOW, upper)]
    assert thin_paths(table, wish) == [layout.layer_tree(digest).decode() for digest in digests]


def test_a_layer_that_needs_those_below_stands_where_it_was_completed_for_them(table):
    upper = Layer.of(builders.hard_link("etc/link", "etc/below"))
    wish = table.hold(Image([BELOW, upper]))
    table.convert(wish)
    below, digest = (Digest.parse(sha256(layer.blob)) for layer in (BELOW, upper))
    stack = chain_ids([Digest.parse(layer.diff_id) for layer in (BELOW, upper)])[1]
    expected = [layout.layer_tree(below), layout.stacked_layer(digest, stack)]
    assert thin_paths(table, wish) == [path.decode() for path in expected]
    assert table.published().bound(expected[1]) is not None

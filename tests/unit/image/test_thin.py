"""`thin.json` is read as others wrote it and written as they read it; nothing in it leads out of a repository."""

import json

import pytest

from ducc.image.digest import Digest
from ducc.image.thin import LaterThinImage, MalformedThinImage, ThinImage, ThinLayer

HEX = "ab" * 32
URL = f"cvmfs://unpacked.example.org/.layers/ab/{HEX}/layerfs"
OTHERS = {
    "version": "1.0",
    "min_version": "1.0",
    "origin": "https://registry.example.org/library/fedora:latest",
    "layers": [{"digest": HEX, "url": URL}, {"digest": "cd" * 32, "url": URL.replace("ab", "cd")}],
    "comment": "made by hand",
}


def parse(**changes: object) -> ThinImage:
    return ThinImage.parse(json.dumps({**OTHERS, **changes}).encode())


def test_a_file_of_another_program_is_read():
    image = parse()
    assert image.origin == OTHERS["origin"]
    assert image.layers[0] == ThinLayer(Digest(HEX), "unpacked.example.org", f"/.layers/ab/{HEX}/layerfs")
    assert [layer.url for layer in image.layers] == [layer["url"] for layer in OTHERS["layers"]]
    assert image.comment == "made by hand"


def test_what_is_written_is_exactly_the_format():
    layer = ThinLayer(Digest(HEX), "unpacked.example.org", f"/.layers/ab/{HEX}/layerfs")
    written = ThinImage("https://registry.example.org/é:1", (layer,)).to_bytes()
    assert json.loads(written) == {
        "version": "1.0",
        "origin": "https://registry.example.org/é:1",
        "layers": [{"digest": HEX, "url": URL}],
    }


@pytest.mark.parametrize("image", [parse(), parse(comment=None), parse(layers=[])])
def test_what_is_written_is_read_as_it_was(image):
    assert ThinImage.parse(image.to_bytes()) == image


def test_a_digest_may_have_the_name_of_its_hash():
    assert parse(layers=[{"digest": f"sha256:{HEX}", "url": URL}]).layers[0].digest == Digest(HEX)


@pytest.mark.parametrize("version", ["1", "1.0", "1.7"])
def test_later_versions_of_the_same_kind_are_read(version):
    assert parse(version=version, min_version=None).layers


@pytest.mark.parametrize("versions", [{"version": "2.0", "min_version": None}, {"min_version": "1.1"}])
def test_what_needs_a_later_reader_is_refused_by_name(versions):
    with pytest.raises(LaterThinImage, match="needs a reader of version"):
        parse(**versions)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/cvmfs/unpacked.example.org/.layers/x",
        "http://unpacked.example.org/.layers/x",
        "cvmfs://unpacked.example.org",
        "cvmfs://unpacked.example.org/",
        "cvmfs:///etc",
        "cvmfs://../etc/passwd",
        "cvmfs://localhost/x",
        "cvmfs://unpacked.example.org/../../etc",
        "cvmfs://unpacked.example.org/.layers/./x",
        "cvmfs://unpacked.example.org//x",
        "cvmfs://unpacked.example.org/a,upperdir=b",
        "cvmfs://unpacked.example.org/a b",
        "cvmfs://unpacked.example.org/a\\b",
        "cvmfs://unpacked.example.org/a\nb",
        "cvmfs://unpacked.example.org/" + "x" * 300,
    ],
)
def test_no_url_leads_out_of_a_repository_or_into_mount_options(url):
    with pytest.raises(MalformedThinImage):
        parse(layers=[{"digest": HEX, "url": url}])


@pytest.mark.parametrize(
    "changes",
    [
        {"version": None},
        {"version": 1},
        {"version": "one"},
        {"min_version": "1.0.0.0"},
        {"layers": "x"},
        {"layers": [URL]},
        {"layers": [{"digest": "AB" * 32, "url": URL}]},
        {"layers": [{"digest": "../x", "url": URL}]},
        {"layers": [{"digest": HEX}]},
        {"layers": [{"digest": HEX, "url": URL}] * 1001},
        {"origin": ["x"]},
    ],
)
def test_what_is_malformed_is_refused_in_one_line(changes):
    with pytest.raises(MalformedThinImage) as refused:
        parse(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"version": "1.0", "version": "1.0"}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(MalformedThinImage):
        ThinImage.parse(data)

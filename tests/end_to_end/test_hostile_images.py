"""Images that are damaged, or lie, or mean harm: each costs one clear line, and nobody else's image.

All are wished for together with good ones, some of which share layers with bad ones. A line names the image and, where
it is one, the layer; nothing of what it speaks of is published; all else is.
"""

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from tests.builders import Image, Layer, compress, directory, file, hard_link, header, push, sha256
from tests.end_to_end.published import repository
from tests.fakes.registry import Answer, FakeRegistry
from tests.images.small import small

NOISE = Random(20240229).randbytes(300_000)  # what no compressor makes smaller
HTML = b"<!DOCTYPE html><html><title>Please log in</title></html>"
ZEROS = 64 << 20
BOMB_TIMES = 32  # 2 GiB


@dataclass(frozen=True)
class Hostile:
    """What is pushed, what is done to the registry's files then, and what the operator must read.

    *says* is a pattern for the text after the image's name. *layer* is the index of the layer that is to blame.
    """

    image: Image
    says: str
    harm: Callable[..., None] | None = None
    layer: int | None = None


def noisy(name, **settings):
    return Layer.of(directory("opt"), file(f"opt/{name}", name.encode() + NOISE), **settings)


def bottom_and(*layers):
    """An image whose lowest layer is also that of good images."""
    return Image([small().layers[0], *layers])


def truncated(registry, image):
    blob = registry.blob_path(sha256(image.layers[-1].blob))
    blob.write_bytes(blob.read_bytes()[:-1000])


def flipped(registry, image):
    flip(registry.blob_path(sha256(image.layers[-1].blob)))


def flipped_config(registry, image):
    flip(registry.blob_path(sha256(image.config)))


def flipped_manifest(registry, image):
    flip(registry.blob_path(sha256(image.manifest)))


def missing(registry, image):
    registry.blob_path(sha256(image.layers[-1].blob)).unlink()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def archive_with_damaged_header():
    whole = bytearray(noisy("damaged").tar + b"")
    second = whole.index(b"opt/damaged")
    whole[second + 100] ^= 1  # its mode; the checksum no longer holds
    return bytes(whole)


def bomb(compression):
    """Two gigabytes of zeros, in well-formed pieces of one stream."""
    head = header(file("opt/zeros"), BOMB_TIMES * ZEROS)
    zeros = gzip.compress(bytes(ZEROS), 6) if compression == "gzip" else compress(bytes(ZEROS), compression)
    blob = compress(head, compression) + zeros * BOMB_TIMES + compress(bytes(1024), compression)
    return Layer(b"", compression, diff_id=sha256(compression.encode()), blob=blob)


class WrongSize(Image):
    """Its manifest says that the last layer has another size than it has."""

    difference = 0

    @property
    def manifest(self):
        size = len(self.layers[-1].blob)
        return super().manifest.replace(b'"size":%d}' % size, b'"size":%d}' % (size + self.difference))


class TooShort(WrongSize):
    difference = 1


class TooLong(WrongSize):
    difference = -1


SHARED = Layer.of(file("opt/shared", NOISE[:100_000]))  # of a good and of a lying image under one name
LIAR = TooShort([SHARED])
VICTIM = Image([SHARED], {"Cmd": ["honest"]})


HOSTILE = {
    "truncated-blob": Hostile(bottom_and(noisy("truncated")), "the registry has not the .* bytes", truncated, 1),
    "flipped-bit": Hostile(bottom_and(noisy("flipped")), "expected sha256:.*, received sha256:", flipped, 1),
    "flipped-bit-in-plain-tar": Hostile(
        bottom_and(noisy("plain", compression="none")), "expected sha256:.*, received sha256:", flipped, 1
    ),
    "flipped-bit-in-zstd": Hostile(
        bottom_and(noisy("zstd", compression="zstd")), "expected sha256:.*, received sha256:", flipped, 1
    ),
    "flipped-bit-in-config": Hostile(
        Image(small().layers, {"Cmd": ["flipped config"]}), "config .*expected sha256:.*, received", flipped_config
    ),
    "flipped-bit-in-manifest": Hostile(
        Image(small().layers, {"Cmd": ["flipped manifest"]}), "manifest|the server answers 5..", flipped_manifest
    ),
    "missing-blob": Hostile(bottom_and(noisy("missing")), "the registry has no such blob", missing, 1),
    "wrong-diff-id": Hostile(
        bottom_and(Layer(noisy("wrong").tar, diff_id=sha256(b"another"))),
        f"uncompressed: expected {sha256(b'another')}, received sha256:",
        layer=1,
    ),
    "wrong-diff-id-of-a-good-layer": Hostile(
        Image([Layer(small().layers[0].tar, diff_id=sha256(b"another"))]),
        f"uncompressed: expected {sha256(b'another')}, received sha256:",
        layer=0,
    ),
    "longer-than-its-manifest-says": Hostile(TooLong([noisy("long")]), "the registry has not the .* bytes", layer=0),
    "shorter-than-its-manifest-says": Hostile(TooShort([noisy("short")]), "the registry has not the .* bytes", layer=0),
    "upward-name": Hostile(bottom_and(Layer.of(file("opt/../../../etc/passwd"))), r"'opt/\.\./\.\.", layer=1),
    "upward-link": Hostile(bottom_and(Layer.of(hard_link("opt/x", "../../etc/shadow"))), r"'\.\./\.\./", layer=1),
    "link-to-nothing": Hostile(bottom_and(Layer.of(hard_link("opt/x", "no/where"))), "no/where", layer=1),
    "below-a-file": Hostile(bottom_and(Layer.of(file("a"), file("a/b"))), "no directory", layer=1),
    "damaged-header": Hostile(bottom_and(Layer(archive_with_damaged_header())), "checksum", layer=1),
    "cut-archive": Hostile(bottom_and(Layer(noisy("cut").tar[:200_000])), "ends|early|cut", layer=1),
    "no-archive": Hostile(bottom_and(Layer(NOISE, "none")), "neither gzip nor zstd nor tar", layer=1),
    "half-gzip": Hostile(bottom_and(Layer(b"", blob=noisy("half").blob[:-9])), "ends too early", layer=1),
    "gzip-bomb": Hostile(bottom_and(bomb("gzip")), "more than 200 times its compressed size", layer=1),
    "zstd-bomb": Hostile(bottom_and(bomb("zstd")), "more than 200 times its compressed size", layer=1),
}
FAILED = len(HOSTILE) + 4  # and the image that was never pushed, two login pages, a broken line
GOOD = ("small", "small-docker", "small-mixed", "small-index")


@dataclass(frozen=True)
class Story:
    """What a conversion of good and hostile images said and left."""

    made: object
    status: int
    stdout: str
    stderr: str
    registry: object
    captive: FakeRegistry

    def lines_about(self, name):
        """The lines on standard error about the image of that name."""
        return [line for line in self.stderr.splitlines() if f"/{name}:" in line]


@pytest.fixture(scope="module")
def captive():
    """A registry behind a login page: for its manifests, or only for its blobs."""
    fake = FakeRegistry()
    page = Answer(body=HTML, headers={"Content-Type": "text/html; charset=utf-8"})
    image = Image([noisy("captive")])
    fake.hold_image(image, "latest", "hostile/captive-manifest")
    fake.say_always("/v2/hostile/captive-manifest/manifests/latest", page)
    fake.hold_image(image, "latest", "hostile/captive-blob")
    fake.say_always(f"/v2/hostile/captive-blob/blobs/{sha256(image.layers[0].blob)}", page)
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def story(images, registry, captive, tmp_path_factory):
    for name, hostile in HOSTILE.items():
        push(registry.host, f"hostile/{name}", "latest", hostile.image)
    for hostile in HOSTILE.values():
        if hostile.harm:
            hostile.harm(registry, hostile.image)
    bad = [f"http://{registry.host}/hostile/{name}:latest" for name in (*HOSTILE, "never-pushed")]
    bad += [f"http://{captive.host}/hostile/{name}:latest" for name in ("captive-manifest", "captive-blob")]
    good = [images(name).wish for name in GOOD]
    wishes = [*good[:2], *bad, "http://no tag/", *good[2:]]
    with repository(tmp_path_factory.mktemp("hostile") / "repository") as made:
        wishlist = made.wishlist(*wishes)
        done = made.ducc("convert", wishlist, *made.publisher, status=None, timeout=600)
        yield Story(made, done.status, done.stdout, done.stderr, registry, captive)


def test_the_exit_status_says_that_some_wishes_failed(story):
    assert story.status == 3
    assert f"{len(GOOD)} published, 0 unchanged, {FAILED} failed; revision 2;" in story.stdout.splitlines()[-1]


def test_nothing_but_one_line_for_each_is_written(story):
    lines = story.stderr.splitlines()
    assert len(lines) == FAILED, story.stderr
    assert all(line.startswith("ducc: ") for line in lines)


@pytest.mark.parametrize("name", HOSTILE)
def test_one_line_names_image_layer_and_reason(name, story):
    hostile = HOSTILE[name]
    (line,) = story.lines_about(f"hostile/{name}")
    assert re.search(hostile.says, line), line
    if hostile.layer is not None:
        assert sha256(hostile.image.layers[hostile.layer].blob) in line
    assert line.count(f"/{name}:") == 1
    assert len(line) < 400


@pytest.mark.parametrize(("name", "what"), [("captive-manifest", "image"), ("captive-blob", "blob sha256:")])
def test_a_login_page_is_called_one(name, what, story):
    (line,) = story.lines_about(f"hostile/{name}")
    assert f"a web page came instead of the {what}" in line


def test_an_image_that_does_not_exist_is_said_not_to(story):
    (line,) = story.lines_about("hostile/never-pushed")
    assert "the registry has no such image" in line


def test_a_broken_line_is_named_by_file_line_and_column(story):
    (line,) = [line for line in story.stderr.splitlines() if "no tag/" in line]
    assert re.match(r"ducc: .*wishlist-0\.yaml:\d+:5: ", line), line


def test_only_the_good_images_are_published(story, images, tmp_path):
    """Not a tree more than had the bad ones never been wished for, and nothing wrong with what there is."""
    wishes = {images(name).wish for name in GOOD}
    assert {image["image"] for image in story.made.images()} == wishes
    with repository(tmp_path / "good") as good:
        good.convert(*sorted(wishes))
        assert story.made.trees() == good.trees()
    assert "no problems found" in story.made.check()
    assert story.made.staged() == []


def test_a_lie_about_a_layer_costs_no_honest_image_under_the_same_name(registry, tmp_path):
    """The liar comes first, and has the layer fetched by its own manifest's word."""
    push(registry.host, "shared", "liar", LIAR)
    push(registry.host, "shared", "victim", VICTIM)
    wishes = [f"http://{registry.host}/shared:{tag}" for tag in ("liar", "victim")]
    with repository(tmp_path / "repository") as made:
        made.convert(*wishes, status=None)
        assert wishes[1] in {image["image"] for image in made.images()}


def test_the_report_for_programs_says_the_same(story, images):
    """And asking again changes nothing: what failed fails, what was granted stays."""
    files = story.made.files()
    bad = [f"http://{story.registry.host}/hostile/{name}:latest" for name in ("flipped-bit", "upward-name")]
    report = story.made.convert(images("small").wish, *bad, status=3)
    assert report["revision"] is None
    assert [image["status"] for image in report["images"]] == ["unchanged", "failed", "failed"]
    for image in report["images"][1:]:
        (line,) = [line for line in story.stderr.splitlines() if line.startswith(f"ducc: {image['image']}: ")]
        assert line.endswith(image["error"]["text"])
    assert story.made.files() == files


def test_an_unusable_wishlist_is_refused_and_others_are_granted(images, tmp_path):
    with repository(tmp_path / "repository") as made:
        unusable = tmp_path / "unusable.yaml"
        unusable.write_text(f"version: 2\ncvmfs_repo: {made.fqrn}\ninput: []\n")
        no_yaml = tmp_path / "no.yaml"
        no_yaml.write_text("version: [1\n")
        good = made.wishlist(images("small").wish)
        done = made.ducc("convert", unusable, no_yaml, tmp_path / "missing.yaml", good, *made.publisher, status=2)
        lines = done.stderr.splitlines()
        assert len(lines) == 3, done.stderr
        assert re.search(r"unusable\.yaml:1:10: version must be 1", lines[0])
        assert re.search(r"no\.yaml:\d+:\d+: ", lines[1])
        assert re.search(r"missing\.yaml: ", lines[2])
        assert [image["image"] for image in made.images()] == [images("small").wish]

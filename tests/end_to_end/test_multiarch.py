"""Images for several platforms, through a real registry and the console script, judged by the stock programs.

Each build is what `umoci unpack` makes of it; whoever mounts the repository finds the one for its own processor.
"""

import os
import platform

import pytest

from tests.builders import (
    Attestation,
    Image,
    Index,
    Layer,
    directory,
    file,
    push,
    sha256,
    symlink,
    whiteout,
    write_layout,
)
from tests.end_to_end import stock
from tests.end_to_end.published import less_apptainer_files, repository
from tests.needs import need_fuse, need_root
from tests.trees import differences, scan, unpack

pytestmark = pytest.mark.engine

FQRN = f"m{os.getpid()}.ducc.test"  # short, since it is part of names of sockets
ARCHITECTURES = {"amd64": "", "arm64": "v8", "arm": "v7", "386": ""}
NAMES = ("amd64", "arm64", "arm:v7", "386")
SHARED = Layer.of(directory("usr"), file("usr/shared", b"for all" * 1000), file("usr/gone"), symlink("lib", "usr"))


KERNELS = {  # what a client may call its processor
    "x86_64": "amd64",
    "i686": "386",
    "i386": "386",
    "aarch64": "arm64",
    "arm64": "arm64",
    "arm64:v8": "arm64",
    "armv7l": "arm",
    "armhf": "arm",
}


def build(architecture: str, variant: str) -> Image:
    own = Layer.of(directory("etc"), file("etc/arch", architecture.encode()), whiteout("usr/gone"))
    named = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
    return Image([SHARED, own], {"Cmd": ["/bin/sh"], "Env": [f"ARCH={architecture}"]}, named)


IMAGES = [build(architecture, variant) for architecture, variant in ARCHITECTURES.items()]
INDEX = Index([IMAGES[0], Attestation(IMAGES[0]), *IMAGES[1:]])


@pytest.fixture(scope="module")
def pushed(registry):
    stock.need_stock()
    push(registry.host, "multi/arch", "1", INDEX)
    return f"http://{registry.host}/multi/arch:1"


@pytest.fixture(scope="module")
def made(pushed, tmp_path_factory):
    with repository(tmp_path_factory.mktemp("multiarch") / "made", fqrn=FQRN) as published:
        single = ["convert-single-image", pushed, published.fqrn, *published.publisher]
        published.ducc(*single, "--platform", "all")
        yield published


@pytest.fixture(scope="module")
def url(made):
    with made.served() as served:
        yield served


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """What umoci makes of each build, by its name."""
    need_root()
    where = tmp_path_factory.mktemp("unpacked")
    layout = write_layout(
        where / "layout", {name.replace(":", "-"): image for name, image in zip(NAMES, IMAGES, strict=True)}
    )
    return {name: scan(unpack(layout, name.replace(":", "-"), where / name.replace(":", "-"))) for name in NAMES}


def shown_at(name: str) -> str:
    return name.removeprefix("http://")


def test_every_build_is_listed_with_its_path(made, pushed):
    assert sorted(image["path"] for image in made.images()) == [
        f"/.multiarch/{build}/{shown_at(pushed)}" for build in sorted(NAMES)
    ]
    assert made.ducc("images", made.fqrn, *made.where).lines[0].endswith("revision 2: 1 images")


def test_the_stock_client_shows_each_build_as_umoci_unpacks_it(made, url, pushed, trees):
    with stock.mounted(made, url) as root:
        for name, wanted in trees.items():
            seen = scan((root / ".multiarch" / name / shown_at(pushed)).resolve(strict=True))
            assert differences(less_apptainer_files(seen, wanted), wanted) == []


def test_the_public_name_is_the_build_for_the_clients_processor(made, url, pushed):
    """The stock client calls its processor as the kernel does, and lets no setting change that."""
    name = shown_at(pushed)
    with stock.mounted(made, url) as root:
        assert os.readlink(root / name) == f"../../.multiarch/{platform.machine()}/{name}"
        assert (root / name / "etc/arch").read_text() == KERNELS[platform.machine()]
        seen = {called: (root / ".multiarch" / called / name / "etc/arch").read_text() for called in KERNELS}
    assert seen == KERNELS


def test_our_own_client_shows_each_build_as_umoci_unpacks_it(made, url, pushed, trees):
    need_fuse()
    with made.mounted(url) as root:
        for name, wanted in trees.items():
            seen = scan((root / ".multiarch" / name / shown_at(pushed)).resolve(strict=True))
            assert differences(less_apptainer_files(seen, wanted), wanted) == []


def test_the_checkers_find_nothing(made, url, tmp_path):
    assert made.check()
    stock.check(made, url, tmp_path)


def test_a_second_pass_fetches_nothing_and_a_moved_tag_only_what_is_new(made, pushed, registry):
    words = ["convert-single-image", pushed, made.fqrn, *made.publisher, "--platform", "all", "--json"]
    before = registry.blob_fetches()
    (report,) = made.ducc(*words).json["repositories"]
    assert (report["revision"], report["images"][0]["status"]) == (None, "unchanged")
    assert registry.blob_fetches() == before
    newer = Image([SHARED, Layer.of(file("etc/arch", b"newer arm64"))], {}, IMAGES[1].platform)
    push(registry.host, "multi/arch", "1", Index([IMAGES[0], newer, *IMAGES[2:]]))
    (report,) = made.ducc(*words).json["repositories"]
    (image,) = report["images"]
    assert image["status"] == "published"
    assert sorted(image["builds"]) == sorted(NAMES)
    assert image["fetched_bytes"] == len(newer.layers[1].blob)
    assert 0 < image["shared_fraction"] < 1
    fetched = {request.path.rpartition("/")[2] for request in registry.blob_fetches()[len(before) :]}
    assert fetched == {sha256(one.config) for one in (IMAGES[0], newer, *IMAGES[2:])} | {sha256(newer.layers[1].blob)}
    assert made.check()


def test_one_platform_or_layers_alone_may_be_asked_for(registry, tmp_path):
    push(registry.host, "multi/other", "1", INDEX)
    name = f"http://{registry.host}/multi/other:1"
    with repository(tmp_path / "single") as single:
        words = ["convert-single-image", name, single.fqrn, *single.publisher]
        single.ducc(*words, "--product", "layers")
        assert [image["path"] for image in single.images()] == [None]
        assert {path.split("/")[1] for path in single.trees()} == {".layers"}
        single.ducc(*words, "--platform", "linux/arm64")
        assert [(image["path"], image["platform"]) for image in single.images()] == [
            (f"/{shown_at(name)}", "linux/arm64/v8")
        ]
        assert single.check()
        for wrong in ("windows/amd64", "linux", "linux/armv7l", "../x"):
            said = single.ducc(*words, "--platform", wrong, status=2)
            assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["download-manifest", "get-manifest"])
def test_a_manifest_is_printed_as_the_registry_has_it(ducc, registry, command):
    push(registry.host, "multi/printed", "1", INDEX)
    name = f"http://{registry.host}/multi/printed:1"
    assert ducc(command, name).stdout.encode() == INDEX.manifest
    assert ducc(command, name, "--platform", "linux/arm64").stdout.encode() == IMAGES[1].manifest
    for wrong, status in (("https://registry.example.org/UPPER:1", 2), (f"http://{registry.host}/no/such:1", 85)):
        said = ducc(command, wrong, status=status)
        assert len(said.stderr.splitlines()) == 1

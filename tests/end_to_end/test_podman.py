"""Podman runs published images from the repository's stores: 4.3 and 5, as root and as a user, layered and flat.

What it says of them is what it would say had it pulled them; what it runs is what umoci makes of them.
"""

import json
import pickle
import shlex
import sys
import time
from pathlib import Path

import pytest

from tests import builders, sid
from tests.builders import Image, Layer
from tests.end_to_end import stock
from tests.end_to_end.published import expected, repository
from tests.images.service import GREETING
from tests.images.small import small
from tests.needs import need_fuse, need_root
from tests.podman import Podman
from tests.trees import differences, without_xattrs

pytestmark = pytest.mark.engine

NAMES = ("small", "small-docker", "small-mixed", "small-index", "base", "python", "pruned", "scientific", "service")
ENGINES = [
    pytest.param((in_sid, user), id=f"{'5' if in_sid else '4.3'}-{user}")
    for in_sid in (False, True)
    for user in ("root", sid.USER)
]
STORES = ("podmanStore", "podmanStore/flat")
HERE = Path(__file__).parents[2]
SCAN = "import pickle, sys; from tests.trees import scan; pickle.dump(scan(sys.argv[1]), open(sys.argv[2], 'wb'))"
DEEP = 60
MADE_BY_PODMAN = (b"", b"dev", b"etc", b"etc/hostname", b"etc/hosts", b"etc/mtab", b"etc/resolv.conf", b"proc", b"run")
MADE_BY_PODMAN += (b"run/.containerenv", b"sys", b"tmp", b"var", b"var/tmp")


@pytest.fixture(scope="module")
def made(images, registry, tmp_path_factory):
    """A repository with all images, one with many layers, and a second tag for one of them."""
    need_root()
    need_fuse()
    layers = [Layer.of(builders.file(f"deep-{number}")) for number in range(DEEP - 3)]
    deep = Image([*small().layers, *layers], small().settings)
    builders.push(registry.host, "podman/deep", "1", deep)
    builders.push(registry.host, "podman/again", "2", small())
    own = [f"http://{registry.host}/podman/{name}" for name in ("deep:1", "again:2")]
    with repository(tmp_path_factory.mktemp("podman") / "r") as made:
        made.convert(*(images(name).wish for name in NAMES), *own)
        yield made


@pytest.fixture(scope="module")
def root(made):
    with made.served() as url, made.mounted(url) as root:
        for directory in (made.directory, *made.directory.parents):
            if directory.stat().st_uid == 0 and directory != Path("/"):
                directory.chmod(directory.stat().st_mode | 0o011)  # users find the way
        yield root


@pytest.fixture
def podman(root, tmp_path):
    """A function: engine and store → podman."""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(directory.stat().st_mode | 0o011)

    def make(engine, store="podmanStore", root=root):
        in_sid, user = engine
        return Podman(tmp_path, root, store, user, in_sid)

    return make


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("engine", ENGINES)
def test_podman_runs_what_is_published_by_name_digest_and_id(podman, engine, store, images, registry):
    ours = podman(engine, store)
    assert ours("version", "--format", "{{.Client.Version}}").startswith("5." if engine[0] else "4.3")
    listed = json.loads(ours("images", "--format", "json"))
    names = {name for image in listed for name in image["Names"] or ()}
    # one image by several names, which podman lists each time
    assert names == {images(name).reference for name in NAMES} | {
        f"{registry.host}/podman/{name}" for name in ("deep:1", "again:2")
    }
    assert all(image["ReadOnly"] for image in listed)
    reference = images("small").reference
    name, digest = reference.rpartition(":")[0], builders.sha256(small().manifest)
    for called in (
        reference,
        f"{name}@{digest}",
        builders.sha256(small().config)[7:],
        f"{registry.host}/podman/again:2",
    ):
        assert ours.run(called) == "hello from /bin/sh, it's small\n"
    assert ours.run(f"{registry.host}/podman/deep:1", "cat /deep-1; echo deep") == "deep\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_big_images_work_as_they_should(podman, engine, images):
    ours = podman(engine)
    program = "import numpy, scipy, pandas; print(numpy.arange(4).sum())"
    for name in ("scientific", "pruned"):
        assert ours.run(images(name).reference, "python3", "-c", program) == "6\n"
    gone = "/usr/share/doc/base-files"  # what a layer has deleted
    assert ours.run(images("pruned").reference, "sh", "-c", f"test -e {gone} || echo gone") == "gone\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_service_runs_by_its_entrypoint(podman, engine, images):
    ours = podman(engine)
    image = images("service").reference
    options = shlex.join([*ours.options])
    done = ours.script(f"""
        podman run --detach --name service {options} {image} > /dev/null || exit 1
        podman exec service /usr/local/bin/client
        podman stop --time 60 service > /dev/null
        podman inspect --format '{{{{.State.ExitCode}}}}' service
        podman rm --force service > /dev/null""")
    assert done.stdout.splitlines() == [f"two words|{GREETING}|0", "0"], done.stderr


@pytest.mark.parametrize("store", STORES)
def test_what_podman_mounts_is_the_image_entry_by_entry(podman, store, images, tmp_path):
    ours = podman((False, "root"), store)
    for name in ("small", "pruned") if store.endswith("flat") else ("small", "small-mixed", "base", "pruned"):
        result = tmp_path / f"{name}.pickle"
        scan = shlex.join([sys.executable, "-c", SCAN])
        done = ours.script(f"""
            podman create --name it {images(name).reference} true > /dev/null &&
            cd {HERE} && {scan} "$(podman mount it)" {result} && podman rm --force it""")
        assert done.returncode == 0, done.stderr
        seen, wanted = pickle.loads(result.read_bytes()), expected(images(name))
        if store.endswith("flat"):
            seen = {path: row for path, row in seen.items() if path in wanted}
        wanted, seen = (
            {path: row for path, row in tree.items() if path not in MADE_BY_PODMAN}
            for tree in (wanted, without_xattrs(seen, "user.overlay."))
        )
        assert differences(wanted, seen) == []


def test_a_container_may_change_what_it_sees_and_the_repository_stays(podman, root, images):
    ours = podman((False, "root"))
    words = "echo new > /etc/new && rm /usr/bin/perl && cat /etc/new && test ! -e /usr/bin/perl && echo done"
    assert ours.run(images("python").reference, "sh", "-c", words) == "new\ndone\n"
    assert ours.run(images("python").reference, "sh", "-c", "ls /usr/bin/perl") == "/usr/bin/perl\n"


def test_podman_says_of_an_image_what_it_says_of_one_that_it_pulled(podman, images, registry, tmp_path):
    """Layers that it pulls have the ids of those in the store, so that images which it builds on them share them."""
    ours, pulled = podman((False, "root")), Podman(tmp_path / "pulled", tmp_path, "none")
    (tmp_path / "none").mkdir()
    for directory in ("overlay", "overlay-images", "overlay-layers"):
        (tmp_path / "none" / directory).mkdir()
    for lock in ("overlay-images/images.lock", "overlay-layers/layers.lock"):
        (tmp_path / "none" / lock).touch()
    (tmp_path / "pulled").mkdir()
    reference = images("python").reference
    pulled("pull", "--quiet", "--tls-verify=false", reference)
    told = [json.loads(one("image", "inspect", reference))[0] for one in (ours, pulled)]
    for one in told:
        del one["GraphDriver"], one["NamesHistory"], one["Size"], one["VirtualSize"]
        del one["Parent"]  # another image whose layers it stands on, if the store has one
    assert told[0] == told[1]
    trees = [one("image", "tree", reference).splitlines()[3:] for one in (ours, pulled)]
    assert [line.split("Size")[0] for line in trees[0]] == [line.split("Size")[0] for line in trees[1]]


def test_an_image_built_on_a_published_one_stands_on_its_layers(podman, images, tmp_path):
    ours = podman((False, "root"))
    base = images("small").reference
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nENV BUILT=yes\n")
    ours("build", "--quiet", "--tag", "built", tmp_path)
    assert ours.run("built", "echo $BUILT") == "yes\n"
    layers = [json.loads(ours("image", "inspect", name))[0]["RootFS"]["Layers"] for name in (base, "built")]
    assert layers[1][: len(layers[0])] == layers[0]


def test_the_stock_client_shows_podman_the_same_store(made, podman, images):
    stock.need_stock()
    with made.served() as url, stock.mounted(made, url) as root:
        for store in STORES:
            ours = podman((False, "root"), store, root)
            assert ours.run(images("small").reference) == "hello from /bin/sh, it's small\n"


def test_the_stock_checker_finds_nothing_wrong_with_stores(images, registry, tmp_path):
    stock.need_stock()
    arm = Image(small().layers, platform={"os": "linux", "architecture": "arm64"})
    builders.push(registry.host, "podman/multi", "1", builders.Index([small(), arm]))
    with repository(tmp_path / "checked") as made:
        both = f'{{image: "http://{registry.host}/podman/multi:1", platforms: all}}'
        made.convert(images("small-mixed").wish, both)
        with made.served() as url:
            stock.check(made, url, tmp_path)


def test_prune_takes_images_from_the_store(images, tmp_path, registry):
    wishes = [images(name).wish for name in ("small", "small-mixed")]
    with repository(tmp_path / "pruned") as made:
        made.convert(*wishes)
        kept = made.wishlist(wishes[0])
        for _ in range(2):
            made.ducc("prune", kept, *made.where, "--keys", made.keys, "--apply", "--grace", "1s", "--most", "100%")
            time.sleep(1.1)
        made.check()
        with made.served() as url, made.mounted(url) as root:
            ours = Podman(tmp_path, root)
            listed = json.loads(ours("images", "--format", "json"))
            assert [image["Names"] for image in listed] == [[images("small").reference]]
            assert ours.run(images("small").reference) == "hello from /bin/sh, it's small\n"

"""What the stock programs say of our repositories: the client shows the same trees, the checker finds nothing, and
replication and garbage collection keep everything alive, though they do not follow what trees are bound by.
"""

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ducc import layout
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.image.digest import Digest
from tests.builders import Image, Layer, file, push, sha256
from tests.end_to_end import stock
from tests.end_to_end.overlay import overlay
from tests.end_to_end.published import (
    copied,
    expected,
    image_path,
    layer_paths,
    less_apptainer_files,
    repository,
)
from tests.images.small import small
from tests.trees import differences, scan, without, without_xattrs

pytestmark = pytest.mark.engine

NAMES = ("base", "scientific", "pruned")
FQRN = f"s{os.getpid()}.ducc.test"  # short, since it is part of names of sockets


@pytest.fixture(scope="module")
def pushed(images):
    stock.need_stock()
    return {name: images(name) for name in NAMES}


@pytest.fixture(scope="module")
def made(pushed, tmp_path_factory):
    with repository(tmp_path_factory.mktemp("stock") / "made", fqrn=FQRN) as published:
        published.convert(*(image.wish for image in pushed.values()))
        yield published


@pytest.fixture(scope="module")
def url(made):
    with made.served() as served:
        yield served


@pytest.fixture(scope="module")
def root(made, url):
    with stock.mounted(made, url) as mounted:
        yield mounted


def assert_shows(root, image):
    wanted = expected(image)
    seen = without_magic(scan(image_path(root, image)))
    assert differences(less_apptainer_files(seen, wanted), wanted) == []


def without_magic(tree):
    """At the top of each tree the stock client lists attributes of its own."""
    return {**tree, b"": replace(tree[b""], xattrs=None)}


def test_the_stock_checker_finds_no_problem(made, url, tmp_path):
    stock.check(made, url, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_stock_client_shows_what_umoci_unpacks(name, pushed, root):
    assert_shows(root, pushed[name])


def test_layers_shown_by_the_stock_client_overlay_to_the_image(pushed, root, tmp_path):
    image = pushed["pruned"]
    with overlay(layer_paths(root, image), tmp_path / "overlay") as merged:
        seen = without_xattrs(scan(merged), "user.overlay.")
    assert differences(without(seen, b""), without(expected(image), b"")) == []  # a root is its engine's


def test_a_stock_replica_holds_everything(made, url, pushed, tmp_path):
    """Trees that are only bound are no part of what is replicated; their tags bring them."""
    with replicated(made, url, tmp_path) as (replica, replica_url):
        replica.check()
        stock.check(replica, replica_url, tmp_path)
        with replica.mounted(replica_url) as ours, stock.mounted(replica, replica_url) as theirs:
            assert_shows(ours, pushed["pruned"])
            assert_shows(theirs, pushed["base"])


def test_stock_collection_keeps_everything_alive(made, pushed, images, registry, tmp_path):
    """Also what a tag named before it was moved to a new image; there and in a replica that follows."""
    first, second = small(), Image([*small().layers, Layer.of(file("opt/new", b"new"))], small().settings)
    wish = f"http://{registry.host}/test/moving:latest"
    push(registry.host, "test/moving", "latest", first)
    with copied(made, tmp_path / "collected") as collected, collected.served() as url:
        before = collected.root / ObjectName(collected.manifest.root_hash, Suffix.CATALOG).path
        collected.convert(wish)
        with replicated(collected, url, tmp_path) as (replica, replica_url):
            push(registry.host, "test/moving", "latest", second)
            collected.convert(wish)
            stock.collect(collected, url, tmp_path)
            assert not before.exists()  # what nobody names any more did go
            assert_alive(collected, url, pushed, first, second, tmp_path)
            stock.pull(collected, url, replica, replica_url, tmp_path, first=False)
            stock.collect(replica, replica_url, tmp_path)
            assert_alive(replica, replica_url, pushed, first, second, tmp_path)
        collected.convert(images("small-mixed").wish)
        collected.check()
        stock.check(collected, url, tmp_path)


@contextmanager
def replicated(made, url, directory):
    """A replica by the stock program, and where it is served."""
    with repository(directory / "replica", fqrn=made.fqrn, init=False) as replica:
        shutil.copytree(made.keys, replica.keys)
        stock.pull(made, url, replica, url, directory, first=True)
        with replica.served() as replica_url:
            yield replica, replica_url


def assert_alive(made, url, pushed, first, second, directory):
    """Every object is there; images are read with an empty cache, and the replaced one still by its digest."""
    made.check()
    stock.check(made, url, directory)
    with made.mounted(url) as root:
        assert_shows(root, pushed["base"])
        assert_shows(root, pushed["pruned"])
        for image in (first, second):
            flat = layout.flat_image(Digest.parse(sha256(image.config)))
            assert (root / os.fsdecode(flat)[1:] / "etc" / "motd").read_bytes() == b"welcome back\n"

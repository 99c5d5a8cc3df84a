"""The input of all other tests: it is real, as big and as odd as promised, and arrives whole in a registry."""

import subprocess

import pytest
import requests

from tests.builders import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    INDEX_TYPES,
    MANIFEST_TYPES,
    REGULAR,
    SYMLINK,
    sha256,
)
from tests.images import build, names
from tests.images.oddities import oddities
from tests.images.small import VARIANTS
from tests.registry import PASSWORD, USER, running_registry
from tests.trees import scan, unpack

TYPES = {
    REGULAR: "file",
    HARD_LINK: "file",
    SYMLINK: "symlink",
    CHARACTER: "character device",
    BLOCK: "block device",
    DIRECTORY: "directory",
    FIFO: "fifo",
}
OCI_MANIFEST = MANIFEST_TYPES["oci"]
ACCEPT = ", ".join((*MANIFEST_TYPES.values(), *INDEX_TYPES.values()))
IMPORTS = "import numpy, scipy, pandas; print(numpy.arange(4).sum())"


def test_every_oddity_of_the_base_is_in_the_tree_that_umoci_unpacks(images):
    tree = images("base").tree
    for entry in oddities():
        row = tree[entry.path.rstrip(b"/")]
        assert (row.type, row.mode, row.uid, row.gid) == (TYPES[entry.type], entry.mode, entry.uid, entry.gid), (
            entry.path
        )
        assert (row.xattrs or {}) == dict(entry.xattrs)
        assert row.mtime_ns == entry.mtime_ns


def test_the_base_has_setuid_programs_and_file_capabilities(images):
    tree = images("base").tree
    assert tree[b"usr/bin/passwd"].mode == 0o4755
    assert "security.capability" in tree[b"usr/bin/ping"].xattrs
    assert tree[b"tmp"].mode == 0o1777


def test_the_scientific_image_has_the_size_that_the_speed_is_measured_with(images):
    tree = images("scientific").tree
    assert len(tree) >= 20_000
    assert sum(row.size for row in tree.values()) >= 700_000_000


def test_the_scientific_programs_run_also_in_the_pruned_image(tmp_path):
    image = build("pruned")
    root = unpack(image.layout, image.tag, tmp_path / "bundle")
    done = subprocess.run(["chroot", root, "python3", "-c", IMPORTS], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("6\n", "")


def test_the_pruned_image_hides_and_brings_back_what_lies_below(images):
    tree = images("pruned").tree
    here = b"opt/oddities/by-hand/"
    assert here + b"directory-opaque/old" not in tree
    assert here + b"directory-opaque/new" in tree
    assert here + b"pair-two" not in tree
    assert here + b"deleted/back" in tree
    assert tree[here + b"link-to-layer-below"].size == len(b"kept")
    assert [path for path in tree if path.startswith(b"usr/share/doc/")] == [b"usr/share/doc/README"]


@pytest.mark.parametrize("name", names())
def test_every_image_arrives_in_the_registry(name, images, registry):
    repository, tag = images(name).reference.removeprefix(f"{registry.host}/").split(":")
    answer = requests.get(f"{registry.url}/v2/{repository}/manifests/{tag}", headers={"Accept": ACCEPT}, timeout=60)
    manifest = answer.json()
    assert answer.headers["Content-Type"] == manifest.get("mediaType", OCI_MANIFEST)  # umoci leaves it out
    for layer in manifest.get("layers", []):
        assert registry.blob_path(layer["digest"]).stat().st_size == layer["size"]


def test_the_small_images_have_the_tree_that_their_layers_say(images):
    assert {name: images(name).tree.keys() for name in VARIANTS} == dict.fromkeys(VARIANTS, images("small").tree.keys())
    tree = images("small").tree
    assert b"etc/issue" not in tree
    assert sorted(path for path in tree if path.startswith(b"usr/share/old/")) == [b"usr/share/old/three"]
    assert tree[b"bin/sh"].link_group == tree[b"bin/cat"].link_group == b"busybox"


def test_the_registry_counts_fetches_and_can_ask_for_a_password(tmp_path):
    image = VARIANTS["small"]()
    with running_registry(tmp_path / "closed", basic_auth=True) as closed:
        assert requests.get(f"{closed.url}/v2/", timeout=60).status_code == 401
        assert requests.get(f"{closed.url}/v2/", auth=(USER, PASSWORD), timeout=60).status_code == 200
    with running_registry(tmp_path / "open") as opened:
        reference = build("small").push(opened)
        assert opened.blob_fetches() == []
        digest = sha256(image.layers[0].blob)
        assert reference == f"{opened.host}/test/small:latest"
        requests.get(f"{opened.url}/v2/test/small/blobs/{digest}", timeout=60).raise_for_status()
        assert [fetch.status for fetch in opened.blob_fetches()] == [200]


def test_a_plain_unpacked_directory_scans_like_its_expected_tree(images, tmp_path):
    small = images("small")
    assert scan(unpack(small.built.layout, small.built.tag, tmp_path / "bundle")).keys() == small.tree.keys()

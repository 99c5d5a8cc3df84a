"""The main job: a line in a wishlist becomes a program that runs from the mounted repository.

Real images, one wishlist, one revision. What is mounted is what `umoci unpack` makes of the same image, entry by entry;
so is the overlay of its layers.
"""

import ast
import json
import subprocess

import pytest

from tests import apptainer
from tests.end_to_end.overlay import overlay
from tests.end_to_end.published import (
    expected,
    image_path,
    layer_paths,
    less_apptainer_files,
    repository,
)
from tests.needs import need_fuse, need_program, need_root
from tests.trees import differences, scan, without, without_xattrs

NAMES = ("base", "python", "scientific", "pruned")
IMPORTS = "import numpy, scipy, pandas; print(numpy.arange(4).sum())"


@pytest.fixture(scope="module")
def pushed(images):
    need_root()
    need_fuse()
    return {name: images(name) for name in NAMES}


@pytest.fixture(scope="module")
def conversion(pushed, tmp_path_factory):
    """A new repository, and what its first conversion reports."""
    with repository(tmp_path_factory.mktemp("main") / "job") as published:
        yield published, published.convert(*(image.wish for image in pushed.values()))


@pytest.fixture(scope="module")
def made(conversion):
    return conversion[0]


@pytest.fixture(scope="module")
def report(conversion):
    return conversion[1]


@pytest.fixture(scope="module")
def url(made):
    with made.served() as served:
        yield served


@pytest.fixture(scope="module")
def root(made, url):
    with made.mounted(url) as mounted:
        yield mounted


def test_one_wishlist_becomes_one_revision(made, report, pushed):
    assert report["repository"] == made.fqrn
    assert report["revision"] == 2
    assert [image["status"] for image in report["images"]] == ["published"] * len(pushed)
    assert made.check()


def test_the_images_are_listed_with_their_paths_and_root_hashes(made, report, pushed):
    reported = {image["image"]: image["root_hash"] for image in report["images"]}
    listed = made.images()
    assert {image["image"]: image["root_hash"] for image in listed} == reported
    assert {image["path"] for image in listed} == {f"/{image.public_path}" for image in pushed.values()}
    text = made.ducc("images", made.fqrn, *made.where).lines
    assert len(text) == 1 + len(pushed)


@pytest.mark.parametrize("name", NAMES)
def test_a_mounted_image_is_what_umoci_unpacks(name, pushed, root):
    wanted = expected(pushed[name])
    seen = scan(image_path(root, pushed[name]))
    assert differences(less_apptainer_files(seen, wanted), wanted) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_overlay_of_its_layers_is_the_image(name, pushed, root, tmp_path):
    layers = layer_paths(root, pushed[name])
    with overlay(layers, tmp_path / "overlay") as merged:
        seen = without_xattrs(scan(merged), "user.overlay.")
    wanted = expected(pushed[name])
    assert differences(without(seen, b""), without(wanted, b"")) == []  # a root is its engine's, which makes it anew


def test_a_program_runs_from_the_mount_with_a_cold_cache(made, url, pushed):
    with made.mounted(url) as cold:
        done = in_root(image_path(cold, pushed["scientific"]), "python3", "-c", IMPORTS)
    assert (done.stdout, done.stderr, done.returncode) == ("6\n", "", 0)


def test_a_program_runs_and_writes_in_an_overlay(pushed, root, tmp_path):
    layers = layer_paths(root, pushed["pruned"])
    program = f"{IMPORTS}; open('/root/result', 'w').write('42'); import os; os.remove('/etc/hostname')"
    with overlay(layers, tmp_path / "overlay", writable=True) as merged:
        (merged / "etc" / "hostname").write_text("ducc")
        done = in_root(merged, "python3", "-c", program)
        assert (done.stdout, done.stderr, done.returncode) == ("6\n", "", 0)
        assert (merged / "root" / "result").read_text() == "42"
    assert (tmp_path / "overlay" / "upper" / "root" / "result").read_text() == "42"


@pytest.mark.engine
@pytest.mark.parametrize("user", [apptainer.USER, "root"])
def test_apptainer_executes_a_program_of_the_mounted_image(user, pushed, root):
    done = apptainer.exec(root / pushed["scientific"].public_path, ["python3", "-c", IMPORTS], user=user)
    assert (done.stdout, done.returncode) == ("6\n", 0), done.stderr


@pytest.mark.engine
def test_apptainer_shows_the_environment_of_the_image(pushed, root):
    """Values with quotes, dollars and backquotes come out as the image's author wrote them."""
    done = apptainer.exec(root / pushed["python"].public_path, ["python3", "-c", "import os; print(dict(os.environ))"])
    seen = ast.literal_eval(done.stdout)
    wanted = dict(entry.split("=", 1) for entry in environment(root, pushed["python"]))
    assert {name: seen.get(name) for name in wanted if name != "PATH"} == {
        name: value for name, value in wanted.items() if name != "PATH"
    }


def test_converting_again_fetches_no_blob_and_makes_no_revision(made, pushed, registry):
    before, files = registry.blob_fetches(), made.files()
    report = made.convert(*(image.wish for image in pushed.values()))
    assert registry.blob_fetches() == before
    assert made.files() == files
    assert report["revision"] is None
    assert [image["status"] for image in report["images"]] == ["unchanged"] * len(pushed)


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(made, pushed, images, registry):
    before, files = registry.blob_fetches(), made.files()
    wishes = made.wishlist(pushed["base"].wish, images("small").wish)
    told = made.ducc("convert", wishes, *made.publisher, "--dry-run").lines
    assert [line.split() for line in told] == [["keep", pushed["base"].wish], ["convert", images("small").wish]]
    assert registry.blob_fetches() == before
    assert made.files() == files


@pytest.mark.parametrize("name", ["small", "small-docker", "small-mixed", "small-index"])
def test_a_single_image_is_converted_without_a_wishlist(name, images, tmp_path):
    need_root()
    need_fuse()
    image = images(name)
    with repository(tmp_path / "single") as single:
        said = single.ducc("convert-single-image", image.wish, single.fqrn, *single.publisher)
        assert f"published  {image.wish}" in said.lines
        assert single.revision == 2
        with single.served() as served, single.mounted(served) as mounted:
            seen, wanted = scan(image_path(mounted, image)), expected(image)
            assert differences(less_apptainer_files(seen, wanted), wanted) == []
            done = in_root(image_path(mounted, image), "/bin/sh", "-c", "cat /etc/motd")
        assert (done.stdout, done.returncode) == ("welcome back\n", 0)


def in_root(directory, *command):
    """Run a program of a root file system in it, with nothing of this machine's environment."""
    return subprocess.run(
        [need_program("chroot"), directory, *command],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def environment(root, image):
    host, _, rest = image.public_path.partition("/")
    config = json.loads((root / ".metadata" / host / rest / "config.json").read_bytes())
    return config["config"]["Env"]

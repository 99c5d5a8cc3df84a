"""Apptainer's files go into an image's tree, and never through what the image has in their way."""

import json

import pytest

from ducc.catalog.split import SplitPolicy
from ducc.catalog.tree import Directory, entry_of, find
from ducc.catalog.writer import write_tree
from ducc.convert import apptainer
from ducc.convert.flat import created_seconds, with_apptainer_files
from ducc.image.config import ImageConfig
from tests.memory import counted, directory_entry, file, forgetful, new_repository, rows, symlink, tree


def config(created: str | None = "2020-01-02T03:04:05Z", **fields: object) -> ImageConfig:
    document = {
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}, "config": fields,
        **({} if created is None else {"created": created}),
    }  # fmt: skip
    return ImageConfig.parse(json.dumps(document).encode())


class Flat:
    def __init__(self, nodes=None, made: ImageConfig | None = None) -> None:
        self.repository, _ = new_repository()
        self.before = tree(nodes or {})
        with self.repository.store.session():
            self.root = with_apptainer_files(self.before, made or config(Cmd=["sh"]), self.repository)
            self.repository.store.flush()
        self.rows = rows(self.root, self.repository.catalogs)

    def __getitem__(self, path: str):
        node = find(self.root, path.encode(), self.repository.catalogs.open_nested)
        return None if node is None else entry_of(node)

    def text(self, path: str) -> bytes:
        return self.repository.read(self[path])


def test_an_empty_image_gets_all_that_apptainer_needs():
    flat = Flat()
    assert all(flat[path].is_directory for path in (*apptainer.DIRECTORIES, "/.singularity.d/libs"))
    assert {path: flat[path].symlink.decode() for path in apptainer.LINKS} == apptainer.LINKS
    assert all(flat[path].mode == 0o100644 and flat[path].size == 0 for path in apptainer.EMPTY_FILES)
    for path, data in apptainer.scripts(config(Cmd=["sh"])).items():
        assert (flat[path].mode, flat.text(path)) == (0o100755, data)
    for path, data in apptainer.documents(config(Cmd=["sh"])).items():
        assert (flat[path].mode, flat.text(path)) == (0o100644, data)


def test_links_lead_to_what_is_there():
    flat = Flat()
    for path, target in apptainer.LINKS.items():
        assert flat["/" + target] is not None, path


def test_what_the_image_has_stays_as_it_is():
    own = {
        b"/etc/hosts": file(b"hosts", b"127.0.0.1", uid=5),
        b"/singularity": file(b"singularity"),
        b"/tmp": Directory(directory_entry(b"tmp", mode=0o41777)),
        b"/usr/bin/x": file(b"x"),
    }
    flat = Flat(own)
    for path, node in own.items():
        assert flat[path.decode()] == entry_of(node)
    assert flat["/etc"] == directory_entry(b"etc")


def test_the_image_that_was_given_is_not_changed():
    flat = Flat({b"/etc/hosts": file(b"hosts")})
    assert sorted(rows(flat.before, flat.repository.catalogs)) == [b"", b"/etc", b"/etc/hosts"]


HOSTILE = {
    "etc -> /tmp": {b"/etc": symlink(b"etc", b"/tmp"), b"/tmp/keep": file(b"keep")},
    "etc -> ..": {b"/etc": symlink(b"etc", b"../../..")},
    "var a file": {b"/var": file(b"var")},
    "var -> usr": {b"/var": symlink(b"var", b"usr"), b"/usr/keep": file(b"keep")},
    "dev -> proc": {b"/dev": symlink(b"dev", b"proc")},
    "home -> itself": {b"/home": symlink(b"home", b"home")},
    ".singularity.d -> etc": {b"/.singularity.d": symlink(b".singularity.d", b"etc"), b"/etc/env/keep": file(b"keep")},
    ".singularity.d a file": {b"/.singularity.d": file(b".singularity.d")},
    ".singularity.d/env -> /": {b"/.singularity.d/env": symlink(b"env", b"/")},
    ".singularity.d/runscript -> /bin/sh": {b"/.singularity.d/runscript": symlink(b"runscript", b"/bin/sh")},
    "hosts a directory": {b"/etc/hosts/keep": file(b"keep")},
    "tmp a file": {b"/tmp": file(b"tmp")},
}


@pytest.mark.parametrize("image", HOSTILE)
def test_nothing_is_put_through_or_in_place_of_what_an_image_has(image):
    own = HOSTILE[image]
    flat = Flat(own)
    before = rows(flat.before, flat.repository.catalogs)
    ours = b"/.singularity.d"
    for path, entry in before.items():
        if path != ours and not path.startswith(ours + b"/"):
            assert flat.rows[path] == entry, path
    allowed = {path.encode() for path in (*apptainer.DIRECTORIES, *apptainer.EMPTY_FILES, *apptainer.LINKS, "/var")}
    new = {path for path in flat.rows if path not in before}
    assert all(path in allowed or path == ours or path.startswith(ours + b"/") for path in new), new
    for path in new:
        assert flat[path.rpartition(b"/")[0].decode()].is_directory


@pytest.mark.parametrize("image", [image for image in HOSTILE if "singularity" in image])
def test_the_scripts_are_ours_whatever_the_image_has_there(image):
    flat = Flat(HOSTILE[image])
    for path, data in apptainer.scripts(config(Cmd=["sh"])).items():
        assert flat.text(path) == data


@pytest.mark.parametrize("image", HOSTILE)
def test_the_tree_can_be_written_and_read_with_right_counters(image):
    flat = Flat(HOSTILE[image])
    catalogs = flat.repository.catalogs
    written = write_tree(flat.root, catalogs, SplitPolicy(heavy=4, light=2))
    assert counted(catalogs, written.ref) == written.counters
    fresh = forgetful(catalogs)
    assert rows(fresh.load(written.ref), fresh) == flat.rows


def test_the_same_image_gets_the_same_tree_on_any_day():
    one, other = Flat(made=config()), Flat(made=config())
    assert one.rows == other.rows
    assert one["/.singularity.d/runscript"].mtime == created_seconds(config()) == 1577934245


@pytest.mark.parametrize(
    "created",
    [
        None,
        "",
        "never",
        "0001-01-01T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2020-13-01T00:00:00Z",
    ],
)
def test_an_image_that_does_not_say_when_it_was_made_is_of_the_beginning(created):
    assert created_seconds(config(created)) == 0


def test_fractions_and_time_zones_are_understood():
    assert created_seconds(config("2020-01-02T03:04:05.123456789Z")) == 1577934245
    assert created_seconds(config("2020-01-02T04:04:05+01:00")) == 1577934245

"""What Docker may ask of a graph driver, and what may happen to one: the program as it is run, at its socket."""

import io
import itertools
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.builders import directory, file, opaque, tar, whiteout
from tests.graph_driver import GraphDriver, running_graph_driver
from tests.leftovers import mounts
from tests.needs import need_root
from tests.snapshotter import publish, publish_whole, repository_mount

PATIENCE_SECONDS = 60
LOWER = tar(
    [directory("etc"), file("etc/motd", b"hello"), file("etc/gone", b"x"), directory("opt"), file("opt/a", b"1")]
)
UPPER = tar([directory("etc"), whiteout("etc/gone"), directory("opt"), opaque("opt"), file("opt/b", b"22")])
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphDriver]:
    need_root()
    top = tmp_path_factory.mktemp("g")  # short, since a socket is below it
    with repository_mount(top / "cvmfs") as place, running_graph_driver(top / "d", ("a.example.org", place)) as driver:
        driver.init()
        driver.layer("lower", LOWER)
        driver.layer("upper", UPPER, "lower")
        yield driver
        assert mounts(driver.home) == []


@pytest.fixture
def new(running: GraphDriver) -> Iterator[Callable[[str], str]]:
    """A function: parent → the name of a new layer on it. All are removed after the test, mounted or not."""
    numbers, made = itertools.count(), []

    def create(parent: str = "upper") -> str:
        name = f"layer-{os.urandom(4).hex()}-{next(numbers)}"
        running.call("CreateReadWrite", ID=name, Parent=parent)
        made.append(name)
        return name

    yield create
    for name in reversed(made):
        running.call("Remove", ID=name)


# --- the protocol ----------------------------------------------------------------------------


def test_it_is_a_graph_driver_that_says_what_it_can(running: GraphDriver) -> None:
    with running.connected() as connection:
        assert connection.call("Plugin.Activate") == {"Implements": ["GraphDriver"]}
    assert running.call("Capabilities") == {"Capabilities": {"ReproducesExactDiffs": False}}
    assert ["Docker", "20.10 to 27; for newer ones there is ducc-snapshotter"] in running.call("Status")["Status"]


def test_layers_are_seen_over_one_another_and_written_on_top(running: GraphDriver, new) -> None:
    name = new()
    place = running.get(name)
    assert sorted(os.listdir(place / "etc")) == ["motd"]
    assert os.listdir(place / "opt") == ["b"]
    (place / "etc/motd").write_text("changed")
    (place / "opt/b").unlink()
    (place / "new").write_text("new")
    changes = running.call("Changes", ID=name, Parent="upper")["Changes"]
    assert {(change["Path"], change["Kind"]) for change in changes} == {
        ("/etc", 0), ("/etc/motd", 0), ("/new", 1), ("/opt", 0), ("/opt/b", 2),
    }  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(running.diff(name, "upper"))) as archive:
        assert archive.getnames() == ["etc", "etc/motd", "new", "opt", "opt/.wh.b"]
    assert running.call("DiffSize", ID=name, Parent="upper")["Size"] == len("changed" + "new")
    assert set(running.call("GetMetadata", ID=name)["Metadata"]) == {"LowerDir", "UpperDir", "WorkDir", "MergedDir"}


def test_a_diff_against_any_other_layer_is_what_is_different_there(running: GraphDriver, new) -> None:
    name = new()
    (running.get(name) / "new").write_text("new")
    changes = running.call("Changes", ID=name, Parent="lower")["Changes"]
    assert {(change["Path"], change["Kind"]) for change in changes} == {
        ("/etc", 0), ("/etc/gone", 2), ("/new", 1), ("/opt", 0), ("/opt/a", 2), ("/opt/b", 1),
    }  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(running.diff(name, "lower"))) as archive:
        assert set(archive.getnames()) == {"etc", "etc/.wh.gone", "new", "opt", "opt/.wh.a", "opt/b"}
    with tarfile.open(fileobj=io.BytesIO(running.diff(name))) as archive:
        assert set(archive.getnames()) == {"etc", "etc/motd", "new", "opt", "opt/b"}
    assert running.call("DiffSize", ID=name, Parent="lower")["Size"] == len("new" + "22")


def test_what_a_diff_says_makes_the_same_layer_again(running: GraphDriver, new) -> None:
    again = new("lower")
    running.apply(again, running.diff("upper", "lower"), "lower")
    assert running.diff(again, "lower") == running.diff("upper", "lower")
    assert running.call("Changes", ID=again, Parent="upper")["Changes"] == []


def test_a_layer_is_mounted_until_the_last_user_puts_it_back(running: GraphDriver, new) -> None:
    name = new()
    assert running.get(name) == (place := running.get(name))
    running.call("Put", ID=name)
    assert os.path.ismount(place)
    running.call("Put", ID=name)
    assert not os.path.ismount(place)
    running.call("Put", ID=name)
    running.call("Put", ID="nobody-knows-it")


def test_a_layer_of_an_image_is_seen_and_can_not_be_written(running: GraphDriver, new) -> None:
    written = new()
    (running.get(written) / "x").touch()
    running.call("Put", ID=written)
    new(written)
    for name, seen in (("upper", ["etc", "opt"]), (written, ["etc", "opt", "x"])):
        place = running.get(name)
        assert sorted(os.listdir(place)) == seen
        with pytest.raises(OSError, match="Read-only"):
            (place / "y").touch()
        running.call("Put", ID=name)


def test_a_layer_that_is_removed_is_gone_mounted_or_not_and_that_can_be_repeated(running: GraphDriver, new) -> None:
    name = new()
    place = running.get(name)
    assert "others lie on it" in running.refused("Remove", ID="upper")
    running.call("Remove", ID=name)
    running.call("Remove", ID=name)
    assert not place.parent.exists()
    assert running.call("Exists", ID=name) == {"Exists": False}
    assert "does not exist" in running.refused("Get", ID=name)


def test_creating_again_is_no_fault_before_a_layer_is_used_and_is_refused_after(running: GraphDriver, new) -> None:
    name = new()
    running.call("CreateReadWrite", ID=name, Parent="upper")
    assert "already exists" in running.refused("Create", ID=name, Parent="lower")
    (running.get(name) / "used").touch()
    assert "already exists" in running.refused("Create", ID=name, Parent="upper")


# --- what is refused -------------------------------------------------------------------------

BAD_NAMES = ["", "a/b", "../a", "..", ".", "a" * 4096, "a b", "a,b", "a:b/c", "a\nb", "é", "-a", "\\"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_names_that_are_none_make_no_layer(running: GraphDriver, name: str) -> None:
    before = os.listdir(running.home / "layers")
    running.refused("Create", ID=name, Parent="")
    if name:
        assert "does not exist" in running.refused("Create", ID="fine", Parent=name)
    assert running.call("Exists", ID=name) == {"Exists": False}
    assert os.listdir(running.home / "layers") == before


@pytest.mark.parametrize(
    "label", ["system_u:object_r:x:s0,upperdir=/etc", 'a",lowerdir=/', "a b", "a\\", "a\nb", "a/b", "x" * 300]
)
def test_a_mount_label_becomes_no_option(running: GraphDriver, new, label: str) -> None:
    name = new()
    if label.startswith("system_u"):
        label = label.replace("upperdir", "upper/dir")
    assert "is not a security context" in running.refused("Get", ID=name, MountLabel=label)
    assert "is not a security context" in running.refused("Create", ID="labelled", MountLabel=label)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"size": "1G"}, "no quotas"), ({"SIZE": "1"}, "no quotas"), ({"inode": "1"}, "no such option")],
)
def test_options_of_containers_are_refused_in_one_line(
    running: GraphDriver, options: dict[str, str], says: str
) -> None:
    assert says in running.refused("CreateReadWrite", ID="fine", Parent="upper", StorageOpt=options)
    assert running.call("Exists", ID="fine") == {"Exists": False}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"Home": "relative"}, "absolute"),
        ({"Home": "/a/../b"}, "absolute"),
        ({"Home": "/elsewhere"}, "is served here already"),
        ({"Home": "/elsewhere", "Opts": ["overlay2.size=1G"]}, "takes none"),
        ({"Home": "/elsewhere", "Opts": ["cvmfsMountMethod=internal"]}, "takes none"),
        ({"Home": "/elsewhere", "UIDMaps": [{"container_id": 0, "host_id": 100000, "size": 65536}]}, "userns-remap"),
        ({"Home": 7}, "string"),
        ({}, "string"),
    ],
)
def test_a_daemon_that_wants_what_can_not_be_is_told(
    running: GraphDriver, fields: dict[str, object], says: str
) -> None:
    assert says in running.refused("Init", **fields)
    running.get("upper")
    running.call("Put", ID="upper")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b"\xff", b'{"ID": 1}', b'{"ID": "a", "ID": "b"}', b"[" * 100000]
)
def test_a_body_that_is_no_request_is_refused(running: GraphDriver, body: bytes) -> None:
    with running.connected() as connection:
        status, answer = connection.ask("GraphDriver.Create", body)
    assert status != 200
    assert "\n" not in json.loads(answer)["Err"]


def test_a_body_without_end_is_refused_and_calls_that_do_not_exist_are_not_found(running: GraphDriver) -> None:
    with running.connected() as connection:
        try:
            status, _ = connection.ask("GraphDriver.Create", b" " * (100 << 20))
        except (BrokenPipeError, ConnectionResetError):
            status = 413  # it did not wait for the rest
        assert status != 200
    with running.connected() as connection:
        assert connection.ask("GraphDriver.Nothing", b"{}")[0] == 404
    assert running.call("Exists", ID="upper") == {"Exists": True}


# --- archives --------------------------------------------------------------------------------


def cut(data: bytes) -> Iterator[bytes]:
    """The first half of *data*, and then the connection breaks."""
    yield data[: len(data) // 2]
    raise ConnectionResetError("cut by the test")


def test_a_stream_that_is_cut_off_leaves_no_half_layer_and_its_rest_is_not_taken_for_one(
    running: GraphDriver, new
) -> None:
    name, archive = new("lower"), tar([file(f"f{n}", b"x" * 10_000) for n in range(200)])
    with pytest.raises(ConnectionResetError):
        running.apply(name, cut(archive), "lower")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "was cut off" not in (said := running.apply(name, archive[len(archive) // 2 :], "lower").get("Err", "")):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    assert "was cut off" in running.refused("Get", ID=name)
    running.call("Create", ID=(on_it := f"{name}-on-it"), Parent=name)
    assert "was cut off" in running.refused("Get", ID=on_it)
    running.call("Remove", ID=on_it)


@pytest.mark.parametrize(
    ("archive", "says"),
    [(b"", "nothing was sent"), (b"x" * 512, "checksum"), (tar([file("../a", b"")]), "'..'"), (LOWER[:700], "ends")],
)
def test_what_is_no_layer_is_refused_in_one_line(running: GraphDriver, new, archive: bytes, says: str) -> None:
    said = running.apply(new(), archive, "upper")["Err"]
    assert says in said
    assert "\n" not in said


def test_nothing_is_unpacked_into_what_is_used_or_lies_elsewhere(running: GraphDriver, new) -> None:
    used, other = new(), new()
    (running.get(used) / "x").touch()
    assert "is not empty" in running.apply(used, LOWER, "upper")["Err"]
    assert "lies on" in running.apply(other, LOWER, "lower")["Err"]
    assert "is not empty" in running.apply("upper", LOWER, "lower")["Err"]
    assert "does not exist" in running.apply("unknown", LOWER)["Err"]


# --- thin images -----------------------------------------------------------------------------


def thin(*digests: str, fqrn: str = "a.example.org") -> bytes:
    layers = [
        {"digest": digest[7:], "url": f"cvmfs://{fqrn}/.layers/{digest[7:9]}/{digest[7:]}/layerfs"}
        for digest in digests
    ]
    return tar([file("thin.json", json.dumps({"version": "1.0", "origin": "an/image", "layers": layers}).encode())])


def describe(layer: Path, digest: str) -> None:
    """Let the repository say what the layer is uncompressed, too."""
    (layer.parent / ".metadata" / "layers.json").write_text(json.dumps([{"diff-digest": digest}]))


@pytest.fixture
def published(running: GraphDriver) -> Iterator[Path]:
    """The tree of a layer that a repository has, and that fits on anything."""
    _, place = running.repositories[0]
    tree = publish(place, DIGEST)
    describe(tree, DIGEST)
    (tree / "program").write_text("published")
    yield tree
    shutil.rmtree(place / ".layers")


def test_what_lies_on_a_thin_image_is_seen_over_its_published_layers(
    running: GraphDriver, new, published: Path
) -> None:
    base = new("")
    with tarfile.open(fileobj=io.BytesIO(thin(DIGEST))) as archive:
        size = archive.getmember("thin.json").size
    assert running.apply(base, thin(DIGEST)) == {"Size": size}
    place = running.get(new(base))
    assert (place / "program").read_text() == "published"
    assert not (place / "thin.json").exists()
    assert (running.get(base) / "thin.json").is_file(), "Docker could not save or push the image"
    assert running.call("GetMetadata", ID=base)["Metadata"]["LowerDir"] == str(published)
    assert running.call("DiffSize", ID=base, Parent="") == {"Size": size}


def test_one_directory_that_has_all_layers_is_used_if_it_is_there(running: GraphDriver, new, published: Path) -> None:
    _, place = running.repositories[0]
    other = "sha256:" + "b" * 64
    describe(publish(place, other), other)
    running.apply(base := new(""), thin(DIGEST, other))
    assert running.call("GetMetadata", ID=base)["Metadata"]["LowerDir"].count(":") == 1
    whole = publish_whole(place, DIGEST, other)
    (whole / "all").touch()
    assert os.listdir(running.get(new(base))) == ["all"]
    assert running.call("GetMetadata", ID=base)["Metadata"]["LowerDir"] == str(whole)


def test_a_diff_against_a_thin_image_is_less_what_that_stands_for(running: GraphDriver, new, published: Path) -> None:
    running.apply(base := new(""), thin(DIGEST))
    (running.get(below := new(base)) / "one").write_text("1")
    running.call("Put", ID=below)
    (running.get(name := new(below)) / "two").write_text("2")
    changes = running.call("Changes", ID=name, Parent=base)["Changes"]
    assert changes == [{"Path": "/one", "Kind": 1}, {"Path": "/two", "Kind": 1}]
    assert running.call("DiffSize", ID=name, Parent=base) == {"Size": 2}
    assert len([line for line in mounts(running.home) if " overlay " in line]) == 1


@pytest.mark.parametrize("fqrn", ["a.example.org", "elsewhere.example.org"])
def test_any_configured_repository_that_has_the_layer_serves(
    running: GraphDriver, new, published: Path, fqrn: str
) -> None:
    base = new("")
    assert "Err" not in running.apply(base, thin(DIGEST, fqrn=fqrn))
    assert (running.get(new(base)) / "program").is_file()


def test_a_thin_image_of_nothing_and_a_huge_one_are_refused(running: GraphDriver, new) -> None:
    assert "names no layers" in running.apply(new(""), thin())["Err"]
    assert "more than" in running.apply(new(""), tar([file("thin.json", b" " * (5 << 20))]))["Err"]


def test_a_thin_image_of_what_nobody_has_is_refused_and_names_the_layer(running: GraphDriver, new) -> None:
    said = running.apply(new(""), thin("sha256:" + "e" * 64, fqrn="other.example.org"))["Err"]
    assert "e" * 64 in said
    assert "other.example.org, which is not configured here" in said
    assert "\n" not in said


def test_a_published_layer_that_goes_is_told_when_a_container_starts(
    running: GraphDriver, new, published: Path
) -> None:
    base = new("")
    running.apply(base, thin(DIGEST))
    name = new(base)
    published.rename(published.with_name("gone"))
    assert DIGEST in running.refused("Get", ID=name)
    published.with_name("gone").rename(published)
    assert (running.get(name) / "program").is_file()


def test_a_file_that_is_only_called_so_makes_no_thin_image(running: GraphDriver, new) -> None:
    own, on_top = new(""), new()
    running.apply(own, tar([file("thin.json", b"{}"), file("other")]))
    running.apply(on_top, tar([file("thin.json", b"{}")]), "upper")
    for name in (new(own), new(on_top)):
        assert (running.get(name) / "thin.json").read_text() == "{}"


# --- kills -----------------------------------------------------------------------------------


def test_a_killed_driver_goes_on_where_it_was(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_root()
    with running_graph_driver(tmp_path_factory.mktemp("k")) as driver:
        driver.init()
        driver.layer("lower", LOWER)
        for name in ("once", "twice", "idle"):
            driver.call("CreateReadWrite", ID=name, Parent="lower")
        once, twice = driver.get("once"), driver.get("twice")
        driver.get("twice")
        (once / "kept").write_text("kept")
        driver.kill()
        assert (once / "kept").read_text() == "kept", "a container would have lost its files"
        driver.start()
        driver.call("Put", ID="twice")
        assert os.path.ismount(twice)
        for name in ("once", "twice"):
            driver.call("Put", ID=name)
        assert mounts(driver.home) == []
        assert (driver.get("once") / "kept").read_text() == "kept"
        driver.kill()
        subprocess.run(["umount", once], check=True)  # as a reboot does
        driver.start()
        driver.init()
        assert (driver.get("once") / "kept").read_text() == "kept"
        driver.call("Put", ID="once")
        assert mounts(driver.home) == []


def test_a_daemon_that_starts_anew_has_each_mount_once_and_one_that_stops_has_none(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    need_root()
    with running_graph_driver(tmp_path_factory.mktemp("n")) as driver:
        driver.init()
        driver.layer("lower", LOWER)
        driver.call("CreateReadWrite", ID="rw", Parent="lower")
        for _ in range(3):
            place = driver.get("rw")
        driver.init()
        driver.call("Put", ID="rw")
        assert not os.path.ismount(place)
        driver.get("rw")
        assert "is served here already" in driver.refused("Init", Home=str(driver.directory / "other"))
        driver.call("Cleanup")
        assert mounts(driver.home) == []
        driver.init(driver.directory / "other")
        assert driver.call("Exists", ID="rw") == {"Exists": False}
        driver.call("Cleanup")
        driver.init()
        assert driver.call("Exists", ID="rw") == {"Exists": True}


def test_a_home_that_somebody_deleted_is_made_anew_when_the_daemon_starts(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    need_root()
    with running_graph_driver(tmp_path_factory.mktemp("w")) as driver:
        driver.init()
        driver.layer("lower", LOWER)
        shutil.rmtree(driver.home)
        driver.init()
        assert driver.call("Exists", ID="lower") == {"Exists": False}
        driver.layer("lower", LOWER)
        assert (driver.get("lower") / "etc/motd").is_file()


def test_a_full_disk_is_told_in_one_line_and_the_layer_can_be_pulled_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    need_root()
    with running_graph_driver(tmp_path_factory.mktemp("f")) as driver:
        driver.home.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", driver.home], check=True)
        driver.init()
        driver.call("Create", ID="large", Parent="")
        said = driver.apply("large", tar([file("f", os.urandom(4 << 20))]))["Err"]
        assert "No space left" in said
        assert "fault of ducc" not in said
        driver.call("Remove", ID="large")
        driver.layer("large", LOWER)
        driver.kill()
        subprocess.run(["umount", "--lazy", driver.home], check=True)


def test_before_a_daemon_said_where_its_layers_are_it_is_told_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_root()
    with running_graph_driver(tmp_path_factory.mktemp("b")) as driver:
        assert "Init has not been called" in driver.refused("Get", ID="x")


def test_kills_at_any_moment_leave_no_half_layer_and_no_mount_of_nobody(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    need_root()
    with running_graph_driver(tmp_path_factory.mktemp("m")) as driver:
        driver.init()
        driver.layer("lower", LOWER)
        archive = tar([file(f"f{n}", b"x" * 1000) for n in range(300)])
        for moment in range(6):
            with ThreadPoolExecutor(1) as caller:
                asked = caller.submit(everything, driver, f"k{moment}", archive)
                time.sleep(0.016 * moment)
                driver.kill()
                asked.result(PATIENCE_SECONDS)
            driver.start()
            name = f"k{moment}"
            for layer in (f"{name}-rw", name):
                found = driver.answer("Get", ID=layer)
                if "Dir" in found and layer == name:
                    assert len(list(Path(found["Dir"]).glob("f*"))) in (0, 300)
                driver.call("Remove", ID=layer)
            assert mounts(driver.home) == []
        assert len(os.listdir(driver.home / "layers")) == 2, (
            "something was left: only the empty one and `lower` should be"
        )


def everything(driver: GraphDriver, name: str, archive: bytes) -> None:
    """A pull and a container, until the driver is killed."""
    try:
        driver.answer("Create", ID=name, Parent="lower")
        driver.apply(name, archive, "lower")
        driver.answer("CreateReadWrite", ID=f"{name}-rw", Parent=name)
        for _ in range(20):
            driver.answer("Get", ID=f"{name}-rw")
            driver.answer("Put", ID=f"{name}-rw")
    except (OSError, ValueError, HTTPException):
        pass  # cut off, which is the point


# --- many, and strangers ---------------------------------------------------------------------


def test_many_at_once_get_one_mount_and_leave_none(running: GraphDriver, new) -> None:
    name = new()
    with ThreadPoolExecutor(16) as callers:
        places = set(callers.map(lambda _: running.get(name), range(50)))
        (place,) = places
        assert len(mounts(place)) == 1
        list(callers.map(lambda _: running.call("Put", ID=name), range(50)))
    assert not os.path.ismount(place)


def test_of_many_that_create_and_remove_one_layer_each_is_answered(running: GraphDriver) -> None:
    def both(_: int) -> None:
        running.answer("Create", ID="contended", Parent="upper")
        running.answer("Get", ID="contended")
        running.answer("Put", ID="contended")
        running.call("Remove", ID="contended")

    with ThreadPoolExecutor(16) as callers:
        list(callers.map(both, range(60)))
    assert running.call("Exists", ID="contended") == {"Exists": False}


def test_hundreds_of_layers_fit_into_mount_options(running: GraphDriver, new, published: Path) -> None:
    _, place = running.repositories[0]
    digests = [f"sha256:{number:064x}" for number in range(64)]
    for digest in digests:
        layer = publish(place, digest)
        describe(layer, digest)
        (layer / digest[-4:]).touch()
    layers = [new("")]
    assert "Err" not in running.apply(layers[0], thin(*digests))
    for number in range(64):
        layers.append(new(layers[-1]))
        running.apply(layers[-1], tar([file(f"own{number}")]), layers[-2])
    assert len(os.listdir(running.get(new(layers[-1])))) == 128


def test_only_root_can_connect(running: GraphDriver) -> None:
    assert stat.S_IMODE(os.lstat(running.address).st_mode) == 0o600
    script = f"import socket; socket.socket(socket.AF_UNIX).connect({str(running.address)!r})"
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", script], capture_output=True
    )
    assert b"PermissionError" in done.stderr


def test_a_thousand_idle_connections_keep_nobody_out(running: GraphDriver) -> None:
    idle = []
    try:
        for n in range(1000):
            idle.append(socket.socket(socket.AF_UNIX))
            idle[-1].settimeout(PATIENCE_SECONDS)
            idle[-1].connect(str(running.address))
            if n % 2:
                idle[-1].send(b"P")
        assert running.call("Exists", ID="upper") == {"Exists": True}
    finally:
        for connection in idle:
            connection.close()

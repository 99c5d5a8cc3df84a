"""What containerd may expect of a snapshotter, asked through the socket of the real program.

containerd's own suite says the same in Go (`tests/end_to_end/test_containerd_suite.py`); here are the answers that it
does not ask for: hostile labels, layers that come and go, kills, and crowds.
"""

import itertools
import os
import random
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.needs import need_root
from tests.snapshotter import (
    PROGRAM,
    Client,
    Program,
    chain,
    mounted,
    publish,
    publish_whole,
    repository_mount,
    running_snapshotter,
)

LAYER = "sha256:" + "1a" * 32
OTHER = "sha256:" + "2b" * 32
CHAIN = chain(LAYER)
UPPER_CHAIN = chain(LAYER, OTHER)
REF = "containerd.io/snapshot.ref"
CRI = "containerd.io/snapshot/cri.layer-digest"
STARGZ = "containerd.io/snapshot/remote/stargz.digest"

NOT_FOUND, EXISTS = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS
PRECONDITION, INVALID = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    need_root()
    with repository_mount(tmp_path / "cvmfs") as mountpoint:
        yield mountpoint


@pytest.fixture
def program(tmp_path: Path, repository: Path) -> Iterator[Program]:
    with running_snapshotter(tmp_path / "s", ("images.test", repository)) as running:
        yield running


@pytest.fixture
def client(program: Program) -> Iterator[Client]:
    with program.client() as connected:
        yield connected


@contextmanager
def refused(*codes: grpc.StatusCode) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() in codes, caught.value.details()


def asked(target: str = CHAIN, layer: str = LAYER, label: str = CRI) -> dict[str, str]:
    return {REF: target, label: layer}


def adopt(client: Client, parent: str = "", **labels: str) -> None:
    with refused(EXISTS):
        client.prepare("default/1/extract-x", parent, asked(**labels))


# --- the states of a snapshot ----------------------------------------------------------------


def test_states_and_names_are_kept_as_containerd_demands(client: Client) -> None:
    client.prepare("a")
    with refused(EXISTS):
        client.prepare("a")
    with refused(INVALID):
        client.prepare("b", parent="a")  # not committed
    with refused(NOT_FOUND):
        client.prepare("b", parent="none")
    client.view("v")
    with refused(PRECONDITION):
        client.commit("c", "v")
    client.commit("c", "a")
    with refused(NOT_FOUND):
        client.stat("a")
    with refused(PRECONDITION):
        client.mounts("c")
    client.prepare("top", parent="c")
    client.prepare("other", parent="c")
    with refused(EXISTS):
        client.commit("c", "top")
    with refused(PRECONDITION):
        client.remove("c")
    for key in ("top", "other", "v", "c"):
        client.remove(key)
    for call in (client.stat, client.mounts, client.remove, client.usage):
        with refused(NOT_FOUND):
            call("c")
    assert client.names() == []


def test_labels_are_replaced_or_changed_one_by_one(client: Client) -> None:
    client.prepare("a", labels={"one": "1", "two": "2"})
    assert dict(client.update("a", {"one": "9", "three": "3"}, "labels.one", "labels.two").labels) == {"one": "9"}
    assert dict(client.update("a", {"three": "3"}).labels) == {"three": "3"}
    with refused(INVALID):
        client.update("a", {}, "parent")
    info = client.stat("a")
    assert info.updated_at.ToNanoseconds() > info.created_at.ToNanoseconds()
    client.commit("c", "a", {"own": "x"})
    assert dict(client.stat("c").labels) == {"own": "x"}


def test_usage_counts_what_is_written_each_inode_once(client: Client, program: Program) -> None:
    (mount,) = client.prepare("a")
    directory = Path(mount.source)
    (directory / "file").write_bytes(bytes(100_000))
    os.link(directory / "file", directory / "again")
    active = client.usage("a")
    assert active.inodes == 2
    assert 100_000 <= active.size < 150_000
    client.commit("c", "a")
    assert client.usage("c") == active


def test_filters_choose_what_is_listed_and_nonsense_is_refused(client: Client) -> None:
    client.prepare("a", labels={"x/y": "1"})
    client.view("v")
    assert client.names('labels."x/y"==1') == ["a"]
    assert client.names("kind==view", "name==a") == ["a", "v"]
    for nonsense in ("name==", "==1", "name==a,", "name~=(", '"', "n" * 1_000_000):
        with refused(INVALID):
            client.names(nonsense)


# --- published layers ------------------------------------------------------------------------


@pytest.mark.parametrize("label", [CRI, STARGZ])
def test_a_published_layer_exists_by_both_families_of_labels(label: str, client: Client, repository: Path) -> None:
    publish(repository, LAYER)
    adopt(client, label=label)
    info = client.stat(CHAIN)
    assert (info.kind, info.parent, info.labels[REF]) == (3, "", CHAIN)
    assert client.names(f'labels."{REF}"=={CHAIN},parent==""') == [CHAIN]
    usage = client.usage(CHAIN)
    assert (usage.size, usage.inodes) == (0, 0)


def test_a_layer_that_is_not_published_is_prepared_to_be_unpacked(client: Client) -> None:
    (mount,) = client.prepare("extract-1", labels=asked())
    assert mount.type == "bind"
    assert "rw" in mount.options
    with refused(NOT_FOUND):
        client.stat(CHAIN)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../etc", "nocolon", "sha256:1", "sha256:" + "1" * 63, "sha256:" + "G" * 64, "", "\0",
        "sha256:" + "1a" * 32 + "/..", "sha512:" + "1a" * 64, "md5:" + "1a" * 16, "sha256:" + "A1" * 32,
    ],
)  # fmt: skip
def test_no_path_is_made_of_a_digest_that_is_none(digest: str, client: Client, repository: Path) -> None:
    publish(repository, LAYER)
    for number, labels in enumerate((asked(layer=digest), asked(target=digest or "x"))):
        (mount,) = client.prepare(f"extract-{number}", labels=labels)
        assert mount.type == "bind"


def test_labels_that_containerd_itself_would_refuse_are_refused(client: Client) -> None:
    for labels in ({"x": "y" * 1_000_000}, {str(number): "x" for number in range(10_000)}):
        with refused(INVALID):
            client.prepare("a", labels=labels)
    for key in ("", "k" * 5000):
        with refused(INVALID):
            client.prepare(key)
    assert client.names() == []


def test_keys_of_any_text_make_no_path(client: Client, program: Program) -> None:
    keys = ["../../x", "a,upperdir=/etc", "a:b", "with space\n", "\0", "ä" * 100, "%s%n"]
    for key in keys:
        (mount,) = client.prepare(key)
        assert Path(mount.source).parent.parent == program.root / "snapshots"
    assert sorted(client.names()) == sorted(keys)
    for key in keys:
        client.remove(key)


def test_a_layer_hidden_behind_a_symbolic_link_is_not_published(client: Client, repository: Path) -> None:
    elsewhere = publish(repository, OTHER)
    link = publish(repository, LAYER)
    link.rmdir()
    link.symlink_to(elsewhere)
    (mount,) = client.prepare("extract-1", labels=asked())
    assert mount.type == "bind"


def test_one_layer_serves_any_number_of_chains(client: Client, repository: Path) -> None:
    publish(repository, LAYER)
    publish(repository, OTHER)
    adopt(client)
    adopt(client, parent=CHAIN, target=UPPER_CHAIN, layer=OTHER)
    client.prepare("own")
    unpacked = f"default/7/{CHAIN}"
    client.commit(unpacked, "own")
    adopt(client, parent=unpacked, target=UPPER_CHAIN, layer=OTHER)  # the same chain id on another parent
    for parent in (CHAIN, unpacked):
        (found,) = client.names(f'labels."{REF}"=={UPPER_CHAIN},parent=="{parent}"')
        assert client.stat(found).parent == parent
    adopt(client)  # once more: there already
    assert len(client.names()) == 4


def test_writes_go_over_published_layers_and_deletions_stay(client: Client, repository: Path, tmp_path: Path) -> None:
    base, top = publish(repository, LAYER), publish(repository, OTHER)
    (base / "kept").write_text("from below")
    (base / "deleted").write_text("x")
    (base / "dir").mkdir()
    (base / "dir" / "old").write_text("x")
    os.mknod(top / "deleted", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    (top / "dir").mkdir()
    os.setxattr(top / "dir", "trusted.overlay.opaque", b"y")
    adopt(client)
    adopt(client, parent=CHAIN, target=UPPER_CHAIN, layer=OTHER)
    client.prepare("container", parent=UPPER_CHAIN)
    with mounted(client.mounts("container"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["dir", "kept"]
        assert os.listdir(root / "dir") == []
        (root / "kept").write_text("mine")
    client.commit("changed", "container")
    client.view("look", parent="changed")
    with mounted(client.mounts("look"), tmp_path / "m") as root:
        assert (root / "kept").read_text() == "mine"
        with pytest.raises(OSError, match="Read-only"):
            (root / "new").write_text("x")
    assert (base / "kept").read_text() == "from below"


@pytest.mark.parametrize("layers", [1, 2])
def test_a_view_of_published_layers_alone_has_names_of_full_length(
    layers: int, client: Client, repository: Path, tmp_path: Path
) -> None:
    publish(repository, LAYER).joinpath("n" * 255).write_text("x")
    publish(repository, OTHER)
    adopt(client)
    if layers == 2:
        adopt(client, parent=CHAIN, target=UPPER_CHAIN, layer=OTHER)
    (mount,) = client.view("look", parent=UPPER_CHAIN if layers == 2 else CHAIN)
    lowers = mount.options[-1].removeprefix("lowerdir=").split(":")
    assert len(lowers) == layers + 1  # an empty directory of ours is the lowest
    with mounted([mount], tmp_path / "m") as root:
        assert os.listdir(root) == ["n" * 255]


def test_two_hundred_layers_have_names_that_fit_a_page(client: Client, repository: Path, program: Program) -> None:
    parent, layers = "", list[str]()
    for number in range(200):
        layers.append(f"sha256:{number:064x}")
        publish(repository, layers[-1])
        adopt(client, parent=parent, target=chain(*layers), layer=layers[-1])
        parent = chain(*layers)
    (mount,) = client.prepare("container", parent=parent)
    lowers = mount.options[-1].removeprefix("lowerdir=").split(":")
    relative = ":".join(lower.removeprefix(f"{program.root}/snapshots/") for lower in lowers)  # as containerd does
    assert len(lowers) == 200
    assert len(relative) < 2000


def test_a_stack_that_is_published_in_one_directory_is_one_lower_from_there_down(
    client: Client, repository: Path, tmp_path: Path
) -> None:
    layers = [f"sha256:{number:064x}" for number in range(4)]
    for number, digest in enumerate(layers):
        publish(repository, digest).joinpath(f"from-{number}").write_text("x")
    publish_whole(repository, *layers[:3]).joinpath("all-three").write_text("x")
    for number, digest in enumerate(layers):
        below = chain(*layers[:number]) if number else ""
        adopt(client, parent=below, target=chain(*layers[: number + 1]), layer=digest)
    client.prepare("container", parent=chain(*layers))
    client.commit("default/9/own", "container")
    client.view("look", parent="default/9/own")
    with mounted(client.mounts("look"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["all-three", "from-3"]
    client.view("lower", parent=chain(*layers[:2]))
    with mounted(client.mounts("lower"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["from-0", "from-1"]
    (repository / ".layers").rename(repository / "gone")
    with refused(UNAVAILABLE):
        client.mounts("look")


def test_a_stack_on_a_local_layer_is_never_shown_by_another_ones_directory(
    client: Client, repository: Path, tmp_path: Path
) -> None:
    publish(repository, OTHER).joinpath("upper").write_text("x")
    publish_whole(repository, LAYER, OTHER).joinpath("whole").write_text("x")
    (own,) = client.prepare("own")
    Path(own.source, "local").write_text("x")
    client.commit(f"default/7/{CHAIN}", "own")
    adopt(client, parent=f"default/7/{CHAIN}", target=UPPER_CHAIN, layer=OTHER)
    client.view("look", parent=UPPER_CHAIN)
    with mounted(client.mounts("look"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["local", "upper"]


# --- layers that are unpacked beside one another (containerd 2.3) -----------------------------


def unplaced(below: str, target: str, layer: str) -> dict[str, str]:
    return {**asked(target, layer), "containerd.io/snapshot/parent-chain-id": below}


def test_a_parent_can_be_said_at_the_commit(client: Client, tmp_path: Path) -> None:
    for number in range(3):
        (mount,) = client.prepare(f"extract-{number}", labels=unplaced(CHAIN, UPPER_CHAIN, OTHER) if number else {})
        with mounted([mount], tmp_path / "m") as root:
            (root / f"from-{number}").write_text("x")
    client.commit("base", "extract-0")
    client.commit("middle", "extract-1", parent="base")
    assert client.stat("middle").parent == "base"
    with refused(NOT_FOUND):
        client.commit("top", "extract-2", parent="none")
    client.prepare("active")
    for parent in ("active", "extract-2"):
        with refused(PRECONDITION):
            client.commit("top", "extract-2", parent=parent)
    client.commit("top", "extract-2", parent="middle")
    client.view("look", parent="top")
    with mounted(client.mounts("look"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["from-0", "from-1", "from-2"]
    with refused(PRECONDITION):
        client.remove("middle")
    client.prepare("other", parent="top")
    with refused(INVALID):
        client.commit("moved", "other", parent="base")
    client.commit("same", "other", parent="top")


def test_who_did_not_say_that_there_would_be_a_parent_is_refused_one(client: Client) -> None:
    """containerd 2.2 has carried out deletions on nothing then, and the files that they delete would come back."""
    client.prepare("extract-0")
    client.commit("base", "extract-0")
    client.prepare("extract-1")
    with refused(INVALID):
        client.commit("top", "extract-1", parent="base")
    client.commit("alone", "extract-1")
    client.prepare("extract-2", parent="base")
    client.commit("top", "extract-2", parent="base")


def test_whiteouts_of_a_layer_without_a_parent_can_be_unpacked(client: Client, tmp_path: Path) -> None:
    """containerd writes them as overlayfs wants them where it is given an overlay, and deletes files elsewhere."""
    (mount,) = client.prepare("extract-1", labels=unplaced(CHAIN, UPPER_CHAIN, OTHER))
    assert mount.type == "overlay"
    with mounted([mount], tmp_path / "m") as root:
        assert os.listdir(root) == []
        (root / "file").write_text("x")
    assert client.mounts("extract-1") == [mount]


def test_published_layers_without_a_parent_have_all_that_is_published_below_them(
    client: Client, repository: Path, tmp_path: Path
) -> None:
    layers = [f"sha256:{number:064x}" for number in range(3)]
    for number, digest in enumerate(layers):
        publish(repository, digest).joinpath(f"from-{number}").write_text("x")
    adopt(client, layer=layers[0], target=chain(layers[0]))
    for number in (1, 2):
        target = chain(*layers[: number + 1])
        with refused(EXISTS):
            client.prepare("x", labels=unplaced(chain(*layers[:number]), target, layers[number]))
        assert client.names(f'labels."{REF}"=={target},parent==""') == [target]
    adopt(client, parent=chain(*layers[:2]), layer=layers[2], target=chain(*layers))  # and with its parent
    assert len(client.names(f'labels."{REF}"=={chain(*layers)}')) == 2
    client.remove(chain(layers[0]))  # containerd knows of nothing that lies on it
    client.prepare("container", parent=chain(*layers))
    with mounted(client.mounts("container"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["from-0", "from-1", "from-2"]


def test_a_published_layer_without_a_parent_is_left_to_be_fetched_where_what_is_below_is_not_published(
    client: Client, repository: Path
) -> None:
    publish(repository, OTHER)
    client.prepare("extract-1", labels=unplaced(CHAIN, UPPER_CHAIN, OTHER))
    client.prepare("own")
    client.commit(f"default/7/{CHAIN}", "own")
    client.prepare("extract-2", labels=unplaced(CHAIN, UPPER_CHAIN, OTHER))
    adopt(client, parent=f"default/7/{CHAIN}", target=UPPER_CHAIN, layer=OTHER)
    third = f"sha256:{3:064x}"
    publish(repository, third)
    client.prepare("extract-3", labels=unplaced(UPPER_CHAIN, chain(LAYER, OTHER, third), third))
    with refused(EXISTS):
        client.prepare("extract-3")


# --- repositories that come and go -----------------------------------------------------------


def test_a_lost_mount_is_unavailable_and_recovers_by_itself(tmp_path: Path) -> None:
    need_root()
    place, content = tmp_path / "cvmfs", tmp_path / "content"
    publish(content, LAYER)
    place.mkdir()
    with running_snapshotter(tmp_path / "s", ("images.test", place)) as program, program.client() as client:
        (mount,) = client.prepare("extract-1", labels=asked())  # not mounted: containerd has to fetch
        assert mount.type == "bind"
        with repository_mount(place, content):
            adopt(client)
            client.prepare("container", parent=CHAIN)
        for call in (lambda: client.mounts("container"), lambda: client.prepare("second", parent=CHAIN)):
            with refused(UNAVAILABLE):
                call()
        with refused(NOT_FOUND):
            client.stat("second")
        with repository_mount(place, content):
            assert client.mounts("container")
        assert "is not mounted at" in program.log.read_text()


def test_the_next_repository_is_asked_and_followed_when_the_first_loses_a_layer(tmp_path: Path) -> None:
    need_root()
    with repository_mount(tmp_path / "one") as one, repository_mount(tmp_path / "two") as two:
        for place in (one, two):
            publish(place, LAYER).joinpath("from").write_text(place.name)
        publish(two, OTHER)
        with (
            running_snapshotter(tmp_path / "s", ("one.test", one), ("two.test", two)) as program,
            program.client() as client,
        ):
            adopt(client)
            adopt(client, parent=CHAIN, target=UPPER_CHAIN, layer=OTHER)  # only the second has it
            client.prepare("container", parent=CHAIN)
            with mounted(client.mounts("container"), tmp_path / "m") as root:
                assert (root / "from").read_text() == "one"
                (one / ".layers").rename(one / "gone")
                with mounted(client.mounts("container"), tmp_path / "n") as again:
                    assert (again / "from").read_text() == "two"
                assert (root / "from").read_text() == "one"  # what runs, runs on


# --- restarts, crowds ------------------------------------------------------------------------


def test_a_restart_wipes_and_unmounts_nothing(program: Program, repository: Path, tmp_path: Path) -> None:
    publish(repository, LAYER).joinpath("file").write_text("published")
    with program.client() as client:
        adopt(client)
        client.prepare("container", parent=CHAIN)
        before = client.mounts("container")
    with mounted(before, tmp_path / "m") as root:
        (root / "own").write_text("written")
        program.kill()
        program.start()
        assert (root / "own").read_text() == "written"
        assert (root / "file").read_text() == "published"
        with program.client() as client:
            assert client.mounts("container") == before
            assert sorted(client.names()) == sorted([CHAIN, "container"])


def test_what_is_mounted_when_its_snapshot_goes_is_deleted_when_it_is_unused(
    program: Program, repository: Path, tmp_path: Path
) -> None:
    publish(repository, LAYER)
    directories = program.root / "snapshots"
    with program.client() as client:
        adopt(client)
        mounts = client.prepare("container", parent=CHAIN)
        with mounted(mounts, tmp_path / "m") as root:
            client.remove("container")
            (root / "own").write_text("still there")
            client.cleanup()
            program.kill()
            program.start()
            assert (root / "own").read_text() == "still there"
        assert len(os.listdir(directories)) == 3
    with program.client() as client:
        client.cleanup()
    assert sorted(os.listdir(directories)) == ["0", "1"]


def test_directories_of_nobody_go_and_state_of_others_is_never_touched(program: Program) -> None:
    program.stop()
    (program.root / "snapshots" / "77" / "fs").mkdir(parents=True)
    program.start()
    assert os.listdir(program.root / "snapshots") == ["0"]
    program.stop()
    (program.root / "snapshots" / "77" / "fs").mkdir(parents=True)
    for file in program.root.glob("snapshots.sqlite*"):
        file.unlink()
    with pytest.raises(RuntimeError, match=r"snapshots\.sqlite is missing: restore it"):
        program.start()
    assert (program.root / "snapshots" / "77" / "fs").is_dir()
    assert program.process is not None
    assert program.process.returncode == 110
    (program.root / "snapshots.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(RuntimeError, match="repair it"):
        program.start()
    assert (program.root / "snapshots" / "77" / "fs").is_dir()


def test_a_signal_at_any_moment_ends_it_cleanly(program: Program) -> None:
    assert program.stop() == 0
    for _ in range(5):
        program.start()  # returns as soon as the socket is there, amid the start
        assert program.stop() == 0


def test_a_second_snapshotter_takes_neither_socket_nor_state(program: Program, tmp_path: Path) -> None:
    for place, status in ((["--root", tmp_path / "other"], 111), (["--address", tmp_path / "other.sock"], 110)):
        command = [PROGRAM, "--config", program.directory / "config.toml", *place]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == status
        assert len(second.stderr.splitlines()) == 1
        assert "another" in second.stderr
    with program.client() as client:
        assert client.names() == []


def test_of_many_who_want_a_key_one_gets_it(client: Client, repository: Path, program: Program) -> None:
    publish(repository, LAYER)
    adopt(client)

    def attempt(number: int) -> grpc.StatusCode | None:
        try:
            client.prepare("wanted", parent=CHAIN)
        except grpc.RpcError as error:
            return error.code()
        client.remove("wanted")
        return None

    with ThreadPoolExecutor(32) as crowd:
        outcomes = set(crowd.map(attempt, range(200)))
    assert None in outcomes
    assert outcomes <= {None, EXISTS}
    assert client.names() == [CHAIN]
    client.cleanup()
    assert sorted(os.listdir(program.root / "snapshots")) == ["0", "1"]


def test_calls_that_are_taken_back_and_clients_that_go_leave_whole_snapshots_or_none(
    client: Client, repository: Path, program: Program
) -> None:
    publish(repository, LAYER)
    adopt(client)
    for number in range(60):
        with program.client() as hasty:
            hasty.abandon(f"c{number}", CHAIN, number / 10_000)
    unseen = 0
    while unseen < 10:  # some may still be under way
        left = set(client.names()) - {CHAIN}
        unseen = 0 if left else unseen + 1
        for name in left:
            assert client.mounts(name)
            client.remove(name)
        time.sleep(0.2)
    client.cleanup()
    assert client.names() == [CHAIN]
    assert sorted(os.listdir(program.root / "snapshots")) == ["0", "1"]


def test_many_containers_of_one_image_at_once(client: Client, repository: Path) -> None:
    publish(repository, LAYER)
    adopt(client)
    with ThreadPoolExecutor(50) as crowd:
        mounts = list(crowd.map(lambda number: client.prepare(f"c{number}", parent=CHAIN), range(50)))
    uppers = {mount.options[2] for (mount,) in mounts}
    assert len(uppers) == 50


def test_killed_at_any_moment_it_comes_back_with_all_it_said_was_done(program: Program, repository: Path) -> None:
    for number in range(3):
        publish(repository, f"sha256:{number:064x}")
    done: dict[str, bool] = {}
    chance = random.Random(7)
    for round_ in range(6):
        killer = threading.Timer(chance.uniform(0.02, 0.3), program.kill)
        killer.start()
        with program.client() as client:
            ended = _work_until_killed(client, f"r{round_}", done)
        assert ended in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        killer.join()
        program.start()
        with program.client() as client:
            there = set(client.names())
            assert {name for name, alive in done.items() if alive} <= there
            assert not {name for name, alive in done.items() if not alive} & there
            for name in there:
                if client.stat(name).kind != 3:
                    client.mounts(name)
    with program.client() as client:
        numbers = {"0", *(name for name in os.listdir(program.root / "snapshots"))}
        client.cleanup()
        assert set(os.listdir(program.root / "snapshots")) == numbers  # the start has cleaned up already


def _work_until_killed(client: Client, prefix: str, done: dict[str, bool]) -> grpc.StatusCode:
    """Why it ended. What was answered stands in *done* (name: is it there?); what was not, may be either way."""
    try:
        for number in itertools.count():
            name = f"{prefix}-{number}"
            client.prepare(f"{name}-active")
            done[f"{name}-active"] = True
            done.pop(f"{name}-active")
            client.commit(name, f"{name}-active")
            done[name] = True
            client.prepare(f"{name}-on", parent=name)
            done[f"{name}-on"] = True
            if number % 2:
                done.pop(f"{name}-on")
                client.remove(f"{name}-on")
                done[f"{name}-on"] = False
    except grpc.RpcError as error:
        return error.code()


# --- the socket ------------------------------------------------------------------------------


def test_only_root_comes_in_even_if_the_sockets_mode_lets_others(program: Program) -> None:
    assert stat.S_IMODE(program.address.stat().st_mode) == 0o600
    attempt = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(60);"
        "s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'); sys.exit(0 if s.recv(1) else 9)"
    )
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    command += ["/usr/bin/python3", "-c", attempt, str(program.address)]
    with opened_to_all(program.address):
        stranger = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Traceback" not in stranger.stderr or "reset" in stranger.stderr.lower() or "Broken" in stranger.stderr
        assert stranger.returncode != 0
        assert "from user 65534" in program.log.read_text()
        root = subprocess.run(command[6:], capture_output=True, text=True, check=False)
        assert root.returncode == 0, root.stderr


@contextmanager
def opened_to_all(path: Path) -> Iterator[None]:
    """Let everybody reach *path*, whatever pytest made of its directories."""
    before = {place: stat.S_IMODE(place.stat().st_mode) for place in (path, *path.parents)}
    for place, mode in before.items():
        place.chmod(mode | (0o666 if place == path else 0o011))
    try:
        yield
    finally:
        for place, mode in before.items():
            place.chmod(mode)

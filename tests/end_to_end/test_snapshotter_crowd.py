"""Two hundred callers at once, over one connection as containerd has it: each is served as if it were alone."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from snapshotter.remote import LAYER_LABELS, TARGET
from tests.needs import need_root
from tests.snapshotter import Client, Program, chain, publish, repository_mount, running_snapshotter

CALLERS = 200
LAYERS = ["sha256:" + digit * 64 for digit in "12"]
CHAINS = [chain(*LAYERS[: number + 1]) for number in range(len(LAYERS))]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    need_root()
    with repository_mount(tmp_path / "cvmfs") as repository:
        for layer in LAYERS:
            publish(repository, layer)
        with running_snapshotter(tmp_path / "s", ("images.test", repository)) as running:
            yield running


def test_two_hundred_pull_start_and_remove_at_once_and_nothing_stays_behind(program: Program) -> None:
    together = threading.Barrier(CALLERS)

    def pull(client: Client, number: int) -> None:
        """Ask for both layers, as every pull of the image does."""
        for place, layer in enumerate(LAYERS):
            labels = {TARGET: CHAINS[place], LAYER_LABELS[0]: layer}
            with pytest.raises(grpc.RpcError) as told:
                client.prepare(f"extract-{number}-{place}", CHAINS[place - 1] if place else "", labels)
            assert told.value.code() == grpc.StatusCode.ALREADY_EXISTS

    def use(number: int) -> str:
        """A container on the image, or on a layer of the caller's own upon it; where it writes."""
        together.wait()
        pull(client, number)
        parent = CHAINS[-1]
        if number % 2:
            client.prepare(f"unpack-{number}", parent)
            client.commit(f"own-{number}", f"unpack-{number}")
            parent = f"own-{number}"
        (mount,) = client.prepare(f"container-{number}", parent)
        lowers = next(option for option in mount.options if option.startswith("lowerdir=")).count(":") + 1
        assert lowers == len(LAYERS) + number % 2
        upper = next(option for option in mount.options if option.startswith("upperdir="))
        Path(upper.partition("=")[2], "mine").write_text(str(number))
        assert list(client.mounts(f"container-{number}")) == [mount]
        client.remove(f"container-{number}")
        if number % 2:
            client.remove(parent)
        return upper

    with program.client() as client, ThreadPoolExecutor(CALLERS) as crowd:
        uppers = list(crowd.map(use, range(CALLERS)))
        assert len(set(uppers)) == CALLERS
        assert sorted(client.names()) == sorted(CHAINS)
        client.cleanup()
    left = [name for name in os.listdir(program.root / "snapshots") if name != "0"]
    assert len(left) == len(LAYERS)
    assert os.listdir(program.root / "gone") == []

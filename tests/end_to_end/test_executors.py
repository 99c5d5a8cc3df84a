"""Layers may be ingested by any executor's workers: they share nothing but the store, and the trees are the same."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.console import Console, clean_environment
from tests.images.pushed import PushedImage

FQRN = "executors.ducc.test"
CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1",
                      local_directory={directory!r}) as running:
        print(running.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def reference(images: Callable[[str], PushedImage]) -> str:
    return f"http://{images('small-mixed').reference}"


def test_worker_processes_give_the_trees_that_threads_give(ducc: Console, reference: str) -> None:
    assert trees(ducc, "processes", reference, "processes:2") == trees(ducc, "here", reference, "here")


def test_workers_of_a_cluster_give_the_trees_that_threads_give(ducc: Console, reference: str) -> None:
    with cluster(ducc.home) as address:
        assert trees(ducc, "dask", reference, f"dask:{address}") == trees(ducc, "here", reference, "here")


def test_a_fault_in_a_worker_process_is_told_as_if_it_were_ours(ducc: Console, reference: str) -> None:
    place = repository(ducc, "refused")
    missing = reference.replace("small-mixed", "nothing")
    told = ducc("convert-single-image", missing, FQRN, *place, "--executor", "processes:2", status=3)
    assert "no such image" in told.stderr.lower()
    assert "Traceback" not in told.stderr


def test_an_executor_that_does_not_exist_is_bad_input(ducc: Console, reference: str) -> None:
    place = repository(ducc, "none")
    told = ducc("convert-single-image", reference, FQRN, *place, "--executor", "somewhere", status=2)
    assert told.stderr == "ducc: --executor somewhere: write here, processes:N or dask:ADDRESS\n"


def repository(ducc: Console, name: str) -> list[str | Path]:
    home = ducc.home / name
    where = ["--storage", f"file://{home}/store", "--keys", home / "keys"]
    ducc("init", FQRN, *where)
    return [*where, "--cache", home / "cache"]


def trees(ducc: Console, name: str, reference: str, executor: str) -> list[str]:
    place = repository(ducc, name)
    report = ducc("convert-single-image", reference, FQRN, *place, "--json", "--executor", executor).json
    ducc("check", FQRN, *place[:4], "--data")
    return [image["root_hash"] for image in report["repositories"][0]["images"]]


@contextmanager
def cluster(home: Path) -> Iterator[str]:
    """A scheduler and two worker processes, in a process group of their own; yields the scheduler's address."""
    pytest.importorskip("distributed", reason="install ducc[cluster]")
    program = CLUSTER.format(directory=str(home / "dask"))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(home),
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate(timeout=60)

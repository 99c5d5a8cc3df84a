"""The option `--executor`: who ingests layers."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from ducc.cli import process
from ducc.errors import BadInput


class NoSuchExecutor(BadInput):
    """`--executor` names nothing that could ingest layers."""

    def __init__(self, text: str) -> None:
        super().__init__(f"--executor {text}: write here, processes:N or dask:ADDRESS")


@contextmanager
def open_executor(text: str) -> Iterator[Executor | None]:
    """Yield what *text* names; None stands for this process."""
    kind, _, detail = text.partition(":")
    if text == "here":
        yield None
    elif kind == "processes" and detail.isdigit() and int(detail) > 0:
        with _processes(int(detail)) as pool:
            yield pool
    elif kind == "dask" and detail:
        with _dask(detail) as pool:
            yield pool
    else:
        raise NoSuchExecutor(text)


def _processes(number: int) -> Executor:
    from concurrent.futures import ProcessPoolExecutor  # the import costs more than many a conversion
    from multiprocessing import get_context

    return ProcessPoolExecutor(number, get_context("spawn"), initializer=process.prepare)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise BadInput("--executor dask: install ducc[cluster] here and on the workers") from None
    connect: Any = Client  # the library has no types
    with connect(address) as client, client.get_executor() as pool:
        yield pool

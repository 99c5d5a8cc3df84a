import subprocess
import sys

import pytest

NOT_FOR_A_MOUNT = (
    "requests",
    "urllib3",
    "oras",
    "yaml",
    "rich",
    "starlette",
    "ducc.registry",
    "ducc.publish",
    "ducc.ingest",
)
WATCHING = ("sqlite3", "cryptography", "asyncio", "ducc.catalog", "ducc.storage")


def imported_with(module: str) -> set[str]:
    """All that is in memory once *module* is."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["ducc.cli.mount", "ducc.client.daemon", "ducc.client.network.store"])
def test_a_mount_keeps_nothing_in_memory_of_those_who_publish(module: str) -> None:
    assert imported_with(module).isdisjoint(NOT_FOR_A_MOUNT)


def test_the_process_that_watches_keeps_nothing_of_the_one_that_answers() -> None:
    imported = imported_with("ducc.cli.main, ducc.cli.mount, ducc.client.background")
    assert imported.isdisjoint([*NOT_FOR_A_MOUNT, *WATCHING])

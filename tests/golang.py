"""Go programs of the tests, built offline from the library sources that Debian ships."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.needs import need_program

GOPATH = Path("/usr/share/gocode")


def built(directory: Path, source: str, *, package: str, needs: str) -> Path:
    """The program made of *source* in *directory*; a test binary if it has tests.

    Skips where the library *needs* (an import path) is not there, which Debian's *package* brings.
    """
    need_program("go")
    if not (GOPATH / "src" / needs).is_dir():
        pytest.skip(f"no {needs}: apt-get install {package}")
    is_test = "testing.T" in source
    (directory / ("program_test.go" if is_test else "program.go")).write_text(source)
    cache = directory / "cache"
    settings = {"GO111MODULE": "off", "GOPATH": GOPATH, "GOCACHE": cache, "GOFLAGS": "-buildvcs=false"}
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    how = ["test", "-c"] if is_test else ["build"]
    subprocess.run(["go", *how, "-o", "program"], cwd=directory, env=environment, check=True)
    shutil.rmtree(cache)
    return directory / "program"

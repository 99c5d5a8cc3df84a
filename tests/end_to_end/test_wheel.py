"""The wheel, installed into a clean virtual environment: every program starts, and has all that it needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ducc import __version__

ROOT = Path(__file__).parents[2]
SOURCES = ("ducc", "graphdriver", "snapshotter", "volumes")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", directory, ROOT)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of an environment with the wheel, what it needs, and nothing else."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip(environment / "bin" / "python", "install", "--constraint", ROOT / "constraints.txt", wheel)
    return environment / "bin"


def pip(python: Path, *words: object) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr


def run(program: Path, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=120, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_programs_and_no_test(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert set(tracked.stdout.split()) <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "docs"))]
    assert f"ducc-{__version__}.dist-info/licenses/LICENSE" in names


def test_every_program_starts_and_says_how_it_is_used(programs: Path) -> None:
    installed = {path.name for path in programs.glob("*ducc*")}
    assert installed >= {"ducc", "ducc-graphdriver", "ducc-snapshotter", "ducc-volumes", "mount.ducc"}
    for name in sorted(installed - {"mount.ducc"}):
        assert run(programs / name, "--help").startswith(f"usage: {name}")
    assert run(programs / "ducc", "--version") == f"ducc {__version__}\n"


def test_every_command_has_what_it_imports(programs: Path, tmp_path: Path) -> None:
    run(programs / "ducc", "man-pages", str(tmp_path))  # which imports all of them
    assert (tmp_path / "man1" / "ducc-volumes.1").exists()
    assert "complete" in run(programs / "ducc", "completion", "bash")
    late = ("ducc.client.daemon", "ducc.daemon.loop", "ducc.health", "snapshotter.service", "volumes.snapshots")
    run(programs / "python", "-c", f"import {', '.join(late)}")


def test_documents_units_and_the_schema_of_wishlists_come_with_it(programs: Path) -> None:
    share = programs.parent / "share" / "doc" / "ducc"
    assert (share / "wishlist.schema.json").read_bytes() == (ROOT / "docs" / "wishlist.schema.json").read_bytes()
    for directory in ("docs", "packaging"):
        files = subprocess.run(["git", "ls-files", directory], cwd=ROOT, capture_output=True, text=True, check=True)
        missing = [name for name in files.stdout.split() if not (share / name.removeprefix("docs/")).exists()]
        assert not missing


def test_nothing_that_is_needed_contradicts_something_else(programs: Path) -> None:
    run(programs / "python", "-m", "pip", "check")

"""What every test may ask for, and what no test may leave behind.

    registry   Debian's docker-registry on loopback, one for the whole session     (tests/registry.py)
    images     `images("python")`: that image, built if need be, in the registry   (tests/images/)
    ducc       `ducc("convert", path)`: the console script, as a stranger runs it  (tests/console.py)

A session that leaves a mount, a process or a socket behind fails, whatever its tests said. All state is in one
temporary directory, which goes with the session; `--basetemp DIR` keeps it there.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.console import Console
from tests.images import build
from tests.images.pushed import PushedImage
from tests.leftovers import SESSION_VARIABLE, leftovers
from tests.registry import Registry, running_registry

LEFT_BEHIND = pytest.StashKey[list[str]]()
OWN_BASETEMP = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def images(registry: Registry) -> Callable[[str], PushedImage]:
    """A function: name of an image → the image in the registry. Each is built and pushed when first wanted."""
    pushed: dict[str, PushedImage] = {}

    def image(name: str) -> PushedImage:
        if name not in pushed:
            built = build(name)
            pushed[name] = PushedImage(built, built.push(registry))
        return pushed[name]

    return image


@pytest.fixture
def ducc(tmp_path: Path) -> Iterator[Console]:
    """The console script; what it was left to run in the background is stopped after the test."""
    home = tmp_path / "home"
    home.mkdir()
    with Console(home) as console:
        yield console


@pytest.fixture(autouse=True)
def no_unannounced_warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    """A WARNING asks an operator to act, so a test that causes one must say so, by asking for `caplog`."""
    if "caplog" in request.fixturenames:
        yield
        return
    logger, seen = logging.getLogger("ducc"), WarningsSeen()
    logger.addHandler(seen)
    yield
    logger.removeHandler(seen)
    assert not seen.messages, f"logged without announcement (a test that means to asks for caplog): {seen.messages}"


class WarningsSeen(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


# --- the session ---------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Mark the session's processes, and choose the directory of its files, before any worker starts."""
    if hasattr(config, "workerinput"):
        return
    os.environ[SESSION_VARIABLE] = f"{os.getpid()}-{os.urandom(4).hex()}"
    if config.option.basetemp is None:
        config.stash[OWN_BASETEMP] = Path(tempfile.mkdtemp(prefix="ducc-tests-"))
        config.option.basetemp = str(config.stash[OWN_BASETEMP] / "run")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last fixture is gone: nothing of ours may run, be mounted or listen."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    found = leftovers(os.environ[SESSION_VARIABLE], Path(config.option.basetemp))
    config.stash[LEFT_BEHIND] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif OWN_BASETEMP in config.stash:
        shutil.rmtree(config.stash[OWN_BASETEMP], ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(LEFT_BEHIND, [])
    if found:
        terminalreporter.section("left behind by this session", red=True)
        for line in found:
            terminalreporter.line(line)

"""The console script as a stranger runs it: a process of its own, in a clean environment."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.leftovers import SESSION_VARIABLE

SCRIPT = Path(sys.executable).with_name("ducc")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SECONDS = 60


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status, and what it wrote to each stream."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


class Console:
    """Runs `ducc …` in *home*; as a context manager it ends what `start` left running."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = clean_environment(home)
        self._background: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._background):
            stop(process)

    def __call__(self, *words: object, status: int | None = 0, timeout: float = 300, **environment: str) -> Result:
        """Run to the end. Any other exit status than *status* is a failure that shows what was written.

        None allows every status. Keyword arguments are added to the environment.
        """
        done = subprocess.run(
            [SCRIPT, *map(str, words)],
            cwd=self.home,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
        )
        command = " ".join(["ducc", *map(str, words)])
        assert status in (None, done.returncode), (
            f"`{command}` ended with {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *words: object, log: Path | None = None, **environment: str) -> "subprocess.Popen[bytes]":
        """Start in the background, output to *log* (default: a file in home named after the command).

        It is killed when the test's process dies, and stopped by SIGTERM at the end of the test.
        """
        name = f"{words[0]}-{len(self._background)}.log"
        with (log or self.home / name).open("wb") as output:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", SCRIPT, *map(str, words)],
                cwd=self.home,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._background.append(process)
        return process


def stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, then SIGKILL for what does not listen."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
        return
    process.kill()
    process.wait()


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the developer's: no settings, credentials, proxies or locale but UTF-8."""
    session = {key: value for key, value in os.environ.items() if key == SESSION_VARIABLE}
    return {"PATH": SYSTEM_PATH, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home), **session}

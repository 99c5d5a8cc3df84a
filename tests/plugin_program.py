"""A plugin's program as a stranger runs it: in a sandbox, with a log, started and killed again and again."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 60


@dataclass
class PluginProgram:
    """The process of one installation."""

    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def run(
        self,
        program: Path,
        options: Sequence[str | Path],
        sandbox: Sequence[str],
        log: Path,
        answers: Callable[[], bool],
    ) -> None:
        """Run *program* in what setpriv makes of *sandbox*, and wait until it *answers*."""
        command = ["setpriv", "--pdeathsig", "KILL", *sandbox, program, *options]
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if answers():
                return
            time.sleep(0.05)
        raise RuntimeError(f"{program.name} did not start:\n{log.read_text()}")

    def kill(self) -> None:
        """SIGKILL: nothing is put in order."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

"""`ducc loop` on a test's repository, as a service manager runs it, and what it says of itself."""

import signal
import time

from ducc.daemon.state import read_state
from tests.end_to_end.published import Published

PATIENCE_SECONDS = 60


class Daemon:
    """`ducc loop` on a repository, and what it says of itself."""

    def __init__(self, made: Published, *words: object, state: str = "state", **environment: str) -> None:
        self.made = made
        self.log = made.directory / f"loop-{time.monotonic_ns()}.log"
        self.state = made.directory / state
        options = [*made.publisher, "--state", self.state, "--interval", "1s", *words]
        self.process = made.ducc.start("loop", *options, log=self.log, **environment)

    def statuses(self):
        found = read_state(self.state / f"{self.made.fqrn}.sqlite")
        return {} if found is None else {one.image: one.status for one in found[0] if one.left_at is None}

    def until(self, condition, seconds=PATIENCE_SECONDS):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended: {self.output()}"
            assert time.monotonic() < deadline, f"{self.statuses()}\n{self.output()}"
            time.sleep(0.05)

    def until_granted(self, *wishes):
        """Wait until it is at work, and says so of these wishes: the state alone may be that of an earlier one."""
        granted = dict.fromkeys(wishes, "granted")
        self.until(lambda: "ready: " in self.output() and self.statuses() == granted)

    def output(self):
        return self.log.read_text(errors="replace")

    def stop(self, number=signal.SIGTERM):
        """Its exit status, and how long it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS), time.monotonic() - started

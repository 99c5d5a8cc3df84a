"""How the process behind a mount makes way for another: of a newer program, or with another configuration.

The mount stays, and so does everything open on it: the successor gets the line to the kernel, and finds under which
inodes it has to go on where the successor of a killed process finds it. Before anything is given up, the successor has
to show that it could start.
"""

import subprocess
from collections.abc import Callable, Sequence

from ducc.client.background import Start
from ducc.client.control import OrderFailed

_TRIAL_SECONDS = 120.0


class Renewal:
    """The way to a successor. *is_outdated* tells, or raises `DuccError`, whether it would be configured otherwise."""

    def __init__(self, start: Start, trial: Sequence[str], is_outdated: Callable[[], bool] = lambda: False) -> None:
        """*trial* is the successor's command, which starts nothing but ends as that would begin."""
        self._start, self._trial, self.is_outdated = start, trial, is_outdated
        self.wanted = False
        self._make_way: Callable[[], None] | None = None  # called in the end, when everything has been said
        self._is_due = False

    def begin(self) -> None:
        """Make sure that a successor will come. Raises `OrderFailed`, and then everything stays as it is."""
        try:
            tried = subprocess.run(
                self._trial,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TRIAL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OrderFailed(f"nothing was changed: another process can't be started: {error}") from error
        if tried.returncode != 0:
            reason = tried.stderr.strip().splitlines() or [f"it ended with {tried.returncode}"]
            raise OrderFailed(f"nothing was changed: another process would not start: {reason[-1]}")
        if not self._start.succeed():
            raise OrderFailed("nobody watches this mount who could start another process: unmount and mount it")
        self.wanted = True

    def proceed(self) -> None:
        """To be called when nothing more is to be said: make way, if that is wanted."""
        if self.wanted:
            self._is_due = True
            if self._make_way is not None:
                self._make_way()

    def by(self, make_way: Callable[[], None]) -> None:
        """From now on *make_way* is how the process makes way; at once, if that was wanted meanwhile."""
        self._make_way = make_way
        if self._is_due:
            make_way()

"""How soon the kernel asks again, learned from what it has asked.

Who opens a file asks three things within a tenth of a millisecond, and nothing for a while after. A processor that
sleeps between two such questions wakes for as long as both answers take, so the one who reads them stays awake after
those questions that were mostly followed by another one soon.
"""

_KINDS = 64  # of questions, by operation; greater ones share places
_SURE, _LIKELY = 7, 4  # of that many questions the last ones, more or less


class Pace:
    """What is known of each kind of question: guesses, which threads that ask at the same time may spoil a little."""

    SOON_NS = 100_000

    def __init__(self) -> None:
        self._soon = bytearray(_KINDS)
        self._last = 0

    def answered(self, operation: int) -> None:
        """A question of that kind was the last one."""
        self._last = operation % _KINDS

    def is_soon(self) -> bool:
        """Does the next question probably come within `SOON_NS`?"""
        return self._soon[self._last] >= _LIKELY

    def learn(self, was_soon: bool) -> None:
        """Whether it has come so soon."""
        seen = self._soon[self._last]
        self._soon[self._last] = min(seen + 1, _SURE) if was_soon else max(seen - 1, 0)

"""What every error of this program has in common: one line for the operator, and an exit status.

Errors live beside the code that raises them; this module holds only their root. Exit statuses are part of the
public contract (`docs/exit-status.md`): 0 all granted, 2 bad input, 3 some wishes failed, and one per class below.
"""

from typing import Any, ClassVar


class DuccError(Exception):
    """An outcome with a name. Its text is one line that names the item and says what to do."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False  # would the same call, later, perhaps succeed?

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come back from worker processes as they were, whatever their constructors take."""
        return _revived, (type(self), self.args, self.__dict__)


def _revived(kind: type[DuccError], args: tuple[Any, ...], attributes: dict[str, Any]) -> DuccError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class UnexpectedFailure(DuccError):
    """A fault of this program, met while it worked on one of many things; the others go on."""

    exit_code = 70

    def __init__(self, error: Exception) -> None:
        super().__init__(f"unexpected {type(error).__name__}: {error}; this is a fault of ducc, the log has more")


class BadInput(DuccError):
    """What a person wrote (a wishlist, a reference, an option) can't be used as it is."""

    exit_code = 2

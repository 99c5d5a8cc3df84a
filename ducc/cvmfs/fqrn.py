"""Names of repositories: `repo.example.org`.

A name becomes a directory, a file name and a line of the manifest, so it is judged once, here.
"""

import re

from ducc.errors import BadInput

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)+", re.IGNORECASE)
_LONGEST = 200  # leaves room for what is added to it in file names


class BadRepositoryName(BadInput):
    """A text that should name a repository does not."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"not a repository name: {text[:80]!r} (wanted: letters, digits, '-', '_', as repo.example.org)"
        )


def require_fqrn(text: str) -> str:
    """Return *text* if it is a repository's fully qualified name: at least two labels joined by dots."""
    if len(text) > _LONGEST or not _NAME.fullmatch(text):
        raise BadRepositoryName(text)
    return text

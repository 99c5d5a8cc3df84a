"""How entries look on this machine: symbolic links that name variables, and owners that are others here.

What is published stays as it is; only what programs on the mount see differs. `$(NAME)` in a link's target stands for
the variable's value, or nothing, and `$(NAME:-text)` for *text* where there is no such variable; whatever stands up to
the next `)` is name and text, as in the stock client. Source of the syntax: format, column `symlink`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ducc.cvmfs.entry import Entry

_VARIABLE = re.compile(rb"\$\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Owners:
    """Ids to show: *ids* by published id, *rest* for all that are not there (None: the published one)."""

    ids: Mapping[int, int] = field(default_factory=dict)
    rest: int | None = None

    def of(self, published: int) -> int:
        return self.ids.get(published, published if self.rest is None else self.rest)

    def __bool__(self) -> bool:
        return bool(self.ids) or self.rest is not None


@dataclass(frozen=True, slots=True)
class View:
    """How a mount shows entries. *variables* are for the links."""

    variables: Mapping[str, str] = field(default_factory=lambda: machines_variables(os.environ))
    users: Owners = Owners()
    groups: Owners = Owners()

    def of(self, entry: Entry) -> Entry:
        """The entry as it is shown; itself, if nothing about it is different here."""
        if b"$(" in entry.symlink:
            target = expand(entry.symlink, self.variables)
            entry = entry._replace(symlink=target, size=len(target))
        if self.users or self.groups:
            entry = entry._replace(uid=self.users.of(entry.uid), gid=self.groups.of(entry.gid))
        return entry


def machines_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, and what the kernel calls the processor as `CVMFS_ARCH`, as in the stock client."""
    return {"CVMFS_ARCH": os.uname().machine, **environment}


def expand(target: bytes, variables: Mapping[str, str]) -> bytes:
    """A link's target with the values of the variables that it names."""

    def value(found: re.Match[bytes]) -> bytes:
        name, _, default = found[1].partition(b":-")
        known = variables.get(os.fsdecode(name))
        return default if known is None else os.fsencode(known)

    return _VARIABLE.sub(value, target)

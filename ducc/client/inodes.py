"""Inode numbers without a table of inodes.

Every attached catalog has a span of numbers of its own, and a row's inode is the span's first number plus its rowid:
however many inodes the kernel knows, nothing is remembered for any of them. Only when another revision puts a new
catalog in the place of an old one is there a table, of eight bytes a row: what is still the same thing keeps its
number, what is not gets a new one, and no number ever comes back.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from ducc.catalog.reader import BadCatalog

ROOT_INODE = 1
_FIRST = 256  # numbers below mean something to some programs
_MOST_ROWS = 1 << 32  # rowids are dense; a catalog that says otherwise would use up the numbers

Owner = TypeVar("Owner")


class Span(NamedTuple):
    """Numbers from *first* on, one for each of *rowids*; rowid 0 stands for a row that is no more."""

    first: int
    rowids: Sequence[int]


class Numbering:
    """The numbers of one catalog's rows. Never changes; a successor takes its place."""

    def __init__(self, inodes: Sequence[int], spans: tuple[Span, ...]) -> None:
        """*inodes* by rowid; *spans* in ascending order, the same the other way round."""
        self._inodes, self._spans = inodes, spans

    def __len__(self) -> int:
        """One more than the last rowid."""
        return len(self._inodes)

    def inode(self, rowid: int) -> int:
        return self._inodes[rowid]

    def rowid(self, inode: int) -> int:
        """The row that has the number, or 0 if that row is no more."""
        for span in reversed(self._spans):
            if inode >= span.first:
                at = inode - span.first
                return span.rowids[at] if at < len(span.rowids) else 0
        return 0


class Inodes(Generic[Owner]):
    """Which span belongs to whom."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._owners: list[Owner] = []
        self._next = _FIRST
        self._lock = Lock()

    def __getstate__(self) -> tuple[list[int], list[Owner], int]:
        with self._lock:
            return list(self._firsts), list(self._owners), self._next

    def __setstate__(self, state: tuple[list[int], list[Owner], int]) -> None:
        self._firsts, self._owners, self._next = state
        self._lock = Lock()

    @property
    def last(self) -> int:
        """The greatest number that was ever given."""
        return self._next - 1

    def owner(self, inode: int) -> Owner | None:
        """Whose span the number lies in; the owner's numbering knows which row it is."""
        at = bisect_right(self._firsts, inode) - 1
        return self._owners[at] if at >= 0 else None

    def number(self, owner: Owner, last_rowid: int) -> Numbering:
        """Number the rows 1 to *last_rowid*."""
        first = self._allocate(owner, last_rowid + 1)
        return Numbering(range(first, first + last_rowid + 1), (Span(first, range(last_rowid + 1)),))

    def renumber(self, owner: Owner, old: Numbering, kept: Iterable[tuple[int, int]], last_rowid: int) -> Numbering:
        """Number the rows of a catalog that succeeds another; *kept* pairs old rowids with new ones."""
        inodes = array("Q", bytes(8 * (last_rowid + 1)))
        for old_rowid, new_rowid in kept:
            inodes[new_rowid] = old.inode(old_rowid)
        fresh = [rowid for rowid in range(1, last_rowid + 1) if not inodes[rowid]]
        first = self._allocate(owner, len(fresh))
        for inode, rowid in enumerate(fresh, first):
            inodes[rowid] = inode
        spans = [Span(span.first, array("Q", bytes(8 * len(span.rowids)))) for span in old._spans]
        spans.append(Span(first, array("Q", fresh)))
        return Numbering(inodes, _filled(spans, inodes))

    def forget(self, owner: Owner) -> None:
        """Nothing has the owner's numbers any more."""
        with self._lock:
            kept = [(first, one) for first, one in zip(self._firsts, self._owners, strict=True) if one is not owner]
            self._firsts, self._owners = [first for first, _ in kept], [one for _, one in kept]

    def _allocate(self, owner: Owner, numbers: int) -> int:
        if numbers > _MOST_ROWS:
            raise BadCatalog("(attached)", f"it has a row numbered {numbers - 1}")
        with self._lock:
            first = self._next
            self._next += max(numbers, 1)
            self._owners.append(owner)
            self._firsts.append(first)
        return first


def _filled(spans: list[Span], inodes: Sequence[int]) -> tuple[Span, ...]:
    """Write into *spans* which row has which number, and drop those of which nothing is left."""
    firsts = [span.first for span in spans]
    used = set()
    for rowid, inode in enumerate(inodes):
        if inode:
            at = bisect_right(firsts, inode) - 1
            spans[at].rowids[inode - firsts[at]] = rowid  # type: ignore[index]  # these are arrays
            used.add(at)
    return tuple(span for at, span in enumerate(spans) if at in used)

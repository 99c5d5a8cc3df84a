"""Where big files are cut: at places that their content chooses, so that a rebuilt file shares most of its pieces."""

from collections.abc import Iterable, Iterator
from itertools import chain

from fastcdc.fastcdc_cy import chunk_generator

MIN_BYTES = 4 << 20
AVERAGE_BYTES = 8 << 20
MAX_BYTES = 16 << 20


def chunks(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Cut the content that arrives in *pieces* into chunks; the cuts do not depend on how it arrives.

    Every chunk but the last has at least `MIN_BYTES`, and none more than `MAX_BYTES`. At most one chunk and one
    piece are held in memory.
    """
    waiting = bytearray()
    for piece in chain(pieces, [b""]):
        waiting += piece
        while waiting and (len(waiting) >= MAX_BYTES or not piece):
            length = _first_cut(waiting)
            yield bytes(memoryview(waiting)[:length])
            del waiting[:length]


def _first_cut(data: bytearray) -> int:
    with memoryview(data) as view, view[:MAX_BYTES] as window:
        return int(next(chunk_generator(window, MIN_BYTES, AVERAGE_BYTES, MAX_BYTES, False, None)).length)

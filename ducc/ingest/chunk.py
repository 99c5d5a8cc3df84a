"""Where big files are cut: at places that their content chooses, so that a rebuilt file shares most of its pieces."""

from collections.abc import Iterable, Iterator

MIN_BYTES = 4 << 20
AVERAGE_BYTES = 8 << 20
MAX_BYTES = 16 << 20


def chunks(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Cut the content that arrives in *pieces* into chunks; the cuts do not depend on how it arrives.

    Every chunk but the last has at least `MIN_BYTES`, and none more than `MAX_BYTES`. At most one chunk and one
    piece are held in memory.
    """
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= MAX_BYTES:
            yield _cut_off(waiting)
    while waiting:
        yield _cut_off(waiting)


def _cut_off(data: bytearray) -> bytes:
    """Take the first chunk off *data*, which holds `MAX_BYTES` or all that is left."""
    length = _first_cut(data)
    with memoryview(data) as view:
        chunk = bytes(view[:length])
    del data[:length]
    return chunk


def _first_cut(data: bytearray) -> int:
    from fastcdc.fastcdc_cy import chunk_generator  # takes long to import, and most layers have no big file

    with memoryview(data) as view, view[:MAX_BYTES] as window:
        return int(next(chunk_generator(window, MIN_BYTES, AVERAGE_BYTES, MAX_BYTES, False, None)).length)

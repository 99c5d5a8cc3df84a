"""Where big files are cut: at places that their content chooses, so that a rebuilt file shares most of its pieces."""

from collections.abc import Iterable, Iterator

MIN_BYTES = 4 << 20
AVERAGE_BYTES = 8 << 20
MAX_BYTES = 16 << 20


def chunks(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Cut the content that arrives in *pieces*, which stay as they are, into chunks; the cuts do not depend on how.

    Every chunk but the last has at least `MIN_BYTES`, and none more than `MAX_BYTES`. Besides the chunks that somebody
    holds, at most `MAX_BYTES` and one piece are in memory.
    """
    waiting: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        while size >= MAX_BYTES:
            chunk, rest = _cut(waiting)
            yield chunk
            waiting, size = [rest], len(rest)
    while size:
        chunk, rest = _cut(waiting)
        yield chunk
        waiting, size = [rest], len(rest)


def _cut(waiting: list[bytes | memoryview]) -> tuple[memoryview, memoryview]:
    """The first chunk of *waiting*, which is `MAX_BYTES` or more, or all that is left; and the rest."""
    data = memoryview(waiting[0] if len(waiting) == 1 else b"".join(waiting))
    length = _first_cut(data[:MAX_BYTES])
    return data[:length], data[length:]


def _first_cut(window: memoryview) -> int:
    from fastcdc.fastcdc_cy import chunk_generator  # takes long to import, and most layers have no big file

    return int(next(chunk_generator(window, MIN_BYTES, AVERAGE_BYTES, MAX_BYTES, False, None)).length)

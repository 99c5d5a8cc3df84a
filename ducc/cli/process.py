"""What a process that ingests sets for itself, once, at its start."""

import ctypes
import gc
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENAS = -3, -1, -8  # of glibc's mallopt
_FROM_THE_HEAP_BYTES = 32 << 20  # glibc allows no more
_KEPT_BYTES = 1 << 30
_MOST_ARENAS = 1
_NEW_OBJECTS = 50_000
_TURN_SECONDS = 0.0005


def prepare() -> None:
    """Let freed memory be used again, rows not be searched for cycles, and threads take short turns.

    Pieces of a mebibyte and more come and go all the time: new pages for each of them took a tenth of the time of a
    conversion. Trees and rows have no cycles, and there are many of them. Who inflates, hashes or compresses asks for
    the interpreter between two pieces, and should not wait for who makes rows: one pass over known content took 8 %
    longer with turns of five milliseconds.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not in every C library
        libc.mallopt(_MMAP_THRESHOLD, _FROM_THE_HEAP_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_ARENAS, _MOST_ARENAS)  # what one thread frees, others use
    gc.set_threshold(_NEW_OBJECTS)
    sys.setswitchinterval(_TURN_SECONDS)

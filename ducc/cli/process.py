"""What a process that ingests sets for itself, once, at its start."""

import ctypes
import gc

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_KEPT_BYTES = 32 << 20
_NEW_OBJECTS = 50_000


def prepare() -> None:
    """Let freed memory be used again instead of going back to the kernel, and rows not be searched for cycles.

    Pieces of a mebibyte and more come and go all the time: new pages for each of them took a tenth of the time of a
    conversion. Trees and rows have no cycles, and there are many of them.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not in every C library
        libc.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    gc.set_threshold(_NEW_OBJECTS)

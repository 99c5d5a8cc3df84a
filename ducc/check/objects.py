"""Contents: is every object there, and is it what it should be?"""

from collections.abc import Iterable, Iterator

from ducc.check.catalog import Reference
from ducc.check.findings import Fault, Finding
from ducc.cvmfs.compression import BadObject, inflate_at_most
from ducc.cvmfs.entry import STORED
from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError
from ducc.storage.base import ObjectMissing, ObjectStore

LARGEST_CONTENT = 1 << 30  # bytes of one object, inflated
LARGEST_ROOT = 1 << 30  # bytes of a catalog or another root object, inflated


class FaultyObject(Exception):
    """An object that can't be used, as a finding without a path."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault, self.text = fault, text


def fetch(store: ObjectStore, name: ObjectName) -> bytes:
    """Return an object's stored bytes, verified; else raise `FaultyObject`."""
    try:
        stored = store.get(name)
    except ObjectMissing:
        raise FaultyObject(Fault.OBJECT_MISSING, f"object {name} is missing") from None
    except DuccError as error:
        raise FaultyObject(Fault.OBJECT_UNREADABLE, f"object {name}: {error}") from error
    if ObjectName.of(stored, name.suffix) != name:
        raise FaultyObject(Fault.OBJECT_DAMAGED, f"object {name} holds other bytes ({len(stored)} of them)")
    return stored


def fetch_inflated(store: ObjectStore, name: ObjectName, limit: int = LARGEST_ROOT) -> bytes:
    """Return an object's content, verified; else raise `FaultyObject`."""
    try:
        return inflate_at_most(fetch(store, name), limit)
    except BadObject as error:
        raise FaultyObject(Fault.OBJECT_UNREADABLE, f"object {name}: {error}") from error


def check_existence(store: ObjectStore, references: Iterable[Reference]) -> Iterator[Finding]:
    """Is each object there?"""
    for reference in references:
        try:
            if not store.exists(reference.name):
                yield Finding(Fault.OBJECT_MISSING, reference.path, f"object {reference.name} is missing")
        except DuccError as error:
            yield Finding(Fault.OBJECT_UNREADABLE, reference.path, f"object {reference.name}: {error}")


def check_contents(store: ObjectStore, references: Iterable[Reference]) -> Iterator[Finding]:
    """Is each object there, whole, and as long as its row says?"""
    for reference in references:
        try:
            size = _content_size(store, reference)
        except FaultyObject as fault:
            yield Finding(fault.fault, reference.path, fault.text)
            continue
        if size != reference.size:
            text = f"object {reference.name} has {size} bytes, its row says {reference.size}"
            yield Finding(Fault.OBJECT_SIZE, reference.path, text)


def _content_size(store: ObjectStore, reference: Reference) -> int:
    if reference.compression == STORED:
        return len(fetch(store, reference.name))
    return len(fetch_inflated(store, reference.name, max(LARGEST_CONTENT, reference.size)))

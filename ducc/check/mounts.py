"""Where two catalogs meet: does the one say of the other what it says of itself?"""

from collections.abc import Iterator, Mapping

from ducc.catalog.schema import Counters
from ducc.check.catalog import CatalogReport, MountRow, differing_counters
from ducc.check.findings import Fault, Finding


def check_mounts(report: CatalogReport, others: Mapping[bytes, CatalogReport]) -> Iterator[Finding]:
    """Judge all mountpoints of one catalog; *others* are reports by hash. Paths are in the catalog's coordinates.

    Catalogs that could not be read are passed over: they have findings of their own.
    """
    below = Counters()
    is_complete = True
    for mount in report.mounts:
        target = others.get(mount.ref.digest)
        if target is None or target.root is None:
            is_complete = is_complete and mount.is_bind
            continue
        yield from _check_mount(mount, target)
        if not mount.is_bind:
            below = below.plus(target.own).plus(target.below)
    if is_complete:
        yield from differing_counters("subtree", report.below, below, report.prefix)


def _check_mount(mount: MountRow, target: CatalogReport) -> Iterator[Finding]:
    if mount.ref.size != target.size:
        yield Finding(Fault.CATALOG_SIZE, mount.path, f"has {target.size} bytes, {mount.ref.size} are registered")
    if target.prefix != (b"" if mount.is_bind else mount.path):
        yield Finding(Fault.CATALOG_PREFIX, mount.path, f"catalog {mount.ref} is made for {_shown(target.prefix)}")
    if different := ", ".join(_differences(mount, target)):
        fault = Fault.BIND_ROOT_ROW if mount.is_bind else Fault.NESTED_ROOT_ROW
        yield Finding(fault, mount.path, f"{different} (mountpoint, root row)")


def _differences(mount: MountRow, target: CatalogReport) -> Iterator[str]:
    assert target.root is not None
    for name, here, there in zip(mount.row._fields, mount.row, target.root, strict=True):
        if here != there and not (name == "name" and mount.is_bind):
            shown = (f"{here:o}", f"{there:o}") if name == "mode" else (repr(here), repr(there))
            yield f"{name} {' ≠ '.join(shown)}"


def _shown(prefix: bytes) -> str:
    return prefix.decode("utf-8", "backslashreplace") or "a tree of its own"

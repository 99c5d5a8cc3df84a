"""A layer by umoci and two by hand that delete, replace and retouch what lies below them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.builders import Entry, directory, file, hard_link, opaque, symlink, whiteout
from tests.images.oddities import TOP
from tests.images.scientific import SITE
from tests.images.workshop import Workshop

PARENT = "scientific"
SOURCES = (Path(__file__).with_name("oddities.py"),)


def build(workshop: Workshop) -> None:
    prune_system(workshop.root)
    prune_sample(Path(os.fsdecode(os.path.join(os.fsencode(workshop.root), TOP, b"by-tool"))))
    workshop.seal("prune by tool")
    workshop.add("prune by hand", *pruned_by_hand())
    workshop.add("bring back", *brought_back())


def prune_system(root: Path) -> None:
    """What real images do: whole directories go, others lose every test and manual, some are retouched."""
    for gone in ("usr/share/doc", "usr/share/locale", "usr/share/man", f"{SITE}/sympy", f"{SITE}/mpmath"):
        shutil.rmtree(root / gone)
    for tests in [path for path in (root / SITE).rglob("tests") if path.is_dir()]:
        shutil.rmtree(tests)
    for script in (root / "usr" / "lib" / "python3.11" / "email").rglob("*.py"):
        script.chmod(0o600)
    for path in (root / SITE / "matplotlib").rglob("*"):
        os.chown(path, 1000, 1000, follow_symlinks=False)
    for path in (root / "etc").rglob("*"):
        os.utime(path, (10**9, 10**9), follow_symlinks=False)
    shutil.rmtree(root / "usr" / "lib" / "gcc")


def prune_sample(here: Path) -> None:
    """No directory becomes a symlink here: umoci would whiteout through it what is not meant.

    Where a directory becomes a file it writes whiteouts below that file; every reader has to bear them.
    """
    for name in ("deleted", "becomes-directory", "becomes-symlink", "pair-two"):
        (here / name).unlink()
    for name in ("symlink-becomes-directory", "symlink-becomes-file"):
        (here / name).unlink()
    for name in ("deleted", "becomes-file", "remade", "opaque"):
        shutil.rmtree(here / f"directory-{name}")
    (here / "replaced").write_bytes(b"new content, and longer")
    (here / "becomes-symlink").symlink_to("kept")
    (here / "symlink-becomes-file").write_bytes(b"a file now")
    (here / "directory-becomes-file").write_bytes(b"a file now")
    for name in ("becomes-directory", "symlink-becomes-directory", "directory-remade", "directory-opaque"):
        (here / name).mkdir()
        (here / name / "new").write_bytes(b"new")
    os.utime(here / "touched", (10**9, 10**9))
    (here / "chmodded").chmod(0o4711)
    (here / "directory-chmodded").chmod(0o1777)
    os.chown(here / "chowned", 1000, 1000)
    os.setxattr(here / "attributed", "user.new", b"new")
    os.removexattr(here / "attributed", "user.old")


def pruned_by_hand() -> Iterator[Entry]:
    """The same changes in the words of a layer, and some that no tool writes."""
    here = TOP + b"by-hand/"
    yield directory(here)
    yield whiteout(here + b"deleted")
    yield whiteout(here + b"never-was")
    yield whiteout(here + b"pair-two")
    yield whiteout(here + b"directory-deleted")
    yield file(here + b"replaced", b"new content, and longer")
    yield directory(here + b"becomes-directory")
    yield file(here + b"becomes-directory/new", b"new")
    yield symlink(here + b"becomes-symlink", "kept")
    yield directory(here + b"symlink-becomes-directory")
    yield file(here + b"symlink-becomes-directory/new", b"new")
    yield file(here + b"symlink-becomes-file", b"a file now")
    yield file(here + b"directory-becomes-file", b"a file now")
    yield symlink(here + b"directory-becomes-symlink", "directory-kept")
    yield directory(here + b"directory-remade")
    yield opaque(here + b"directory-remade")
    yield file(here + b"directory-remade/new", b"new")
    yield file(here + b"directory-remade/both", b"new")
    yield file(here + b"directory-opaque/new", b"before the marker, in the same layer: it stays")
    yield opaque(here + b"directory-opaque")
    yield whiteout(here + b"directory-kept/old")
    yield whiteout(here + b"directory-kept/below/deep")
    yield file(here + b"touched", b"same content", mtime_ns=10**18)
    yield file(here + b"chmodded", b"same content", mode=0o4711)
    yield file(here + b"chowned", b"same content", uid=1000, gid=1000)
    yield file(here + b"attributed", b"same content", xattrs={"user.new": b"new"})
    yield directory(here + b"directory-chmodded", mode=0o1777)
    yield hard_link(here + b"link-to-layer-below", here + b"kept", mode=0o640, uid=3)
    yield hard_link(here + b"directory-kept/far-link-to-layer-below", here + b"kept", mode=0o640, uid=3)


def brought_back() -> Iterator[Entry]:
    """What the layer below deleted, here again, unlike it was."""
    here = TOP + b"by-hand/"
    yield directory(here + b"deleted", mode=0o700)
    yield file(here + b"deleted/back", b"back as a directory")
    yield directory(here + b"directory-deleted", mode=0o711)
    yield file(here + b"directory-deleted/back", b"back, alone")
    yield file(here + b"kept", b"replaced; the links of the layer below keep the old content")
    yield symlink("usr/lib/gcc", "/nowhere")
    yield directory("usr/share/doc")
    yield file("usr/share/doc/README", b"back, alone")

"""The marks that overlayfs reads: ours alone, and gone from what a container sees."""

import stat

from ducc.cvmfs import xattrs
from ducc.cvmfs.entry import Entry
from ducc.ingest.overlay import is_opaque, not_opaque, opaque, whiteout


def directory(**attributes: bytes) -> Entry:
    pairs = [(b"user." + name.encode(), value) for name, value in attributes.items()]
    return Entry(b"d", stat.S_IFDIR | 0o755, xattrs=xattrs.encode(pairs))


def test_an_opaque_directory_has_both_spellings_beside_its_own_attributes():
    marked = opaque(directory(note=b"x"))
    assert xattrs.decode(marked.xattrs) == {
        b"trusted.overlay.opaque": b"y",
        b"user.overlay.opaque": b"y",
        b"user.note": b"x",
    }
    assert is_opaque(marked)
    assert not_opaque(marked) == directory(note=b"x")
    assert opaque(marked) == marked


def test_a_plain_directory_is_not_opaque_and_stays_as_it_is():
    assert not is_opaque(directory())
    assert not_opaque(directory(note=b"x")) == directory(note=b"x")


def test_words_in_an_images_own_attributes_make_nothing_opaque():
    assert not is_opaque(directory(note=b"trusted.overlay.opaque"))
    assert not is_opaque(directory(**{"my.overlay.opaque": b"y"}))


def test_a_directory_with_as_many_attributes_as_can_be_can_be_opaque():
    full = directory(**{f"{number:03}": b"x" for number in range(255)})
    assert is_opaque(opaque(full))
    assert len(xattrs.decode(opaque(full).xattrs)) == 255


def test_a_whiteout_is_the_device_that_overlayfs_looks_for():
    assert whiteout(b"x").is_whiteout
    assert (whiteout(b"x").name, whiteout(b"x").mode) == (b"x", stat.S_IFCHR)
    assert not Entry(b"null", stat.S_IFCHR | 0o666, size=259).is_whiteout

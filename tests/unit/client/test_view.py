import platform

import pytest

from ducc.client.view import Owners, View, expand, machines_variables
from tests.memory import file, symlink

VARIABLES = {"CVMFS_ARCH": "arm64", "EMPTY": "", "A_1": "ä", "DOLLAR": "$(CVMFS_ARCH)"}


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"plain", b"plain"),
        (b"$(CVMFS_ARCH)", b"arm64"),
        (b"$(CVMFS_ARCH:-amd64)/x", b"arm64/x"),
        (b"a/$(NOT_SET:-amd64)/b", b"a/amd64/b"),
        (b"a/$(NOT_SET)/b", b"a//b"),
        (b"$(EMPTY:-default)", b""),
        (b"$(NOT_SET:-)", b""),
        (b"$(CVMFS_ARCH)$(A_1)", "arm64ä".encode()),
        (b"$(DOLLAR)", b"$(CVMFS_ARCH)"),  # values are not looked into
        (b"$(NOT_SET:-../a b:c-d)", b"../a b:c-d"),
        (b"$CVMFS_ARCH ${CVMFS_ARCH}", b"$CVMFS_ARCH ${CVMFS_ARCH}"),
        (b"$(CVMFS_ARCH", b"$(CVMFS_ARCH"),
        (b"a$(", b"a$("),
        (b"$()", b""),
        (b"$(1A)", b""),
        (b"$(\xff)y", b"y"),
        (b"$(CVMFS_ARCH:x)", b""),
        (b"$(:-d)", b"d"),
        (b"$(A:-b:-c)", b"b:-c"),
        (b"$(A:-(b)c)", b"(bc)"),
        (b"$(A(B)c)", b"c)"),
        (b"$$(CVMFS_ARCH)", b"$arm64"),
    ],
)
def test_variables_of_a_link_are_replaced_by_their_values(target: bytes, shown: bytes) -> None:
    assert expand(target, VARIABLES) == shown


def test_a_links_size_is_that_of_what_it_shows() -> None:
    entry = View(VARIABLES).of(symlink(b"link", b"/$(CVMFS_ARCH:-amd64)"))
    assert (entry.symlink, entry.size) == (b"/arm64", 6)


def test_a_view_without_wishes_shows_entries_as_they_were_published() -> None:
    for entry in (file(b"f", uid=7, gid=8), symlink(b"link", b"x")):
        assert View({}).of(entry) is entry


def test_owners_are_mapped_one_by_one_and_the_rest_together() -> None:
    view = View({}, Owners({0: 100, 5: 50}), Owners({1: 2}, rest=65534))
    shown = [view.of(file(b"f", uid=uid, gid=gid)) for uid, gid in ((0, 1), (5, 2), (6, 0))]
    assert [(entry.uid, entry.gid) for entry in shown] == [(100, 2), (50, 65534), (6, 65534)]


def test_the_processor_is_known_by_the_kernels_name_unless_somebody_knows_better() -> None:
    assert machines_variables({"A": "1"}) == {"A": "1", "CVMFS_ARCH": platform.machine()}
    assert machines_variables({"CVMFS_ARCH": "mine"})["CVMFS_ARCH"] == "mine"

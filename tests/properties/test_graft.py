"""Grafting gives what the layers mean: as a naive model has it, and as the kernel's overlayfs shows it."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ducc.catalog.split import SplitPolicy
from ducc.catalog.writer import write_tree
from ducc.errors import DuccError
from ducc.layer.entries import Kind, Member
from tests.memory import catalogs_in_memory, counted, forgetful, opened, refs
from tests.needs import need_root
from tests.properties.layers import TINY, Grafted, grafted, lay_out, mounted, overlaid, rows_of
from tests.properties.stacking import Rejected, apply, as_rows, seen, stack

ONE_CATALOG = SplitPolicy(10**6, 10**6, 10**6)

NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: b"".join(b"/" + name for name in names))
TARGETS = st.one_of(PATHS, NAMES, st.sampled_from([b".", b"..", b"../a", b"a/b", b"/", b"../../../c"]))
KINDS = st.sampled_from(
    [Kind.FILE] * 5
    + [Kind.DIRECTORY] * 4
    + [Kind.WHITEOUT] * 3
    + [Kind.HARDLINK] * 3
    + [Kind.SYMLINK] * 2
    + [Kind.OPAQUE, Kind.FIFO, Kind.CHARACTER, Kind.BLOCK]
)


@st.composite
def members(draw: st.DrawFn) -> Member:
    kind, path = draw(KINDS), draw(PATHS)
    if kind in (Kind.DIRECTORY, Kind.OPAQUE) and draw(st.integers(0, 9)) == 0:
        path = b""
    if kind in (Kind.WHITEOUT, Kind.OPAQUE):
        return Member(path, kind)
    if kind is Kind.HARDLINK:
        return Member(path, kind, link=draw(PATHS))
    attributes = ((b"user.note", draw(st.sampled_from([b"x", b"overlay.opaque"]))),) if draw(st.booleans()) else ()
    return Member(
        path, kind, 0o777 if kind is Kind.SYMLINK else draw(st.sampled_from([0o644, 0o755, 0o1777, 0o4711])),
        uid=draw(st.integers(0, 3)),
        gid=draw(st.integers(0, 3)),
        mtime=draw(st.integers(1, 10**6)),
        mtime_ns=draw(st.sampled_from([0, 0, 999_999_999])),
        link=draw(TARGETS) if kind is Kind.SYMLINK else b"",
        device=259 if kind in (Kind.CHARACTER, Kind.BLOCK) else 0,
        xattrs=attributes if kind in (Kind.FILE, Kind.DIRECTORY) else (),
    )  # fmt: skip


STACKS = st.lists(st.lists(members(), max_size=10), min_size=1, max_size=6)


def accepted(layers: list[list[Member]]) -> list[list[Member]]:
    """The layers less those that mean nothing on top of the others; ingest must refuse those as well."""
    kept: list[list[Member]] = []
    lower = stack([])
    for layer in layers:
        try:
            lower = apply(lower, layer, len(kept))
        except Rejected:
            with pytest.raises(DuccError):
                grafted([*kept, layer], catalogs_in_memory())
        else:
            kept.append(layer)
    return kept


@given(STACKS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_image_tree_is_what_its_layers_mean_and_what_they_do_not_is_refused(layers):
    layers = accepted(layers)
    assert grafted(layers, catalogs_in_memory()).rows() == as_rows(stack(layers))


@given(STACKS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_where_catalogs_begin_changes_nothing_and_every_counter_is_right(layers):
    layers = accepted(layers)
    catalogs = catalogs_in_memory()
    nested, plain = (grafted(layers, catalogs, policy) for policy in (TINY, ONE_CATALOG))
    assert nested.rows() == plain.rows()
    for tree in (nested, plain):
        for root in (tree.image, *tree.completed):
            written = write_tree(root, catalogs, TINY)
            assert counted(catalogs, written.ref) == written.counters
            assert rows_of(forgetful(catalogs).load(written.ref), catalogs) == rows_of(root, catalogs)
            no_lonely_links(catalogs, written.ref)


def no_lonely_links(catalogs, ref):
    for one in refs(catalogs, ref).values():
        for row in opened(catalogs, one).rows():
            entry = row.entry
            assert entry.is_directory or (entry.linkcount > 1) == bool(entry.link_group)


@given(STACKS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_grafting_again_gives_the_same_name(layers):
    layers = accepted(layers)
    once, again = (
        write_tree(grafted(layers, one).image, one, TINY) for one in (catalogs_in_memory(), catalogs_in_memory())
    )
    assert once == again


TOP = st.sampled_from([b"/left", b"/right"])


@given(STACKS, STACKS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_subtree_of_one_layer_is_that_layers_catalog(left, right):
    """Two layers that never meet below the root: every catalog of the image, but the root's, is one of theirs."""
    layers = accepted([moved(left[0], b"/left"), moved(right[0], b"/right")])
    catalogs = catalogs_in_memory()
    found = grafted(layers, catalogs)
    image = refs(catalogs, write_tree(found.image, catalogs, TINY).ref)
    theirs = [refs(catalogs, write_tree(one, catalogs, TINY).ref) for one in found.completed]
    hidden = [member.kind in (Kind.WHITEOUT, Kind.OPAQUE) for layer in layers for member in layer]
    if not any(hidden):
        known = {path: ref for one in theirs for path, ref in one.items() if path}
        assert all(known.get(path, ref) == ref for path, ref in image.items() if path)


def moved(layer: list[Member], top: bytes) -> list[Member]:
    """The layer, below *top*: also what its links say."""
    found = []
    for member in layer:
        link = member.link
        if member.kind is Kind.HARDLINK:
            link = top + link
        found.append(member._replace(path=top + member.path, link=b"x" if member.kind is Kind.SYMLINK else link))
    return found


# --- the kernel ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A tmpfs: layers of overlayfs may not lie on another overlayfs."""
    need_root()
    top = tmp_path_factory.mktemp("layers")
    try:
        with mounted("tmpfs", str(top), "size=64m,mode=0755"):
            yield top
    except PermissionError:
        pytest.skip("mounting is forbidden here, so the kernel's opinion can't be asked: run as real root")


_numbers = itertools.count()


def shown_by_the_kernel(found: Grafted, scratch: Path):
    home = scratch / str(next(_numbers))
    for name in ("empty", "mnt"):
        (home / name).mkdir(parents=True)
    directories = [home / f"l{number}" for number in range(len(found.completed))]
    for directory, tree in zip(directories, found.completed, strict=True):
        lay_out(tree, found.catalogs, bytes(directory))
    with overlaid([str(one) for one in directories], str(home / "empty"), str(home / "mnt")):
        return seen(bytes(home / "mnt"))


@given(STACKS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_overlayfs_makes_of_the_completed_layers_what_the_image_tree_is(scratch, layers):
    layers = accepted(layers)
    found = grafted(layers, catalogs_in_memory())
    if not layers:
        return
    shown, rows = shown_by_the_kernel(found, scratch), found.rows()
    del shown[b""], rows[b""]  # the mount's root is the empty directory, without which overlayfs takes no single layer
    assert shown == rows

"""The paths that users and other programs rely on, word for word."""

import posixpath

import pytest

from ducc import layout
from ducc.image.digest import Digest
from ducc.image.manifest import Platform
from ducc.image.reference import Reference

CONFIG = Digest.of(b"config")
HEX = CONFIG.hex.encode()
TAGGED = Reference.parse("https://registry.example.org:5005/group/name:tag")
PINNED = Reference.parse(f"registry.example.org/name@{Digest.of(b'pin')}")
BOTH = Reference.parse(f"registry.example.org/name:tag@{Digest.of(b'pin')}")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (layout.public_link(TAGGED), b"/registry.example.org:5005/group/name:tag"),
        (layout.public_link(PINNED), b"/registry.example.org/name@" + str(Digest.of(b"pin")).encode()),
        (layout.public_link(BOTH), b"/registry.example.org/name:tag"),
        (layout.public_link(TAGGED, "arm:v7"), b"/.multiarch/arm:v7/registry.example.org:5005/group/name:tag"),
        (layout.public_target(TAGGED, CONFIG), b"../../.flat/" + HEX[:2] + b"/" + HEX),
        (layout.public_target(TAGGED, CONFIG, "arm64"), b"../../../../.flat/" + HEX[:2] + b"/" + HEX),
        (
            layout.variant_target(TAGGED),
            b"../../.multiarch/$(CVMFS_ARCH:-amd64)/registry.example.org:5005/group/name:tag",
        ),
        (
            layout.metadata_file(TAGGED, "record.json"),
            b"/.metadata/registry.example.org:5005/group/name:tag/record.json",
        ),
        (
            layout.metadata_file(TAGGED, "record.json", "arm:v7"),
            b"/.metadata/.multiarch/arm:v7/registry.example.org:5005/group/name:tag/record.json",
        ),
        (layout.layer_tree(CONFIG), b"/.layers/" + HEX[:2] + b"/" + HEX + b"/layerfs"),
        (layout.layer_anywhere(CONFIG), b"/.layers/" + HEX[:2] + b"/" + HEX + b"/.metadata/anywhere"),
        (
            layout.stacked_layer(CONFIG, Digest("ab" * 32)),
            b"/.layers/" + HEX[:2] + b"/" + HEX + b"/stacks/" + b"ab" * 32,
        ),
        (layout.prefetch_list(CONFIG), b"/.metadata/.prefetch/" + HEX[:2] + b"/" + HEX + b".json"),
    ],
)
def test_paths_are_what_the_documents_promise(path, expected):
    assert path == expected


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        (layout.flat_image(CONFIG), CONFIG),
        (layout.flat_image(CONFIG) + b"/usr/bin", CONFIG),
        (layout.layer_tree(CONFIG), CONFIG),
        (layout.stacked_layer(CONFIG, Digest("ab" * 32)) + b"/line\nfeed", CONFIG),
        (layout.whole_stack(CONFIG, Digest("ab" * 32)), CONFIG),
        (layout.prefetch_list(CONFIG), None),
        (b"", None),
        (b"/.flat/ab", None),
        (b"/.flat/ab/cd", None),
        (b"/usr/.layers/" + HEX[:2] + b"/" + HEX, None),
    ],
)
def test_a_path_tells_which_image_or_layer_it_leads_into(path, tree):
    assert layout.tree_at(path) == tree


@pytest.mark.parametrize("reference", [TAGGED, PINNED, BOTH])
@pytest.mark.parametrize("build", ["", "amd64", "arm:v7"])
def test_links_lead_from_where_they_stand_to_the_image(reference, build):
    link = layout.public_link(reference, build)
    target = layout.public_target(reference, CONFIG, build)
    assert posixpath.normpath(posixpath.dirname(link) + b"/" + target) == layout.flat_image(CONFIG)


@pytest.mark.parametrize("reference", [TAGGED, PINNED])
def test_a_variant_link_leads_to_the_build_that_the_client_names(reference):
    target = layout.variant_target(reference).replace(b"$(CVMFS_ARCH:-amd64)", b"arm64")
    there = posixpath.normpath(posixpath.dirname(layout.public_link(reference)) + b"/" + target)
    assert there == layout.public_link(reference, "arm64")


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("linux/amd64", "amd64"),
        ("linux/x86_64", "amd64"),
        ("linux/amd64/v1", "amd64"),
        ("linux/amd64/v3", "amd64:v3"),
        ("linux/arm64", "arm64"),
        ("linux/arm64/v8", "arm64"),
        ("linux/aarch64", "arm64"),
        ("linux/arm", "arm:v7"),
        ("linux/arm/7", "arm:v7"),
        ("linux/arm/v6", "arm:v6"),
        ("linux/i386", "386"),
        ("Linux/PPC64LE", "ppc64le"),
        ("linux/riscv64", "riscv64"),
    ],
)
def test_a_build_is_named_by_its_processor(platform, name):
    assert layout.build_name(Platform(*platform.split("/"))) == name


ODD = [
    Platform("windows", "amd64"),
    Platform("", "amd64"),
    Platform("linux", ""),
    Platform("linux", ".."),
    Platform("linux", "../../etc"),
    Platform("linux", "a/b"),
    Platform("linux", "amd64", "../x"),
    Platform("linux", "amd64:v1"),
    Platform("linux", "a" * 100),
    Platform("linux", "a\n"),
    Platform("linux", "é"),
    Platform("linux", "$(id)"),
    Platform("linux", "armv7l"),  # where the link for clients stands that say so
    Platform("linux", "i686"),
]


@pytest.mark.parametrize("platform", ODD)
def test_a_platform_that_fits_no_path_is_refused_by_name(platform):
    with pytest.raises(layout.UnnameablePlatform) as caught:
        layout.build_name(platform)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_every_alias_leads_to_a_build_and_stands_where_no_build_can():
    names = {layout.build_name(Platform("linux", *name.split(":"))) for name in layout.BUILD_ALIASES.values()}
    assert names == set(layout.BUILD_ALIASES.values())
    assert not names & layout.BUILD_ALIASES.keys()


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("aarch64", "arm64"), ("arm64:v8", "arm64"), ("armhf", "arm:v7"), ("armel", "arm:v6"), ("i386", "386"),
        ("x86_64", "amd64"), ("x86-64", "amd64"),
    ],
)  # fmt: skip
def test_clients_find_builds_under_the_names_that_they_know(alias, name):
    assert layout.alias_links(name)[b"/.multiarch/" + alias.encode()] == name.encode()


@pytest.mark.parametrize(
    ("path", "roots"),
    [
        (b"/.flat/aa/x", [b"/.flat", b"/.flat/aa"]),
        (b"/.metadata/r/n:t/record.json", [b"/.metadata", b"/.metadata/r"]),
        (b"/r/n:t", [b"/r"]),
        (b"/.multiarch/aarch64", [b"/.multiarch"]),
        (b"/.multiarch/arm64/r/n:t", [b"/.multiarch", b"/.multiarch/arm64"]),
    ],
)
def test_catalogs_begin_where_a_trunk_grows(path, roots):
    assert layout.catalog_roots(path) == roots

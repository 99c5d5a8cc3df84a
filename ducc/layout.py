"""Where images live in a repository. These paths are a public contract and are spelled nowhere else.

    /<registry>[:port]/<name>:<tag>                 → ../…/.flat/<aa>/<config digest>      what users type
    /.flat/<aa>/<config digest>/                      the image's root file system
    /.layers/<aa>/<layer digest>/layerfs/             one layer, as overlayfs wants it
    /.layers/<aa>/<layer digest>/stacks/<chain id>/   the same, completed for the stack that has it on top
    /.layers/<aa>/<layer digest>/whole/<chain id>/    all layers of the stack that has it on top, in one
    /.layers/<aa>/<layer digest>/.metadata/           layers.json, origin.json, tree.json, anywhere
    /.metadata/<registry>/<name>:<tag>/               manifest.json, config.json, index.json, record.json
    /.metadata/.removals.json                         what is to be removed, and when
    /.metadata/.prefetch/<aa>/<digest>.json           what a start needs of an image (config) or of one of its layers
    /podmanStore/                                     all images, for podman; below `flat` with one layer each

An image that is published for several platforms has one *build* for each, and a public link that clients expand:

    /<registry>[:port]/<name>:<tag>                 → ../…/.multiarch/$(CVMFS_ARCH:-amd64)/<registry>/<name>:<tag>
    /.multiarch/<build>/<registry>/<name>:<tag>     → ../…/.flat/<aa>/<config digest>
    /.multiarch/<what a client may call it>         → <build>
    /.metadata/<registry>/<name>:<tag>/               index.json
    /.metadata/.multiarch/<build>/<registry>/<name>:<tag>/   manifest.json, config.json, record.json
    /.multiarch/<build>/podmanStore/                  builds that are not for amd64, for podman

A build is named by its processor: `amd64`, `arm64`, `arm:v7`; `""` stands for the one that all clients see. An image
that is named by digest alone is shown as `<name>@sha256:<hex>`. Paths are repository paths: bytes, `b""` for the root.
"""

import re
from collections.abc import Mapping

from ducc.image.digest import Digest
from ducc.image.manifest import Platform, UnsupportedImage
from ducc.image.platform import normalised
from ducc.image.reference import Reference

LAYERS = b"/.layers"
FLAT = b"/.flat"
METADATA = b"/.metadata"
MULTIARCH = b"/.multiarch"
PODMAN = b"/podmanStore"
REMOVALS = METADATA + b"/.removals.json"  # no registry's name begins with a dot
PREFETCH = METADATA + b"/.prefetch"
EVERY_CLIENT = ""  # the build of an image that is published for one platform

BUILD_ALIASES: Mapping[str, str] = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "arm64:v8": "arm64",
    "arm": "arm:v7",
    "armhf": "arm:v7",
    "armv7l": "arm:v7",
    "armel": "arm:v6",
    "armv6l": "arm:v6",
}
"""What else clients call a build: kernels and distributions have names of their own for processors."""

_USUAL_BUILD = "amd64"
_VARIANT = f"$(CVMFS_ARCH:-{_USUAL_BUILD})".encode()
_TREE = re.compile(rb"(?:/\.flat|/\.layers)/[0-9a-f]{2}/([0-9a-f]{64})(?:/.*)?", re.DOTALL)
_PROCESSOR = re.compile("[a-z0-9][a-z0-9_.-]{0,31}")


class UnnameablePlatform(UnsupportedImage):
    """A build for a platform that has no place of its own in a repository."""

    def __init__(self, platform: Platform) -> None:
        named = ascii(str(platform))[1:-1][:100]
        super().__init__(f"{named}: builds for it can't be published: not Linux, or a name that fits no path")


def flat_image(config: Digest) -> bytes:
    """Where the image with this config is mounted."""
    return _sharded(FLAT, config)


def layer(digest: Digest) -> bytes:
    """The directory of one layer; below it `layerfs` and `.metadata`."""
    return _sharded(LAYERS, digest)


def layer_tree(digest: Digest) -> bytes:
    """Where the layer itself is mounted."""
    return layer(digest) + b"/layerfs"


def layer_stacks(digest: Digest) -> bytes:
    """The directory of what `stacked_layer` names."""
    return layer(digest) + b"/stacks"


def stacked_layer(digest: Digest, stack: Digest) -> bytes:
    """Where a layer is mounted as the stack with that chain id needs it, if that is not as `layer_tree` has it."""
    return layer_stacks(digest) + b"/" + stack.hex.encode()


def whole_stack(digest: Digest, stack: Digest) -> bytes:
    """Where all layers of the stack with that chain id are mounted as one, below the layer *digest* that is its top."""
    return layer_wholes(digest) + b"/" + stack.hex.encode()


def layer_wholes(digest: Digest) -> bytes:
    """The directory of what `whole_stack` names."""
    return layer(digest) + b"/whole"


def layer_anywhere(digest: Digest) -> bytes:
    """A file with the layer's diff id, there if `layer_tree` is right on top of any layers."""
    return layer_file(digest, "anywhere")


def layer_file(digest: Digest, name: str) -> bytes:
    """A file that describes one layer."""
    return layer(digest) + b"/.metadata/" + name.encode()


def prefetch_list(tree: Digest) -> bytes:
    """The file that lists what a start needs of an image (*tree* is its config) or of a layer."""
    return _sharded(PREFETCH, tree) + b".json"


def tree_at(path: bytes) -> Digest | None:
    """The image (by its config) or the layer that *path* leads into, if it does."""
    found = _TREE.fullmatch(path)
    return None if found is None else Digest(found[1].decode())


def build_name(platform: Platform) -> str:
    """What the build for *platform* is called. Raises `UnnameablePlatform`: an index may call platforms anything."""
    exact = normalised(platform)
    parts = [exact.architecture, *([exact.variant] if exact.variant else [])]
    name = ":".join(parts)
    if exact.os != "linux" or not all(map(_PROCESSOR.fullmatch, parts)) or name in BUILD_ALIASES:
        raise UnnameablePlatform(platform)
    return name


def public_link(reference: Reference, build: str = EVERY_CLIENT) -> bytes:
    """The path by which users call the image, or one build of it."""
    return _at_build(b"", build) + b"/" + _public_name(reference)


def public_target(reference: Reference, config: Digest, build: str = EVERY_CLIENT) -> bytes:
    """What the public link says: the way from where it stands to the image."""
    return _up(public_link(reference, build)) + flat_image(config)[1:]


def variant_target(reference: Reference) -> bytes:
    """What the public link of an image with several builds says: the way to the one for whoever reads it."""
    return _up(public_link(reference)) + MULTIARCH[1:] + b"/" + _VARIANT + public_link(reference)


def podman_store(build: str, flat: bool = False) -> bytes:
    """The store of images for podman that has a build, with all of its layers or (*flat*) with one that is the image.

    Who reads it can have one build of an image alone, so builds for other processors than the usual one have stores of
    their own.
    """
    store = _at_build(b"", EVERY_CLIENT if build == _USUAL_BUILD else build) + PODMAN
    return store + b"/flat" if flat else store


def link_target(link: bytes, path: bytes) -> bytes:
    """What a symbolic link at *link* says to lead to *path*, wherever the repository is mounted."""
    return _up(link) + path[1:]


def alias_links(build: str) -> dict[bytes, bytes]:
    """Links that lead to a build by its other names: path → target."""
    return {MULTIARCH + b"/" + alias.encode(): build.encode() for alias, name in BUILD_ALIASES.items() if name == build}


def metadata_file(reference: Reference, name: str, build: str = EVERY_CLIENT) -> bytes:
    """A file that describes one published image, or one build of it."""
    return _at_build(METADATA, build) + b"/" + _public_name(reference) + b"/" + name.encode()


def catalog_roots(path: bytes) -> list[bytes]:
    """Directories on the way to *path* that are the roots of nested catalogs of the trunk, outermost first.

    Two levels below `.flat` and `.layers`, so that a catalog holds few mountpoints; one for each registry or processor
    elsewhere.
    What grows beyond a catalog's weight is split further when it is written.
    """
    names = path.split(b"/")[1:]
    depth = {LAYERS[1:]: 2, FLAT[1:]: 2, METADATA[1:]: 2, MULTIARCH[1:]: 2}.get(names[0], 1)
    return [b"/" + b"/".join(names[: level + 1]) for level in range(min(depth, len(names) - 1))]


def _sharded(top: bytes, digest: Digest) -> bytes:
    return top + f"/{digest.hex[:2]}/{digest.hex}".encode()


def _at_build(top: bytes, build: str) -> bytes:
    return top if build == EVERY_CLIENT else top + MULTIARCH + b"/" + build.encode()


def _up(path: bytes) -> bytes:
    """The way from the directory that holds *path* to the root."""
    return b"../" * (path.count(b"/") - 1)


def _public_name(reference: Reference) -> bytes:
    reference_part = f":{reference.tag}" if reference.tag is not None else f"@{reference.digest}"
    return f"{reference.registry}/{reference.repository}{reference_part}".encode()

"""Where images live in a repository. These paths are a public contract and are spelled nowhere else.

    /<registry>[:port]/<name>:<tag>                 → ../…/.flat/<aa>/<config digest>      what users type
    /.flat/<aa>/<config digest>/                      the image's root file system
    /.layers/<aa>/<layer digest>/layerfs/             one layer, as overlayfs wants it
    /.layers/<aa>/<layer digest>/.metadata/           layers.json, origin.json, tree.json
    /.metadata/<registry>/<name>:<tag>/               manifest.json, config.json, index.json, record.json

An image that is named by digest alone is shown as `<name>@sha256:<hex>`. Paths are repository paths: bytes, `b""`
for the root.
"""

from ducc.image.digest import Digest
from ducc.image.reference import Reference

LAYERS = b"/.layers"
FLAT = b"/.flat"
METADATA = b"/.metadata"


def flat_image(config: Digest) -> bytes:
    """Where the image with this config is mounted."""
    return _sharded(FLAT, config)


def layer(digest: Digest) -> bytes:
    """The directory of one layer; below it `layerfs` and `.metadata`."""
    return _sharded(LAYERS, digest)


def layer_tree(digest: Digest) -> bytes:
    """Where the layer itself is mounted."""
    return layer(digest) + b"/layerfs"


def layer_file(digest: Digest, name: str) -> bytes:
    """A file that describes one layer."""
    return layer(digest) + b"/.metadata/" + name.encode()


def public_link(reference: Reference) -> bytes:
    """The path by which users call the image."""
    return b"/" + _public_name(reference)


def public_target(reference: Reference, config: Digest) -> bytes:
    """What the public link says: the way from where it stands to the image."""
    return b"../" * _public_name(reference).count(b"/") + flat_image(config)[1:]


def metadata_file(reference: Reference, name: str) -> bytes:
    """A file that describes one published image."""
    return METADATA + b"/" + _public_name(reference) + b"/" + name.encode()


def catalog_roots(path: bytes) -> list[bytes]:
    """Directories on the way to *path* that are the roots of nested catalogs of the trunk, outermost first.

    Two levels below `.flat` and `.layers`, so that a catalog holds few mountpoints; one for each registry elsewhere.
    What grows beyond a catalog's weight is split further when it is written.
    """
    names = path.split(b"/")[1:]
    depth = {LAYERS[1:]: 2, FLAT[1:]: 2, METADATA[1:]: 2}.get(names[0], 1)
    return [b"/" + b"/".join(names[: level + 1]) for level in range(min(depth, len(names) - 1))]


def _sharded(top: bytes, digest: Digest) -> bytes:
    return top + f"/{digest.hex[:2]}/{digest.hex}".encode()


def _public_name(reference: Reference) -> bytes:
    reference_part = f":{reference.tag}" if reference.tag is not None else f"@{reference.digest}"
    return f"{reference.registry}/{reference.repository}{reference_part}".encode()

"""Which published layer a snapshot can be, by containerd's labels.

Labels are text from outside: nothing of them is used but well-formed digests. An image's config, too, can claim a chain
id that is another image's, so that what is published of a layer must agree with both (`ducc/rootfs/locate.py`).
"""

import re
from collections.abc import Mapping

from ducc.image.digest import Digest, MalformedDigest
from ducc.rootfs.locate import StackedLayer
from snapshotter.snapshots import BELOW, Snapshot, shown

TARGET = "containerd.io/snapshot.ref"
"""The name that containerd will look for: the chain id of the layers up to this one."""

LAYER_LABELS = (
    "containerd.io/snapshot/cri.layer-digest",  # CRI, Docker, nerdctl, the transfer service
    "containerd.io/snapshot/remote/stargz.digest",  # clients made for the stargz snapshotter
)
"""Where clients put the digest of the compressed layer."""

REMOTE = "containerd.io/snapshot/remote"
"""The label by which others tell that a snapshot's files are not local."""

_CHAIN_AT_END = re.compile(r"(?:^|/)(sha256:[0-9a-f]{64})\Z")  # containerd puts a namespace and a number before it


def wanted_layer(labels: Mapping[str, str], below: Snapshot | None) -> StackedLayer:
    """The layer that *labels* ask for, on *below*. Raises `MalformedDigest`."""
    stack = Digest.parse(labels[BELOW]) if is_unplaced(labels, below) else _stack(below)
    return StackedLayer(_layer(labels), stack, Digest.parse(labels[TARGET]))


def is_unplaced(labels: Mapping[str, str], below: Snapshot | None) -> bool:
    """Is it to lie on something that containerd will say when it commits it?"""
    return below is None and BELOW in labels


def _layer(labels: Mapping[str, str]) -> Digest:
    for label in LAYER_LABELS:
        if label in labels:
            return Digest.parse(labels[label])
    raise MalformedDigest("no label says the layer's digest: containerd is to annotate snapshots")


def _stack(below: Snapshot | None) -> Digest | None:
    """The chain id of what a snapshot is the top of; containerd calls those that it has unpacked by theirs."""
    if below is None:
        return None
    if below.layer is not None:
        return below.layer.stack
    if named := _CHAIN_AT_END.search(below.name):
        return Digest.parse(named[1])
    raise MalformedDigest(f"it lies on {shown(below.name)}, whose chain id nobody says")

"""Chain ids: one name for a stack of layers.

Two images that share their lowest layers share those chain ids. Source: OCI image-spec, config.md, "Layer ChainID".
Pure: no I/O.
"""

from collections.abc import Sequence

from ducc.image.digest import Digest


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """Name each stack of layers, base first; as many as *diff_ids* and in their order.

    The base's chain id is its diff id; each next one is the digest of the text "<chain id below> <diff id>". Diff ids
    name uncompressed tars, so recompressing a layer changes nothing.
    """
    chains: list[Digest] = []
    for diff_id in diff_ids:
        chains.append(chain_id(chains[-1] if chains else None, diff_id))
    return chains


def chain_id(below: Digest | None, diff_id: Digest) -> Digest:
    """Name the stack of one layer on the stack *below*, if there is one."""
    return diff_id if below is None else Digest.of(f"{below} {diff_id}".encode())

"""What a start was seen to want becomes a prefetch list for each part of an image that is published.

Somebody notes which objects a start wants (`ducc client record`); here each of them is looked for in the image's trees.
So a list names nothing but what its tree has, and says of each object what the catalogs say, whoever noted it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ducc import layout
from ducc.catalog.schema import CatalogRef
from ducc.catalog.tree import Bind, Directory, Nested, Node
from ducc.client.fetch import Wanted
from ducc.client.prefetch import Listed, from_bytes, to_bytes
from ducc.client.repository import pieces
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.cvmfs.entry import Entry
from ducc.errors import BadInput
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.publish.changes import Change, PutFile
from ducc.publish.repository import Head, Repository


class NoSuchImage(BadInput):
    """A prefetch list is for an image that is published."""

    def __init__(self, fqrn: str, image: Reference) -> None:
        super().__init__(f"{fqrn} has no image {image}; see `ducc images {fqrn}`")


class NothingOfImage(BadInput):
    """What was noted is not a start of the image."""

    def __init__(self, image: Reference, noted: int) -> None:
        super().__init__(f"{image}: none of the {noted} objects noted is part of it; was another image started?")


@dataclass(frozen=True, slots=True)
class Planned:
    """Lists to be published: how many *objects* of a start are on one of them, their *bytes*, uncompressed."""

    changes: list[Change]
    objects: int
    bytes: int


def plan_prefetch(
    repository: Repository, head: Head, image: Reference, starts: Sequence[Sequence[str]], *, anew: bool
) -> Planned:
    """The changes that list what *starts*, of which each is names of objects in their order, want of *image*.

    What the lists name already stays on them, unless they are to be begun *anew*. Raises `NoSuchImage`,
    `NothingOfImage`, `BadPrefetchList`.
    """
    published = Published(repository, head)
    records = published.builds(image)
    if not records:
        raise NoSuchImage(repository.fqrn, image)
    places = _places(starts)
    lists: dict[Digest, dict[Wanted, int]] = {}
    for record in records:
        lists |= _lists(repository, published, record, places)
    chosen = {wanted for listed in lists.values() for wanted in listed}
    if not chosen:
        raise NothingOfImage(image, len(places))
    changes = [_change(published, tree, listed, anew=anew) for tree, listed in lists.items() if listed]
    return Planned(changes, len(chosen), sum(wanted.size or 0 for wanted in chosen))


def _places(starts: Iterable[Sequence[str]]) -> dict[str, int]:
    """Each object's earliest place in any start."""
    places: dict[str, int] = {}
    for start in starts:
        for place, name in enumerate(start):
            places[name] = min(place, places.get(name, place))
    return places


def _lists(
    repository: Repository, published: Published, record: ImageRecord, places: Mapping[str, int]
) -> dict[Digest, dict[Wanted, int]]:
    """What is wanted of an image, by its config, and of each of its layers."""
    lists = {layer: _chosen(repository, published.bound(layout.layer_tree(layer)), places) for layer in record.layers}
    everything = {wanted: place for listed in lists.values() for wanted, place in listed.items()}
    if record.image_tree is not None:
        lists[record.config_digest] = everything | _chosen(repository, record.image_tree, places)
    if record.layers and published.below(layout.layer_wholes(record.layers[-1])):  # where all layers are in one
        lists[record.layers[-1]] = everything
    return lists


def _chosen(repository: Repository, tree: CatalogRef | None, places: Mapping[str, int]) -> dict[Wanted, int]:
    """Those objects of a tree that have a place."""
    if tree is None:
        return {}
    objects = (wanted for entry in _files(repository, repository.catalogs.load(tree)) for wanted in pieces(entry))
    return {wanted: places[str(wanted.name)] for wanted in objects if str(wanted.name) in places}


def _files(repository: Repository, root: Directory) -> Iterator[Entry]:
    pending: list[Node] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, Nested):
            node = repository.catalogs.open_nested(node)
        if isinstance(node, Directory):
            pending += node.children.values()
        elif not isinstance(node, Bind) and node.is_regular and not node.hidden:
            yield node


def _change(published: Published, tree: Digest, listed: Mapping[Wanted, int], *, anew: bool) -> Change:
    path = layout.prefetch_list(tree)
    before = None if anew else published.file(path)
    merged = {one.wanted: one.place for one in ([] if before is None else from_bytes(before, path))}
    for wanted, place in listed.items():
        merged[wanted] = min(place, merged.get(wanted, place))
    return PutFile(path, to_bytes(Listed(place, wanted) for wanted, place in merged.items()))

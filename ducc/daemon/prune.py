"""Un-publishes what nobody wishes for any more: first scheduled, published as such, and removed when its time has come.

Nothing is removed because something could not be read: whoever asks hands in `Wished`, which knows where it was not
told, and a record that can't be read stops everything. What is decided holds for one revision; when another one is
published meanwhile, it is decided anew. Objects stay until they are collected; the revision before has all that went.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ducc import layout
from ducc.catalog.tree import Directory, Nested, Node
from ducc.convert.podman import PodmanStores
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.cvmfs.entry import Entry
from ducc.daemon.meaning import may_mean
from ducc.daemon.removals import Removal, Schedule
from ducc.errors import BadInput, DuccError
from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.publish.changes import Change, EditList, Remove
from ducc.publish.repository import Head, Repository
from ducc.wishlist.settings import FOREVER
from ducc.wishlist.wish import Wish


class TooManyRemovals(DuccError):
    """More images would go than whoever asked allows: most often a list is missing."""

    exit_code = 91

    def __init__(self, fqrn: str, what: str, number: int, of: int, most: float) -> None:
        share = f"{number} of {of} images"
        super().__init__(f"{fqrn}: {share} would be {what}, more than {most:.0%}: nothing is changed (--most)")


class NotScheduled(BadInput):
    """An image that is to be taken back is not scheduled for removal."""


class Fate(StrEnum):
    """What becomes of one published image."""

    KEPT = "kept"
    UNKNOWN = "unknown"  # somebody did not answer, so it is kept
    SCHEDULED = "scheduled"  # from now on
    WAITING = "waiting"  # scheduled before, and not due yet
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Wished:
    """What is wished for: *images* by public path, what all wishes say, and those *unanswered*, which may be more."""

    images: frozenset[bytes]
    wishes: tuple[Wish, ...]
    unanswered: tuple[Wish, ...]

    def is_uncertain(self, reference: Reference) -> bool:
        return any(may_mean(wish.reference, reference) for wish in self.unanswered)

    def kept_seconds(self, reference: Reference, grace_seconds: float) -> float | None:
        """How long an image stays that a wish meant before, when its tags were others; None for ever."""
        periods = [wish.settings.keep for wish in self.wishes if may_mean(wish.reference, reference)]
        if FOREVER in periods:
            return None
        return max((period.total_seconds() for period in periods if period is not None), default=grace_seconds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one image; *due* is when it may be removed, in unix seconds."""

    image: str
    fate: Fate
    due: int | None = None


@dataclass(slots=True)
class Plan:
    """What is to be done to one revision."""

    verdicts: list[Verdict] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def of(self, *fates: Fate) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.fate in fates]

    def check_share(self, fqrn: str, most: float) -> None:
        """Raise `TooManyRemovals` if more than that share of the images would be scheduled, or removed."""
        for fate in (Fate.SCHEDULED, Fate.REMOVED):
            number, total = len(self.of(fate)), len(self.verdicts)
            if number > most * total:
                raise TooManyRemovals(fqrn, fate, number, total, most)


def plan_prune(repository: Repository, head: Head, wished: Wished, now: int, grace_seconds: float) -> Plan:
    """Decide on every image of a revision. Raises what reading the records raises."""
    images = _Images(repository, head)
    schedule = Schedule.read(Published(repository, head))
    plan, removals = Plan(), dict[str, Removal]()
    for link, reference in images.references.items():
        before = schedule.removals.get(str(reference))
        verdict, after = _judge(link, reference, before, wished, now, grace_seconds)
        plan.verdicts.append(verdict)
        if after is not None:
            removals[str(reference)] = after
    plan.changes = images.without({verdict.image for verdict in plan.of(Fate.REMOVED)})
    plan.changes += schedule.changes(Schedule(removals))
    return plan


def plan_undo(repository: Repository, head: Head, image: Reference) -> list[Change]:
    """Take an image from the schedule. Raises `NotScheduled`."""
    schedule = Schedule.read(Published(repository, head))
    link = layout.public_link(image)
    left = {name: one for name, one in schedule.removals.items() if layout.public_link(Reference.parse(name)) != link}
    if len(left) == len(schedule.removals):
        raise NotScheduled(f"{image}: is not scheduled for removal from {repository.fqrn}")
    return schedule.changes(Schedule(left))


def _judge(
    link: bytes, reference: Reference, before: Removal | None, wished: Wished, now: int, grace_seconds: float
) -> tuple[Verdict, Removal | None]:
    """What becomes of one image, and what the schedule says of it from then on."""
    name = str(reference)
    if link in wished.images:
        return Verdict(name, Fate.KEPT), None
    if wished.is_uncertain(reference):
        return Verdict(name, Fate.UNKNOWN), before
    seconds = wished.kept_seconds(reference, grace_seconds)
    if seconds is None:
        return Verdict(name, Fate.KEPT), None
    if before is None:
        removal = Removal(now, now + int(seconds))
        return Verdict(name, Fate.SCHEDULED, removal.due), removal
    if before.due > now:
        return Verdict(name, Fate.WAITING, before.due), before
    return Verdict(name, Fate.REMOVED, before.due), None


class _Images:
    """All images of a revision, and what it takes to remove some."""

    def __init__(self, repository: Repository, head: Head) -> None:
        self._repository, self._head = repository, head
        self._records: dict[str, list[ImageRecord]] = {}
        self.references: dict[bytes, Reference] = {}  # by public path
        for record in self._read_records():
            reference = Reference.parse(record.reference)
            self._records.setdefault(str(reference), []).append(record)
            self.references[layout.public_link(reference)] = reference

    def without(self, images: Iterable[str]) -> list[Change]:
        """The changes that take these images away, and with them what no other image has."""
        gone = {image: self._records[image] for image in images}
        if not gone:
            return []
        stay = [record for image, records in self._records.items() if image not in gone for record in records]
        leave = [record for records in gone.values() for record in records]
        paths = [path for image, records in gone.items() for path in _own_paths(Reference.parse(image), records)]
        configs = {record.config_digest for record in leave} - {record.config_digest for record in stay}
        paths += map(layout.flat_image, sorted(configs))
        layers_that_stay = {layer for record in stay for layer in record.layers}
        layers = {layer for record in leave for layer in record.layers}
        layers_that_go = layers - layers_that_stay
        paths += map(layout.layer, sorted(layers_that_go))
        paths += map(layout.prefetch_list, sorted(configs | layers_that_go))
        both = sorted(layers & layers_that_stay)
        paths += self._stacks_of_nobody(both, stay)
        removed = self._with_emptied(path for path in paths if self._find(path) is not None)
        of_these = tuple(map(str, sorted(configs)))
        shared = [layout.layer_file(layer, "origin.json") for layer in both]
        edited = [EditList(path, "origin", without=of_these) for path in shared]
        return [*map(Remove, removed), *edited, *self._podman(stay)]

    def _podman(self, stay: Iterable[ImageRecord]) -> list[Change]:
        """The stores for podman, with the images that *stay* and no others."""
        stores, published = PodmanStores(), Published(self._repository, self._head)
        stores.add_published(stay, published)
        return stores.replacing(published)

    def _stacks_of_nobody(self, layers: Iterable[Digest], stay: Iterable[ImageRecord]) -> Iterator[bytes]:
        """What is published of *layers* for stacks that no image that stays has; nothing, if that can't be told."""
        published, shared = Published(self._repository, self._head), set(layers)
        wanted: set[bytes] = set()
        for record in stay:
            if shared.isdisjoint(record.layers):
                continue
            trees = [published.layer(layer) for layer in record.layers]
            known = [tree.diff_id for tree in trees if tree is not None]
            if len(known) < len(trees):
                return
            wanted.update(chain.hex.encode() for chain in chain_ids(known))
        for layer in sorted(shared):
            for directory in (layout.layer_stacks(layer), layout.layer_wholes(layer)):
                names = self._children(self._find(directory))
                yield from (directory + b"/" + name for name in sorted(names) if name not in wanted)

    def _read_records(self) -> Iterator[ImageRecord]:
        """Every record; one that can't be read is an error, since nobody knows which layers its image needs."""
        pending = [(layout.METADATA, self._find(layout.METADATA))]
        while pending:
            path, node = pending.pop()
            children = self._children(node)
            record = children.get(b"record.json")
            if isinstance(record, Entry):
                yield ImageRecord.from_bytes(self._repository.read(record), path + b"/record.json")
            pending += [(path + b"/" + name, children[name]) for name in sorted(children, reverse=True)]

    def _with_emptied(self, paths: Iterable[bytes]) -> list[bytes]:
        """These paths, and the directories that are empty without them; the topmost ones of each kind stay."""
        removed = set(paths)
        for path in sorted(removed):
            above = path.rpartition(b"/")[0]
            while above.count(b"/") > (1 if above.startswith(b"/.") else 0) and above not in removed:
                left = {name for name in self._children(self._find(above)) if above + b"/" + name not in removed}
                if left:
                    break
                removed.add(above)
                above = above.rpartition(b"/")[0]
        return sorted(path for path in removed if path.rpartition(b"/")[0] not in removed)

    def _find(self, path: bytes) -> Node | None:
        return self._repository.find(self._head, path)

    def _children(self, node: Node | None) -> Mapping[bytes, Node]:
        if isinstance(node, Nested):
            node = self._repository.catalogs.open_nested(node)
        return node.children if isinstance(node, Directory) else {}


def _own_paths(reference: Reference, records: Iterable[ImageRecord]) -> Iterator[bytes]:
    """Public links and descriptions of an image, of all its builds."""
    for build in {layout.EVERY_CLIENT, *(record.build for record in records)}:
        yield layout.public_link(reference, build)
        yield layout.metadata_file(reference, "record.json", build).rpartition(b"/")[0]

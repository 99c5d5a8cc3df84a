"""The layers product: each layer once, as overlayfs wants it, with the files that describe it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from threading import Lock
from typing import NamedTuple

from ducc import layout
from ducc.catalog.writer import WrittenTree
from ducc.convert.fetch import FetchLayer, LayerWish
from ducc.convert.published import Published
from ducc.cvmfs.entry import Entry
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.ingest.layer import LayerTree
from ducc.layer.entries import DiffIdMismatch
from ducc.publish.changes import BindTree, Change, EditList, PutFile, to_json_bytes


@dataclass(frozen=True, slots=True)
class Got:
    """A layer; *fetched* is set for the one image on whose account it was, since nothing published had it."""

    tree: LayerTree
    fetched: bool


class _Attempt(NamedTuple):
    """One try to get a layer, and for whom it is made; the future says, too, whether the layer was fetched."""

    future: "Future[Got]"
    wanted: LayerWish


class LayerPool:
    """Gives layer trees: published ones from the repository, others fetched and ingested, each once. Thread-safe."""

    def __init__(self, published: Published, fetch: FetchLayer, fetchers: Executor) -> None:
        """*fetchers* say how many layers are on their way at a time."""
        self._published, self._fetch, self._fetchers = published, fetch, fetchers
        self._known: dict[tuple[Digest, Digest], _Attempt] = {}
        self._lock = Lock()

    def request(self, wanted: LayerWish) -> Callable[[], Got]:
        """Begin to get one layer of an image, unless somebody has; what is returned waits for it.

        Others' faults are not this image's: one that claims another diff id shares no attempt with it, and an attempt
        that failed under another image name, whose registry may lack or refuse the blob, or by another manifest, which
        may give the blob a wrong size, is repeated under this one's.
        """
        first = self._attempt(wanted)

        def wait() -> Got:
            attempt = first
            while True:
                try:
                    got = attempt.future.result()
                except DuccError:
                    if attempt.wanted.source == wanted.source:
                        raise
                else:
                    return replace(got, fetched=got.fetched and attempt.wanted is wanted)
                attempt = self._attempt(wanted)

        return wait

    def _attempt(self, wanted: LayerWish) -> _Attempt:
        key = wanted.descriptor.digest, wanted.diff_id
        with self._lock:
            attempt = self._known.get(key)
            if attempt is None or (attempt.future.done() and attempt.future.exception() is not None):
                attempt = self._known[key] = _Attempt(self._fetchers.submit(self._get, wanted), wanted)
            return attempt

    def _get(self, wanted: LayerWish) -> Got:
        known = self._published.layer(wanted.descriptor.digest)
        return Got(known, fetched=False) if known else Got(self._fetch(wanted), fetched=True)


def check_diff_id(layer: LayerTree, claimed: Digest) -> None:
    """Is a layer, which was verified for some image, what another image's config says it is?"""
    if layer.diff_id != claimed:
        raise DiffIdMismatch(f"layer {layer.digest}, uncompressed", claimed, layer.diff_id)


class LayerChanges:
    """Collects what a commit says about layers: each new one once, and which images each belongs to."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._changes: dict[Digest, list[Change]] = {}
        self._of_stacks: dict[bytes, Change] = {}
        self._origins: defaultdict[Digest, list[str]] = defaultdict(list)

    def add(self, layer: LayerTree, root: Entry, created: str | None) -> None:
        """Note a layer with its tree as it was ingested, whose root is *root*; what is published already stays.

        One whose description can't be read is published anew, and so is one of a publisher that completed the tree
        for the first stack that brought it.
        """
        if layer.digest in self._changes or self._stays(layer):
            return
        changes: list[Change] = [
            BindTree(layout.layer_tree(layer.digest), WrittenTree(layer.ref, root, layer.counters)),
            PutFile(layout.layer_file(layer.digest, "tree.json"), to_json_bytes(layer.to_json())),
            PutFile(layout.layer_file(layer.digest, "layers.json"), to_json_bytes([_description(layer, created)])),
        ]
        if layer.notes.fits_anywhere():
            changes.append(PutFile(layout.layer_anywhere(layer.digest), f"{layer.diff_id}\n".encode()))
        self._changes[layer.digest] = changes

    def add_completed(self, layer: LayerTree, stack: Digest, complete: Callable[[], WrittenTree]) -> None:
        """Note what a layer is on top of *stack* (the chain id that it ends); *complete* writes the tree."""
        self._bind_once(layout.stacked_layer(layer.digest, stack), complete)

    def add_whole(self, top: LayerTree, stack: Digest, write: Callable[[], WrittenTree]) -> None:
        """Note what all layers of *stack* are together, whose uppermost is *top*; *write* writes the tree."""
        self._bind_once(layout.whole_stack(top.digest, stack), write)

    def standing(self, stack: Sequence[LayerTree]) -> list[bytes]:
        """Where each layer of a stack, base first, is as it has to be there, once these changes are made."""
        return self._published.standing(stack, self._of_stacks)

    def add_origin(self, layer: LayerTree, config: Digest) -> None:
        """Note that the image with this config has the layer."""
        self._origins[layer.digest].append(str(config))

    def changes(self) -> list[Change]:
        """All changes; images that the layers are known to belong to already are kept."""
        found = [change for changes in self._changes.values() for change in changes]
        found += self._of_stacks.values()
        for digest, configs in self._origins.items():
            found.append(EditList(layout.layer_file(digest, "origin.json"), "origin", tuple(configs)))
        return found

    def _bind_once(self, path: bytes, write: Callable[[], WrittenTree]) -> None:
        """Bind the tree of a stack, unless it is bound: a chain id says all about it."""
        if path not in self._of_stacks and self._published.bound(path) is None:
            self._of_stacks[path] = BindTree(path, write())

    def _stays(self, layer: LayerTree) -> bool:
        published = self._published
        return (
            published.layer_is_readable(layer.digest)
            and published.bound(layout.layer_tree(layer.digest)) == layer.ref
            and published.says_where_it_fits(layer.digest)
        )


def _description(layer: LayerTree, created: str | None) -> dict[str, object]:
    return {
        "id": layer.diff_id.hex,
        "created": created,
        "compressed-diff-digest": str(layer.digest),
        "diff-digest": str(layer.diff_id),
        "diff-size": layer.tar_size,
    }

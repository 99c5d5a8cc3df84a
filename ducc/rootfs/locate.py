"""Where a published layer is: a directory below a repository's mountpoint that can be listed now, or why not.

A path is made of digests and nothing else that came from outside. Repositories are published as a whole, so a layer
that can be seen is complete. Which of a layer's directories is right depends on what the layer lies on (see
docs/layout.md), and that is checked: a layer that is called by another one's chain id is not given.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ducc import layout
from ducc.errors import DuccError
from ducc.image.chain import chain_id, chain_ids
from ducc.image.digest import Digest, MalformedDigest
from ducc.image.strictjson import Fields, MalformedDocument, read_json
from ducc.rootfs.mounts import NOT_THERE, can_be_listed, is_answered_for, is_there, open_beneath
from ducc.rootfs.second_mount import SecondMount, has_no_xattrs

_LONGEST_DIGEST = 100  # bytes
_LONGEST_DESCRIPTION = 1 << 16  # bytes


class LayerAbsent(DuccError):
    """The repository answers, and has no directory that is the layer in its stack."""


class RepositoryUnavailable(DuccError):
    """The repository is not mounted, or its mount does not answer."""

    retryable = True


@dataclass(frozen=True, slots=True)
class StackedLayer:
    """A layer in its place: *digest* names its blob, *below* the stack that it lies on, *stack* that one with it.

    Both are chain ids. *below* is None for the lowest layer.
    """

    digest: Digest
    below: Digest | None
    stack: Digest


def stacked(digests: Sequence[Digest], diff_ids: Sequence[Digest]) -> list[StackedLayer]:
    """The layers of an image, base first, as its manifest (*digests*) and its config (*diff_ids*) list them."""
    stacks = chain_ids(diff_ids)
    return [StackedLayer(*layer) for layer in zip(digests, [None, *stacks[:-1]], stacks, strict=True)]


@dataclass(frozen=True, slots=True)
class MountedRepository:
    """A repository by its name, and where this machine shows it; trees without attributes also on *second*."""

    fqrn: str
    mountpoint: Path
    second: SecondMount | None = None
    _found: dict[StackedLayer, bytes] = field(default_factory=dict, compare=False, repr=False)
    _has_no_xattrs: dict[bytes, bool] = field(default_factory=dict, compare=False, repr=False)  # by path

    def layer(self, wanted: StackedLayer) -> Path:
        """The directory of the layer. Raises `LayerAbsent` or `RepositoryUnavailable`."""
        return self.layers([wanted])[0]

    def layers(self, wanted: Sequence[StackedLayer]) -> list[Path]:
        """The directory of each of the layers. Raises `LayerAbsent` or `RepositoryUnavailable`.

        What was right once is so for ever, since digests name it, and what was listed once is complete; then each mount
        from which some are given is only asked, once, whether it answers.
        """
        answering: set[Path] = set()
        return [self._layer(one, answering) for one in wanted]

    def _layer(self, wanted: StackedLayer, answering: set[Path]) -> Path:
        """The directory of the layer; mountpoints that have answered just now are among *answering*."""
        path = self._found.get(wanted)
        if path is not None and (directory := self._on_second(path, answering)) is not None:
            return directory
        with self._opened() as top:
            if path is not None and (is_there if self.mountpoint in answering else is_answered_for)(top, path):
                answering.add(self.mountpoint)
                return self._below(path)
            path = self._found[wanted] = self._right_directory(top, wanted)
            return self._given(top, path)

    def _right_directory(self, top: int, wanted: StackedLayer) -> bytes:
        digest = wanted.digest
        if can_be_listed(top, own := layout.stacked_layer(digest, wanted.stack)):
            return own
        diff_id = _diff_id_if_it_fits_anywhere(top, digest)
        if diff_id is None:
            raise LayerAbsent(f"{self.fqrn} has no layer {digest} that fits on what is below it")
        if chain_id(wanted.below, diff_id) != wanted.stack:
            raise LayerAbsent(f"{self.fqrn}: layer {digest} does not make {wanted.stack} of what is below it")
        if not can_be_listed(top, plain := layout.layer_tree(digest)):
            raise LayerAbsent(f"{self.fqrn} does not have layer {digest}")
        return plain

    def whole(self, stacks: Sequence[StackedLayer]) -> tuple[int, Path]:
        """The first of *stacks* that has all its layers in one directory: its place among them, and the directory.

        Raises what `layer` raises.
        """
        with self._opened() as top:
            for place, stack in enumerate(stacks):
                path = layout.whole_stack(stack.digest, stack.stack)
                if (directory := self._on_second(path, set())) is not None:
                    return place, directory
                if can_be_listed(top, path):
                    return place, self._given(top, path)
            raise LayerAbsent(f"{self.fqrn} does not have all of {stacks[0].stack} in one directory")

    def diff_id(self, digest: Digest) -> Digest:
        """What the layer is, uncompressed, by its publisher's word. Raises `LayerAbsent` or `RepositoryUnavailable`."""
        with self._opened() as top:
            description = _read(top, layout.layer_file(digest, "layers.json"), _LONGEST_DESCRIPTION)
            if description is None:
                raise LayerAbsent(f"{self.fqrn} does not have layer {digest}")
            try:
                return _described_diff_id(description)
            except (MalformedDocument, MalformedDigest) as error:
                raise LayerAbsent(f"{self.fqrn}: layer {digest} can't be used: {error}") from error

    def _given(self, top: int, path: bytes) -> Path:
        """Where the directory, which can be listed below *top*, is best read."""
        if self.second is not None and path not in self._has_no_xattrs:
            self._has_no_xattrs[path] = has_no_xattrs(top, path)
        return self._on_second(path, set()) or self._below(path)

    def _on_second(self, path: bytes, answering: set[Path]) -> Path | None:
        """The directory on the second mount, if it is known to be the same there, and there now."""
        if self.second is None or not self._has_no_xattrs.get(path):
            return None
        return self.second.directory(path, answering)

    def _below(self, path: bytes) -> Path:
        return self.mountpoint / os.fsdecode(path[1:])

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The mountpoint, and our words for what goes wrong there."""
        try:
            top = os.open(self.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield top
            finally:
                os.close(top)
        except OSError as error:
            raise self._failure(error) from error
        except LayerAbsent as error:
            if not os.path.ismount(self.mountpoint):
                raise self._not_mounted() from error
            raise

    def _failure(self, error: OSError) -> RepositoryUnavailable:
        if error.errno in NOT_THERE:
            return self._not_mounted()
        return RepositoryUnavailable(f"{self.fqrn} at {self.mountpoint}: {error.strerror}")

    def _not_mounted(self) -> RepositoryUnavailable:
        return RepositoryUnavailable(f"{self.fqrn} is not mounted at {self.mountpoint}")


def _diff_id_if_it_fits_anywhere(top: int, digest: Digest) -> Digest | None:
    said = _read(top, layout.layer_anywhere(digest), _LONGEST_DIGEST)
    try:
        return None if said is None else Digest.parse(said.decode(errors="replace").strip())
    except MalformedDigest:
        return None


def _described_diff_id(description: bytes) -> Digest:
    """What a layer's `layers.json` says. Raises `DuccError` if it does not."""
    found = read_json(description, "layers.json")
    (only,) = found if isinstance(found, list) and len(found) == 1 else [found]
    if not isinstance(only, dict):
        raise MalformedDocument("layers.json: not the description of a layer")
    return Digest.parse(Fields(only, "layers.json").text("diff-digest"))


def _read(top: int, path: bytes, most: int) -> bytes | None:
    """The first *most* bytes of a file, if there is one."""
    try:
        file = open_beneath(top, path[1:], os.O_RDONLY)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
    try:
        return os.read(file, most)
    finally:
        os.close(file)

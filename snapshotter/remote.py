"""Which published layer a snapshot can be: from containerd's labels to a directory of a mounted repository.

Labels are text from outside: of the layer's digest nothing goes into a path but its 64 hex digits. Repositories are
asked in order, each within a deadline, since a mount whose server hangs would keep the caller for ever.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as DeadlinePassed
from dataclasses import dataclass
from pathlib import Path

from ducc.errors import DuccError
from ducc.image.digest import Digest, MalformedDigest
from ducc.rootfs.locate import LayerAbsent, MountedRepository, RepositoryUnavailable

TARGET = "containerd.io/snapshot.ref"
"""The name that containerd will look for: the chain id of the layers up to this one."""

LAYER_LABELS = (
    "containerd.io/snapshot/cri.layer-digest",  # CRI, Docker, nerdctl, the transfer service
    "containerd.io/snapshot/remote/stargz.digest",  # clients made for the stargz snapshotter
)
"""Where clients put the digest of the compressed layer."""

REMOTE = "containerd.io/snapshot/remote"
"""The label by which others tell that a snapshot's files are not local."""

_THREADS = 4


class NotPublished(DuccError):
    """No repository has the layer, and all were asked."""


class LayersUnavailable(DuccError):
    """A layer can't be said to be absent: a repository that may have it does not answer."""

    retryable = True


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """Where a layer can be read now."""

    fqrn: str
    directory: Path


class Published:
    """The layers of all *repositories*, the preferred one first."""

    def __init__(self, repositories: Sequence[MountedRepository], deadline_seconds: float) -> None:
        self._asked = [_Asked(repository, deadline_seconds) for repository in repositories]

    def find(self, layer: Digest) -> PublishedLayer:
        """Where *layer* is. Raises `NotPublished` or `LayersUnavailable`."""
        silent = []
        for asked in self._asked:
            try:
                return PublishedLayer(asked.repository.fqrn, asked.layer(layer))
            except LayerAbsent:
                continue
            except RepositoryUnavailable as error:
                silent.append(str(error))
        if silent:
            raise LayersUnavailable(f"layer {layer} can't be read: {'; '.join(silent)}")
        raise NotPublished(f"layer {layer} is in no repository")


class _Asked:
    """A repository that is asked within a deadline, and left alone for as long when it let one pass.

    So a chain of forty layers waits once for a repository that hangs, not forty times.
    """

    def __init__(self, repository: MountedRepository, deadline_seconds: float) -> None:
        self.repository = repository
        self._deadline_seconds = deadline_seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=repository.fqrn)
        self._silent_until = 0.0  # on the monotonic clock

    def layer(self, digest: Digest) -> Path:
        """Where the layer is. Raises `LayerAbsent` or `RepositoryUnavailable`."""
        if time.monotonic() < self._silent_until:
            raise self._silence()
        asked = self._threads.submit(self.repository.layer, digest)
        try:
            return asked.result(self._deadline_seconds)
        except DeadlinePassed:
            asked.cancel()
            self._silent_until = time.monotonic() + self._deadline_seconds
            raise self._silence() from None

    def _silence(self) -> RepositoryUnavailable:
        return RepositoryUnavailable(f"{self.repository.fqrn} did not answer within {self._deadline_seconds:g} s")


def layer_of(labels: Mapping[str, str]) -> Digest:
    """The digest of the layer that *labels* speak of. Raises `MalformedDigest`."""
    for label in LAYER_LABELS:
        if label in labels:
            return Digest.parse(labels[label])
    raise MalformedDigest("no label says the layer's digest: containerd is to annotate snapshots")

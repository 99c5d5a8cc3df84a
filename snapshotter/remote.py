"""Which published layer a snapshot can be: from containerd's labels to a directory of a mounted repository.

Labels are text from outside: of the layer's digest nothing goes into a path but its 64 hex digits. Repositories are
asked in order, each within a deadline, since a mount whose server hangs would keep the caller for ever.
"""

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
        self._deadline_seconds = deadline_seconds
        self._asked = [(repository, _pool(repository)) for repository in repositories]

    def find(self, layer: Digest) -> PublishedLayer:
        """Where *layer* is. Raises `NotPublished` or `LayersUnavailable`."""
        silent = []
        for repository, pool in self._asked:
            try:
                asked = pool.submit(repository.layer, layer)
                return PublishedLayer(repository.fqrn, asked.result(self._deadline_seconds))
            except LayerAbsent:
                continue
            except RepositoryUnavailable as error:
                silent.append(str(error))
            except DeadlinePassed:
                asked.cancel()
                silent.append(f"{repository.fqrn} did not answer within {self._deadline_seconds:g} s")
        if silent:
            raise LayersUnavailable(f"layer {layer} can't be read: {'; '.join(silent)}")
        raise NotPublished(f"layer {layer} is in no repository")


def layer_of(labels: Mapping[str, str]) -> Digest:
    """The digest of the layer that *labels* speak of. Raises `MalformedDigest`."""
    for label in LAYER_LABELS:
        if label in labels:
            return Digest.parse(labels[label])
    raise MalformedDigest("no label says the layer's digest: containerd is to annotate snapshots")


def _pool(repository: MountedRepository) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=repository.fqrn)

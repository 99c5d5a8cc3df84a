"""Where the layers of thin images are: in which directories of the repositories that this machine mounts.

A `thin.json` is text from outside. Of what it says about a layer only the digest is used; whichever configured
repository has the layer gives the directory, by the rules of docs/layout.md. What a layer is on top of others is asked
of the repository, since `thin.json` does not say it.
"""

from collections.abc import Sequence
from pathlib import Path

from ducc.errors import DuccError
from ducc.image.thin import ThinImage
from ducc.rootfs.locate import MountedRepository, stacked
from ducc.rootfs.published import LayersUnavailable, NotPublished, PublishedLayers


class ThinImageUnavailable(DuccError):
    """A layer of a thin image can't be read now."""

    retryable = True


class PublishedImages:
    """The thin images whose layers *repositories* have, the preferred one first."""

    def __init__(self, repositories: Sequence[MountedRepository], deadline_seconds: float) -> None:
        self._names = {repository.fqrn for repository in repositories}
        self._layers = PublishedLayers(repositories, deadline_seconds)

    def directories(self, image: ThinImage) -> Sequence[Path]:
        """The directories of the layers of *image*, topmost first, or one that has all of them.

        Raises `ThinImageUnavailable`.
        """
        digests = [layer.digest for layer in image.layers]
        try:
            stack = stacked(digests, [self._layers.diff_id(digest) for digest in digests])
            whole = self._layers.whole(stack[-1:])
            return [whole[1].directory] if whole else self._layers.directories(stack)
        except (NotPublished, LayersUnavailable) as error:
            named = sorted({layer.fqrn for layer in image.layers} - self._names)
            unknown = f"; it names {', '.join(named)}, which is not configured here" if named else ""
            raise ThinImageUnavailable(f"thin image of {image.origin[:200]!a}: {error}{unknown}") from error

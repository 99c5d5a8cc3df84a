"""From what a reference names to the builds that are wanted: every one by digest, and each digest fetched once.

The tag is asked for once, or not at all when the digest is known already; whatever the tag names meanwhile, all builds
are of the one index that was found.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ducc.image.config import ImageConfig
from ducc.image.digest import Digest
from ducc.image.manifest import Descriptor, Index, Manifest, Platform, UnsupportedImage
from ducc.image.platform import NoSuchPlatform, choose, is_attestation, normalised, runnable_on
from ducc.image.reference import Reference

MAX_INDEX_DEPTH = 4
MAX_BUILDS = 100
PUBLISHED_OS = "linux"  # what "every platform" means; containers of other systems have no use for a file system of ours


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the registry has it, every part verified. *index* is what the reference names, if it names one."""

    reference: Reference
    manifest: Manifest
    index: Index | None
    config: ImageConfig
    warnings: tuple[str, ...] = ()  # what an operator may want to know, and what stopped nothing


class Builds:
    """The builds of one image, asked for by *fetch* (a tag or digest → manifest or index, verified) and *config*."""

    def __init__(
        self,
        reference: Reference,
        fetch: Callable[[str], Manifest | Index],
        config: Callable[[Manifest], ImageConfig],
    ) -> None:
        self._reference, self._fetch, self._config = reference, fetch, config
        self._fetched: dict[Digest, Manifest | Index] = {}
        self._configs: dict[Digest, ImageConfig] = {}

    def find(self, locator: str, platforms: Sequence[Platform] | None) -> list[tuple[Platform, Image]]:
        """What `Registry.resolve_platforms` returns, of the image that *locator* names."""
        found = self._fetch(locator)
        if isinstance(found, Manifest):
            return [self._only_build(found, platforms)]
        if platforms is None:
            return self._every_build(found)
        return self._wanted_builds(found, platforms)

    def _only_build(self, manifest: Manifest, platforms: Sequence[Platform] | None) -> tuple[Platform, Image]:
        """A build that the reference names itself is taken whatever processor it is for; a warning says so."""
        own = normalised(self._config_of(manifest).platform)
        fitting = [one for one in platforms or (own,) if own in runnable_on(one)]
        wanted = (fitting or list(platforms or ()))[0]
        return wanted, self._image(manifest, None, wanted)

    def _wanted_builds(self, index: Index, platforms: Sequence[Platform]) -> list[tuple[Platform, Image]]:
        builds: list[tuple[Platform, Image]] = []
        missing: list[NoSuchPlatform] = []
        for wanted in platforms:
            try:
                manifest = self._follow(index, wanted)
            except NoSuchPlatform as error:
                missing.append(error)
            else:
                builds.append((wanted, self._image(manifest, index, wanted)))
        if missing and not builds:
            raise missing[0]
        if missing:
            platform, first = builds[0]
            builds[0] = platform, replace(first, warnings=(*first.warnings, *map(str, missing)))
        return builds

    def _every_build(self, index: Index) -> list[tuple[Platform, Image]]:
        builds: dict[Platform, Image] = {}
        left_out: list[str] = []
        for entry in self._entries(index, 1):
            if entry.platform is not None and normalised(entry.platform).os != PUBLISHED_OS:
                left_out.append(f"{self._reference}: its build for {entry.platform} is left out")
                continue
            manifest = self._manifest(entry)
            platform = normalised(entry.platform or self._config_of(manifest).platform)
            if platform not in builds:
                builds[platform] = self._image(manifest, index, platform)
        if not builds:
            raise NoSuchPlatform(str(self._reference), Platform(PUBLISHED_OS, "any"), [])
        first = next(iter(builds))
        builds[first] = replace(builds[first], warnings=(*builds[first].warnings, *left_out))
        return list(builds.items())

    def _entries(self, index: Index, depth: int) -> Iterator[Descriptor]:
        """The builds of an index and of those in it, each once."""
        entries = {entry.digest: entry for entry in reversed(index.manifests) if not is_attestation(entry)}
        if len(entries) > MAX_BUILDS:
            raise UnsupportedImage(f"{self._reference}: an index of more than {MAX_BUILDS} builds")
        for entry in reversed(entries.values()):
            inner = self._part(entry) if entry.is_index else None
            if isinstance(inner, Index):
                self._refuse_depth(depth)
                yield from self._entries(inner, depth + 1)
            else:
                yield entry

    def _follow(self, index: Index, wanted: Platform) -> Manifest:
        found: Manifest | Index = index
        for _ in range(MAX_INDEX_DEPTH):
            if isinstance(found, Manifest):
                return found
            found = self._part(choose(found, wanted, str(self._reference)))
        if isinstance(found, Index):
            self._refuse_depth(MAX_INDEX_DEPTH)
        return found  # type: ignore[return-value]

    def _refuse_depth(self, depth: int) -> None:
        if depth >= MAX_INDEX_DEPTH:
            raise UnsupportedImage(f"{self._reference}: an index in an index, more than {MAX_INDEX_DEPTH} deep")

    def _manifest(self, entry: Descriptor) -> Manifest:
        found = self._part(entry)
        if isinstance(found, Index):
            raise UnsupportedImage(f"{self._reference}: {entry.digest} is an index, and is not called one")
        return found

    def _part(self, entry: Descriptor) -> Manifest | Index:
        if entry.digest not in self._fetched:
            self._fetched[entry.digest] = self._fetch(str(entry.digest))
        return self._fetched[entry.digest]

    def _config_of(self, manifest: Manifest) -> ImageConfig:
        if manifest.digest not in self._configs:
            self._configs[manifest.digest] = self._config(manifest)
        return self._configs[manifest.digest]

    def _image(self, manifest: Manifest, index: Index | None, wanted: Platform) -> Image:
        config = self._config_of(manifest)
        if config.os.lower() != wanted.os.lower():
            raise NoSuchPlatform(str(self._reference), wanted, [config.platform])
        return Image(self._reference, manifest, index, config, _warnings(self._reference, manifest, config, wanted))


def _warnings(reference: Reference, manifest: Manifest, config: ImageConfig, wanted: Platform) -> tuple[str, ...]:
    """What does not add up in an image and does not stop it."""
    warnings = []
    if normalised(config.platform).architecture != normalised(wanted).architecture:
        warnings.append(f"{reference}: its config says {config.platform}, {wanted} was asked for")
    if config.layers_in_history not in (None, len(manifest.layers)):
        warnings.append(
            f"{reference}: its history tells of {config.layers_in_history} layers, not {len(manifest.layers)}"
        )
    return tuple(warnings)

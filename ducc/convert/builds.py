"""The builds of an image that a wish asks for: all of one index, whatever its tag does meanwhile.

A build that can't be had does not cost the others. What an index does not have is not missed: a warning says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ducc import layout
from ducc.convert.plan import Convert, platforms_of
from ducc.errors import DuccError
from ducc.image.manifest import Platform
from ducc.image.platform import LINUX_AMD64, NoSuchPlatform
from ducc.layout import UnnameablePlatform
from ducc.registry.client import Image, Registry

_LIKELY = (LINUX_AMD64, Platform("linux", "arm64"))  # through which the index can be had, if not all of it can


class SomeBuildsFailed(DuccError):
    """Of an image for several platforms some builds can't be published."""

    exit_code = 48
    retryable = True  # the next pass asks for them alone

    def __init__(self, image: str, failures: Sequence["Failure"]) -> None:
        told = "; ".join(f"{one.platform}: {str(one.error).removeprefix(f'{image}: ')}" for one in failures)
        super().__init__(f"{image}: {told}")


@dataclass(frozen=True, slots=True)
class Build:
    """One build of an image; *name* is how `ducc/layout.py` calls it."""

    name: str
    platform: Platform
    image: Image


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no build for a platform."""

    platform: Platform
    error: DuccError


@dataclass(frozen=True, slots=True)
class Found:
    """The builds that can be had, and what can't. A single build that is for all clients has the name `""`."""

    builds: tuple[Build, ...]
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_for_all_clients(self) -> bool:
        return [build.name for build in self.builds] == [layout.EVERY_CLIENT]


def find_builds(step: Convert, registry: Registry) -> Found:
    """Find what a step asks for. Raises what the registry does, unless some of several builds can be had."""
    platforms = step.settings.platforms
    try:
        found = registry.resolve_platforms(step.reference, platforms, step.source_digest)
    except DuccError as error:
        if isinstance(error, NoSuchPlatform) or (platforms is not None and len(platforms) == 1):
            raise
        return _one_by_one(step, registry, error)
    (platform, first), *_ = found
    if first.index is None or (platforms is not None and len(platforms) == 1):
        return Found((Build(layout.EVERY_CLIENT, platform, first),))
    return _named(step, found)


def _named(step: Convert, found: Sequence[tuple[Platform, Image]], failures: Sequence[Failure] = ()) -> Found:
    """Give builds their names; that an index has some without is a fault only if they are asked for."""
    made: list[Build] = []
    unnameable: list[Failure] = []
    for platform, image in found:
        try:
            made.append(Build(layout.build_name(platform), platform, image))
        except UnnameablePlatform as error:
            unnameable.append(Failure(platform, error))
    if step.settings.platforms is None and made:
        return Found(tuple(made), tuple(failures), tuple(str(one.error) for one in unnameable))
    return Found(tuple(made), (*failures, *unnameable))


def _one_by_one(step: Convert, registry: Registry, error: DuccError) -> Found:
    """Find the builds that can be had, each for itself; if there is none, raise what was raised for all together."""
    found: list[tuple[Platform, Image]] = []
    failures: list[Failure] = []
    for platform in step.settings.platforms or _offered(step, registry):
        try:
            found += registry.resolve_platforms(step.reference, [platform], step.source_digest)
        except NoSuchPlatform:
            continue  # what is not there is not missed
        except DuccError as its_own:
            failures.append(Failure(platform, its_own))
    if not found:
        raise error
    return _named(step, found, failures)


def _offered(step: Convert, registry: Registry) -> list[Platform]:
    """The platforms of the index, as far as one of the likely builds leads to it."""
    for platform in _LIKELY:
        try:
            ((_, image),) = registry.resolve_platforms(step.reference, [platform], step.source_digest)
        except DuccError:
            continue
        return [one for one in platforms_of(image.index) if one.os == platform.os] if image.index else [platform]
    return []

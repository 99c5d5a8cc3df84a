"""Wishes, and what is published, become steps. What this asks a registry for is one digest a wish."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, TypeGuard, TypeVar

from ducc import layout
from ducc.convert.flat import created_seconds
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.convert.stop import Stop
from ducc.convert.thin import UnusableThinName, thin_name, thin_push
from ducc.errors import DuccError, UnexpectedFailure
from ducc.image.digest import Digest
from ducc.image.manifest import Index, Platform, UnsupportedImage
from ducc.image.platform import LINUX_AMD64, NoSuchPlatform, choose, is_attestation, normalised
from ducc.image.reference import Reference
from ducc.layout import UnnameablePlatform
from ducc.registry.client import NoSuchImage, Registry
from ducc.wishlist.expand import expand
from ducc.wishlist.settings import Created, WishSettings
from ducc.wishlist.wish import BrokenWish, Wish

FLAT = "flat"  # the product that people see; layers are there in any case


class Wanted(NamedTuple):
    """One image that is wished for, and how. *thin* is what its thin image is called, or why it can't be called so."""

    reference: Reference
    settings: WishSettings
    thin: Reference | DuccError | None = None


@dataclass(frozen=True, slots=True)
class Convert:
    """An image that is not published, or whose tag names another image by now. *source_digest* is what it names."""

    reference: Reference
    source_digest: Digest
    settings: WishSettings = field(default_factory=WishSettings)
    thin: Reference | DuccError | None = None


@dataclass(frozen=True, slots=True)
class PushThin:
    """An image that is published as it is; the registry that should have its thin image has another one, or none."""

    reference: Reference
    source_digest: Digest
    settings: WishSettings
    thin: Reference | DuccError


@dataclass(frozen=True, slots=True)
class Keep:
    """An image that is published as it is, from *source_digest*."""

    reference: Reference
    source_digest: Digest


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A wish that can't even be looked at. *wish* is how its author wrote it; who *ignored* it wants no fuss."""

    wish: str
    error: DuccError
    ignored: bool = False

    @property
    def reason(self) -> str:
        """What is wrong, without the wish, which is said before."""
        return str(self.error).removeprefix(f"{self.wish}: ")


Step = Convert | PushThin | Keep | GiveUp
T = TypeVar("T")

log = logging.getLogger(__name__)


def plan(
    wishes: Iterable[Wish | BrokenWish], published: Published, registry: Registry, askers: Executor, stop: Stop
) -> list[Step]:
    """Return one step for each image wished for, each image once: by priority, then in the order of the wishes.

    *askers* put the questions to the registries, several at a time; what is published is looked up here meanwhile.
    Of two wishes for one public path the first counts. Raises `Stopped`.
    """
    give_ups: list[GiveUp] = []
    sound: list[Wish] = []
    for wish in wishes:
        if isinstance(wish, BrokenWish):
            give_ups.append(GiveUp(f"{wish.file}:{wish.line}:{wish.column}", wish.error))
        else:
            sound.append(wish)
    images: list[Wanted] = []
    for expansion in [askers.submit(images_of, wish, registry) for wish in sound]:
        for one in stop.result(expansion):
            give_ups.append(one) if isinstance(one, GiveUp) else images.append(one)
    wanted = sorted(_with_thin_names_of_their_own(_each_once(images)), key=lambda one: -one.settings.priority)
    answers = [(one, askers.submit(_digest, one, registry), askers.submit(_pushed, one, registry)) for one in wanted]
    steps = [_step(one, stop.result(digest), stop.result(pushed), published) for one, digest, pushed in answers]
    return [*steps, *give_ups]


def images_of(wish: Wish, registry: Registry) -> Sequence[Wanted | GiveUp]:
    """What a wish stands for: one image, or for a wildcard those of its tags that are wanted."""
    if not wish.reference.is_wildcard:
        return [_wanted(wish, wish.reference)]

    def ask() -> list[Wanted]:
        mine = registry.using(wish.settings.credentials)
        found = expand(wish.reference, mine.tags(wish.reference), wish.settings.tags, _created(wish, mine))
        return [_wanted(wish, reference) for reference in found]

    return _or_give_up(Wanted(wish.reference, wish.settings), ask)


def _wanted(wish: Wish, reference: Reference) -> Wanted:
    """One image that *wish* stands for."""
    thin: Reference | DuccError | None = None
    try:
        thin = thin_name(wish.output_format, reference) if wish.output_format else None
    except DuccError as error:
        thin = error
    return Wanted(reference, wish.settings, thin)


def _created(wish: Wish, registry: Registry) -> Created:
    """When the image of a tag was made, by its own word; None for what is not there or can't be published."""
    platform = (wish.settings.platforms or (LINUX_AMD64,))[0]

    def ask(tag: str) -> datetime | None:
        try:
            seconds = created_seconds(registry.resolve(wish.reference.with_tag(tag), platform).config)
        except (NoSuchImage, UnsupportedImage):
            return None
        return datetime.fromtimestamp(seconds, UTC) if seconds else None

    return ask


def _digest(one: Wanted, registry: Registry) -> Digest | GiveUp:
    return _or_give_up(one, lambda: [registry.using(one.settings.credentials).manifest_digest(one.reference)])[0]


def _pushed(one: Wanted, registry: Registry) -> Digest | None:
    """What the name of an image's thin image names now; None, too, if nobody says: pushing will tell why."""
    if not isinstance(one.thin, Reference):
        return None
    try:
        return registry.pushed(one.thin)
    except DuccError as error:
        log.info("thin image unknown: thin=%s reason=%s", one.thin, error)
        return None


def _step(one: Wanted, digest: Digest | GiveUp, pushed: Digest | None, published: Published) -> Step:
    """Compare what a reference names with what is published of it."""
    if isinstance(digest, GiveUp):
        return digest

    def compare() -> list[Step]:
        if not is_granted(one, digest, published):
            return [Convert(one.reference, digest, one.settings, one.thin)]
        if one.thin is None or _is_pushed(one, pushed, published):
            return [Keep(one.reference, digest)]
        return [PushThin(one.reference, digest, one.settings, one.thin)]

    return _or_give_up(one, compare)[0]


def _is_pushed(one: Wanted, pushed: Digest | None, published: Published) -> bool:
    if pushed is None:
        return False
    image = thin_push(published.fqrn, one.reference, published)
    return image is not None and image.digest == pushed


def is_granted(wanted: Wanted, digest: Digest, published: Published) -> bool:
    """Is all that is wished for of an image published whole, from the index or manifest *digest*?"""
    reference, settings = wanted.reference, wanted.settings
    if settings.platforms is not None and len(settings.platforms) == 1:
        record = published.image(reference)
        return is_current(record, digest, settings) and _serves(record, wanted, settings.platforms[0], published)
    index = published.index(reference)
    if index is None or index.digest != digest:  # then it is one build, which the reference names itself
        record = published.image(reference)
        return is_current(record, digest, settings) and record.manifest_digest == digest
    builds = [published.image(reference, name) for name in _build_names(index, settings.platforms)]
    return bool(builds) and all(is_current(build, digest, settings) for build in builds)


def is_current(record: ImageRecord | None, digest: Digest, settings: WishSettings) -> TypeGuard[ImageRecord]:
    """Was the published build made from *digest*, with the products that are wished for?"""
    if record is None or record.source_digest != digest:
        return False
    return record.image_tree is not None or FLAT not in settings.products


def _serves(record: ImageRecord, wanted: Wanted, platform: Platform, published: Published) -> bool:
    """Is the build that all clients see the one for *platform*, or the only one there is?"""
    if record.manifest_digest == record.source_digest or record.platform == str(platform):
        return True
    index = published.index(wanted.reference)
    if index is None or index.digest != record.source_digest:
        return False
    entry = choose(index, platform)
    return entry.is_index or entry.digest == record.manifest_digest


def _build_names(index: Index, platforms: Sequence[Platform] | None) -> list[str]:
    """The builds that are to be had of an index, as far as it tells itself; one in an inner index can't be told."""
    names: dict[str, None] = {}
    for platform in platforms_of(index) if platforms is None else platforms:
        with suppress(UnnameablePlatform, NoSuchPlatform):
            choose(index, platform)
            names[layout.build_name(platform)] = None
    return list(names)


def platforms_of(index: Index) -> list[Platform]:
    """The platforms for which an index names a build itself, each once, normalised."""
    builds = (entry for entry in index.manifests if not is_attestation(entry) and not entry.is_index)
    return list(dict.fromkeys(normalised(entry.platform) for entry in builds if entry.platform is not None))


def _or_give_up(wanted: Wanted, ask: Callable[[], Sequence[T]]) -> Sequence[T | GiveUp]:
    wish, ignored = str(wanted.reference), wanted.settings.ignore_errors
    try:
        return ask()
    except DuccError as error:
        return [GiveUp(wish, error, ignored)]
    except Exception as error:  # a fault of ours in one wish must not cost the others
        log.error("unexpected failure: wish=%s", wish, exc_info=error)
        return [GiveUp(wish, UnexpectedFailure(error), ignored)]


def _each_once(images: Iterable[Wanted]) -> list[Wanted]:
    """Two references with one public path are one wish."""
    first: dict[bytes, Wanted] = {}
    for image in images:
        first.setdefault(layout.public_link(image.reference), image)
    return list(first.values())


def _with_thin_names_of_their_own(images: Iterable[Wanted]) -> list[Wanted]:
    """Of several images whose thin images would have one name the first has it; the others are told who has."""
    first: dict[bytes, Wanted] = {}
    found = []
    for image in images:
        if isinstance(image.thin, Reference):
            holder = first.setdefault(layout.public_link(image.thin), image)
            if holder is not image:
                taken = UnusableThinName(f"{image.reference}: {image.thin} is the thin image of {holder.reference}")
                image = image._replace(thin=taken)
        found.append(image)
    return found

"""Wildcards: the references that a tag with `*` stands for. Pure: the tags are handed in."""

from collections.abc import Iterable

from ducc.image.reference import Reference, is_tag
from ducc.wishlist.glob import matches
from ducc.wishlist.settings import Created, TagFilter, TooManyTags


def expand(
    reference: Reference, tags: Iterable[str], chosen: TagFilter | None = None, created: Created | None = None
) -> list[Reference]:
    """The references whose tags match and are *chosen*, each once, sorted by tag; of one without wildcard, itself.

    *created* is as for `TagFilter.choose`. Raises `TooManyTags`.
    """
    if reference.tag is None or not reference.is_wildcard:
        return [reference]
    pattern = reference.tag
    matching = (tag for tag in tags if is_tag(tag) and matches(pattern, tag))
    try:
        return [reference.with_tag(tag) for tag in (chosen or TagFilter()).choose(matching, created)]
    except TooManyTags as error:
        raise TooManyTags(f"{reference}: {error}") from error

"""Wildcards: the references that a tag with `*` stands for. Pure: the tags are handed in."""

from collections.abc import Iterable

from ducc.image.reference import Reference, is_tag


def expand(reference: Reference, tags: Iterable[str]) -> list[Reference]:
    """The references whose tags match, each once, sorted by tag; of a reference without wildcard, itself."""
    if reference.tag is None or not reference.is_wildcard:
        return [reference]
    pattern = reference.tag
    return [reference.with_tag(tag) for tag in sorted(set(tags)) if is_tag(tag) and matches(pattern, tag)]


def matches(pattern: str, tag: str) -> bool:
    """Does the whole of *tag* fit? `*` is any run of characters, also none; all others stand for themselves.

    Takes the leftmost place for each part between two stars, so there is nothing to go back for: linear.
    """
    first, *middle = pattern.split("*")
    if not middle:
        return tag == pattern
    last = middle.pop()
    if not tag.startswith(first) or not tag.endswith(last):
        return False
    position, end = len(first), len(tag) - len(last)
    for part in middle:
        found = tag.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return position <= end

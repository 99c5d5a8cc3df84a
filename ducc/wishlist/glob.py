"""Patterns of wishlists: `*` is any run of characters, also none; all others stand for themselves. Pure."""


def matches(pattern: str, text: str) -> bool:
    """Does the whole of *text* fit?

    Takes the leftmost place for each part between two stars, so there is nothing to go back for: linear.
    """
    first, *middle = pattern.split("*")
    if not middle:
        return text == pattern
    last = middle.pop()
    if not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return position <= end

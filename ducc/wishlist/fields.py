"""Takes values out of the nodes of a document, and collects the faults so that all are told at once."""

import re
from collections.abc import Collection

import yaml

from ducc.wishlist.document import fault_at, is_null, is_scalar, is_text, kind
from ducc.wishlist.wish import Fault

_PLAIN_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,8})")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Reader:
    """Reads one document. What returns after a fault is some value of the right type."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.faults: list[Fault] = []

    def fault(self, node: yaml.Node, text: str) -> None:
        self.faults.append(fault_at(self.path, node.start_mark, text))

    def mapping(self, node: yaml.Node, keys: Collection[str], what: str) -> dict[str, yaml.Node]:
        """The values by key. Unknown keys and all but the first of equal keys are faults; *what* has the keys."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{what} must be a mapping of keys to values, not {kind(node)}")
            return {}
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in keys:
                self.fault(key, f"unknown key {ascii(name)[:50]}: {what} has {', '.join(keys)}")
            elif name in fields:
                self.fault(key, f"the key {name!r} stands here for the second time")
            else:
                fields[name] = value
        return fields

    def text_or_none(self, node: yaml.Node | None, key: str) -> str | None:
        """A string, or None when there is none."""
        return None if node is None or is_null(node) else self.text(node, key)

    def text(self, node: yaml.Node, key: str) -> str:
        if not is_text(node):
            self.fault(node, f"{key} must be a string, not {kind(node)}: write it in quotes")
            return ""
        return str(node.value)

    def texts(self, node: yaml.Node, key: str) -> list[tuple[yaml.Node, str]]:
        """The strings of a list that has at least one, each once, with their nodes."""
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.fault(node, f"{key} must be a list of strings, not {kind(node) if node.value else 'empty'}")
            return []
        found: list[tuple[yaml.Node, str]] = []
        for item in node.value:
            text = self.text(item, key)
            if is_text(item) and any(text == other for _, other in found):
                self.fault(item, f"{key}: {ascii(text)[:50]} stands here for the second time")
            elif is_text(item):
                found.append((item, text))
        return found

    def boolean(self, node: yaml.Node, key: str) -> bool:
        value = _BOOLEANS.get(node.value.lower()) if is_scalar(node, "bool") else None
        if value is None:
            self.fault(node, f"{key} must be true or false, not {kind(node)}")
        return bool(value)

    def integer(self, node: yaml.Node, key: str, least: int, most: int) -> int:
        plain = is_scalar(node, "int") and _PLAIN_INTEGER.fullmatch(node.value)
        value = int(node.value) if plain else None
        if value is None or not least <= value <= most:
            self.fault(node, f"{key} must be an integer from {least} to {most}")
            return least
        return value

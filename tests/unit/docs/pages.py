"""Pages for operators as values: their snippets, by language, and their links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text()

    def snippets(self, language: str) -> list[str]:
        return [text for found, text in _FENCE.findall(self.text) if found == language]

    def below(self, heading: str) -> list[str]:
        """The TOML snippets between a heading and the next one."""
        text = self.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        return [text for found, text in _FENCE.findall(text) if found == "toml"]

    def links(self) -> Iterator[tuple[Path, str]]:
        """Files of the project that the page leads to, each with the heading that is meant, or `""`."""
        for target, anchor in _LINK.findall(_FENCE.sub("", self.text)):
            if "://" not in target:
                yield (self.path.parent / target).resolve() if target else self.path, anchor

    def anchors(self) -> set[str]:
        """What links call this page's headings."""
        return {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in _HEADING.findall(_FENCE.sub("", self.text))
        }


def pages(*names: str) -> list[Page]:
    return [Page(DOCS / name) for name in names]

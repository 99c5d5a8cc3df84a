"""What the pages on engines say to write into configuration can be read, and names what the programs have."""

import json
import re
import shlex
import tomllib
from typing import Any

import pytest
import yaml

from ducc.cli.main import _parse
from snapshotter.settings import DEFAULT_ADDRESS, DEFAULT_ROOT
from tests.unit.docs.pages import DOCS, Page, pages

PAGES = pages(
    "registry-mirror.md",
    "kubernetes.md",
    "kubernetes/kubeadm.md",
    "kubernetes/k3s.md",
    "engines/containerd.md",
    "engines/ctr.md",
    "engines/docker.md",
    "engines/nerdctl.md",
    "decisions/layer-archives.md",
)
MIRROR = "http://127.0.0.1:5010"
PLUGINS = {"ducc", "cvmfs-snapshotter"}  # the second is what nerdctl wants it to be called

by_path = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.relative_to(DOCS)))


@by_path
def test_every_snippet_can_be_read(page: Page) -> None:
    for text in page.snippets("toml"):
        tomllib.loads(text)
    for text in page.snippets("yaml"):
        assert yaml.safe_load(text)
    for text in page.snippets("json"):
        json.loads(text)


@by_path
def test_containerd_is_told_of_the_snapshotter_where_that_is(page: Page) -> None:
    for plugin in plugins(page):
        assert plugin["type"] == "snapshot"
        assert plugin["address"] == str(DEFAULT_ADDRESS)
        assert plugin.get("exports", {}).get("root", str(DEFAULT_ROOT)) == str(DEFAULT_ROOT)


def plugins(page: Page) -> list[dict[str, Any]]:
    found = [tomllib.loads(text).get("proxy_plugins", {}) for text in page.snippets("toml")]
    return [plugin for table in found for plugin in table.values()]


@by_path
def test_whoever_names_a_snapshotter_names_one_that_is_there(page: Page) -> None:
    named = [name for text in page.snippets("toml") for name in snapshotters(tomllib.loads(text))]
    named += [json.loads(text).get("storage-driver", "ducc") for text in page.snippets("json")]
    assert set(named) <= PLUGINS | {"overlayfs"}


def snapshotters(values: Any) -> list[str]:
    """Every value that is called `snapshotter`, wherever it stands."""
    if isinstance(values, list):
        return [name for value in values for name in snapshotters(value)]
    if not isinstance(values, dict):
        return []
    own = [values["snapshotter"]] if isinstance(values.get("snapshotter"), str) else []
    return own + [name for value in values.values() for name in snapshotters(value)]


@by_path
def test_the_mirror_is_sought_at_one_address(page: Page) -> None:
    assert set(re.findall(r"http://127\.0\.0\.1:\d+", page.text)) <= {MIRROR}
    for text in page.snippets("toml"):
        for host in tomllib.loads(text).get("host", {}):
            assert host in (MIRROR, "https://registry.example.org")


@by_path
def test_every_command_of_ours_is_one(page: Page) -> None:
    for line in "\n".join(page.snippets("sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["ducc"]:
            _parse(words[1:])


@by_path
def test_links_lead_somewhere(page: Page) -> None:
    for target, anchor in page.links():
        assert target.exists(), target
        assert not anchor or anchor in Page(target).anchors(), f"{target}#{anchor}"

"""The JSON schema for editors says what the parser says, as far as a schema can."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from ducc.errors import BadInput
from ducc.wishlist.item import ITEM_KEYS, SETTINGS, TAG_KEYS
from ducc.wishlist.osg import parse_osg_list
from ducc.wishlist.parse import KEYS, parse_wishlist
from ducc.wishlist.settings import MAX_TAGS, ORDERS, PRODUCTS
from tests.unit.image.test_reference import READ

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/wishlist.schema.json").read_text())
SAMPLES = sorted((ROOT / "wishlists").glob("*.yaml"))
HEX = "a" * 64

GOOD = [
    "input: []",
    "input:",
    "version: 1\nuser: me\noutput_format: 'thin.org/$(image)'\ninput: []",
    "user:\noutput_format: ''\ninput: [ubuntu]",
    "ignoreErrors: ['*/nightly:*']\ninput: [ubuntu]",
    "ignoreErrors:\ninput: []",
    "defaults: {}\ninput: []",
    "defaults: {platforms: all, tags: {newest: 1}}\ninput: [ubuntu, 'fedora:*']",
    "input: [{image: ubuntu}, fedora]",
    "input: [{image: 'a:*', tags: {}}]",
]
BAD = [
    "",
    "input: 7",
    "input: ubuntu",
    "version: 2\ninput: []",
    "version: '1'\ninput: []",
    "user: 7\ninput: []",
    "output_format: [a]\ninput: []",
    "images: []\ninput: []",
    "ignoreErrors: '*'\ninput: []",
    "ignoreErrors: [1]\ninput: []",
    "ignoreErrors: [a, a]\ninput: []",
    "defaults: []\ninput: []",
    "defaults: {image: ubuntu}\ninput: []",
    "defaults:\ninput: []",
    "input: [3.10]",
    "input: [null]",
    "input: [[ubuntu]]",
    "input: [{}]",
    "input: [{platforms: all}]",
    "input: [{image: 3.10}]",
    "input: [{ubuntu: 1}]",
    "input: [{image: ubuntu, tags: {newest: 1}}]",
    "input: [{image: ubuntu, arch: amd64}]",
]
GOOD_SETTINGS = [
    "platforms: all",
    "platforms: [linux/amd64, linux/arm/v7]",
    "products: [layers]",
    "credentials: robot-1.x_y",
    "keep: forever",
    "keep: 12h",
    "keep: 99999w",
    "priority: -1000",
    "priority: 1000",
    "ignore_errors: false",
    "ignore_errors: yes",
    "tags: {newest: 100000}",
    "tags: {by: date}",
    "tags: {semver: '>=1.2 <3'}",
    "tags: {semver: '>= v1.2, != 1.4.x || ^3 || 5.0-rc.1 || *'}",
    "tags: {semver: '~1.2.3'}",
    "tags: {max_age: 90d}",
    "tags: {exclude: ['*-rc*', latest]}",
]
BAD_SETTINGS = [
    "platforms: linux/amd64",
    "platforms: []",
    "platforms: [amd64]",
    "platforms: [linux/amd64/v1/x]",
    "platforms: [linux/amd64, linux/amd64]",
    "platforms:",
    "products: []",
    "products: layers",
    "products: [thin]",
    "products: [flat, flat]",
    "credentials: 'me:secret'",
    "credentials: ''",
    "credentials: 7",
    "keep: 90",
    "keep: 0d",
    "keep: 90 d",
    "keep: 1y",
    "keep: 100000d",
    "priority: 1001",
    "priority: high",
    "priority: 1.5",
    "ignore_errors: 1",
    "ignore_errors: 'true'",
    "tags: []",
    "tags: {newest: 0}",
    "tags: {newest: 100001}",
    "tags: {newest: all}",
    "tags: {by: size}",
    "tags: {semver: 1.2}",
    "tags: {semver: ''}",
    "tags: {semver: latest}",
    "tags: {semver: '>>1'}",
    "tags: {semver: '1.2-slim'}",
    "tags: {semver: '1 ||'}",
    "tags: {max_age: forever}",
    "tags: {exclude: '*-rc*'}",
    "tags: {exclude: []}",
    "tags: {exclude: ['a/b']}",
    "tags: {limit: 1}",
]
GOOD_IMAGES = [text for text, _ in READ if len(text) < 100]
BAD_IMAGES = [
    "https://centos",
    "ftp://host.org/a:1",
    "me:secret@host.org/a:1",
    "host.org/A:1",
    "Library/ubuntu",
    "host.org/a:b:c",
    "host.org/a:",
    "host.org/a/:1",
    "host.org//a:1",
    "host.org/../a:1",
    "./a:1",
    ".flat/a:1",
    "host.org/a:.1",
    "host.org/a:-1",
    "host.org/a b:1",
    "host.org/a:1?x",
    f"host.org/a:1*@sha256:{HEX}",
    f"host.org/a@sha512:{HEX}",
    "host.org/a@sha256:abc",
    "host.org:0/a:1",
    "-host.org/a:1",
    "/a:1",
]


def schema_allows(text: str) -> bool:
    return Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(text))


def parser_allows(text: str) -> bool:
    try:
        return not parse_wishlist(text.encode(), "w.yaml").broken
    except BadInput:
        return False


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_allowed(path):
    assert schema_allows(path.read_text())
    assert parser_allows(path.read_text())


def test_the_sample_of_another_kind_is_read_as_a_whole():
    wishlist = parse_osg_list((ROOT / "wishlists/docker_images.txt").read_bytes(), "docker_images.txt", "a.b")
    assert len(wishlist.wishes) == 5
    assert not wishlist.broken


@pytest.mark.parametrize("text", GOOD)
def test_schema_and_parser_allow_the_same_lists(text):
    text = f"cvmfs_repo: a.b\n{text}\n"
    assert (schema_allows(text), parser_allows(text)) == (True, True)


@pytest.mark.parametrize("text", BAD)
def test_schema_and_parser_refuse_the_same_lists(text):
    text = f"cvmfs_repo: a.b\n{text}\n"
    assert (schema_allows(text), parser_allows(text)) == (False, False)


@pytest.mark.parametrize("name", ["nodots", "a.b/sub", "A.b", "a..b", "-a.b", "''", "7", "a" * 100 + ".b"])
def test_schema_and_parser_refuse_the_same_repositories(name):
    text = f"cvmfs_repo: {name}\ninput: []\n"
    assert (schema_allows(text), parser_allows(text)) == (False, False)


@pytest.mark.parametrize("setting", GOOD_SETTINGS)
def test_schema_and_parser_allow_the_same_settings(setting):
    for text in (f"input:\n  - image: a:*\n    {setting}\n", f"defaults:\n  {setting}\ninput: []\n"):
        text = f"cvmfs_repo: a.b\n{text}"
        assert (schema_allows(text), parser_allows(text)) == (True, True)


@pytest.mark.parametrize("setting", BAD_SETTINGS)
def test_schema_and_parser_refuse_the_same_settings(setting):
    for text in (f"input:\n  - image: a:*\n    {setting}\n", f"defaults:\n  {setting}\ninput: []\n"):
        text = f"cvmfs_repo: a.b\n{text}"
        assert (schema_allows(text), parser_allows(text)) == (False, False)


@pytest.mark.parametrize(("images", "good"), [(GOOD_IMAGES, True), (BAD_IMAGES, False)])
def test_schema_and_parser_agree_on_images(images, good):
    for image in images:
        text = f"cvmfs_repo: a.b\ninput:\n  - {json.dumps(image)}\n"
        assert (image, schema_allows(text), parser_allows(text)) == (image, good, good)


def test_the_schema_knows_every_key_and_word_of_the_parser():
    named = SCHEMA["$defs"]
    assert set(SCHEMA["properties"]) == set(KEYS)
    assert set(SCHEMA["properties"]["defaults"]["properties"]) == set(SETTINGS)
    assert set(named["item"]["properties"]) == set(ITEM_KEYS)
    assert set(named["tags"]["properties"]) == set(TAG_KEYS)
    assert named["products"]["items"]["enum"] == list(PRODUCTS)
    assert named["tags"]["properties"]["by"]["enum"] == list(ORDERS)
    assert f"more than {MAX_TAGS} tags" in named["tags"]["properties"]["newest"]["description"]


def test_everything_in_the_schema_is_explained():
    for properties in (
        SCHEMA["properties"],
        SCHEMA["$defs"],
        SCHEMA["$defs"]["tags"]["properties"],
        SCHEMA["$defs"]["item"]["properties"],
        SCHEMA["properties"]["defaults"]["properties"],
    ):
        for name, value in properties.items():
            assert value.get("description") or value["$ref"].removeprefix("#/$defs/") in SCHEMA["$defs"], name


def test_every_example_in_the_schema_is_allowed():
    parts = [*SCHEMA["properties"].values(), *SCHEMA["$defs"].values()]
    parts += SCHEMA["$defs"]["tags"]["properties"].values()
    examples = [(part, example) for part in parts for example in part.get("examples", ())]
    assert len(examples) > len(SETTINGS)
    for part, example in examples:
        Draft202012Validator({**part, "$defs": SCHEMA["$defs"]}).validate(example)

import json

import pytest

from ducc.image.strictjson import MAX_BYTES, Fields, MalformedDocument, read_json, read_object


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"x": {"a": 1, "a": 1}}',
        b"[NaN]",
        b"[Infinity]",
        b"[1e999]",
        b"[" + b"1" * 5000 + b"]",
        b"\xef\xbb\xbf{}",
        b'["\\ud800"]',
        b'["\\uDFFF x"]',
        b'["\xff"]',
        b"{} {}",
        b"{}\0",
        b"{'a': 1}",
        b"<html>",
        b'"' + b"a" * MAX_BYTES + b'"',
    ],
    ids=lambda data: ascii(data[:20]),
)
def test_json_that_readers_may_take_differently_is_refused(data):
    with pytest.raises(MalformedDocument, match=r"^thing: "):
        read_json(data, "thing")


def test_surrogate_pairs_are_one_character():
    assert read_json(rb'["\ud83d\ude00"]', "thing") == ["\U0001f600"]


def test_only_an_object_is_an_object():
    with pytest.raises(MalformedDocument, match="not an array"):
        read_object(b"[]", "thing")


def fields(**values: object) -> Fields:
    return read_object(json.dumps(values).encode(), "thing")


@pytest.mark.parametrize("value", [1.0, True, "1", None, [1]])
def test_an_integer_is_an_integer(value):
    with pytest.raises(MalformedDocument, match="'size' must be an integer"):
        fields(size=value).integer("size")


@pytest.mark.parametrize("value", [1, None, ["a"], {}])
def test_a_required_string_is_a_string(value):
    with pytest.raises(MalformedDocument, match="'name' must be a string"):
        fields(name=value).text("name")


def test_a_string_holds_no_nul():
    with pytest.raises(MalformedDocument, match="NUL"):
        fields(name="a\0b").text("name")


def test_a_key_in_other_capitals_is_refused_because_other_readers_take_it():
    with pytest.raises(MalformedDocument, match="capitals"):
        fields(Layers=[]).children("layers")
    with pytest.raises(MalformedDocument, match="capitals"):
        fields(layers=[], LAYERS=[]).children("layers")


def test_labels_may_differ_by_capitals_only():
    assert fields(labels={"A": "1", "a": "2"}).text_map("labels") == {"A": "1", "a": "2"}


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, ["a", None]])
def test_an_array_of_strings_is_one(value):
    with pytest.raises(MalformedDocument):
        fields(env=value).texts("env")

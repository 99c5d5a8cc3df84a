"""What is published about an image can be read back, and what can't be is an error with a name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.catalog.schema import CatalogRef
from ducc.convert.record import ImageRecord, UnreadableRecord
from ducc.image.digest import Digest
from ducc.publish.changes import to_json_bytes

DIGESTS = st.binary(max_size=4).map(Digest.of)
REFS = st.builds(CatalogRef, st.binary(min_size=20, max_size=20), st.integers(0, 2**40))
RECORDS = st.builds(
    ImageRecord,
    reference=st.text(), source_digest=DIGESTS, manifest_digest=DIGESTS, config_digest=DIGESTS, platform=st.text(),
    image_tree=st.none() | REFS, layers=st.lists(DIGESTS, max_size=4).map(tuple), published_at=st.integers(0, 2**33),
    publisher=st.text(), counters=st.dictionaries(st.text(), st.integers()),
    warnings=st.lists(st.text(), max_size=3).map(tuple), build=st.sampled_from(["", "amd64", "arm:v7"]),
)  # fmt: skip
PATH = b"/.metadata/r/i:t/record.json"


def sample() -> dict[str, object]:
    digest = Digest.of(b"")
    record = ImageRecord(
        "r/i:t", digest, digest, digest, "linux/amd64", CatalogRef(bytes(20), 1), (digest,), 5, "p", {}, ()
    )
    return json.loads(record.to_bytes())


@given(RECORDS)
def test_a_record_survives_the_journey_through_a_repository(record):
    assert ImageRecord.from_bytes(record.to_bytes(), PATH) == record
    assert ImageRecord.from_bytes(record.to_bytes(), PATH).to_bytes() == record.to_bytes()


def test_a_record_for_all_clients_is_as_it_was_before_there_were_others():
    assert "build" not in sample()


def test_equal_values_are_equal_bytes():
    assert to_json_bytes({"b": 1, "a": [2]}) == to_json_bytes(dict(reversed({"b": 1, "a": [2]}.items())))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b'"text"', b"[" * 100_000])
def test_bytes_that_are_no_record_are_an_error_that_names_the_file(data):
    with pytest.raises(UnreadableRecord, match=r"record\.json"):
        ImageRecord.from_bytes(data, PATH)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"source_digest": "sha512:00"},
        {"image_tree": {"root_hash": "zz", "root_size": 1}},
        {"image_tree": "zz"},
        {"layers": ["x"]},
        {"of a later version": 1},
    ],
)
def test_a_record_of_another_version_is_an_error_that_names_the_file(change):
    with pytest.raises(UnreadableRecord, match="another version"):
        ImageRecord.from_bytes(json.dumps(sample() | change).encode(), PATH)

import json

import pytest

from ducc.cvmfs.compression import COMPRESSORS
from ducc.ingest import chunk
from ducc.publish.settings import FASTCDC, PROFILES, BadSettings, RepositorySettings, UnknownProfile


@pytest.mark.parametrize("profile", PROFILES)
def test_what_was_recorded_is_read_back(profile):
    settings = RepositorySettings.of_profile(profile)
    assert RepositorySettings.from_metainfo(settings.to_metainfo()) == settings
    assert settings.compressor in COMPRESSORS


def test_the_recorded_way_of_cutting_is_the_one_in_use():
    assert f"fastcdc-{chunk.MIN_BYTES >> 20}-{chunk.AVERAGE_BYTES >> 20}-{chunk.MAX_BYTES >> 20}" == FASTCDC


def test_what_an_earlier_version_did_not_record_has_its_default():
    metainfo = json.dumps({"custom": {"ducc": {"compressor": "zlib-6"}}, "email": "someone"}).encode()
    assert RepositorySettings.from_metainfo(metainfo) == RepositorySettings("zlib-6")


@pytest.mark.parametrize(
    "metainfo",
    [
        b"",
        b"{}",
        b"[]",
        b'{"custom": []}',
        b'{"custom": {"ducc": []}}',
        b'{"custom": {"ducc": {"novelty": 1}}}',
        b'{"custom": {"ducc": {"split_heavy": "2000"}}}',
        b'{"custom": {"ducc": {"split_heavy": true}}}',
        b'{"custom": {"ducc": {"compressor": "brotli-1"}}}',
        b'{"custom": {"ducc": {"chunking": "fixed"}}}',
    ],
)
def test_what_is_not_known_is_refused(metainfo):
    with pytest.raises(BadSettings):
        RepositorySettings.from_metainfo(metainfo)


def test_unknown_profiles_are_refused():
    with pytest.raises(UnknownProfile, match="compatible"):
        RepositorySettings.of_profile("best")

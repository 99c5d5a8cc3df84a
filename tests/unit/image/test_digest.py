import hashlib

import pytest

from ducc.image.digest import Digest, DigestMismatch, MalformedDigest, UnsupportedDigest

HEX = hashlib.sha256(b"").hexdigest()


def test_a_digest_is_written_as_it_is_read():
    assert str(Digest.parse(f"sha256:{HEX}")) == f"sha256:{HEX}"
    assert Digest.of(b"") == Digest(HEX)


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        f":{HEX}",
        "sha256:",
        "sha256:../../x",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX} ",
        f" sha256:{HEX}",
        f"sha256:{HEX}\n",
        f"SHA256:{HEX}",
        f"sha256:sha256:{HEX}",
        "sha256:" + "g" * 64,
        "sha256:" + "٠" * 64,
    ],
)
def test_what_is_not_a_digest_is_refused(text):
    with pytest.raises(MalformedDigest):
        Digest.parse(text)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha384", "sha512", "blake3"])
def test_other_algorithms_are_refused_by_name_and_never_cut_to_fit(algorithm):
    with pytest.raises(UnsupportedDigest, match=algorithm):
        Digest.parse(f"{algorithm}:{HEX}{HEX}")


def test_a_mismatch_says_what_was_expected_and_what_came():
    error = DigestMismatch("blob", Digest.of(b"a"), Digest.of(b"b"))
    assert str(error) == f"blob: expected {Digest.of(b'a')}, received {Digest.of(b'b')}"

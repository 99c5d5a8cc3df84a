"""Compared byte for byte with what the openssl command makes of the same keys."""

import hashlib
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ducc.cvmfs.fqrn import BadRepositoryName, require_fqrn
from ducc.cvmfs.manifest import ManifestMalformed, WrongRepository
from ducc.cvmfs.signature import (
    BadCertificate,
    BadMasterKey,
    BadSignature,
    ManifestOutdated,
    load_master_public_key,
    sign_manifest,
    verify_manifest,
)
from ducc.cvmfs.whitelist import (
    CertificateNotListed,
    Whitelist,
    WhitelistExpired,
    WhitelistMalformed,
    WhitelistNotSigned,
    WhitelistOfAnotherRepository,
    WhitelistUnsupported,
    fingerprint,
    sign_raw,
)
from ducc.publish.keys import sign_whitelist
from tests.signing import FQRN, NOW, keys
from tests.unit.cvmfs.test_manifest import MANIFEST

KEYS, MASTER = keys()
SIGNED = sign_manifest(MANIFEST, KEYS.repository_key)
WHITELIST = sign_whitelist(KEYS, MASTER, NOW)
MASTERS = [MASTER.public_key()]
OTHER_KEYS, OTHER_MASTER = keys(number=1)


def unnamed(_value):
    """Values that differ from run to run don't name tests: workers must agree on the names."""
    return "case"


def verify(manifest=SIGNED, certificate=KEYS.certificate_pem, whitelist=WHITELIST, masters=MASTERS, now=NOW, **seen):
    return verify_manifest(manifest, certificate, whitelist, masters, FQRN, now, **seen)


def openssl(*arguments, key, data, path):
    file = path / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return subprocess.run(["openssl", *arguments, file], input=data, capture_output=True, check=True).stdout


def listing(*lines):
    """A well signed whitelist of these lines."""
    text = b"".join(line + b"\n" for line in lines)
    digest = hashlib.sha1(text).hexdigest().encode()
    return text + b"--\n" + digest + b"\n" + sign_raw(digest, MASTER)


def test_a_whole_chain_is_believed():
    assert verify() == MANIFEST


def test_the_manifests_signature_is_that_of_openssl(tmp_path):
    digest = hashlib.sha1(MANIFEST.encode()).hexdigest().encode()
    signature = openssl("dgst", "-sha1", "-sign", key=KEYS.repository_key, data=digest, path=tmp_path)
    assert MANIFEST.encode() + b"--\n" + digest + b"\n" + signature == SIGNED


def test_the_whitelists_signature_is_that_of_openssl(tmp_path):
    text = Whitelist.parse(WHITELIST).encode()
    digest = hashlib.sha1(text).hexdigest().encode()
    signature = openssl("pkeyutl", "-sign", "-inkey", key=MASTER, data=digest, path=tmp_path)
    assert text + b"--\n" + digest + b"\n" + signature == WHITELIST


def test_the_fingerprint_is_that_of_openssl():
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha1"]
    told = subprocess.run(command, input=KEYS.certificate_pem, capture_output=True, check=True).stdout
    assert told.decode().strip().partition("=")[2] == fingerprint(KEYS.certificate)


def test_a_whitelist_is_lines_of_digits_names_and_fingerprints():
    lines = WHITELIST.split(b"\n--\n")[0].decode().split("\n")
    assert lines == ["20260304050607", "E20260403050607", "Nrepo.example.org", fingerprint(KEYS.certificate)]


def test_the_manifest_of_another_repository_is_refused():
    with pytest.raises(WrongRepository):
        verify(sign_manifest(replace(MANIFEST, fqrn="other.example.org"), KEYS.repository_key))


def test_a_manifest_older_than_one_seen_is_refused():
    assert verify(newest_seen=MANIFEST.timestamp) == MANIFEST
    with pytest.raises(ManifestOutdated):
        verify(newest_seen=MANIFEST.timestamp + 1)


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw[:-1] + b"x", lambda raw: raw + b"x"])
def test_a_damaged_signature_is_refused(change):
    with pytest.raises(BadSignature):
        verify(change(SIGNED))


def test_a_manifest_signed_with_another_key_is_refused():
    with pytest.raises(BadSignature):
        verify(sign_manifest(MANIFEST, OTHER_KEYS.repository_key))


@pytest.mark.parametrize(
    "raw",
    [
        MANIFEST.encode(),
        MANIFEST.encode() + b"--\n",
        SIGNED.replace(b"S7\n", b"S8\n"),
        SIGNED.split(b"\n--\n")[0] + b"\n--\n" + b"0" * 40 + b"\n",
        SIGNED.split(b"\n--\n")[0] + b"\n--\n" + b"0" * 40 + b"-shake128\nsignature",
    ],
    ids=unnamed,
)
def test_a_manifest_without_a_signature_or_with_a_changed_text_is_refused(raw):
    with pytest.raises(ManifestMalformed):
        verify(raw)


def test_a_certificate_that_is_not_listed_is_refused():
    with pytest.raises(CertificateNotListed):
        verify(sign_manifest(MANIFEST, OTHER_KEYS.repository_key), OTHER_KEYS.certificate_pem)


@pytest.mark.parametrize("pem", [b"", b"no certificate", KEYS.certificate_pem[:300]], ids=unnamed)
def test_what_is_no_certificate_is_refused(pem):
    with pytest.raises(BadCertificate):
        verify(certificate=pem)


def test_a_whitelist_signed_with_another_master_key_is_refused():
    with pytest.raises(WhitelistNotSigned):
        verify(masters=[OTHER_MASTER.public_key()])
    with pytest.raises(WhitelistNotSigned):
        verify(masters=[])
    assert verify(masters=[OTHER_MASTER.public_key(), *MASTERS]) == MANIFEST


def test_a_manifests_kind_of_signature_does_not_do_for_a_whitelist():
    text = Whitelist.parse(WHITELIST).encode()
    with pytest.raises(WhitelistNotSigned):
        verify(whitelist=text + SIGNED[-256:].join((b"--\n" + hashlib.sha1(text).hexdigest().encode() + b"\n", b"")))


@pytest.mark.parametrize(
    ("hours", "is_good"), [(0, True), (30 * 24 - 1, True), (30 * 24, False), (30 * 24 + 1, False), (365 * 24, False)]
)
def test_a_whitelist_expires_with_the_hour(hours, is_good):
    for minutes in (-5, 50):  # of the same hour
        now = NOW + timedelta(hours=hours, minutes=minutes)
        if is_good:
            assert verify(now=now) == MANIFEST
        else:
            with pytest.raises(WhitelistExpired, match="clock"):
                verify(now=now)


LISTED = fingerprint(KEYS.certificate).encode()
HEAD = (b"20260304050607", b"E20260403050607", b"Nrepo.example.org")


@pytest.mark.parametrize(
    "line",
    [
        LISTED,
        LISTED + b" # our certificate",
        LISTED + b"\t",
        LISTED + b"#x",
        LISTED.lower(),
        LISTED.replace(b":", b""),
    ],
    ids=unnamed,
)
def test_fingerprints_are_read_as_stock_clients_do(line):
    assert verify(whitelist=listing(*HEAD, b"0" * 40, b"1" * 40 + b"-shake128", line)) == MANIFEST


def test_the_whitelist_of_another_repository_is_refused():
    with pytest.raises(WhitelistOfAnotherRepository):
        verify(whitelist=listing(*HEAD[:2], b"Nother.example.org", LISTED))


@pytest.mark.parametrize("line", [b"Vpkcs7", b"Wcachain"])
def test_a_whitelist_that_wants_a_certification_authority_is_refused(line):
    with pytest.raises(WhitelistUnsupported):
        verify(whitelist=listing(*HEAD, line, LISTED))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>\n",
        WHITELIST[:100],
        WHITELIST.split(b"--\n")[0],
        WHITELIST.replace(b"E2026", b"E2027"),
        listing(*HEAD[:2]),
        listing(b"2026030405060", *HEAD[1:], LISTED),
        listing(HEAD[0], b"E20261303050607", HEAD[2], LISTED),
        listing(HEAD[0], b"20260403050607", HEAD[2], LISTED),
        listing(*HEAD, LISTED[:-3]),
        listing(*HEAD, LISTED + b"-md5"),
        listing(*HEAD, LISTED, b""),
        listing(*HEAD, *[LISTED] * 2000),
    ],
    ids=unnamed,
)
def test_what_is_no_whitelist_is_refused(raw):
    with pytest.raises(WhitelistMalformed):
        verify(whitelist=raw)


@pytest.mark.parametrize("pem", [b"", b"no key", KEYS.certificate_pem], ids=unnamed)
def test_what_is_no_master_key_is_refused(pem):
    with pytest.raises(BadMasterKey):
        load_master_public_key(pem)


@pytest.mark.parametrize("name", ["repo.example.org", "a.b", "A-1_x.cern.ch", "x" * 60 + ".org"])
def test_names_of_repositories(name):
    assert require_fqrn(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "repo", ".", "..", "a..b", ".a.b", "a.b.", "a/b.c", "a.b/../c", "a b.c", "é.fr", "-a.b", "a.b\n", "x." * 101],
)
def test_what_names_no_repository(name):
    with pytest.raises(BadRepositoryName):
        require_fqrn(name)

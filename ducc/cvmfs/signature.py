"""The chain of trust: manifest, signed by a certificate, which a whitelist allows, which a master key signed.

Pure: keys, bytes and the time come as arguments. The certificate's own dates mean nothing, as in the stock client: the
whitelist's do.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import Certificate, load_pem_x509_certificate

from ducc.cvmfs.letter import Letter, MalformedLetter, text_hash
from ducc.cvmfs.manifest import BadManifest, Manifest, ManifestMalformed, WrongRepository
from ducc.cvmfs.whitelist import CertificateNotListed, Whitelist, fingerprint
from ducc.errors import BadInput

_SCHEME = PKCS1v15(), SHA1()  # noqa: S303 - the format's


class BadCertificate(BadManifest):
    """The certificate object is not a certificate with an RSA key."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the repository's certificate can't be used: {reason}")


class BadSignature(BadManifest):
    """Somebody else signed the manifest, or it was changed since."""

    def __init__(self, fqrn: str) -> None:
        super().__init__(f"the manifest of {fqrn} is not signed by its certificate")


class ManifestOutdated(BadManifest):
    """A manifest older than one already seen: a server lags behind, or somebody replays."""

    def __init__(self, fqrn: str, timestamp: int, newest_seen: int) -> None:
        super().__init__(
            f"the manifest of {fqrn} is of {timestamp} (unix seconds), one of {newest_seen} was seen before"
        )


class BadMasterKey(BadInput):
    """A master key's public half can't be read."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not the public half of a master key (PEM, RSA): {reason}")


def sign_manifest(manifest: Manifest, repository_key: RSAPrivateKey) -> bytes:
    """The whole file `.cvmfspublished`; *manifest* names the certificate that belongs to *repository_key*."""
    text = manifest.encode()
    return Letter(text, repository_key.sign(text_hash(text), *_SCHEME)).encode()


def verify_manifest(
    raw_manifest: bytes,
    certificate_pem: bytes,
    raw_whitelist: bytes,
    master_public_keys: Sequence[RSAPublicKey],
    fqrn: str,
    now: datetime,
    newest_seen: int = 0,
) -> Manifest:
    """Return the manifest if the whole chain holds; else raise the `BadManifest` or `BadWhitelist` that says where not.

    *certificate_pem* is the object that the manifest names, whose hash the caller has verified; *newest_seen* is the
    greatest timestamp of a manifest of this repository that the caller believed before.
    """
    manifest = Manifest.parse(raw_manifest)
    if manifest.fqrn != fqrn:
        raise WrongRepository(fqrn, manifest.fqrn)
    if manifest.timestamp < newest_seen:
        raise ManifestOutdated(fqrn, manifest.timestamp, newest_seen)
    certificate = load_certificate(certificate_pem)
    verify_letter(raw_manifest, certificate, fqrn)
    if not Whitelist.verify(raw_whitelist, master_public_keys, fqrn, now).allows(certificate):
        raise CertificateNotListed(fqrn, fingerprint(certificate))
    return manifest


def verify_letter(raw_manifest: bytes, certificate: Certificate, fqrn: str) -> None:
    """Has *certificate* signed these bytes? Whether it may is the whitelist's to say."""
    try:
        letter = Letter.parse(raw_manifest)
    except MalformedLetter as error:
        raise ManifestMalformed(str(error)) from None
    try:
        _rsa_key(certificate).verify(letter.signature, text_hash(letter.text), *_SCHEME)
    except InvalidSignature:
        raise BadSignature(fqrn) from None


def load_certificate(pem: bytes) -> Certificate:
    try:
        certificate = load_pem_x509_certificate(pem)
        _rsa_key(certificate)
    except ValueError as error:
        raise BadCertificate(str(error).splitlines()[0]) from None
    return certificate


def load_master_public_key(pem: bytes) -> RSAPublicKey:
    """Read `<fqrn>.pub`."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadMasterKey(str(error).splitlines()[0]) from None
    if not isinstance(key, RSAPublicKey):
        raise BadMasterKey(type(key).__name__)
    return key


def _rsa_key(certificate: Certificate) -> RSAPublicKey:
    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm as error:
        raise BadCertificate(str(error)) from None
    if not isinstance(key, RSAPublicKey):
        raise BadCertificate("its key is not RSA")
    return key

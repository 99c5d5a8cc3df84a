"""The whitelist `.cvmfswhitelist`: which certificates may sign the manifest, and until when.

Signed with the master key, which can therefore be kept elsewhere; renewing it changes nothing else in a repository.
Source: format, "`.cvmfswhitelist`". Variants that want a certification authority (`Vpkcs7`, `Wcachain`) are refused.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from ducc.cvmfs.letter import Letter, MalformedLetter, text_hash, text_lines
from ducc.errors import DuccError

_TIME = "%Y%m%d%H%M%S"
_FINGERPRINT = re.compile("(?:[0-9A-F]{40})(?:-RMD160|-SHAKE128)?")


class BadWhitelist(DuccError):
    """A whitelist does not allow what was signed in its name."""

    exit_code = 61


class WhitelistMalformed(BadWhitelist):
    """The bytes are not a whitelist."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is not a whitelist: {reason}")


class WhitelistUnsupported(BadWhitelist):
    """The whitelist asks for a check that is not made here, so it can't be relied upon."""

    def __init__(self, line: str) -> None:
        super().__init__(
            f"the whitelist asks for {line[:40]!r}, which is not supported: sign it with a master key only"
        )


class WhitelistOfAnotherRepository(BadWhitelist):
    """A whitelist, however well signed, of another repository."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected the whitelist of {expected}, received that of {found}")


class WhitelistExpired(BadWhitelist):
    """Nobody renewed the whitelist in time, or a clock is wrong."""

    def __init__(self, fqrn: str, expires: datetime, now: datetime) -> None:
        super().__init__(
            f"the whitelist of {fqrn} expired at {expires:%Y-%m-%d %H:%M} UTC and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M}: renew it (ducc whitelist renew) or correct the clock"
        )
        self.expires, self.now = expires, now


class WhitelistNotSigned(BadWhitelist):
    """None of the master keys we trust has signed the whitelist."""

    def __init__(self, fqrn: str) -> None:
        super().__init__(f"the whitelist of {fqrn} is not signed by any of the given master keys")


class CertificateNotListed(BadWhitelist):
    """The certificate that signed is not one that may."""

    def __init__(self, fqrn: str, fingerprint: str) -> None:
        super().__init__(f"the certificate {fingerprint} is not on the whitelist of {fqrn}")


@dataclass(frozen=True, slots=True)
class Whitelist:
    """Times are UTC. *fingerprints* are as `fingerprint` writes them."""

    fqrn: str
    created: datetime
    expires: datetime
    fingerprints: tuple[str, ...]

    def encode(self) -> bytes:
        """The text that gets signed."""
        lines = (f"{self.created:{_TIME}}", f"E{self.expires:{_TIME}}", f"N{self.fqrn}", *self.fingerprints)
        return "".join(f"{line}\n" for line in lines).encode()

    def sign(self, master: RSAPrivateKey) -> bytes:
        """The whole file."""
        text = self.encode()
        return Letter(text, sign_raw(text_hash(text), master)).encode()

    @classmethod
    def parse(cls, raw: bytes) -> "Whitelist":
        """Read a whitelist's text; nothing of it is to be believed before it is verified."""
        try:
            lines = text_lines(raw)
        except MalformedLetter as error:
            raise WhitelistMalformed(str(error)) from None
        if len(lines) < 3 or lines[1][:1] != "E" or lines[2][:1] != "N":
            raise WhitelistMalformed("it does not begin with the times and the name of a repository")
        for line in lines[3:]:
            if line[:1] in ("V", "W"):
                raise WhitelistUnsupported(line)
        listed = tuple(_parse_fingerprint(line) for line in lines[3:])
        return cls(lines[2][1:], _parse_time(lines[0]), _parse_time(lines[1][1:]), listed)

    @classmethod
    def verify(cls, raw: bytes, masters: Sequence[RSAPublicKey], fqrn: str, now: datetime) -> "Whitelist":
        """Read a whitelist that is *fqrn*'s, signed by one of *masters*, and not expired."""
        whitelist = cls.parse(raw)
        if whitelist.fqrn != fqrn:
            raise WhitelistOfAnotherRepository(fqrn, whitelist.fqrn)
        try:
            letter = Letter.parse(raw)
        except MalformedLetter as error:
            raise WhitelistMalformed(str(error)) from None
        if not any(is_signed_raw(letter.signature, text_hash(letter.text), master) for master in masters):
            raise WhitelistNotSigned(fqrn)
        if whitelist.is_expired(now):
            raise WhitelistExpired(fqrn, whitelist.expires, now)
        return whitelist

    def is_expired(self, now: datetime) -> bool:
        """Expired means: the current hour is not before the hour of expiry, as in the stock client."""
        return _hour(now) >= _hour(self.expires)

    def allows(self, certificate: Certificate) -> bool:
        return fingerprint(certificate) in self.fingerprints


def fingerprint(certificate: Certificate) -> str:
    """SHA-1 of the DER bytes: `AA:BB:…`."""
    return hashlib.sha1(certificate.public_bytes(Encoding.DER)).digest().hex(":").upper()


def sign_raw(text: bytes, key: RSAPrivateKey) -> bytes:
    """RSA over *text* itself: PKCS #1 v1.5 padding, and nothing that says which hash it is."""
    return key.sign(text, PKCS1v15(), NoDigestInfo())


def is_signed_raw(signature: bytes, text: bytes, key: RSAPublicKey) -> bool:
    try:
        key.verify(signature, text, PKCS1v15(), NoDigestInfo())  # type: ignore[arg-type] # the stubs lag behind
    except InvalidSignature:
        return False
    return True


def _parse_time(text: str) -> datetime:
    try:
        if len(text) != 14:
            raise ValueError
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise WhitelistMalformed(f"{text[:40]!r} is not a time of 14 digits") from None


def _parse_fingerprint(line: str) -> str:
    text = re.split("[ \t#]", line, maxsplit=1)[0].replace(":", "").upper()
    if not _FINGERPRINT.fullmatch(text):
        raise WhitelistMalformed(f"{line[:80]!r} is not the fingerprint of a certificate")
    pairs = re.sub("(..)(?!$)", r"\1:", text[:40])
    return pairs + text[40:]


def _hour(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)

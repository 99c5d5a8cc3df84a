"""What must not be believed on this machine, however well it is signed: certificates, and old revisions.

A line is the fingerprint of a certificate, or `<FQRN N`: revisions of that repository below N are refused. What follows
a `#` is a comment. Source: format, "`.cvmfswhitelist`", blacklist.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ducc.cvmfs.manifest import BadManifest, Manifest
from ducc.cvmfs.signature import load_certificate
from ducc.cvmfs.whitelist import fingerprint
from ducc.errors import BadInput


class Blacklisted(BadManifest):
    """This machine's operator does not want it believed."""

    def __init__(self, fqrn: str, reason: str) -> None:
        super().__init__(f"the manifest of {fqrn} is refused by the blacklist: {reason}")


@dataclass(frozen=True, slots=True)
class Blacklist:
    """*fingerprints* have no colons; *oldest* is the first good revision by repository."""

    fingerprints: frozenset[str] = frozenset()
    oldest: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "Blacklist":
        """Read a file; none at all is an empty one. Raises `BadInput`."""
        try:
            lines = [line.partition("#")[0].strip() for line in file.read_text(errors="replace").splitlines()]
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise BadInput(f"blacklist {file}: {error.strerror}") from error
        oldest = {}
        for line in lines:
            if line.startswith("<"):
                name, _, number = line[1:].strip().rpartition(" ")
                if not name or not number.isascii() or not number.isdigit():
                    raise BadInput(f"blacklist {file}: {line!r} is not `<FQRN REVISION`")
                oldest[name.strip()] = int(number)
        return cls(frozenset(_plain(line) for line in lines if line and not line.startswith("<")), oldest)

    def check(self, manifest: Manifest, certificate_pem: bytes) -> None:
        """Raise `Blacklisted` if the manifest, or the certificate that signed it, is on the list."""
        mark = fingerprint(load_certificate(certificate_pem))
        if _plain(mark) in self.fingerprints:
            raise Blacklisted(manifest.fqrn, f"its certificate is {mark}")
        if manifest.revision < self.oldest.get(manifest.fqrn, 0):
            raise Blacklisted(manifest.fqrn, f"its revision is {manifest.revision}")


def _plain(text: str) -> str:
    return text.replace(":", "").upper()

"""Signing keys: made once, kept in a directory, never overwritten.

| file | what | who needs it |
|---|---|---|
| `<fqrn>.masterkey` | signs the whitelist; keep it offline if you can | whoever renews the whitelist |
| `<fqrn>.key` | signs manifests | publishers |
| `<fqrn>.crt` | certificate of that key, CN = fqrn; published | publishers |
| `<fqrn>.pub` | public half of the master key | every client |

Private keys are mode 0400, and refused when group or others may read them.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import Certificate, CertificateBuilder, Name, NameAttribute, random_serial_number
from cryptography.x509.oid import NameOID

from ducc.cvmfs.signature import load_certificate, load_master_public_key
from ducc.cvmfs.whitelist import Whitelist, fingerprint
from ducc.errors import BadInput, DuccError

KEY_BITS = 2048
CERTIFICATE_DAYS = 3650  # clients go by the whitelist's dates, not by these
WHITELIST_DAYS = 30


class BadKeys(DuccError):
    """Signing keys are missing, damaged, or do not belong together."""

    exit_code = 64


class KeysExposed(BadKeys):
    """Others could have read a private key."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(f"{path}: group or others may read this private key (mode {mode:04o}); chmod 0400 it")


class KeysExist(BadInput):
    """Keys are never overwritten: what they signed would be lost."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already and is not overwritten; name another directory with --keys")


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """What signs manifests. *certificate_pem* is what gets published, byte for byte."""

    fqrn: str
    repository_key: RSAPrivateKey
    certificate_pem: bytes
    master_public_key: RSAPublicKey

    @property
    def certificate(self) -> Certificate:
        return load_certificate(self.certificate_pem)


class KeyDirectory:
    """The key files of one repository. Nothing is touched before a method asks for it."""

    def __init__(self, directory: Path, fqrn: str) -> None:
        self.fqrn = fqrn
        self.master_key = directory / f"{fqrn}.masterkey"
        self.repository_key = directory / f"{fqrn}.key"
        self.certificate = directory / f"{fqrn}.crt"
        self.public_key = directory / f"{fqrn}.pub"
        self._directory = directory

    @property
    def files(self) -> tuple[Path, ...]:
        return self.master_key, self.public_key, self.repository_key, self.certificate

    def require_none(self) -> None:
        """Raise `KeysExist` if there is any of the files."""
        for path in self.files:
            if path.is_symlink() or path.exists():
                raise KeysExist(path)

    def save(self, keys: SigningKeys, master: RSAPrivateKey) -> None:
        """Make all four files, durably; raise `KeysExist` and leave nothing new if there is one of them."""
        self.require_none()
        _make_directory(self._directory)
        _write_all({
            self.master_key: (_private_pem(master), 0o400),
            self.public_key: (_public_pem(master), 0o444),
            self.repository_key: (_private_pem(keys.repository_key), 0o400),
            self.certificate: (keys.certificate_pem, 0o444),
        })  # fmt: skip

    def load(self) -> SigningKeys:
        """Read what publishing needs; the master key is not among it."""
        repository_key = _load_private(self.repository_key)
        certificate_pem = _read(self.certificate)
        if load_certificate(certificate_pem).public_key() != repository_key.public_key():
            raise BadKeys(f"{self.certificate}: is not the certificate of {self.repository_key}")
        return SigningKeys(self.fqrn, repository_key, certificate_pem, self.load_master_public_key())

    def load_master_key(self) -> RSAPrivateKey:
        return _load_private(self.master_key)

    def load_master_public_key(self) -> RSAPublicKey:
        return load_master_public_key(_read(self.public_key))


def generate_keys(fqrn: str, now: datetime) -> tuple[SigningKeys, RSAPrivateKey]:
    """New keys of a publisher and a new master key, in memory only."""
    master, repository = (generate_private_key(65537, KEY_BITS) for _ in range(2))
    certificate_pem = _certificate(fqrn, repository, now).public_bytes(Encoding.PEM)
    return SigningKeys(fqrn, repository, certificate_pem, master.public_key()), master


def sign_whitelist(keys: SigningKeys, master: RSAPrivateKey, now: datetime, days: int = WHITELIST_DAYS) -> bytes:
    """A whitelist file that allows the certificate of *keys*, and no other, for *days* from *now*."""
    if master.public_key() != keys.master_public_key:
        raise BadKeys(f"the master key of {keys.fqrn} and its public key do not belong together")
    return Whitelist(keys.fqrn, now, now + timedelta(days=days), (fingerprint(keys.certificate),)).sign(master)


def _certificate(fqrn: str, key: RSAPrivateKey, now: datetime) -> Certificate:
    name = Name([NameAttribute(NameOID.COMMON_NAME, fqrn[:64])])
    return (
        CertificateBuilder(name, name, key.public_key(), random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .sign(key, SHA256())
    )


def _private_pem(key: RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_pem(key: RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadKeys(f"{path}: {error.strerror}") from error


def _load_private(path: Path) -> RSAPrivateKey:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeysExposed(path, mode)
            # what a damaged key signs is noticed when it is verified, which takes a hundredth of checking the key
            key = load_pem_private_key(file.read(), password=None, unsafe_skip_rsa_key_validation=True)
    except OSError as error:
        raise BadKeys(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError):
        raise BadKeys(f"{path}: is not an unencrypted private key in PEM form") from None
    if not isinstance(key, RSAPrivateKey):
        raise BadKeys(f"{path}: is not an RSA key")
    return key


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadKeys(f"{directory}: {error.strerror}") from error


def _write_all(files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Make all *files* (content and mode), or none."""
    made: list[Path] = []
    try:
        for path, (data, mode) in files.items():
            _write_new(path, data, mode)
            made.append(path)
        with _directory_of(made[0]) as descriptor:
            os.fsync(descriptor)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise BadKeys(f"{error.filename or path}: {error.strerror}") from error
        raise


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Make one file: it appears whole, durable and with its mode, or not at all; an existing one is left alone."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.link(scratch, path)
    except FileExistsError:
        raise KeysExist(path) from None
    finally:
        with suppress(OSError):
            scratch.unlink()


@contextmanager
def _directory_of(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

import os
import stat

import pytest
from cryptography.x509.oid import NameOID

from ducc.cvmfs.whitelist import Whitelist
from ducc.publish import keys as module
from ducc.publish.keys import BadKeys, KeyDirectory, KeysExist, KeysExposed, sign_whitelist
from tests.signing import FQRN, NOW, keys

KEYS, MASTER = keys()


@pytest.fixture
def files(tmp_path):
    return KeyDirectory(tmp_path / "keys", FQRN)


@pytest.fixture
def saved(files):
    files.save(KEYS, MASTER)
    return files


def test_what_was_saved_is_loaded(saved):
    loaded = saved.load()
    assert loaded.repository_key.private_numbers() == KEYS.repository_key.private_numbers()
    assert loaded.certificate_pem == KEYS.certificate_pem
    assert loaded.master_public_key == MASTER.public_key()
    assert saved.load_master_key().private_numbers() == MASTER.private_numbers()


def test_private_keys_are_for_their_owner_only(saved, tmp_path):
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {".masterkey": 0o400, ".key": 0o400, ".crt": 0o444, ".pub": 0o444}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_the_certificate_names_the_repository():
    (name,) = KEYS.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == FQRN


@pytest.mark.parametrize("suffix", ["masterkey", "key", "crt", "pub"])
def test_nothing_is_overwritten(files, tmp_path, suffix):
    (tmp_path / "keys").mkdir()
    (tmp_path / f"keys/{FQRN}.{suffix}").write_text("precious")
    with pytest.raises(KeysExist):
        files.save(KEYS, MASTER)
    assert [(path.name, path.read_text()) for path in (tmp_path / "keys").iterdir()] == [
        (f"{FQRN}.{suffix}", "precious")
    ]


def test_of_two_at_the_same_time_one_wins(files, monkeypatch, tmp_path):
    """The other one's file appears after we looked."""
    monkeypatch.setattr(KeyDirectory, "require_none", lambda _self: None)
    (tmp_path / "keys").mkdir()
    files.repository_key.write_text("precious")
    with pytest.raises(KeysExist):
        files.save(KEYS, MASTER)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [files.repository_key.name]


def test_a_full_disk_leaves_no_keys(files, monkeypatch, tmp_path):
    calls = iter([None, None, OSError(28, "No space left on device")])

    def fsync(_descriptor):
        if (outcome := next(calls)) is not None:
            raise outcome

    monkeypatch.setattr(module.os, "fsync", fsync)
    with pytest.raises(BadKeys, match="No space"):
        files.save(KEYS, MASTER)
    assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o600 | 0o020])
@pytest.mark.parametrize("which", ["repository_key", "master_key"])
def test_keys_that_others_may_read_are_refused(saved, mode, which):
    os.chmod(getattr(saved, which), mode)
    with pytest.raises(KeysExposed):
        saved.load_master_key() if which == "master_key" else saved.load()


def test_a_certificate_of_another_key_is_refused(saved):
    saved.certificate.chmod(0o600)
    saved.certificate.write_bytes(keys(number=1)[0].certificate_pem)
    with pytest.raises(BadKeys, match="is not the certificate of"):
        saved.load()


@pytest.mark.parametrize("content", [b"", b"no key", KEYS.certificate_pem], ids=["empty", "text", "certificate"])
def test_damaged_keys_are_refused(saved, content):
    saved.repository_key.unlink()
    saved.repository_key.write_bytes(content)
    saved.repository_key.chmod(0o400)
    with pytest.raises(BadKeys):
        saved.load()


def test_missing_keys_are_named(files):
    with pytest.raises(BadKeys, match=f"{FQRN}.key: No such file"):
        files.load()


def test_a_whitelist_lists_the_certificate_for_some_days():
    raw = sign_whitelist(KEYS, MASTER, NOW, 3)
    whitelist = Whitelist.verify(raw, [MASTER.public_key()], FQRN, NOW)
    assert whitelist.allows(KEYS.certificate)
    assert (whitelist.expires - whitelist.created).days == 3


def test_the_master_key_of_another_repository_signs_nothing():
    with pytest.raises(BadKeys):
        sign_whitelist(KEYS, keys(number=1)[1], NOW)

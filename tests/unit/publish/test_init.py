import json
from datetime import timedelta

import pytest

from ducc.check.repository import check_repository
from ducc.cli import check as check_command
from ducc.cli import init as init_command
from ducc.cli.main import main
from ducc.cvmfs.whitelist import Whitelist
from ducc.publish.init import RepositoryExists, init_repository, renew_whitelist
from ducc.publish.keys import KeyDirectory, KeysExist
from ducc.publish.repository import NoRepository, Repository
from ducc.publish.settings import RepositorySettings
from ducc.storage.base import MANIFEST, MASTER_REPLICA, REFLOG, WHITELIST, StoreRefused
from ducc.storage.memory import MemoryStore
from tests.signing import FQRN, NOW, keys


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def key_files(tmp_path, monkeypatch):
    monkeypatch.setattr("ducc.publish.init.generate_keys", lambda fqrn, _now: keys(fqrn))
    return KeyDirectory(tmp_path / "keys", FQRN)


def init(store, key_files, settings=RepositorySettings()):  # noqa: B008 - frozen
    return init_repository(store, key_files, settings, NOW)


def findings(store, key_files, now=NOW):
    found = []
    check_repository(store, FQRN, [key_files.load_master_public_key()], now, found.append, data=True)
    return [finding.fault.id for finding in found]


def test_a_new_repository_is_without_fault(store, key_files):
    manifest = init(store, key_files)
    assert findings(store, key_files) == []
    assert (manifest.revision, manifest.fqrn, manifest.timestamp) == (1, FQRN, int(NOW.timestamp()))
    assert store.read_file(MASTER_REPLICA) == b""


@pytest.mark.parametrize("profile", ["default", "dense", "compatible"])
def test_settings_are_found_again(store, key_files, profile):
    settings = RepositorySettings.of_profile(profile)
    init(store, key_files, settings)
    repository = Repository(FQRN, store)
    assert repository.settings == settings
    assert repository.tree(repository.head()).children == {}


@pytest.mark.parametrize("file", [MANIFEST, REFLOG, WHITELIST, MASTER_REPLICA])
def test_an_existing_repository_is_not_touched(store, key_files, file):
    store.files[file] = b"precious"
    with pytest.raises(RepositoryExists):
        init(store, key_files)
    assert (store.files, store.objects) == ({file: b"precious"}, {})
    key_files.require_none()


def test_existing_keys_are_not_touched(store, key_files):
    key_files.save(*keys(FQRN))
    with pytest.raises(KeysExist):
        init(store, key_files)
    assert (store.files, store.objects) == ({}, {})


def test_a_store_without_room_leaves_no_keys(store, key_files, monkeypatch):
    def refuse(*_args):
        raise StoreRefused("full")

    monkeypatch.setattr(store, "flush", refuse)
    with pytest.raises(StoreRefused):
        init(store, key_files)
    key_files.require_none()


def test_a_renewed_whitelist_is_all_that_changes(store, key_files):
    init(store, key_files)
    before = dict(store.files)
    later = NOW + timedelta(days=40)
    assert findings(store, key_files, later) == ["whitelist-expired"]
    renew_whitelist(store, key_files, later, 10)
    assert findings(store, key_files, later) == []
    assert {name for name in before if before[name] != store.files[name]} == {WHITELIST}
    assert Whitelist.parse(store.files[WHITELIST]).expires == later + timedelta(days=10)


def test_there_is_nothing_to_renew_without_a_repository(store, key_files):
    with pytest.raises(NoRepository):
        renew_whitelist(store, key_files, NOW, 10)


# --- the commands --------------------------------------------------------------------------


def ducc(tmp_path, *words):
    return main([*words, "--storage", f"file://{tmp_path}/store", "--keys", f"{tmp_path}/keys"])


def test_from_init_to_check(tmp_path, capsys):
    assert ducc(tmp_path, "init", FQRN) == 0
    said = capsys.readouterr().out
    for needed in (f"{tmp_path}/keys/{FQRN}.pub", f"CVMFS_SERVER_URL=file://{tmp_path}/store/{FQRN}", "ducc mount"):
        assert needed in said
    assert ducc(tmp_path, "whitelist", "renew", FQRN, "--days", "90") == 0
    assert ducc(tmp_path, "check", FQRN, "--data") == 0
    assert capsys.readouterr().out.endswith("no problems found in 1 catalogs, 1 rows, 0 objects\n")
    assert ducc(tmp_path, "init", FQRN) == 2
    assert "exist" in capsys.readouterr().err


def test_init_for_programs(tmp_path, capsys):
    assert ducc(tmp_path, "init", FQRN, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["fqrn"], told["revision"], told["public_key"]) == (FQRN, 1, f"{tmp_path}/keys/{FQRN}.pub")


def test_check_for_programs(tmp_path, capsys):
    ducc(tmp_path, "init", FQRN)
    (tmp_path / f"store/{FQRN}/{REFLOG}").unlink()
    (tmp_path / f"store/{FQRN}/{WHITELIST}").unlink()
    capsys.readouterr()
    assert ducc(tmp_path, "check", FQRN, "--json") == check_command.FAULTS_FOUND
    told = json.loads(capsys.readouterr().out)
    assert [(one["severity"], one["id"]) for one in told["findings"]] == [
        ("error", "whitelist-missing"),
        ("warning", "reflog-missing"),
    ]


def test_warnings_alone_are_no_failure(tmp_path, capsys):
    ducc(tmp_path, "init", FQRN)
    (tmp_path / f"store/{FQRN}/{REFLOG}").unlink()
    assert ducc(tmp_path, "check", FQRN) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"warning reflog-missing {REFLOG}: there is none",
        f"{FQRN}: 0 errors, 1 warnings in 1 catalogs, 1 rows, 0 objects",
    ]


def test_a_repository_that_is_not_there_is_said_to_be_missing(tmp_path, capsys):
    assert main(["check", FQRN, "--storage", f"file://{tmp_path}"]) == check_command.FAULTS_FOUND
    assert "manifest-missing" in capsys.readouterr().out


def test_init_says_no_to_what_names_no_repository(tmp_path):
    assert ducc(tmp_path, "init", "../escape") == 2
    assert list(tmp_path.iterdir()) == []
    assert init_command.__doc__

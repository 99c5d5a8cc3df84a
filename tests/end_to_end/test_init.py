"""A new repository: keys that only their owner reads, nothing ever overwritten, and clients that believe it.

Everything by the console script, and judged by the stock client where there is one.
"""

import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from ducc.cvmfs.whitelist import Whitelist
from ducc.publish.keys import KeyDirectory, sign_whitelist
from tests.end_to_end import stock
from tests.end_to_end.published import repository

FQRN = f"i{os.getpid()}.ducc.test"
PRIVATE = ("masterkey", "key")
PUBLIC = ("pub", "crt")


@pytest.fixture
def made(tmp_path):
    with repository(tmp_path / "repository", fqrn=FQRN) as published:
        yield published


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def whitelist(made):
    return Whitelist.parse((made.root / ".cvmfswhitelist").read_bytes())


def test_private_keys_are_their_owners_alone(made):
    modes = {path.name.rpartition(".")[2]: stat.S_IMODE(path.stat().st_mode) for path in made.keys.iterdir()}
    assert modes == {**dict.fromkeys(PRIVATE, 0o400), **dict.fromkeys(PUBLIC, 0o444)}


def test_init_says_what_a_client_needs(tmp_path):
    with repository(tmp_path / "repository", fqrn=FQRN, init=False) as new:
        said = new.init().stdout
    for needed in (str(new.public_key), f"file://{new.root}", f"ducc whitelist renew {FQRN}", "CVMFS_PUBLIC_KEY="):
        assert needed in said


def test_a_new_repository_is_whole(made):
    assert made.revision == 1
    assert "no problems found" in made.check()
    assert made.images() == []


def test_nothing_is_overwritten(made):
    """Neither by the same words again, nor where only the keys or only the repository exist."""
    before = contents(made.directory)
    elsewhere = made.directory / "elsewhere"
    for storage, keys in ((made.storage, made.keys), (elsewhere, made.keys), (made.storage, elsewhere)):
        again = made.ducc("init", FQRN, "--storage", f"file://{storage}", "--keys", keys, status=2)
        assert len(again.stderr.splitlines()) == 1
        assert "not overwritten" in again.stderr
        assert contents(made.directory) == before


def test_keys_that_others_may_read_do_not_sign(made, images):
    (made.keys / f"{FQRN}.key").chmod(0o440)
    wishes = made.wishlist(images("small").wish)
    refused = made.ducc("convert", wishes, *made.publisher, status=64)
    assert refused.stderr.splitlines()[-1].endswith("chmod 0400 it")
    assert made.revision == 1


def test_a_whitelist_is_renewed_and_nothing_else_changes(made):
    before = contents(made.directory)
    made.ducc("whitelist", "renew", FQRN, *made.where, "--keys", made.keys, "--days", 90)
    after = contents(made.directory)
    assert [path.name for path in before if before[path] != after.get(path)] == [".cvmfswhitelist"]
    assert after.keys() == before.keys()
    assert abs(whitelist(made).expires - (datetime.now(UTC) + timedelta(days=90))) < timedelta(hours=2)
    assert "no problems found" in made.check()


def test_only_the_master_key_renews(made):
    before = contents(made.root)
    (made.keys / f"{FQRN}.masterkey").unlink()
    refused = made.ducc("whitelist", "renew", FQRN, *made.where, "--keys", made.keys, status=64)
    assert refused.stderr == f"ducc: {made.keys / FQRN}.masterkey: No such file or directory\n"
    assert contents(made.root) == before


@pytest.mark.engine
def test_the_stock_client_believes_a_renewed_whitelist(made, images, tmp_path):
    """And neither one that has expired, nor one that somebody else's key has signed."""
    stock.need_stock()
    image = images("small")
    made.convert(image.wish)
    with made.served() as url, repository(tmp_path / "stranger", fqrn=FQRN) as stranger:
        assert_refused(stranger, url)
        let_whitelist_expire(made)
        assert_refused(made, url)
        made.ducc("whitelist", "renew", FQRN, *made.where, "--keys", made.keys, "--days", 7)
        with stock.mounted(made, url) as theirs, made.mounted(url) as ours:
            for root in (theirs, ours):
                assert (root / image.public_path / "etc" / "motd").read_text() == "welcome back\n"
        stock.check(made, url, tmp_path)


def assert_refused(made, url):
    with pytest.raises(AssertionError, match="whitelist"), stock.mounted(made, url):
        pass


def let_whitelist_expire(made):
    """As it is a while after the operator has forgotten it."""
    keys = KeyDirectory(made.keys, FQRN)
    signed = sign_whitelist(keys.load(), keys.load_master_key(), datetime.now(UTC) - timedelta(days=40))
    (made.root / ".cvmfswhitelist").write_bytes(signed)

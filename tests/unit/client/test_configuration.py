from pathlib import Path
from typing import Any

import pytest

from ducc.client.configuration import Configuration, read_configuration
from ducc.client.parameters import Parameters
from ducc.client.pin import Pin
from ducc.client.shell import BadConfiguration
from ducc.cvmfs.fqrn import BadRepositoryName

FQRN = "alice.cern.ch"
NEEDED = {
    "CVMFS_SERVER_URL": "http://one/cvmfs/@fqrn@",
    "CVMFS_HTTP_PROXY": "DIRECT",
    "CVMFS_PUBLIC_KEY": "/a.pub:/b.pub",
}


def write(directory: Path, **files: str) -> None:
    """*files* by name: `default_conf` is `default.conf`; `config_d__x` is `config.d/x`."""
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def parameters(**values: str) -> Parameters:
    named = {f"CVMFS_{name}": value for name, value in values.items()}
    return Parameters.of(Configuration(FQRN, Path("/etc/cvmfs"), {**NEEDED, **named}), 7, 8, {"HOME": "/me"})


# --- files ---------------------------------------------------------------------------------


def test_later_files_win_in_the_stock_clients_order(tmp_path: Path) -> None:
    order = (
        "default.conf",
        "default.d/10-a.conf",
        "default.d/20-b.conf",
        "shared:default.conf",
        "default.local",
        "shared:domain.d/cern.ch.conf",
        "domain.d/cern.ch.conf",
        "domain.d/cern.ch.local",
        f"shared:config.d/{FQRN}.conf",
        f"config.d/{FQRN}.conf",
        f"config.d/{FQRN}.local",
    )
    shared = tmp_path / "cvmfs" / "config.cern.ch" / "etc" / "cvmfs"
    for name in order:
        path = shared / name[7:] if name.startswith("shared:") else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'ORDER="$ORDER {name}"\nLAST={name}\n')
    with (tmp_path / "default.conf").open("a") as file:
        file.write(f"CVMFS_CONFIG_REPOSITORY=config.cern.ch\nCVMFS_MOUNT_DIR={tmp_path}/cvmfs\n")
    (tmp_path / "default.d" / "no.txt").write_text("LAST=no")
    values = read_configuration(FQRN, tmp_path, {}).values
    assert values["ORDER"].split() == list(order)
    assert values["LAST"] == order[-1]


def test_the_configuration_repository_is_not_configured_by_itself(tmp_path: Path) -> None:
    write(
        tmp_path,
        default_conf=f"CVMFS_CONFIG_REPOSITORY=config.cern.ch\nCVMFS_MOUNT_DIR={tmp_path}/cvmfs\n",
    )
    shared = tmp_path / "cvmfs" / "config.cern.ch" / "etc" / "cvmfs" / "domain.d"
    shared.mkdir(parents=True)
    (shared / "cern.ch.conf").write_text("A=1")
    assert "A" not in read_configuration("config.cern.ch", tmp_path, {}).values
    assert read_configuration(FQRN, tmp_path, {}).values["A"] == "1"


def test_names_are_completed_and_filled_in(tmp_path: Path) -> None:
    write(tmp_path, default_conf="CVMFS_DEFAULT_DOMAIN=cern.ch\nURL='http://x/@org@/@fqrn@'\nWHO=$USER\n")
    configuration = read_configuration("alice", tmp_path, {"USER": "me"})
    assert configuration.fqrn == FQRN
    assert configuration.values["URL"] == f"http://x/alice/{FQRN}"
    assert configuration.values["WHO"] == "me"
    assert "USER" not in configuration.values


def test_what_is_not_there_or_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="no such directory"):
        read_configuration(FQRN, tmp_path / "nowhere")
    for name in ("alice", "../x.y", "a b.c"):
        with pytest.raises(BadRepositoryName):
            read_configuration(name, tmp_path)


# --- parameters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("DIRECT", [["DIRECT"]]),
        ("direct", [["DIRECT"]]),
        ("http://a:1|http://b:2;http://c:3;DIRECT", [["http://a:1", "http://b:2"], ["http://c:3"], ["DIRECT"]]),
        ("a:3128", [["http://a:3128"]]),
        (" http://a:1 | http://b:2 ; ", [["http://a:1", "http://b:2"]]),
        ("http://user:word@a:1/", [["http://user:word@a:1"]]),
        ("http://[::1]:3128", [["http://[::1]:3128"]]),
    ],
)
def test_proxies_come_in_groups(text: str, groups: list[list[str]]) -> None:
    assert [list(group) for group in parameters(HTTP_PROXY=text).network.proxies] == groups


@pytest.mark.parametrize("text", ["", ";", "auto", "auto;DIRECT", "https://a:1", "http://", "http://a:x", "socks://a"])
def test_proxies_that_can_not_be_used_are_refused(text: str) -> None:
    with pytest.raises(BadConfiguration, match="CVMFS_HTTP_PROXY"):
        parameters(HTTP_PROXY=text)


def test_a_single_machine_needs_no_proxy() -> None:
    assert parameters(HTTP_PROXY="", CLIENT_PROFILE="single").network.proxies == (("DIRECT",),)


def test_fallback_proxies_come_last() -> None:
    proxies = parameters(HTTP_PROXY="http://a:1;DIRECT", FALLBACK_PROXY="http://b:1;http://c:1").network.proxies
    assert [group[0] for group in proxies] == ["http://a:1", "DIRECT", "http://b:1", "http://c:1"]


def test_servers_are_a_list() -> None:
    urls = "http://a/cvmfs/x;http://b:8000/cvmfs/x/, https://c/cvmfs/x"
    assert parameters(SERVER_URL=urls).network.hosts == (
        "http://a/cvmfs/x",
        "http://b:8000/cvmfs/x",
        "https://c/cvmfs/x",
    )
    assert parameters(SERVER_URL=urls, MAX_SERVERS="2", USE_GEOAPI="yes").network.most_hosts == 2
    for bad in ("", "nonsense", "http://a;ftp://b", "http://a:99999999/"):
        with pytest.raises(BadConfiguration, match="CVMFS_SERVER_URL"):
            parameters(SERVER_URL=bad)


@pytest.mark.parametrize(
    ("given", "directory", "limit"),
    [
        ({}, "/var/lib/cvmfs/ducc/shared", 4000 << 20),
        ({"CACHE_BASE": "/b", "QUOTA_LIMIT": "10"}, "/b/ducc/shared", 10 << 20),
        ({"CACHE_BASE": "/b", "SHARED_CACHE": "no", "QUOTA_LIMIT": "-1"}, f"/b/ducc/{FQRN}", None),
        ({"CACHE_DIR": "/d"}, "/d", 4000 << 20),
        ({"ALIEN_CACHE": "/a", "QUOTA_LIMIT": "10"}, "/a", None),
    ],
)
def test_the_cache_lies_where_it_is_told(given: dict[str, str], directory: str, limit: int | None) -> None:
    found = parameters(**given)
    assert (str(found.cache_directory), found.cache_limit_bytes) == (directory, limit)


def test_a_preloaded_cache_is_the_lower_of_two_tiers() -> None:
    tiers = {
        "CACHE_PRIMARY": "both",
        "CACHE_both_TYPE": "tiered",
        "CACHE_both_UPPER": "disk",
        "CACHE_both_LOWER": "image",
        "CACHE_both_LOWER_READONLY": "yes",
        "CACHE_disk_TYPE": "posix",
        "CACHE_disk_BASE": "/scratch",
        "CACHE_disk_QUOTA_LIMIT": "10",
        "CACHE_image_TYPE": "posix",
        "CACHE_image_ALIEN": "/preloaded",
        "CACHE_image_QUOTA_LIMIT": "-1",
        "CACHE_image_SHARED": "no",
    }
    found = parameters(**tiers)
    assert (found.preloaded, str(found.cache_directory)) == ((Path("/preloaded"),), "/scratch/ducc/shared")
    assert (found.cache_limit_bytes, found.unsupported) == (10 << 20, ())
    named = {name: tiers[name] for name in tiers if "disk" in name}
    assert str(parameters(CACHE_PRIMARY="disk", **named).cache_directory) == "/scratch/ducc/shared"
    for changed in ({"CACHE_image_ALIEN": ""}, {"CACHE_disk_TYPE": "ram"}, {"CACHE_both_TYPE": "external"}):
        with pytest.raises(BadConfiguration, match=f"CVMFS_{next(iter(changed))}="):
            parameters(**{**tiers, **changed})


def test_keys_are_named_or_all_of_a_directory(tmp_path: Path) -> None:
    assert parameters().key_files == (Path("/a.pub"), Path("/b.pub"))
    for name in ("b.pub", "a.pub", "c.key"):
        (tmp_path / name).touch()
    assert parameters(PUBLIC_KEY="", KEYS_DIR=str(tmp_path)).key_files == (tmp_path / "a.pub", tmp_path / "b.pub")


def test_a_hash_wins_over_a_tag_and_a_tag_over_a_date() -> None:
    given = {"ROOT_HASH": "ab" * 20, "REPOSITORY_TAG": "v1", "REPOSITORY_DATE": "2026-01-02T03:04:05Z"}
    assert parameters(**given).pin == Pin(root_hash=b"\xab" * 20)
    del given["ROOT_HASH"]
    assert parameters(**given).pin == Pin(tag="v1")
    del given["REPOSITORY_TAG"]
    pin = parameters(**given).pin
    assert pin is not None
    assert pin.before is not None
    assert pin.before.isoformat() == "2026-01-02T03:04:05+00:00"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT_DIRECT", "0"),
        ("MAX_RETRIES", "-1"),
        ("QUOTA_LIMIT", "-2"),
        ("QUOTA_LIMIT", "inf"),
        ("SHARED_CACHE", "maybe"),
        ("ROOT_HASH", "AB"),
        ("REPOSITORY_DATE", "2026-01-02"),
        ("UID_MAP", "/nowhere"),
        ("CACHE_BASE", "relative"),
        ("MAGIC_XATTRS_VISIBILITY", "sometimes"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadConfiguration, match=f"CVMFS_{name}="):
        parameters(**{name: value})


def test_maps_of_owners_are_read(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("# ids\n0 100\n\n5 50 # five\n* 9\n")
    view = parameters(UID_MAP=str(tmp_path / "map"), CLAIM_OWNERSHIP="yes").view
    assert [view.users.of(uid) for uid in (0, 5, 6)] == [100, 50, 9]
    assert [view.groups.of(gid) for gid in (0, 6)] == [8, 8]
    for bad in ("0\n", "0 x\n", "0 1 2\n"):
        (tmp_path / "map").write_text(bad)
        with pytest.raises(BadConfiguration):
            parameters(GID_MAP=str(tmp_path / "map"))


def test_what_is_not_supported_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    given: dict[str, Any] = {
        "SUID": "no",
        "PROXY_SHARD": "yes",
        "NFILES": "65536",
        "SYSTEMD_NOKILL": "",
    }
    found = parameters(**given)
    assert found.unsupported == ("CVMFS_PROXY_SHARD",)
    found.tell()
    assert len(caplog.messages) == 1
    assert parameters().unsupported == ()


def test_magic_attributes_may_be_hidden() -> None:
    assert parameters().attributes_listed == "rootonly"
    assert parameters(MAGIC_XATTRS_VISIBILITY="Always").attributes_listed == "always"
    assert parameters(MAGIC_XATTRS_VISIBILITY="always", HIDE_MAGIC_XATTRS="yes").attributes_listed == "never"


def test_fetching_ahead_can_be_turned_off() -> None:
    values = {**NEEDED, "DUCC_PREFETCH": "no"}
    assert Parameters.of(Configuration(FQRN, Path("/etc/cvmfs"), values), 7, 8, {}).prefetch is False
    assert parameters().prefetch is True


def test_every_parameter_may_be_a_variable_of_a_link() -> None:
    assert parameters(ARCH="other").view.variables["CVMFS_ARCH"] == "other"
    assert parameters().view.variables["HOME"] == "/me"


def test_times_are_taken_over() -> None:
    network = parameters(
        TIMEOUT="3", TIMEOUT_DIRECT="4", MAX_RETRIES="2", BACKOFF_INIT="1", BACKOFF_MAX="6", LOW_SPEED_LIMIT="10",
        PROXY_RESET_AFTER="30", HOST_RESET_AFTER="40", FOLLOW_REDIRECTS="yes",
    ).network  # fmt: skip
    assert (network.proxy_timeout_seconds, network.direct_timeout_seconds, network.retries) == (3, 4, 2)
    assert (network.first_pause_seconds, network.longest_pause_seconds, network.slowest_bytes_per_second) == (1, 6, 10)
    assert (network.proxy_reset_seconds, network.host_reset_seconds, network.follow_redirects) == (30, 40, True)
    assert parameters(MAX_TTL="5").max_ttl_seconds == 300

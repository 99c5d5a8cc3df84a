from pathlib import Path

import pytest

from ducc.image.reference import Reference
from ducc.reach import Reach
from ducc.registry.area import Area
from ducc.registry.credentials import AccessDenied, MalformedCredentials
from ducc.registry.settings import Budget, RegistriesSettings
from ducc.registry.settingsfile import MalformedSettings, read_settings

FULL = """\
credentials:
  hub-robot: {for: docker.io, user: robot, password_file: hub.password}
  lab: {for: "registry.example.org:5000/lab", token_file: lab.token}
registries:
  docker.io:
    credentials: hub-robot
    mirrors:
      - {url: "https://cache.example.org/hub"}
      - {url: "https://other.example.org", credentials: hub-robot, lists_tags: true}
    budget: {requests_per_second: 2.5, downloads: 4, bytes_per_second: 1000000}
    timeouts: {connect_seconds: 3, first_byte_seconds: 60, idle_seconds: 20, minimum_bytes_per_second: 5000}
    token_servers: [tokens.example.org]
  registry.example.org:5000/lab:
    credentials: lab
  plain.example.org:
    insecure: true
"""


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str, mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    write("hub.password", "s3cret-pass\n")
    write("lab.token", "s3cret-token\n")
    return write


@pytest.fixture
def full(write) -> RegistriesSettings:
    return read_settings(write("registries.yaml", FULL, 0o644))


def test_everything_that_can_be_set_is_read(full):
    hub = full.of_registry("registry-1.docker.io")
    assert hub.budget == Budget(2.5, 4, 1_000_000)
    assert hub.reach == Reach(3, 60, 20, 5000)
    assert hub.token_servers == ("tokens.example.org",)
    assert [(mirror.area, mirror.credentials, mirror.lists_tags) for mirror in hub.mirrors] == [
        (Area("cache.example.org", "hub"), None, False),
        (Area("other.example.org"), "hub-robot", True),
    ]
    assert full.of_registry("plain.example.org").reach.verify is False
    assert full.areas[Area("registry.example.org:5000", "lab")].credentials == "lab"


def test_an_empty_file_sets_nothing(write):
    assert read_settings(write("registries.yaml", "")) == RegistriesSettings()


@pytest.mark.parametrize("name", ["docker.io", "registry-1.docker.io", "index.docker.io", "registry.hub.docker.com"])
def test_docker_hub_is_one_registry_under_all_its_names(full, name):
    assert full.of_registry(name).credentials == "hub-robot"


def test_no_secret_is_part_of_the_settings(full):
    assert "s3cret" not in repr(full)


def test_a_named_credential_is_read_when_it_is_wanted(full, write):
    image = Reference.parse("https://registry.hub.docker.com/library/busybox:1")
    assert full.named("hub-robot").for_image(image).password == "s3cret-pass"
    write("hub.password", "renewed")
    assert full.named("hub-robot").for_image(image).password == "renewed"


def test_a_token_in_a_file_is_an_identity_token(full):
    credential = full.named("lab").for_image(Reference.parse("https://registry.example.org:5000/lab/a:1"))
    assert (credential.password, credential.is_identity_token) == ("s3cret-token", True)


@pytest.mark.parametrize(
    "image",
    [
        "https://evil.example.org/lab/a:1",
        "https://registry.example.org:5000/other/a:1",
        "https://registry.example.org/lab/a:1",
        "http://registry.example.org:5000/lab/a:1",
    ],
)
def test_who_knows_the_name_of_a_credential_can_not_send_it_elsewhere(full, image):
    with pytest.raises(AccessDenied, match="not meant for it") as caught:
        full.named("lab").for_image(Reference.parse(image))
    assert "s3cret" not in str(caught.value)


def test_an_unknown_name_is_bad_input(full):
    with pytest.raises(MalformedCredentials, match="no credentials are called 'nobody'"):
        full.named("nobody")


CREDENTIAL = "credentials:\n  x: {for: host, user: me, password_file: hub.password}\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("registrees: {}", 1, "unknown key 'registrees'"),
        ("registries: []", 1, "a mapping of keys"),
        ("registries:\n  host: {mirrors: {}}", 2, "a list is expected"),
        ("registries:\n  host: {insecure: yes please}", 2, "true or false"),
        ("registries:\n  host: {insecure: 1}", 2, "true or false"),
        ("registries:\n  host: {}\n  host: {}", 3, "second time"),
        ("registries:\n  docker.io: {}\n  registry-1.docker.io: {}", 3, "second time"),
        ("registries:\n  host/../x: {}", 2, "write host"),
        ("registries:\n  user:s3cret@host: {}", 2, "write host"),
        ("registries:\n  host/group: {insecure: true}", 2, "set it for host as a whole"),
        ("registries:\n  host: {mirrors: [{url: ftp://x}]}", 2, "url of a mirror"),
        ("registries:\n  host: {mirrors: [{url: 'https://u:s3cret@x'}]}", 2, "url of a mirror"),
        ("registries:\n  host: {mirrors: [{url: 'https://x/?a=s3cret'}]}", 2, "url of a mirror"),
        ("registries:\n  host: {budget: {downloads: 0}}", 2, "greater than 0"),
        ("registries:\n  host: {budget: {downloads: 1.5}}", 2, "whole number"),
        ("registries:\n  host: {budget: {requests_per_second: -1}}", 2, "greater than 0"),
        ("registries:\n  host: {budget: {requests_per_second: .inf}}", 2, "greater than 0"),
        ("registries:\n  host: {budget: {requests_per_second: fast}}", 2, "greater than 0"),
        ("registries:\n  host: {timeouts: {connect: 1}}", 2, "unknown key 'connect'"),
        ("registries:\n  host: {credentials: nobody}", 2, "no credentials are called 'nobody'"),
        ("registries:\n  host: {ca_file: none.pem}", 2, "ca_file"),
        ("registries:\n  host: {ca_file: hub.password}", 2, "ca_file"),
        ("registries:\n  host: {client_cert: none.pem}", 2, "client_cert"),
        ("credentials:\n  x: {for: host, user: me}", 2, "either user and password_file"),
        ("credentials:\n  x: {for: host, user: me, token_file: lab.token}", 2, "either user and password_file"),
        ("credentials:\n  x: {for: host, user: 'a:b', password_file: hub.password}", 2, "no colon"),
        ("credentials:\n  x: {user: me, password_file: hub.password}", 2, "write host"),
        ("credentials:\n  x: {for: host, user: me, password: s3cret}", 2, "unknown key 'password'"),
        ("credentials:\n  x: {for: host, user: me, password_file: none}", 2, "cannot be read"),
        ("credentials:\n  x: {for: host, user: 1, password_file: hub.password}", 2, "a string is expected"),
        ("registries: {", 1, "not valid YAML"),
        ("registries: !!python/object:os.system {}", 1, "a mapping of keys"),
    ],
)
def test_a_fault_is_one_line_with_its_place_and_without_secrets(write, text, line, said):
    path = write("registries.yaml", text)
    with pytest.raises(MalformedSettings) as caught:
        read_settings(path)
    assert any(each.startswith(f"{path}:{line}: ") and said in each for each in str(caught.value).split("\n"))
    assert "s3cret@" not in str(caught.value)
    assert "=s3cret" not in str(caught.value)


def test_all_faults_are_told_at_once(write):
    with pytest.raises(MalformedSettings) as caught:
        read_settings(write("registries.yaml", "a: 1\nb: 2\nregistries: []\n"))
    assert [line.split(":")[1] for line in str(caught.value).split("\n")] == ["1", "2", "3"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_secret_that_others_may_use_is_refused(write, mode):
    write("hub.password", "s3cret", mode)
    with pytest.raises(MalformedSettings, match=r"hub.password: others may use it .*chmod 600"):
        read_settings(write("registries.yaml", CREDENTIAL))


@pytest.mark.parametrize("mode", [0o622, 0o666, 0o602])
def test_settings_that_others_may_change_are_refused(write, mode):
    with pytest.raises(MalformedSettings, match="others may change it"):
        read_settings(write("registries.yaml", CREDENTIAL, mode))


@pytest.mark.parametrize("secret", ["", "\n", "two\nlines\n", "a\0b", "x" * 70_000])
def test_a_secret_is_one_line(write, secret):
    write("hub.password", secret)
    with pytest.raises(MalformedSettings, match="one line"):
        read_settings(write("registries.yaml", CREDENTIAL))


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(MalformedSettings, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")


def test_the_go_programs_proxies_are_mirrors():
    environ = {
        "DUCC_AUTH_REGISTRIES": "HUB",
        "DUCC_HUB_IDENT": "registry.hub.docker.com",
        "DUCC_HUB_PROXY": "harbor.example.org/hub",
    }
    (mirror,) = RegistriesSettings().with_proxies(environ).of_registry("docker.io").mirrors
    assert (mirror.scheme, mirror.area, mirror.lists_tags) == ("https", Area("harbor.example.org", "hub"), True)


def test_a_proxy_that_is_no_place_is_bad_input():
    environ = {"DUCC_AUTH_REGISTRIES": "A", "DUCC_A_IDENT": "host", "DUCC_A_PROXY": "u:s3cret@host"}
    with pytest.raises(MalformedCredentials, match="proxy") as caught:
        RegistriesSettings().with_proxies(environ)
    assert "s3cret" not in str(caught.value)

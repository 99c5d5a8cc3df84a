import base64
import json
from pathlib import Path

import pytest

from ducc.image.reference import Reference
from ducc.registry.credentials import Credential, Credentials, MalformedCredentials, Sources
from ducc.registry.logins import LoginFile, login_files

HUB = Reference.parse("https://registry.hub.docker.com/library/a:1")
IMAGE = Reference.parse("https://registry.example.org/group/project/image:1")


def auth(username: str, password: str = "s3cret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.fixture
def login(tmp_path):
    """A function: JSON value → the file of logins that holds it."""

    def write(value: object, mode: int = 0o600, helper_seconds: float = 60.0) -> LoginFile:
        path = tmp_path / "config.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        path.chmod(mode)
        return LoginFile(path, helper_seconds)

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A function: makes `docker-credential-test` answer by a shell script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(script: str) -> Path:
        path = tmp_path / "docker-credential-test"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.mark.parametrize(
    "key", ["registry.example.org", "https://registry.example.org", "https://registry.example.org/v1/", "http://registry.example.org/v2/"]
)  # fmt: skip
def test_a_login_is_found_however_its_program_spells_the_registry(login, key):
    found = login({"auths": {key: auth("me")}}).for_image(IMAGE)
    assert (found.username, found.password, found.registry) == ("me", "s3cret", "registry.example.org")


def test_a_login_to_docker_hub_is_for_all_its_names(login):
    file = login({"auths": {"https://index.docker.io/v1/": auth("me")}})
    assert file.for_image(HUB).username == "me"
    assert file.for_image(IMAGE) is None


@pytest.mark.parametrize(
    ("image", "username"),
    [
        ("https://registry.example.org/group/project/image:1", "project"),
        ("https://registry.example.org/group/project:1", "project"),
        ("https://registry.example.org/group/project2/image:1", "group"),
        ("https://registry.example.org/other:1", "registry"),
        ("https://registry.example.org:5000/other:1", None),
        ("https://example.org/group/project:1", None),
        ("http://registry.example.org/group/project:1", None),
    ],
)
def test_the_closest_namespace_wins(login, image, username):
    keys = {"registry.example.org": "registry", "registry.example.org/group/project": "project"}
    keys["registry.example.org/group"] = "group"
    found = login({"auths": {key: auth(name) for key, name in keys.items()}}).for_image(Reference.parse(image))
    assert (found and found.username) == username


def test_a_password_may_hold_colons_and_a_name_none(login):
    assert login({"auths": {"registry.example.org": auth("me", "a:b")}}).for_image(IMAGE).password == "a:b"


def test_user_and_password_may_stand_there_plainly(login):
    entry = {"username": "me", "password": "s3cret"}
    assert login({"auths": {"registry.example.org": entry}}).for_image(IMAGE).password == "s3cret"


def test_an_identity_token_goes_before_a_password(login):
    entry = {**auth("me"), "identitytoken": "t0ken"}
    found = login({"auths": {"registry.example.org": entry}}).for_image(IMAGE)
    assert (found.username, found.password, found.is_identity_token) == ("", "t0ken", True)


@pytest.mark.parametrize("value", [{}, {"auths": {}}, {"auths": None}, {"auths": {"registry.example.org": {}}}])
def test_a_file_without_logins_has_none(login, value):
    assert login(value).for_image(IMAGE) is None


def test_a_file_that_is_not_there_has_none(tmp_path):
    assert LoginFile(tmp_path / "none.json").for_image(IMAGE) is None


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        {"auths": {"registry.example.org": {"auth": "%%s3cret"}}},
        {"auths": {"registry.example.org": {"auth": base64.b64encode(b"s3cret").decode()}}},
        {"auths": {"registry.example.org": {"auth": base64.b64encode(b"\xff:s3cret").decode()}}},
        {"auths": {"registry.example.org": "s3cret"}},
        {"auths": {"registry.example.org": {"auth": 1}}},
        {"credHelpers": {"registry.example.org": "../../bin/sh"}},
        {"credHelpers": {"registry.example.org": "none-of-that-name"}},
    ],
)
def test_a_malformed_file_is_one_line_without_secrets(login, value):
    with pytest.raises(MalformedCredentials) as caught:
        login(value).for_image(IMAGE)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_file_with_secrets_that_others_may_use_is_refused(login, mode):
    with pytest.raises(MalformedCredentials, match="others may use it"):
        login({"auths": {"registry.example.org": auth("me")}}, mode).for_image(IMAGE)
    assert login({"auths": {"registry.example.org": {}}}, mode).for_image(IMAGE) is None


@pytest.mark.parametrize(
    "settings",
    [{"credHelpers": {"registry.example.org": "test"}}, {"credsStore": "test", "auths": {"registry.example.org": {}}}],
)
def test_a_helper_is_asked_for_the_registry_it_is_set_for(login, helper, tmp_path, settings):
    helper(f"""cat > {tmp_path}/asked; echo "$@" >> {tmp_path}/asked; echo '{{"Username":"me","Secret":"s3cret"}}'""")
    found = login(settings, 0o644).for_image(IMAGE)
    assert (found.username, found.password, found.is_identity_token) == ("me", "s3cret", False)
    assert (tmp_path / "asked").read_text() == "registry.example.orgget\n"
    assert login(settings, 0o644).for_image(HUB) is None


def test_a_helper_may_hand_out_an_identity_token(login, helper):
    helper("""echo '{"Username":"<token>","Secret":"t0ken"}'""")
    found = login({"credHelpers": {"registry.example.org": "test"}}).for_image(IMAGE)
    assert (found.password, found.is_identity_token) == ("t0ken", True)


def test_a_helper_that_knows_nothing_stands_in_nobodys_way(login, helper):
    helper("echo 'credentials not found in native keychain'; exit 1")
    file = login({"credHelpers": {"registry.example.org": "test"}})
    assert file.for_image(IMAGE) is None


@pytest.mark.parametrize(
    ("script", "seconds", "said"),
    [
        ("exec sleep 600", 0.2, "no answer in 0.2 seconds"),
        ("echo s3cret >&2; exit 3", 60, "failed with status 3"),
        ("echo s3cret", 60, "not valid JSON"),
    ],
)
def test_a_helper_that_fails_is_said_so_in_time_and_without_what_it_said(login, helper, script, seconds, said):
    helper(script)
    with pytest.raises(MalformedCredentials, match=said) as caught:
        login({"credHelpers": {"registry.example.org": "test"}}, helper_seconds=seconds).for_image(IMAGE)
    assert "s3cret" not in str(caught.value)


def test_logins_lie_where_their_programs_put_them():
    environ = {"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert [str(path) for path in login_files(environ)] == [
        "/run/user/1/containers/auth.json",
        "/home/me/.config/containers/auth.json",
        "/home/me/.docker/config.json",
        "/home/me/.apptainer/docker-config.json",
    ]
    named = {**environ, "REGISTRY_AUTH_FILE": "/etc/auth.json", "DOCKER_CONFIG": "/etc/docker"}
    assert [str(path) for path in login_files(named)] == [
        "/etc/auth.json",
        "/etc/docker/config.json",
        "/home/me/.apptainer/docker-config.json",
    ]
    assert login_files({}) == []


def test_the_closest_of_several_sources_wins_and_of_equals_the_first(login):
    file = login({"auths": {"registry.example.org/group": auth("file")}})
    wide, other = (Credentials([Credential("registry.example.org", name, "p")]) for name in ("wide", "other"))
    assert Sources([wide, file]).for_image(IMAGE).username == "file"
    assert Sources([wide, other]).for_image(IMAGE).username == "wide"
    assert Sources([wide, file]).for_image(HUB) is None

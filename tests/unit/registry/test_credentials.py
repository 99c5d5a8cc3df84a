import pytest

from ducc.errors import BadInput
from ducc.image.reference import Reference
from ducc.registry.credentials import Credential, Credentials, credentials_from_environment

IMAGE = Reference.parse("https://registry.example.org/group/image:1")


@pytest.mark.parametrize(
    ("credential", "image", "covered"),
    [
        (Credential("host", "u", "p"), "https://host/a:1", True),
        (Credential("host", "u", "p"), "https://host:5000/a:1", False),
        (Credential("host", "u", "p"), "https://evil.host/a:1", False),
        (Credential("host", "u", "p"), "https://evil.org/host:1", False),
        (Credential("host", "u", "p"), "http://host/a:1", False),
        (Credential("host", "u", "p", scheme="http"), "http://host/a:1", True),
        (Credential("host", "u", "p", scheme="http"), "https://host/a:1", True),
        (Credential("127.0.0.1:5000", "u", "p"), "http://127.0.0.1:5000/a:1", True),
        (Credential("localhost", "u", "p"), "http://localhost/a:1", True),
        (Credential("host", "u", "p", "group"), "https://host/group/a:1", True),
        (Credential("host", "u", "p", "group"), "https://host/group:1", True),
        (Credential("host", "u", "p", "group"), "https://host/group2/a:1", False),
    ],
)
def test_credentials_are_for_the_place_they_were_given_for(credential, image, covered):
    assert credential.covers(Reference.parse(image)) is covered


def test_the_closest_credentials_win():
    far, near = Credential("host", "far", "p"), Credential("host", "near", "p", "a/b")
    credentials = Credentials([far, near])
    assert credentials.for_image(Reference.parse("https://host/a/b/c:1")) is near
    assert credentials.for_image(Reference.parse("https://host/a/c:1")) is far
    assert credentials.for_image(Reference.parse("https://other/a:1")) is None


def test_passwords_are_not_in_the_repr():
    assert "s3cret" not in repr(Credential("host", "me", "s3cret"))


def test_the_go_programs_variables_are_read():
    environ = {
        "DUCC_AUTH_REGISTRIES": "HUB, LAB,",
        "DUCC_HUB_IDENT": "registry.hub.docker.com",
        "DUCC_HUB_USER": "me",
        "DUCC_HUB_PASS": "s3cret",
        "DUCC_LAB_IDENT": "http://LAB.example.org:5005/group/project/",
        "DUCC_LAB_USER": "you",
        "DUCC_LAB_PASS": "t0ken",
    }
    credentials = credentials_from_environment(environ)
    assert credentials.for_image(Reference.parse("registry.hub.docker.com/library/a:1")).username == "me"
    assert credentials.for_image(Reference.parse("http://lab.example.org:5005/group/project/a:1")).username == "you"
    assert credentials.for_image(Reference.parse("https://lab.example.org:5005/group/a:1")) is None
    assert credentials_from_environment({}).for_image(IMAGE) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"DUCC_A_IDENT": ""}, "DUCC_A_IDENT"),
        ({"DUCC_A_USER": ""}, "_USER"),
        ({"DUCC_A_PASS": ""}, "_PASS"),
        ({"DUCC_A_USER": "a:b"}, "colon"),
        ({"DUCC_A_IDENT": "host/../x"}, "host/namespace"),
        ({"DUCC_A_IDENT": "user:s3cret@host"}, "host/namespace"),
        ({"DUCC_A_USER": "", "DUCC_A_PASS": ""}, "_PROXY"),
        ({"DUCC_A_IDENT": "ftp://host"}, "host/namespace"),
    ],
)
def test_variables_that_say_half_are_bad_input(changes, said):
    environ = {
        "DUCC_AUTH_REGISTRIES": "A",
        "DUCC_A_IDENT": "host",
        "DUCC_A_USER": "me",
        "DUCC_A_PASS": "s3cret",
        **changes,
    }
    with pytest.raises(BadInput, match=said) as caught:
        credentials_from_environment(environ)
    assert "s3cret" not in str(caught.value)

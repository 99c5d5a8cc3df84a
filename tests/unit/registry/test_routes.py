"""Mirrors, credentials by name, certificates: the ways to an image, against servers on loopback."""

import datetime
import hashlib
import ipaddress
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ducc.image.digest import DigestMismatch
from ducc.image.reference import Reference
from ducc.reach import Reach
from ducc.registry.area import Area
from ducc.registry.client import NoSuchImage, Registry
from ducc.registry.credentials import AccessDenied, Credential, Credentials, MalformedCredentials, SecretFile
from ducc.registry.manners import Manners
from ducc.registry.routes import PlainHttp
from ducc.registry.settings import AreaSettings, Mirror, RegistriesSettings
from ducc.transport import Transport, Unreachable, Untrusted
from tests.builders import Image, Layer, file
from tests.fakes.registry import Answer, FakeRegistry, Seen, fake_registry

IMAGE = Image([Layer.of(file("a", b"x" * 5000))])
OTHER = Image([Layer.of(file("b", b"y" * 5000))])
MANIFEST, MIRRORED = "/v2/some/image/manifests/tag", "/v2/cache/some/image/manifests/tag"
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}


@pytest.fixture
def server():
    with fake_registry() as registry:
        registry.hold_image(IMAGE)
        yield registry


@pytest.fixture
def mirror():
    with fake_registry() as registry:
        registry.hold_image(IMAGE, name="cache/some/image")
        yield registry


def mirror_at(mirror: FakeRegistry, **options: object) -> Mirror:
    return replace(Mirror("http", Area(mirror.host, "cache")), **options)


def client(server, mirrors=(), known=(), secrets=None, area: Area | None = None, credentials=None) -> Registry:
    at = AreaSettings(mirrors=tuple(mirrors), credentials=credentials)
    return Registry(
        Transport(sleep=lambda _: None, attempts=3),
        Credentials(known),
        RegistriesSettings({area or Area(server.host): at}, secrets or {}),
    )


def image(server, suffix: str = ":tag") -> Reference:
    return Reference.parse(server.reference(suffix))


def layer_of(registry: Registry, reference: Reference, offset: int = 0) -> bytes:
    (layer,) = registry.resolve(reference).manifest.layers
    with registry.open_blob(reference, layer, offset) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


def test_everything_of_an_image_comes_from_the_mirror(server, mirror):
    registry = client(server, [mirror_at(mirror)])
    assert registry.manifest_digest(image(server)) == registry.resolve(image(server)).manifest.digest
    assert layer_of(registry, image(server)) == IMAGE.layers[0].blob
    assert server.seen == []
    assert all(path.startswith("/v2/cache/some/image/") for path in mirror.asked())


def test_what_a_mirror_stands_in_for_is_taken_off_the_name(server, mirror):
    mirror.hold_image(IMAGE, name="cache/image")
    registry = client(server, [mirror_at(mirror)], area=Area(server.host, "some"))
    registry.resolve(image(server))
    assert MIRRORED.replace("/some", "") in mirror.asked()
    assert server.seen == []


def test_what_no_mirror_has_comes_from_the_registry(server, mirror):
    mirror.content.clear()
    registry = client(server, [mirror_at(mirror)])
    assert layer_of(registry, image(server)) == IMAGE.layers[0].blob
    assert MIRRORED in mirror.asked()


@pytest.mark.parametrize(
    "said",
    [Answer(404), Answer(401), Answer(403), Answer(200, b"<html>", {"Content-Type": "text/html"}), Answer(200, b"{}")],
    ids=["absent", "unauthorized", "forbidden", "web page", "nonsense"],
)
def test_whatever_a_mirror_says_the_registry_has_the_last_word(server, mirror, said):
    mirror.say_always(MIRRORED, said)
    assert client(server, [mirror_at(mirror)]).resolve(image(server)).manifest.raw == IMAGE.manifest
    assert MANIFEST in server.asked()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_mirror_that_fails_gets_one_try_and_then_a_rest(server, mirror, caplog, status):
    mirror.say_always(MIRRORED, Answer(status))
    registry = client(server, [mirror_at(mirror)])
    for _ in range(3):
        registry.resolve(image(server))
    assert len(mirror.seen) == 1
    assert caplog.text.count("mirror left alone") == 1


def test_mirrors_are_tried_in_their_order(server, mirror):
    with fake_registry() as first:
        first.hold_image(IMAGE, name="cache/some/image")
        client(server, [mirror_at(first), mirror_at(mirror)]).resolve(image(server))
        assert first.seen
        assert not mirror.seen


def test_when_all_fail_the_registry_says_why(server, mirror):
    server.content.clear()
    mirror.content.clear()
    with pytest.raises(NoSuchImage, match=rf"^{server.url}/some/image:tag"):
        client(server, [mirror_at(mirror)]).resolve(image(server))


def test_a_mirror_that_lies_about_a_digest_changes_nothing(server, mirror, caplog):
    digest = server.hold_image(IMAGE)
    mirror.hold_image(OTHER, name="cache/some/image")
    mirror.hold(f"/v2/cache/some/image/manifests/{digest}", OTHER.manifest, content_type=OTHER.media_type)
    registry = client(server, [mirror_at(mirror)])
    for _ in range(2):
        assert registry.resolve(image(server, f":tag@{digest}")).manifest.raw == IMAGE.manifest
    assert mirror.asked().count(f"/v2/cache/some/image/manifests/{digest}") == 1
    assert "mirror sent wrong bytes" in caplog.text


def test_a_mirror_that_sent_wrong_bytes_is_not_asked_for_them_again(server, mirror, caplog):
    blob = IMAGE.layers[0].blob
    digest = hashlib.sha256(blob).hexdigest()
    mirror.hold(f"/v2/cache/some/image/blobs/sha256:{digest}", bytes(len(blob)))
    registry = client(server, [mirror_at(mirror)])
    with pytest.raises(DigestMismatch, match="from 127"):
        layer_of(registry, image(server))
    assert layer_of(registry, image(server)) == blob
    assert "mirror sent wrong bytes" in caplog.text


def test_a_config_that_a_mirror_has_wrong_comes_from_the_registry(server, mirror, caplog):
    digest = hashlib.sha256(IMAGE.config).hexdigest()
    mirror.hold(f"/v2/cache/some/image/blobs/sha256:{digest}", bytes(len(IMAGE.config)))
    assert client(server, [mirror_at(mirror)]).resolve(image(server)).config.raw == IMAGE.config
    assert "mirror sent wrong bytes" in caplog.text


def test_a_blob_that_breaks_at_the_mirror_goes_on_at_the_registry(server, mirror, caplog):
    blob = IMAGE.layers[0].blob
    path = f"/v2/cache/some/image/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
    mirror.say(path, Answer(200, blob, cut_after=100), Answer(500))
    assert layer_of(client(server, [mirror_at(mirror)]), image(server)) == blob
    assert server.seen[-1].headers["Range"] == "bytes=100-"


def test_tags_are_listed_by_the_registry_unless_the_mirror_knows_them_all(server, mirror):
    server.hold_tags("a", "b")
    mirror.hold_tags("a", name="cache/some/image")
    assert list(client(server, [mirror_at(mirror)]).tags(image(server))) == ["a", "b"]
    assert list(client(server, [mirror_at(mirror, lists_tags=True)]).tags(image(server))) == ["a"]


# --- credentials ---------------------------------------------------------------------------


def secret(tmp_path: Path, name: str, area: Area) -> SecretFile:
    path = tmp_path / name
    path.write_text(f"{name}-s3cret\n")
    path.chmod(0o600)
    return SecretFile(area, name, path)


def test_a_mirror_gets_its_own_credentials_and_never_the_registrys(server, mirror, tmp_path):
    def guard(seen: Seen) -> Answer:
        return mirror.content[MIRRORED] if "Authorization" in seen.headers else Answer(401, headers=BASIC)

    mirror.say_always(MIRRORED, guard)
    areas = {"cache": Area(mirror.host), "home": Area(server.host)}
    secrets = {name: secret(tmp_path, name, area) for name, area in areas.items()}
    registry = client(server, [mirror_at(mirror, credentials="cache")], secrets=secrets)
    registry.resolve(image(server))
    (sent,) = {seen.headers["Authorization"] for seen in mirror.seen if "Authorization" in seen.headers}
    assert sent == "Basic Y2FjaGU6Y2FjaGUtczNjcmV0"
    assert all("Authorization" not in seen.headers for seen in server.seen)


def test_an_anonymous_mirror_gets_no_credentials_however_it_asks(server, mirror, tmp_path):
    mirror.say_always(MIRRORED, Answer(401, headers=BASIC))
    registry = client(server, [mirror_at(mirror)], [Credential(server.host, "me", "s3cret")])
    registry.resolve(image(server))
    assert all("Authorization" not in seen.headers for seen in mirror.seen)


@pytest.mark.parametrize("named", [False, True])
def test_credentials_are_used_by_name(server, tmp_path, named):
    server.say(MANIFEST, Answer(401, headers=BASIC))
    secrets = {"lab": secret(tmp_path, "lab", Area(server.host, "some"))}
    registry = client(server, secrets=secrets, credentials=None if named else "lab")
    (registry.using("lab") if named else registry).manifest_digest(image(server))
    assert server.seen[-1].headers["Authorization"] == "Basic bGFiOmxhYi1zM2NyZXQ="


def test_a_name_opens_no_other_registry(server, tmp_path):
    server.say(MANIFEST, Answer(401, headers=BASIC))
    secrets = {"lab": secret(tmp_path, "lab", Area("registry.example.org"))}
    with pytest.raises(AccessDenied, match="'lab' are not meant for it"):
        client(server, secrets=secrets).using("lab").manifest_digest(image(server))
    assert all("Authorization" not in seen.headers for seen in server.seen)


def test_an_unknown_name_is_said_so_at_once(server):
    with pytest.raises(MalformedCredentials, match="nobody"):
        client(server).using("nobody")


def test_who_uses_a_name_shares_limits_with_all(server, tmp_path):
    registry = client(server, secrets={"lab": secret(tmp_path, "lab", Area(server.host))})
    assert registry.using("lab").using(None).limits() == registry.limits()


# --- encryption ----------------------------------------------------------------------------


class Pki:
    """An authority, and what it signs, as files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), self._named("authority")
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self._sign(self._key.public_key(), self._name, authority=True))

    def issue(self, name: str, host: str = "127.0.0.1", days: int = 1) -> Path:
        """Key and certificate for *host*, valid until so many *days* from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._directory / f"{name}.pem"
        path.write_bytes(private + self._sign(key.public_key(), self._named(name), host=host, days=days))
        return path

    def server(self, certificate: Path, *, asks: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context

    def _sign(self, key, subject, *, authority: bool = False, host: str = "127.0.0.1", days: int = 1) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        name = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    @staticmethod
    def _named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def secure(server: FakeRegistry, reach: Reach, **others: Reach) -> Registry:
    places = {server.host: reach, **others}
    settings = RegistriesSettings({Area(host): AreaSettings(reach=reach) for host, reach in places.items()})
    manners = Manners(settings)
    return Registry(Transport(manners=manners, attempts=1), settings=settings, manners=manners)


def test_a_registry_with_an_authority_of_its_own_is_believed(pki):
    with fake_registry(pki.server(pki.issue("server"))) as server:
        server.hold_image(IMAGE)
        secure(server, Reach(ca_file=pki.ca)).resolve(image(server))
        with pytest.raises(Untrusted):
            secure(server, Reach()).resolve(image(server))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
@pytest.mark.parametrize(
    ("host", "days"), [("127.0.0.1", -1), ("192.0.2.1", 1), ("localhost", 1)], ids=["expired", "address", "name"]
)
def test_a_certificate_that_is_not_the_registrys_is_refused(pki, host, days):
    with fake_registry(pki.server(pki.issue("wrong", host, days))) as server:
        server.hold_image(IMAGE)
        with pytest.raises(Untrusted, match="certificate"):
            secure(server, Reach(ca_file=pki.ca)).resolve(image(server))
        assert server.seen == []
        secure(server, Reach(verify=False)).resolve(image(server))


def test_old_tls_is_refused(pki):
    context = pki.server(pki.issue("old"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1
    with fake_registry(context) as server, pytest.raises(Unreachable, match="no TLS connection"):
        secure(server, Reach(ca_file=pki.ca)).resolve(image(server))


def test_a_client_certificate_is_shown_to_its_registry_only(pki):
    mine = pki.issue("client")
    with (
        fake_registry(pki.server(pki.issue("server"), asks=True)) as server,
        fake_registry(pki.server(pki.issue("other"), asks=True)) as other,
    ):
        server.hold_image(IMAGE)
        other.hold_image(IMAGE)
        others = {other.host: Reach(ca_file=pki.ca)}
        registry = secure(server, Reach(ca_file=pki.ca, client_cert=mine), **others)
        registry.resolve(image(server))
        server.say(MANIFEST, Answer(307, headers={"Location": other.url + MANIFEST}))
        with pytest.raises(Unreachable):
            registry.resolve(image(server))
        assert other.seen == []
        with pytest.raises(Unreachable):
            secure(server, Reach(ca_file=pki.ca)).resolve(image(server))


def test_http_is_spoken_only_where_the_operator_says_so():
    reference = Reference.parse("http://registry.invalid/some/image:1")
    with pytest.raises(PlainHttp, match="insecure: true"):
        Registry(Transport(attempts=1)).manifest_digest(reference)
    allowed = RegistriesSettings({Area("registry.invalid"): AreaSettings(insecure=True)})
    with pytest.raises(Unreachable, match="host name is not known"):
        Registry(Transport(attempts=1), settings=allowed).manifest_digest(reference)

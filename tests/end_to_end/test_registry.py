"""The registry client against Debian's `docker-registry`: anonymous, by password, and by token."""

import base64
import hashlib
import json
import random
import time
from pathlib import Path

import pytest
import requests

from ducc.image.platform import NoSuchPlatform, Platform
from ducc.image.reference import Reference
from ducc.registry.client import NoSuchImage, Registry
from ducc.registry.credentials import AccessDenied, Credential, Credentials
from ducc.registry.settings import RegistriesSettings
from ducc.registry.settingsfile import read_settings
from ducc.transport import Transport
from ducc.wishlist.expand import expand
from tests import builders
from tests.builders import Attestation, Image, Index, Layer
from tests.fakes.configured_registry import configured_registry
from tests.fakes.token_server import token_server
from tests.registry import PASSWORD, USER, running_registry

BIG = random.Random(1).randbytes(5_000_000)
IMAGE = Image([Layer.of(builders.file("big", BIG)), Layer.of(builders.whiteout("gone"), compression="zstd")])
ARM = Image([Layer.of(builders.file("arm"))], platform={"os": "linux", "architecture": "arm", "variant": "v6"})
REGISTRY_LEEWAY_SECONDS = 60  # for which it accepts a token that has expired
TAGS = sorted([f"1.{number}" for number in range(20)])


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A registry's directory that holds `group/image`, with all its tags, and `group/index`."""
    directory = tmp_path_factory.mktemp("registry")
    with running_registry(directory) as registry:
        builders.push(registry.host, "group/image", TAGS[0], IMAGE)
        for tag in TAGS[1:]:
            url = f"{registry.url}/v2/group/image/manifests/{tag}"
            headers = {"Content-Type": IMAGE.media_type}
            requests.put(url, IMAGE.manifest, headers=headers, timeout=60).raise_for_status()
        builders.push(registry.host, "group/index", "1", Index([Attestation(IMAGE), ARM, IMAGE]))
        builders.push(registry.host, "group/index", "docker", Index([Image([], flavour="docker")], "docker"))
    return directory


@pytest.fixture(scope="module")
def anonymous(storage):
    with running_registry(storage) as registry:
        yield registry


def client(*credentials: Credential) -> Registry:
    return Registry(Transport(attempts=2), Credentials(credentials))


def image_at(registry, suffix: str = ":1.0", name: str = "group/image") -> Reference:
    return Reference.parse(f"{registry.url}/{name}{suffix}")


def digest_of_blob(registry, reference: Reference, descriptor) -> str:
    hasher = hashlib.sha256()
    with registry.open_blob(reference, descriptor) as stream:
        while data := stream.read(100_000):
            hasher.update(data)
    return hasher.hexdigest()


def test_an_image_and_its_layers_come_as_they_were_pushed(anonymous):
    registry, reference = client(), image_at(anonymous)
    image = registry.resolve(reference)
    assert (image.manifest.raw, image.config.raw) == (IMAGE.manifest, IMAGE.config)
    assert registry.manifest_digest(reference) == image.manifest.digest
    for layer in image.manifest.layers:
        assert digest_of_blob(registry, reference, layer) == layer.digest.hex


def test_an_image_is_found_by_its_digest(anonymous):
    registry = client()
    found = registry.resolve(image_at(anonymous, f"@{builders.sha256(IMAGE.manifest)}"))
    assert found.manifest.raw == IMAGE.manifest


@pytest.mark.parametrize(("platform", "build"), [("linux/amd64", IMAGE), ("linux/arm/v7", ARM)])
def test_a_build_is_found_in_an_index(anonymous, platform, build):
    found = client().resolve(image_at(anonymous, ":1", "group/index"), Platform.parse(platform))
    assert found.manifest.raw == build.manifest
    assert found.index is not None


def test_a_docker_list_of_an_empty_image_is_read(anonymous):
    found = client().resolve(image_at(anonymous, ":docker", "group/index"))
    assert (found.manifest.layers, found.config.diff_ids) == ((), ())


def test_a_platform_that_was_not_built_is_named(anonymous):
    with pytest.raises(NoSuchPlatform, match=r"linux/amd64, linux/arm/v6"):
        client().resolve(image_at(anonymous, ":1", "group/index"), Platform("linux", "s390x"))


def test_all_tags_are_found_and_a_wildcard_takes_its_part(anonymous):
    reference = image_at(anonymous, ":1.1*")
    tags = list(client().tags(reference))
    assert sorted(tags) == TAGS
    assert [found.tag for found in expand(reference, tags)] == [tag for tag in TAGS if tag.startswith("1.1")]


@pytest.mark.parametrize(("suffix", "name"), [(":none", "group/image"), (":1", "group/none"), (":1", "none")])
def test_an_absent_image_is_said_to_be_absent(anonymous, suffix, name):
    with pytest.raises(NoSuchImage):
        client().resolve(image_at(anonymous, suffix, name))
    with pytest.raises(NoSuchImage):
        client().manifest_digest(image_at(anonymous, suffix, name))


def test_a_damaged_manifest_is_not_taken_for_the_image(storage):
    digest = builders.sha256(ARM.manifest)
    with running_registry(storage) as registry:
        path = registry.blob_path(digest)
        kept = path.read_bytes()
        path.write_bytes(kept.replace(b'"size"', b'"sizE"'))
        try:
            with pytest.raises(Exception, match=r"group/index") as caught:
                client().resolve(image_at(registry, f"@{digest}", "group/index"))
        finally:
            path.write_bytes(kept)
    assert caught.value.exit_code in (20, 82)


def test_a_registry_with_passwords_lets_in_who_has_one(storage):
    with running_registry(storage, basic_auth=True) as guarded:
        reference = image_at(guarded)
        registry = client(Credential(guarded.host, USER, PASSWORD))
        image = registry.resolve(reference)
        assert digest_of_blob(registry, reference, image.manifest.layers[0]) == image.manifest.layers[0].digest.hex
        refused = [request for request in guarded.requests() if request.status == 401 and request.path != "/v2/"]
        assert len(refused) == 1
        for stranger in (client(), client(Credential(guarded.host, USER, "wrong"))):
            with pytest.raises(AccessDenied):
                stranger.resolve(reference)


@pytest.mark.parametrize("key", ["token", "access_token"])
def test_a_registry_with_tokens_lets_everybody_read(storage, tmp_path, key):
    with token_server(tmp_path) as tokens, tokens.guarded_registry(storage) as guarded:
        tokens.key_of_the_token = key
        reference, registry = image_at(guarded), client()
        image = registry.resolve(reference)
        assert digest_of_blob(registry, reference, image.manifest.layers[0]) == image.manifest.layers[0].digest.hex
        assert sorted(registry.tags(reference)) == TAGS
        assert tokens.scopes == ["repository:group/image:pull"]


def test_a_registry_with_tokens_lets_in_who_has_a_password(storage, tmp_path):
    with token_server(tmp_path, f"{USER}:{PASSWORD}") as tokens, tokens.guarded_registry(storage) as guarded:
        reference = image_at(guarded)
        registry = client(Credential(guarded.host, USER, PASSWORD))
        assert registry.resolve(reference).manifest.raw == IMAGE.manifest
        with pytest.raises(AccessDenied, match="refuses anybody without credentials"):
            client().resolve(reference)


def test_a_token_that_expires_between_two_layers_is_renewed(storage, tmp_path):
    almost_over = REGISTRY_LEEWAY_SECONDS - 2
    with (
        token_server(tmp_path, lifetime_seconds=-almost_over) as tokens,
        tokens.guarded_registry(storage) as guarded,
    ):
        reference, registry = image_at(guarded), client()
        image = registry.resolve(reference)
        time.sleep(3)
        for layer in image.manifest.layers:
            assert digest_of_blob(registry, reference, layer) == layer.digest.hex
        assert len(tokens.scopes) == 2


# --- as an operator sets it up -------------------------------------------------------------


def settings_file(directory: Path, text: str, **secrets: str) -> RegistriesSettings:
    for name, content in (*secrets.items(), ("registries.yaml", text)):
        (directory / name).write_text(content)
        (directory / name).chmod(0o600)
    return read_settings(directory / "registries.yaml")


def layers_are_whole(registry: Registry, reference: Reference) -> bool:
    layers = registry.resolve(reference).manifest.layers
    return all(digest_of_blob(registry, reference, layer) == layer.digest.hex for layer in layers)


def test_a_password_in_a_file_opens_its_registry_and_by_its_name_too(storage, tmp_path):
    with running_registry(storage, basic_auth=True) as guarded:
        credentials = f"credentials: {{mine: {{for: '{guarded.host}', user: {USER}, password_file: secret}}}}\n"
        default = f"registries: {{'{guarded.host}': {{credentials: mine}}}}\n"
        named = Registry.from_settings(settings_file(tmp_path, credentials, secret=PASSWORD))
        assert layers_are_whole(named.using("mine"), image_at(guarded))
        with pytest.raises(AccessDenied):
            named.resolve(image_at(guarded))
        assert layers_are_whole(
            Registry.from_settings(settings_file(tmp_path, credentials + default)), image_at(guarded)
        )


@pytest.mark.parametrize("path", ["home/.docker/config.json", "run/containers/auth.json"])
def test_a_login_of_another_program_opens_its_registry(storage, tmp_path, path):
    with running_registry(storage, basic_auth=True) as guarded:
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"auths": {f"{guarded.host}/group": {"auth": auth}}}))
        file.chmod(0o600)
        environ = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
        registry = Registry.from_settings(RegistriesSettings(), environ)
        assert layers_are_whole(registry, image_at(guarded))
        with pytest.raises(AccessDenied):
            registry.resolve(image_at(guarded, ":1", "other/image"))


@pytest.mark.parametrize("right", [True, False])
def test_an_identity_token_opens_a_registry_with_tokens(storage, tmp_path, right):
    with token_server(tmp_path, "identity-t0ken") as tokens, tokens.guarded_registry(storage) as guarded:
        text = f"credentials: {{mine: {{for: '{guarded.host}', token_file: secret}}}}\n"
        settings = settings_file(tmp_path, text, secret="identity-t0ken" if right else "revoked-t0ken")
        registry = Registry.from_settings(settings).using("mine")
        if right:
            assert layers_are_whole(registry, image_at(guarded))
        else:
            with pytest.raises(AccessDenied, match="refuses the credentials") as caught:
                registry.resolve(image_at(guarded))
            assert "t0ken" not in str(caught.value)


def test_a_pull_through_cache_serves_an_image(storage, tmp_path):
    with running_registry(storage) as upstream:
        remote = f"proxy: {{remoteurl: '{upstream.url}'}}\n"
        with configured_registry(tmp_path, "cache", remote) as cache:
            text = f"registries: {{'{upstream.host}': {{mirrors: [{{url: '{cache.url}'}}]}}}}\n"
            registry = Registry.from_settings(settings_file(tmp_path, text))
            reference = image_at(upstream)
            image = registry.resolve(reference)
            assert image.manifest.raw == IMAGE.manifest
            for layer in image.manifest.layers:
                assert digest_of_blob(registry, reference, layer) == layer.digest.hex
            ours = [request for request in cache.blob_fetches() if request.status == 200]
            assert len(ours) == 1 + len(image.manifest.layers)
            assert sorted(registry.tags(reference)) == TAGS


def test_every_build_of_an_index_is_found_at_once(anonymous):
    found = client().resolve_platforms(image_at(anonymous, ":1", "group/index"), None)
    assert {str(platform): image.manifest.raw for platform, image in found} == {
        "linux/amd64": IMAGE.manifest,
        "linux/arm/v6": ARM.manifest,
    }

"""Thin images through the console script and Debian's `docker-registry`; skopeo and umoci read them back."""

import json
import subprocess
import time

import pytest
import requests

from tests import builders
from tests.builders import Image, Index, Layer
from tests.console import stop
from tests.end_to_end.published import FQRN, repository
from tests.fakes.token_server import token_server
from tests.needs import need_program, need_root
from tests.registry import PASSWORD, USER, running_registry

pytestmark = pytest.mark.engine

BASE, APP = Layer.of(builders.file("base", b"b")), Layer.of(builders.file("app", b"a"), compression="zstd")
PATIENCE_SECONDS = 120
HOSTILE = 'it\'s "x" $HOME `id` \\ \n é'
SETTINGS = {
    "User": "1000:100",
    "WorkingDir": "/a b",
    "Env": ["PATH=/bin", f"HOSTILE={HOSTILE}", "CVMFS_IMAGE=no"],
    "Entrypoint": ["/bin/sh", "-c", HOSTILE],
    "Cmd": ["one argument", ""],
    "Labels": {"org.example.label": HOSTILE},
    "Volumes": {"/data": {}},
    "ExposedPorts": {"80/tcp": {}},
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    "Shell": ["/bin/bash", "-c"],
    "OnBuild": ["RUN true"],
    "Unheard": {"of": [1, None, True]},
}
IMAGE = Image([BASE, APP], SETTINGS)
ARM = Image([BASE], {"Cmd": ["arm"]}, {"os": "linux", "architecture": "arm", "variant": "v7"})


@pytest.fixture
def made(tmp_path):
    with repository(tmp_path / "repository") as made:
        yield made


@pytest.fixture
def output(tmp_path):
    """The registry that thin images go to; its log is that of one test."""
    with running_registry(tmp_path / "output") as running:
        yield running


@pytest.fixture
def convert(made):
    """Convert a wishlist of *wishes* with *output_format*; return what is reported of the images."""

    def run(output_format, *wishes, status=0, options=(), **environment):
        path = made.wishlist(*wishes)
        path.write_text(path.read_text() + f"output_format: '{output_format}'\n")
        done = made.ducc("convert", path, *made.publisher, "--json", *options, status=status, **environment)
        assert "Traceback" not in done.stderr
        return done.json["repositories"][0]["images"]

    return run


def wish(registry, name, image=IMAGE, tag="1"):
    builders.push(registry.host, name, tag, image)
    return f"http://{registry.host}/{name}:{tag}"


def raw(reference, *options):
    """What skopeo says that a registry has."""
    need_program("skopeo")
    command = ["skopeo", "inspect", "--tls-verify=false", *options, "--raw", f"docker://{reference}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def pulled(reference, directory):
    """An image copied by skopeo, every digest verified: its config and its layers' files, by umoci."""
    for program in ("skopeo", "umoci"):
        need_program(program)
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}"]
    subprocess.run([*copy, f"oci:{directory}:thin"], check=True)
    bundle = directory.with_name(f"{directory.name}.bundle")
    subprocess.run(["umoci", "--log=fatal", "unpack", "--image", f"{directory}:thin", bundle], check=True)
    return raw(reference, "--config"), bundle / "rootfs"


def changes(registry):
    return [request for request in registry.requests() if request.method in ("POST", "PUT", "PATCH", "DELETE")]


def test_a_thin_image_says_where_each_layer_is_published(made, registry, output, convert, tmp_path):
    need_root()
    wanted = wish(registry, "thin/plain")
    (image,) = convert(f"http://{output.host}/$(repository)_thin$(reference)", wanted)
    name = f"{output.host}/thin/plain_thin:1"
    assert (image["status"], image["thin"].partition("@")[0]) == ("published", f"http://{name}")
    config, root = pulled(name, tmp_path / "pulled")
    assert [path.name for path in root.iterdir()] == ["thin.json"]
    assert (root / "thin.json").stat().st_mode & 0o7777 == 0o644
    places = [f".layers/{digest[7:9]}/{digest[7:]}/layerfs" for digest in map(builders.sha256, [BASE.blob, APP.blob])]
    assert json.loads((root / "thin.json").read_bytes()) == {
        "version": "1.0",
        "origin": wanted,
        "layers": [{"digest": place.split("/")[2], "url": f"cvmfs://{FQRN}/{place}"} for place in places],
    }
    assert {f"/{place}" for place in places} <= made.trees().keys()
    assert config["architecture"] == "amd64"


def test_a_thin_image_keeps_all_of_the_config(registry, output, convert, tmp_path):
    need_root()
    convert(f"http://{output.host}/all:$(tag)", wish(registry, "thin/config"))
    config, _ = pulled(f"{output.host}/all:1", tmp_path / "pulled")
    environment = [*SETTINGS["Env"][:2], "CVMFS_IMAGE=true"]
    assert config["config"] == {**SETTINGS, "Env": environment}
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == 1


def test_what_the_registry_has_is_not_pushed_again(made, registry, output, convert):
    template, wanted = f"http://{output.host}/again:$(tag)", wish(registry, "thin/again")
    (first,) = convert(template, wanted)
    before = changes(output)
    (second,) = convert(template, wanted)
    assert (second["status"], made.revision) == ("unchanged", 2)
    assert before
    assert changes(output) == before
    assert raw(f"{output.host}/again:1")["layers"]
    assert first["thin"].startswith(f"http://{output.host}/again:1@sha256:")


def test_a_thin_image_that_is_gone_or_another_is_pushed_without_a_revision(made, registry, output, convert):
    template, wanted = f"http://{output.host}/gone:$(tag)", wish(registry, "thin/gone")
    (first,) = convert(template, wanted)
    builders.push(output.host, "gone", "1", ARM)
    (again,) = convert(template, wanted)
    assert (again["status"], again["thin"], made.revision) == ("unchanged", first["thin"], 2)
    assert raw(first["thin"].removeprefix("http://").replace(":1@", "@")) == raw(f"{output.host}/gone:1")


def test_a_tag_that_moves_takes_its_thin_image_along(registry, output, convert, tmp_path):
    need_root()
    template, wanted = f"http://{output.host}/moves:$(tag)", wish(registry, "thin/moves")
    convert(template, wanted)
    wish(registry, "thin/moves", Image([BASE], {"Cmd": ["new"]}))
    convert(template, wanted)
    config, root = pulled(f"{output.host}/moves:1", tmp_path / "pulled")
    assert config["config"]["Cmd"] == ["new"]
    assert len(json.loads((root / "thin.json").read_bytes())["layers"]) == 1


def test_an_image_for_several_platforms_has_a_thin_one_for_each(registry, output, convert):
    image = f'{{image: "{wish(registry, "thin/multi", Index([IMAGE, ARM]))}", platforms: all}}'
    convert(f"http://{output.host}/multi:$(tag)", image)
    index = raw(f"{output.host}/multi:1")
    platforms = [entry["platform"] for entry in index["manifests"]]
    assert platforms == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm", "variant": "v7"},
    ]
    for entry, (architecture, command) in zip(
        index["manifests"], [("amd64", SETTINGS["Cmd"]), ("arm", ["arm"])], strict=True
    ):
        copied = raw(f"{output.host}/multi@{entry['digest']}", "--config")
        assert (copied["architecture"], copied["config"]["Cmd"]) == (architecture, command)


def test_a_registry_that_does_not_let_us_in_costs_the_thin_image_alone(made, registry, convert, tmp_path):
    with running_registry(tmp_path / "closed", basic_auth=True) as closed:
        template, wanted = f"http://{closed.host}/closed:$(tag)", wish(registry, "thin/closed")
        (image,) = convert(template, wanted, status=3)
        assert (image["status"], image["error"]["kind"]) == ("failed", "AccessDenied")
        assert "\n" not in image["error"]["text"]
        assert image["root_hash"] in made.trees().values()
        settings = tmp_path / "registries.yaml"
        (tmp_path / "secret").write_text(PASSWORD)
        (tmp_path / "secret").chmod(0o600)
        place = f"{{for: '{closed.host}', user: {USER}, password_file: secret}}"
        settings.write_text(f"credentials: {{out: {place}}}\nregistries: {{'{closed.host}': {{credentials: out}}}}\n")
        settings.chmod(0o644)
        (image,) = convert(template, wanted, options=["--registries", settings])
        assert (image["status"], made.revision) == ("unchanged", 2)
        assert image["thin"]


def test_a_token_for_pushing_is_asked_for_that_name_alone(registry, convert, tmp_path):
    with (
        token_server(tmp_path, f"{USER}:{PASSWORD}") as tokens,
        tokens.guarded_registry(tmp_path / "guarded") as guarded,
    ):
        tokens.actions = ("pull", "push")
        login = {"DUCC_AUTH_REGISTRIES": "OUT", "DUCC_OUT_IDENT": f"http://{guarded.host}"}
        login |= {"DUCC_OUT_USER": USER, "DUCC_OUT_PASS": PASSWORD}
        wanted = wish(registry, "thin/token")
        (image,) = convert(f"http://{guarded.host}/group/token:$(tag)", wanted, **login)
        assert image["thin"]
        assert set(tokens.scopes) == {"repository:group/token:pull,push"}


def test_the_image_itself_is_never_overwritten(made, registry, convert):
    (image,) = convert("$(scheme)://$(registry)/$(image)", wanted := wish(registry, "thin/own"), status=3)
    assert (image["status"], image["error"]["kind"]) == ("failed", "UnusableThinName")
    assert raw(wanted.removeprefix("http://")) == json.loads(IMAGE.manifest)
    assert image["root_hash"] in made.trees().values()


def test_an_image_named_by_digest_alone_has_no_name_for_a_thin_one(made, registry, output, convert):
    name = wish(registry, "thin/digest").removesuffix(":1")
    pinned = f"{name}@{builders.sha256(IMAGE.manifest)}"
    (image,) = convert(f"http://{output.host}/$(image)", pinned, status=3)
    assert (image["status"], image["error"]["kind"]) == ("failed", "UnusableThinName")
    assert image["root_hash"] in made.trees().values()


def test_of_two_images_with_one_thin_name_the_first_has_it(registry, output, convert):
    wishes = [wish(registry, f"thin/{name}") for name in ("first", "second")]
    first, second = convert(f"http://{output.host}/one:name", *wishes, status=3)
    assert first["thin"]
    assert (second["status"], second["error"]["kind"]) == ("failed", "UnusableThinName")
    assert wishes[0] in second["error"]["text"]


def test_one_image_alone_may_have_a_thin_one_and_a_dry_run_pushes_none(made, registry, output):
    wanted = wish(registry, "thin/single")
    words = ["convert-single-image", wanted, made.fqrn, *made.publisher, "--json"]
    words += ["--thin-image-name", f"http://{output.host}/single:$(tag)"]
    (image,) = made.ducc(*words).json["repositories"][0]["images"]
    assert image["thin"]
    builders.push(output.host, "single", "1", ARM)
    before = changes(output)
    assert made.ducc(*words, "--dry-run").json["repositories"][0]["images"] == [{"image": wanted, "plan": "push"}]
    assert changes(output) == before


def test_the_loop_pushes_thin_images_and_again_when_they_are_others(made, registry, output, tmp_path):
    wanted = wish(registry, "thin/loop")
    path = made.wishlist(wanted)
    path.write_text(path.read_text() + f"output_format: 'http://{output.host}/loop:$(tag)'\n")
    words = ["loop", path, *made.publisher, "--state", tmp_path / "state", "--interval", "1s"]
    loop = made.ducc.start(*words)
    thin = pushed_at(output, "loop:1", other_than=None)
    builders.push(output.host, "loop", "1", ARM)
    assert pushed_at(output, "loop:1", other_than=builders.sha256(ARM.manifest)) == thin
    assert made.revision == 2
    stop(loop)


def pushed_at(registry, name, *, other_than):
    """The digest that a tag names, as soon as it is another one."""
    repository, _, tag = name.partition(":")
    url = f"{registry.url}/v2/{repository}/manifests/{tag}"
    accept = {"Accept": f"{builders.MANIFEST_TYPES['docker']}, {builders.MANIFEST_TYPES['oci']}"}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = requests.head(url, headers=accept, timeout=PATIENCE_SECONDS)
        if answer.ok and (found := answer.headers["Docker-Content-Digest"]) != other_than:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{url} names nothing else")

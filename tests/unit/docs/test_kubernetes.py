"""The manifests: valid for Kubernetes, true to the programs, and no more privileged than they say."""

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ducc import __version__
from ducc.cli import main
from ducc.rootfs.second_mount import SecondMount
from snapshotter.main import _parser
from snapshotter.settings import DEFAULT_ADDRESS, DEFAULT_CONFIG, DEFAULT_ROOT, read_settings

DIRECTORY = Path(__file__).parents[3] / "packaging" / "kubernetes"
VERSIONS = ("1.28", "1.31", "1.34")
DOCUMENTS = [
    document
    for name in ("ducc", "runtimeclass")
    for document in yaml.safe_load_all((DIRECTORY / f"{name}.yaml").read_text())
]
SETS = {document["metadata"]["name"]: document for document in DOCUMENTS if document["kind"] == "DaemonSet"}
CONFIG = next(document["data"] for document in DOCUMENTS if document["kind"] == "ConfigMap")
CVMFS = Path("/cvmfs/images.example.org")


def pod(name: str) -> dict[str, Any]:
    return SETS[name]["spec"]["template"]["spec"]


def container(name: str, place: int = 0) -> dict[str, Any]:
    return pod(name)["containers"][place]


def mounts(name: str) -> dict[str, dict[str, Any]]:
    """The volume mounts by path; each has `host`, where it is on the node, or None."""
    volumes = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in pod(name)["volumes"]}
    return {mount["mountPath"]: {**mount, "host": volumes[mount["name"]]} for mount in container(name)["volumeMounts"]}


def words(name: str, place: int = 0, line: int = -1) -> list[str]:
    """What is run in the container; of a script its last line, or another one."""
    one = container(name, place)
    if one["command"][0] != "sh":
        return one["command"]
    return shlex.split(one["args"][0].strip().splitlines()[line].removeprefix("exec "))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: f"{document['kind']} {document['metadata']['name']}"
)
def test_kubernetes_knows_every_field(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the `ConfigMap`, which containers have in /etc/ducc."""
    monkeypatch.delenv("DUCC_CONFIG", raising=False)
    for name, text in CONFIG.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_commands_and_settings_are_the_programs_own(etc: Path) -> None:
    client = main._parse([word.replace("/etc/ducc", str(etc)) for word in words("ducc-client")[1:]])
    assert (client.fqrn, client.directory, client.foreground) == (CVMFS.name, CVMFS, True)
    second = main._parse([word.replace("/etc/ducc", str(etc)) for word in words("ducc-client", 1)[1:]])
    assert vars(second) | {"directory": CVMFS, "no_xattrs": False} == vars(client)
    assert second.no_xattrs
    values = yaml.safe_load(CONFIG["client.yaml"])
    assert {name.replace("-", "_") for name in values} <= vars(client).keys()
    assert str(client.cache) == mounts("ducc-client")["/var/cache/ducc"]["host"] == values["cache"]
    assert str(client.public_key[0]) == f"{DEFAULT_CONFIG.parent}/{CVMFS.name}.pub"
    assert f"{CVMFS.name}.pub" in CONFIG
    program, *options = words("ducc-snapshotter")
    assert (program, _parser().parse_args(options).config) == ("ducc-snapshotter", DEFAULT_CONFIG)
    (repository,) = read_settings(etc / DEFAULT_CONFIG.name, {}).repositories
    assert (repository.fqrn, repository.mountpoint) == (CVMFS.name, CVMFS)
    assert repository.second == SecondMount(CVMFS.name, second.directory)
    for place, made in enumerate((client.directory, second.directory)):
        assert str(made) in words("ducc-client", place, 0)


def test_the_mirror_is_asked_where_it_listens() -> None:
    mirror = main._parse(words("ducc-mirror")[1:])
    assert (mirror.registry, mirror.host, mirror.port) == ([CVMFS], "127.0.0.1", 5010)
    assert container("ducc-mirror")["livenessProbe"]["httpGet"] == {"host": "127.0.0.1", "port": 5010, "path": "/v2/"}


def test_the_snapshotter_has_its_files_where_the_node_has_them() -> None:
    found = mounts("ducc-snapshotter")
    for path in (DEFAULT_ROOT, DEFAULT_ADDRESS.parent, CVMFS.parent):
        assert found[str(path)]["host"] == str(path)
    assert str(DEFAULT_ADDRESS) in container("ducc-snapshotter")["livenessProbe"]["exec"]["command"][-1]


def test_mounts_go_from_the_client_to_the_node_and_from_there_to_the_others() -> None:
    assert mounts("ducc-client")["/cvmfs"]["mountPropagation"] == "Bidirectional"
    for name in ("ducc-snapshotter", "ducc-mirror"):
        found = mounts(name)["/cvmfs"]
        assert (found["mountPropagation"], found["readOnly"], found["host"]) == ("HostToContainer", True, "/cvmfs")


def test_each_daemon_is_one_program_and_the_client_one_for_each_mount() -> None:
    assert {name: len(pod(name)["containers"]) for name in SETS} == {
        "ducc-client": 2, "ducc-snapshotter": 1, "ducc-mirror": 1
    }  # fmt: skip
    first, second = (container("ducc-client", place) for place in (0, 1))
    assert all(first[name] == second[name] for name in ("image", "securityContext", "volumeMounts"))


def test_only_the_client_is_privileged() -> None:
    assert container("ducc-client")["securityContext"]["privileged"]
    for name, capabilities in (("ducc-snapshotter", {"CHOWN", "DAC_OVERRIDE", "FOWNER"}), ("ducc-mirror", set())):
        context = container(name)["securityContext"]
        assert "privileged" not in context
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"]["drop"] == ["ALL"]
        assert set(context["capabilities"].get("add", [])) == capabilities
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod(name).get("hostPID")
    assert container("ducc-mirror")["securityContext"]["runAsNonRoot"]
    assert "hostNetwork" not in pod("ducc-snapshotter")
    assert not any(one["automountServiceAccountToken"] for one in map(pod, SETS))


def test_nothing_but_the_operator_restarts_the_client() -> None:
    assert SETS["ducc-client"]["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert "livenessProbe" not in container("ducc-client")


def test_the_images_are_those_that_the_dockerfile_makes() -> None:
    made = set(re.findall(r"^FROM \S+ AS (\w+)$", (DIRECTORY.parents[1] / "Dockerfile").read_text(), re.M))
    for name in SETS:
        target = container(name)["image"].removeprefix("registry.example.org/ducc-").removesuffix(f":{__version__}")
        assert target in made


def test_the_pod_says_twice_whose_runtime_it_wants() -> None:
    runtime_class = next(document for document in DOCUMENTS if document["kind"] == "RuntimeClass")
    wanted = next(document for document in DOCUMENTS if document["kind"] == "Pod")
    assert wanted["spec"]["runtimeClassName"] == runtime_class["metadata"]["name"]
    assert wanted["metadata"]["annotations"]["io.containerd.cri.runtime-handler"] == runtime_class["handler"]

"""The systemd unit and the managed plugin's config: the program as it is, with no more of root than it needs."""

import configparser
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ducc.rootfs.state import StateUnusable
from ducc.unixsocket import SocketTaken
from graphdriver.settings import DEFAULT_ADDRESS, DEFAULT_CONFIG, DEFAULT_STATE
from tests.graph_driver import CAPABILITIES

PACKAGING = Path(__file__).parents[3] / "packaging"
UNIT = PACKAGING / "ducc-graphdriver.service"


@pytest.fixture(scope="module")
def service():
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return parser["Service"]


@pytest.fixture(scope="module")
def plugin():
    return json.loads((PACKAGING / "plugin" / "config.json").read_text())


def tried() -> set[str]:
    """What the end-to-end tests leave the program of root."""
    return {f"CAP_{word[1:].upper()}" for word in CAPABILITIES.split(",") if word.startswith("+")}


def test_its_places_are_those_of_the_program(service):
    assert service["ExecStart"] == f"/usr/bin/ducc-graphdriver --config {DEFAULT_CONFIG}"
    assert Path("/var/lib") / service["StateDirectory"] == DEFAULT_STATE


def test_it_has_of_root_what_was_tried_and_no_network(service, plugin):
    assert set(service["CapabilityBoundingSet"].split()) == tried()
    assert (service["IPAddressDeny"], service["RestrictAddressFamilies"]) == ("any", "AF_UNIX")
    assert set(plugin["linux"]["capabilities"]) == tried()
    assert plugin["network"]["type"] == "none"


def test_what_it_mounts_is_seen_by_docker(service):
    """Each of these would give the program a mount namespace of its own."""
    apart = ("PrivateMounts", "PrivateTmp", "PrivateDevices", "PrivateNetwork", "ProtectSystem", "ProtectHome")
    assert not [name for name in service if name in apart or name.startswith("Protect")]


def test_it_is_started_again_unless_somebody_has_to_mend_something(service):
    kept = set(map(int, service["RestartPreventExitStatus"].split()))
    assert StateUnusable.exit_code in kept
    assert SocketTaken.exit_code not in kept


def test_the_managed_plugin_keeps_layers_and_socket_where_the_program_has_them(plugin):
    assert plugin["interface"] == {"types": ["docker.graphdriver/1.0"], "socket": DEFAULT_ADDRESS.name}
    assert plugin["propagatedMount"] == str(DEFAULT_STATE)
    assert plugin["entrypoint"] == ["ducc-graphdriver", "--config", str(DEFAULT_CONFIG)]


def test_systemd_finds_nothing_to_say(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / "ducc-graphdriver.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/ducc-graphdriver", shutil.which("true")))
    words = ["systemd-analyze", "verify", "--man=no", unit]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]

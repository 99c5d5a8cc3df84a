"""moby's own suite for graph drivers, in Go, against our program through moby's proxy for plugins.

Debian ships it as source (golang-github-docker-docker-dev), less two packages of which only names are needed here. Left
out is the test of quotas, which this driver refuses.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.graph_driver import running_graph_driver
from tests.leftovers import mounts
from tests.needs import need_root

pytestmark = pytest.mark.engine

GOPATH = Path("/usr/share/gocode")
PACKAGES = "golang-go golang-github-docker-docker-dev golang-github-vbatts-tar-split-dev"
STUBS = {
    "plugin/v2": """\
package v2

import "github.com/docker/docker/pkg/plugingetter"

type Plugin struct {
	plugingetter.CompatPlugin
	PluginObj struct{ Config struct{ PropagatedMount string } }
}
""",
    "quota": """\
package quota

import "errors"

var ErrQuotaNotSupported = errors.New("no quotas")
""",
}
TESTS = ["Setup", "CreateEmpty", "CreateBase", "CreateSnap", "DeepLayerRead", "DiffApply", "Changes", "Teardown"]
SUITE = r"""
package suite

import (
	"os"
	"testing"

	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/daemon/graphdriver/graphtest"
	"github.com/docker/docker/pkg/idtools"
	"github.com/docker/docker/pkg/plugingetter"
	"github.com/docker/docker/pkg/plugins"
)

type plugin struct{ client *plugins.Client }

func (p plugin) Name() string                  { return "ducc" }
func (p plugin) ScopedPath(path string) string { return path }
func (p plugin) IsV1() bool                    { return true }
func (p plugin) Client() *plugins.Client       { return p.client }

type getter struct{}

func (g getter) Get(name, capability string, mode int) (plugingetter.CompatPlugin, error) {
	client, err := plugins.NewClient("unix://"+os.Getenv("SOCKET"), nil)
	return plugin{client}, err
}
func (g getter) GetAllByCap(string) ([]plugingetter.CompatPlugin, error)        { return nil, nil }
func (g getter) GetAllManagedPluginsByCap(string) []plugingetter.CompatPlugin   { return nil }
func (g getter) Handle(capability string, call func(string, *plugins.Client)) {}

func init() {
	graphdriver.Register("ducc", func(root string, options []string, uids, gids []idtools.IDMap) (
		graphdriver.Driver, error) {
		return graphdriver.GetDriver("plugin", getter{}, graphdriver.Options{
			Root: root, DriverOptions: options, UIDMaps: uids, GIDMaps: gids, ExperimentalEnabled: true,
		})
	})
}

func TestSetup(t *testing.T)         { graphtest.GetDriver(t, "ducc") }
func TestCreateEmpty(t *testing.T)   { graphtest.DriverTestCreateEmpty(t, "ducc") }
func TestCreateBase(t *testing.T)    { graphtest.DriverTestCreateBase(t, "ducc") }
func TestCreateSnap(t *testing.T)    { graphtest.DriverTestCreateSnap(t, "ducc") }
func TestDeepLayerRead(t *testing.T) { graphtest.DriverTestDeepLayerRead(t, 128, "ducc") }
func TestDiffApply(t *testing.T)     { graphtest.DriverTestDiffApply(t, 10, "ducc") }
func TestChanges(t *testing.T)       { graphtest.DriverTestChanges(t, "ducc") }
func TestTeardown(t *testing.T)      { graphtest.PutDriver(t) }
"""


def test_all_that_docker_asks_of_its_own_drivers_is_passed_but_quotas(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_root()
    suite = GOPATH / "src/github.com/docker/docker/daemon/graphdriver/graphtest"
    if shutil.which("go") is None or not suite.is_dir() or not (GOPATH / "src/github.com/vbatts/tar-split").is_dir():
        pytest.skip(f"no Go or no suite: apt-get install {PACKAGES}")
    tmp_path = tmp_path_factory.mktemp("g")  # short, since a socket is below it
    (tmp_path / "suite_test.go").write_text(SUITE)
    _write_missing_packages(tmp_path / "go/src")
    building = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}/go:{GOPATH}", "GOCACHE": tmp_path / "cache"}
    running = {"SOCKET": tmp_path / "g.sock", "TMPDIR": tmp_path, "GOFLAGS": "-buildvcs=false"}
    environment = {**os.environ, **{name: str(value) for name, value in (building | running).items()}}
    subprocess.run(["go", "test", "-c", "-o", "suite"], cwd=tmp_path, env=environment, check=True)
    with running_graph_driver(tmp_path / "driver", address=tmp_path / "g.sock") as driver:
        command = ["./suite", "-test.v"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        told = {name: outcome for outcome, name in re.findall(r"^--- ([A-Z]+): Test(\w+)", done.stdout, re.MULTILINE)}
        assert told == dict.fromkeys(TESTS, "PASS"), done.stdout[-5000:] + driver.log.read_text()[-3000:]
        assert mounts(tmp_path) == []
    shutil.rmtree(tmp_path / "cache")


def _write_missing_packages(sources: Path) -> None:
    """Packages that Debian left out, and gotest.tools by the name under which it is asked for."""
    for name, text in STUBS.items():
        directory = sources / "github.com/docker/docker" / name
        directory.mkdir(parents=True)
        (directory / "stub.go").write_text(text)
    (sources / "gotest.tools").mkdir()
    (sources / "gotest.tools/v3").symlink_to(GOPATH / "src/gotest.tools")

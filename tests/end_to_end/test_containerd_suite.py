"""containerd's own suite for snapshotters, in Go, against our program through its proxy.

Debian ships it as source (golang-github-containerd-containerd-dev); `Rename` is skipped by the suite itself where a
snapshotter is not called overlayfs.
"""

import os
import re
import subprocess

import pytest

from tests.golang import built
from tests.leftovers import mounts
from tests.needs import need_root
from tests.snapshotter import PROGRAM

NEEDS = "github.com/containerd/containerd/snapshots/testsuite"
TESTS = 21
SUITE = r"""
package suite

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/pkg/testutil"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

// A process, with state and socket of its own, for each test.
func start(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	socket := filepath.Join(root, "s.sock")
	program := exec.Command("setpriv", "--pdeathsig", "KILL", os.Getenv("PROGRAM"), "--config", os.Getenv("CONFIG"),
		"--root", filepath.Join(root, "state"), "--address", socket)
	program.Stderr = os.Stderr
	if err := program.Start(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	conn, err := grpc.DialContext(ctx, "unix://"+socket, grpc.WithBlock(), grpc.WithInsecure())
	if err != nil {
		return nil, nil, err
	}
	stop := func() error {
		conn.Close()
		program.Process.Signal(os.Interrupt)
		return program.Wait()
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "ducc"), stop, nil
}

func TestSnapshotter(t *testing.T) {
	testutil.RequiresRoot(t)
	testsuite.SnapshotterSuite(t, "ducc", start)
}
"""


def test_all_that_containerds_overlay_snapshotter_passes_is_passed(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_root()
    tmp_path = tmp_path_factory.mktemp("s")  # short, since sockets are below it
    suite = built(tmp_path, SUITE, package="golang-github-containerd-containerd-dev", needs=NEEDS)
    (tmp_path / "config.toml").write_text('repository = "images.example.org"\nlog-level = "warn"\n')
    running = {"PROGRAM": PROGRAM, "CONFIG": tmp_path / "config.toml", "TMPDIR": tmp_path}
    environment = {**os.environ, **{name: str(value) for name, value in running.items()}}
    command = [suite, "-test.root", "-test.v", "-test.parallel", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = re.findall(r"^    --- ([A-Z]+): TestSnapshotter/(\w+)", done.stdout, re.MULTILINE)
    outcomes = {name: outcome for outcome, name in told}
    assert {name for name, outcome in outcomes.items() if outcome != "PASS"} == {"Rename"}, done.stdout[-5000:]
    assert outcomes["Rename"] == "SKIP"
    assert len(outcomes) == TESTS
    assert mounts(tmp_path) == []

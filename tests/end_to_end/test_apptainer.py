"""Debian's apptainer runs here at all: a plain unpacked directory, without any of our own programs."""

import pytest

from tests import apptainer
from tests.images import build
from tests.trees import unpack

pytestmark = pytest.mark.engine


@pytest.fixture
def plain_root(tmp_path):
    image = build("small")
    return unpack(image.layout, image.tag, tmp_path / "bundle")


@pytest.mark.parametrize(("user", "uid"), [("tester", "1000"), ("root", "0")])
def test_apptainer_executes_a_program_of_a_directory(plain_root, user, uid):
    done = apptainer.exec(plain_root, ["/bin/busybox", "id", "-u"], user=user)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{uid}\n", "")


def test_apptainer_tells_a_failing_program_from_a_failing_container(plain_root):
    assert apptainer.exec(plain_root, ["/bin/busybox", "false"]).returncode == 1
    assert apptainer.exec(plain_root, ["/no/such/program"]).returncode == 255

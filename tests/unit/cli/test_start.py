"""What every start of a command waits for."""

import gc
import json
import subprocess
import sys

import pytest

from ducc.cli.main import main

LATE = {"requests", "packaging", "fastcdc", "click", "rich", "oras.auth", "certifi"}
"""What takes long to import, and most conversions do without."""


def test_a_conversion_waits_for_no_import_that_few_need() -> None:
    program = "import json, sys, ducc.cli.main, ducc.cli.convert; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert LATE.isdisjoint(json.loads(done.stdout))


def test_garbage_is_collected_again_once_a_command_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-image-syntax", "nginx"]) == 0
    assert gc.isenabled()
    with pytest.raises(SystemExit):
        main(["no such command"])
    assert gc.isenabled()

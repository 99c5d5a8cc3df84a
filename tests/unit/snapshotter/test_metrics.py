"""The file that the node exporter reads."""

import stat
from pathlib import Path

import pytest

from snapshotter.metrics import Metrics


def test_the_file_says_calls_and_decisions_and_others_can_read_it(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.called("Prepare", "ALREADY_EXISTS")
    metrics.decided("published")
    metrics.decided("published")
    file = tmp_path / "ducc.prom"
    metrics.write(file)
    text = file.read_text()
    assert 'ducc_snapshotter_calls_total{call="Prepare",code="ALREADY_EXISTS"} 1.0' in text
    assert 'ducc_snapshotter_layers_total{outcome="published"} 2.0' in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_can_not_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        Metrics().write(tmp_path / "none" / "ducc.prom")

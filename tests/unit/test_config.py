import pytest

from ducc import config
from ducc.errors import BadInput


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664])
def test_settings_are_read_from_a_file_that_its_owners_alone_may_change(tmp_path, mode):
    path = tmp_path / "ducc.yaml"
    path.write_text("log-format: json\nstorage: file:///srv\n")
    path.chmod(mode)
    assert config.read_file(path) == {"log_format": "json", "storage": "file:///srv"}


def test_settings_that_everybody_may_change_are_refused(tmp_path):
    path = tmp_path / "ducc.yaml"
    path.write_text("storage: file:///srv\n")
    path.chmod(0o646)
    with pytest.raises(BadInput, match="everybody may change it"):
        config.read_file(path)


@pytest.mark.parametrize("text", ["- a", "a: [", "3", "1: x", "\xff"])
def test_what_is_no_mapping_of_settings_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "ducc.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput) as told:
        config.read_file(path)
    assert str(told.value).count("\n") == 0

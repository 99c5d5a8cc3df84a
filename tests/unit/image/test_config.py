import json

import pytest

from ducc.image.config import ImageConfig, MalformedConfig
from ducc.image.digest import Digest
from ducc.image.strictjson import MalformedDocument

DIFF_ID = f"sha256:{'b' * 64}"


def config(settings: object = None, **changes: object) -> bytes:
    fields = {
        "os": "linux",
        "architecture": "arm",
        "variant": "v7",
        "created": "2026-01-31T12:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
        "history": [{"created_by": "add"}, {"created_by": "env", "empty_layer": True}],
        "config": settings,
        **changes,
    }
    return json.dumps({key: value for key, value in fields.items() if value != "absent"}).encode()


def test_all_that_a_runtime_needs_is_read():
    raw = config(
        {
            "Env": ["PATH=/bin", "EMPTY="],
            "Entrypoint": ["/init", ""],
            "Cmd": [],
            "Labels": {"a": "1"},
            "User": "1000:1000",
            "WorkingDir": "/work",
        }
    )
    read = ImageConfig.parse(raw)
    assert (read.raw, read.digest, str(read.platform)) == (raw, Digest.of(raw), "linux/arm/v7")
    assert (read.os, read.architecture) == ("linux", "arm")
    assert (read.env, read.entrypoint, read.cmd) == (("PATH=/bin", "EMPTY="), ("/init", ""), ())
    assert (read.labels, read.user, read.working_dir) == ({"a": "1"}, "1000:1000", "/work")
    assert (read.created, read.diff_ids) == ("2026-01-31T12:00:00Z", (Digest.parse(DIFF_ID),))
    assert read.layers_in_history == 1


@pytest.mark.parametrize("settings", [None, {}, {"Env": None, "Labels": None, "Cmd": None, "User": None}])
def test_an_image_need_not_say_how_it_is_started(settings):
    read = ImageConfig.parse(config(settings))
    assert (read.env, read.entrypoint, read.cmd, read.labels) == ((), None, None, {})
    assert (read.user, read.working_dir) == ("", "")


def test_an_image_may_have_no_layers_and_no_history():
    read = ImageConfig.parse(config(rootfs={"type": "layers", "diff_ids": None}, history="absent"))
    assert (read.diff_ids, read.layers_in_history) == ((), None)


@pytest.mark.parametrize(
    "raw",
    [
        config(os="absent"),
        config(architecture=None),
        config(architecture=64),
        config(rootfs="absent"),
        config(rootfs={"type": "other", "diff_ids": []}),
        config(rootfs={"type": "layers", "diff_ids": ["sha256:../x"]}),
        config(rootfs={"type": "layers", "diff_ids": DIFF_ID}),
        config({"Cmd": "sh -c true"}),
        config({"Entrypoint": [1]}),
        config({"Env": {"PATH": "/bin"}}),
        config({"Env": ["A=\0"]}),
        config({"Labels": ["a"]}),
        config({"Labels": {"a": 1}}),
        config({"User": 0}),
        config({"env": ["A=1"]}),
        config([]),
        config(history={}),
        config(created=0),
    ],
)
def test_wrong_types_are_refused(raw):
    with pytest.raises(MalformedConfig, match=r"^host/a: "):
        ImageConfig.parse(raw, "host/a")


def test_strings_are_data_whatever_is_in_them():
    label = "<script>\x1b[2J\n" + "x" * 100_000
    assert ImageConfig.parse(config({"Labels": {"a": label}})).labels["a"] == label


@pytest.mark.parametrize("raw", [b"[]", b"x"])
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises((MalformedConfig, MalformedDocument)):
        ImageConfig.parse(raw)

"""The scripts that start an image: whatever strings a config holds come out of a real shell as they went in."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ducc.convert import apptainer
from ducc.image.config import ImageConfig

SHELLS = {"sh": ["/bin/sh"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
FOUND = {name: command for name, command in SHELLS.items() if shutil.which(command[0])}

NASTY = [
    "$(id)",
    "`id`",
    "$HOME",
    "'",
    '"',
    "\\",
    "'\\''",
    "a\nb",
    "*",
    "~",
    "!",
    ";exit 7",
    "-n",
    "--",
    "",
    " ",
    "\x01",
    "é",
    "с",
    "\x7f",
    "${x:-y}",
]
TEXTS = st.one_of(
    st.sampled_from(NASTY), st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
)
WORDS = st.lists(TEXTS, max_size=4)
NAMES = st.from_regex("V_[A-Za-z0-9_]{0,5}", fullmatch=True)
PRINT = ["/bin/sh", "-c", 'printf "%s\\0" "$@"', "_"]
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def config(**fields: object) -> ImageConfig:
    document = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}, "config": fields}
    return ImageConfig.parse(json.dumps(document).encode())


def script(name: str, **fields: object) -> bytes:
    return apptainer.scripts(config(**fields))[f"{apptainer.ROOT}/{name}"]


@pytest.fixture(params=FOUND)
def shell(request) -> list[str]:
    return FOUND[request.param]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def run(shell: list[str], home: Path, text: bytes, *arguments: str, **environment: str) -> list[str]:
    """Run a script; what it printed, NUL after each word."""
    (home / "script").write_bytes(text)
    done = subprocess.run(
        [*shell, "script", *map(os.fsencode, arguments)], cwd=home, env=environment, capture_output=True, check=True
    )
    assert done.stderr == b""
    return [word.decode("utf-8", "surrogateescape") for word in done.stdout.split(b"\0")[:-1]]


@MANY
@given(words=WORDS, arguments=WORDS)
def test_an_entrypoint_gets_its_own_words_and_the_callers(shell, home, words, arguments):
    text = script("runscript", Entrypoint=[*PRINT, *words], Cmd=["unused"])
    if arguments:
        assert run(shell, home, text, *arguments) == words + arguments


@MANY
@given(words=WORDS, cmd=WORDS)
def test_a_command_is_what_an_entrypoint_gets_without_the_callers_words(shell, home, words, cmd):
    assert run(shell, home, script("runscript", Entrypoint=[*PRINT, *words], Cmd=cmd)) == (words + cmd or [""])


@MANY
@given(cmd=WORDS, arguments=WORDS)
def test_without_an_entrypoint_the_callers_words_replace_the_command(shell, home, cmd, arguments):
    text = script("runscript", Cmd=[*PRINT, *cmd])
    assert run(shell, home, text) == (cmd or [""])
    assert run(shell, home, text, *PRINT, *arguments) == (arguments or [""])


def test_an_image_without_any_command_runs_a_shell(shell, home):
    (home / "script").write_bytes(script("runscript"))
    done = subprocess.run(
        [*shell, "script"],
        cwd=home,
        input=b"echo here",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"here\n"


def shown(names: list[str]) -> bytes:
    return b"".join(b'printf "%%s\\0" "${%b-unset}"\n' % name.encode() for name in names)


@MANY
@given(values=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=5))
@example(values={"V_": "a'b\"c$d`e\\f\ng"})
def test_an_environment_comes_out_as_it_went_in(shell, home, values):
    text = script("env/10-docker2singularity.sh", Env=[f"{name}={value}" for name, value in values.items()])
    assert run(shell, home, text + shown(list(values))) == list(values.values())


@MANY
@given(name=NAMES, own=TEXTS, callers=TEXTS.filter(bool))
def test_what_the_caller_set_is_the_callers(shell, home, name, own, callers):
    text = script("env/10-docker2singularity.sh", Env=[f"{name}={own}"])
    assert run(shell, home, text + shown([name]), **{name: callers}) == [callers]


def test_an_environment_is_for_programs_and_not_for_the_script_alone(shell, home):
    text = script("env/10-docker2singularity.sh", Env=["V_a=1", "V_b", "V_c="])
    words = run(
        shell, home, text + b"/usr/bin/env | grep ^V_ | sort | tr '\\n' '\\0'\n", V_b="2", PATH=os.environ["PATH"]
    )
    assert words == ["V_a=1", "V_b=2", "V_c="]


def test_the_path_is_the_images_whatever_the_caller_has(shell, home):
    text = script("env/10-docker2singularity.sh", Env=["PATH=/opt/$x/bin:/bin"])
    assert run(shell, home, text + shown(["PATH"]), PATH="/usr/bin") == ["/opt/$x/bin:/bin"]


def test_of_a_name_that_stands_there_twice_the_last_one_counts(shell, home):
    text = script("env/10-docker2singularity.sh", Env=["V_a=1", "PATH=/a", "V_a=2", "PATH=/b"])
    assert run(shell, home, text + shown(["V_a", "PATH"])) == ["2", "/b"]


@pytest.mark.parametrize("name", ["1A", "A-B", "A.B", "", "A B", "$(id)", "a;b", "é"])
def test_names_that_no_shell_knows_are_left_out_and_told(shell, home, name):
    made = config(Env=[f"{name}=x", "V_a=1"])
    assert apptainer.unusable_names(made) == [name]
    assert run(shell, home, script("env/10-docker2singularity.sh", Env=made.env) + shown(["V_a"])) == ["1"]


def test_names_that_a_shell_keeps_for_itself_break_no_script(shell, home):
    names = [
        "UID",
        "EUID",
        "PPID",
        "SHELLOPTS",
        "BASHOPTS",
        "OPTIND",
        "LINENO",
        "IFS",
        "PS4",
        "_",
        "PWD",
        "BASH_ENV",
        "ENV",
    ]
    text = script("env/10-docker2singularity.sh", Env=[*(f"{name}=not a number" for name in names), "V_a=1"])
    assert run(shell, home, text + shown(["V_a"])) == ["1"]


@pytest.mark.parametrize(
    "name",
    [name for name in apptainer.scripts(config()) if name.endswith(".sh") or "/actions/" in name or "script" in name],
)
def test_every_script_is_one_for_every_shell(shell, home, name):
    nasty = config(Env=[f"V_{number}={text}" for number, text in enumerate(NASTY)], Cmd=NASTY, Entrypoint=NASTY)
    (home / "script").write_bytes(apptainer.scripts(nasty)[name])
    assert name.startswith("/.singularity.d/")
    assert (home / "script").read_bytes().startswith(b"#!/bin/sh\n")
    subprocess.run([*shell, "-n", "script"], cwd=home, check=True, capture_output=True)


def test_labels_and_the_config_are_published_as_data():
    made = config(Labels={"b": "$(id)\n", "a": "é"})
    documents = apptainer.documents(made)
    assert json.loads(documents["/.singularity.d/labels.json"]) == {"b": "$(id)\n", "a": "é"}
    assert documents["/.singularity.d/oci-config.json"] == made.raw

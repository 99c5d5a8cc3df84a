"""Apptainer runs published images from their public paths as it runs those that it built itself of the same image.

Where apptainer itself does not say what the image says (it evaluates quotes and dollars of arguments and variables
once too often), the image's word counts.
"""

import json

import pytest

from tests import apptainer, builders, sid
from tests.builders import Image, write_layout
from tests.end_to_end.published import image_path, repository
from tests.images import build
from tests.images.service import GREETING
from tests.images.small import small
from tests.needs import need_fuse, need_root
from tests.trees import unpack

pytestmark = pytest.mark.engine

HOSTILE = 'it\'s "x" $HOME `id` $(id) \\ * ; é'
SHOW = 'printf "<%s>" "$0" "$@"'
PLAIN = {
    "Env": [
        "PATH=/bin:/own dir",
        "PLAIN=it is plain",
        "EMPTY=",
        "BARE",
        "TWICE=1",
        "LD_LIBRARY_PATH=/own/lib",
        "PS1=own> ",
    ],
    "Entrypoint": ["/bin/sh", "-c", SHOW, "it's an entry point"],
    "Cmd": ["de fault", "", "'"],
    "Labels": {"plain": "x", "org.example.label": "a label"},
    "WorkingDir": "/home/alice",
    "User": "1000",
}
WILD = {
    "Env": ["PATH=/bin", f"HOSTILE={HOSTILE}", "LINES=one\ntwo", "not a name=1", "=", "$(id)=x", "TWICE=1", "TWICE=2"],
    "Entrypoint": ["/bin/sh", "-c", SHOW, HOSTILE],
    "Cmd": [HOSTILE, "", "'", '"', "a\nb", "-n"],
    "Labels": {"hostile": HOSTILE, "lines": "a\nb", "org.example.é": "ü", "": "empty", "__proto__": "x"},
    "WorkingDir": HOSTILE,
    "User": HOSTILE,
    "Volumes": {HOSTILE: {}},
    "ExposedPorts": {HOSTILE: {}},
    "StopSignal": HOSTILE,
    "Shell": [HOSTILE],
}
SETTINGS = {
    "plain": PLAIN,
    "wild": WILD,
    "entrypoint": {"Entrypoint": PLAIN["Entrypoint"]},
    "cmd": {"Cmd": ["/bin/sh", "-c", SHOW, "it's a command"]},
    "nothing": {},
}
IMAGES = {name: Image(small().layers, settings) for name, settings in SETTINGS.items()}
ENVIRONMENT = ["/bin/sh", "-c", "/bin/busybox env"]
OF_THE_PROCESS = ("_", "HOME", "PWD", "SHLVL", "OLDPWD")  # what depends on who runs it, and where


@pytest.fixture(scope="module")
def made(registry, images, tmp_path_factory):
    need_root()
    need_fuse()
    for name, image in IMAGES.items():
        builders.push(registry.host, f"apptainer/{name}", "1", image)
    wishes = [f"http://{registry.host}/apptainer/{name}:1" for name in IMAGES]
    with repository(tmp_path_factory.mktemp("apptainer") / "r") as made:
        made.convert(*wishes, images("service").wish)
        yield made


@pytest.fixture(scope="module")
def root(made):
    with made.served() as url, made.mounted(url) as root:
        yield root


@pytest.fixture(scope="module")
def ours(root, registry):
    """A function: name → the image at its public path."""
    return lambda name: (root / registry.host / f"apptainer/{name}:1").resolve(strict=True)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A function: name → the image as apptainer builds it."""
    need_root()
    directory = tmp_path_factory.mktemp("built")
    directory.chmod(0o755)
    for above in (directory.parent, directory.parent.parent):
        above.chmod(above.stat().st_mode | 0o011)

    def built(name):
        if not (directory / name).exists():
            write_layout(directory / f"{name}.oci", {name: IMAGES[name]})
            command = ["apptainer", "--silent", "build", "--sandbox", f"/srv/{name}", f"oci:/srv/{name}.oci"]
            done = sid.enter(command, directory, "root", directory)
            assert done.returncode == 0, done.stderr
        return directory / name

    return built


def environment(done):
    assert done.returncode == 0, done.stderr
    pairs = [line.split("=", 1) for line in done.stdout.splitlines() if "=" in line]
    return {
        key: value
        for key, value in pairs
        if key not in OF_THE_PROCESS and not key.startswith(("APPTAINER_", "SINGULARITY_"))
    }


def said(done):
    return done.returncode, done.stdout, done.stderr


# --- as on an image that apptainer built ---------------------------------------------------


@pytest.mark.parametrize("user", [apptainer.USER, "root"])
def test_exec_has_the_environment_that_it_has_in_an_image_of_apptainer_s_own(ours, theirs, user):
    for options in ((), ("--env", "PLAIN=the caller's"), ("--cleanenv", "--env", "PREPEND_PATH=/first")):
        seen = [environment(apptainer.exec(place("plain"), ENVIRONMENT, user, options)) for place in (ours, theirs)]
        assert seen[0] == seen[1]
        assert seen[0]["PLAIN"] == ("the caller's" if "PLAIN" in str(options) else "it is plain")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, []) for name in ("plain", "entrypoint", "cmd")),
        *((name, ["two words", "", "*"]) for name in ("plain", "entrypoint")),
        *((name, ["/bin/busybox", "echo", "it's", "two words"]) for name in SETTINGS if name != "wild"),
    ],
)
def test_run_runs_what_it_runs_in_an_image_of_apptainer_s_own(ours, theirs, name, arguments):
    for options in ((), ("--no-eval",)):
        results = [said(apptainer.run(place(name), arguments, options=options)) for place in (ours, theirs)]
        assert results[0][:2] == results[1][:2]


@pytest.mark.parametrize("name", ["plain", "nothing"])
def test_shell_and_test_do_what_they_do_in_an_image_of_apptainer_s_own(ours, theirs, name):
    words = ["-c", 'echo "$0|$PLAIN|$PATH"']
    shells = [said(apptainer.apptainer("shell", place(name), [], options=()))[0] for place in (ours, theirs)]
    assert shells[0] == shells[1] == 0
    commands = [
        said(apptainer.exec(place(name), ["/.singularity.d/actions/shell", *words])) for place in (ours, theirs)
    ]
    assert commands[0] == commands[1]
    tests = [said(apptainer.apptainer("test", place(name))) for place in (ours, theirs)]
    assert tests[0][0] == tests[1][0] == 0
    assert bool(tests[0][1]) == bool(tests[1][1])


@pytest.mark.parametrize("name", ["plain", "wild", "nothing"])
def test_inspect_tells_the_labels_that_an_image_of_apptainer_s_own_has(ours, theirs, name):
    labels = []
    for place in (ours, theirs):
        done = apptainer.apptainer("inspect", place(name), options=["--labels", "--json"])
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)["data"]["attributes"].get("labels") or {}
        labels.append({key: value for key, value in told.items() if not key.startswith("org.label-schema.")})
    assert labels[0] == labels[1] == SETTINGS[name].get("Labels", {})


@pytest.mark.parametrize("what", ["--runscript", "--environment", "--test", "--startscript", "--helpfile"])
def test_inspect_answers_whatever_it_is_asked(ours, theirs, what):
    answers = [apptainer.apptainer("inspect", place("wild"), options=[what]) for place in (ours, theirs)]
    assert answers[0].returncode == answers[1].returncode == 0
    assert bool(answers[0].stdout.strip()) == bool(answers[1].stdout.strip())


# --- as the image says ---------------------------------------------------------------------


@pytest.mark.parametrize("user", [apptainer.USER, "root"])
def test_no_string_of_a_config_is_evaluated(ours, user):
    image = ours("wild")
    assert apptainer.run(image, user=user).stdout == "".join(f"<{word}>" for word in (HOSTILE, *WILD["Cmd"]))
    arguments = [HOSTILE, "", "$HOME", '"', "'"]
    assert apptainer.run(image, arguments, user).stdout == "".join(f"<{word}>" for word in (HOSTILE, *arguments))
    seen = environment(apptainer.exec(image, ["/bin/sh", "-c", 'echo "HOSTILE=$HOSTILE"; echo "TWICE=$TWICE"'], user))
    assert seen == {"HOSTILE": HOSTILE, "TWICE": "2"}
    assert apptainer.exec(image, ["/bin/sh", "-c", 'printf "%s" "$LINES"'], user).stdout == "one\ntwo"


@pytest.mark.parametrize("user", [apptainer.USER, "root"])
def test_a_service_runs_by_its_entrypoint(root, images, user):
    image = image_path(root, images("service"))
    privileges = "--userns" if user == "root" else ""
    script = f"""
        apptainer --silent run {privileges} /mnt & service=$!
        apptainer --silent exec {privileges} /mnt /usr/local/bin/client
        kill $service; wait $service"""
    done = sid.enter(["sh", "-c", script], image, user, unshare=("--pid", "--fork", "--kill-child", "--mount-proc"))
    uid = sid.UID if user == apptainer.USER else 0
    assert done.stdout == f"two words|{GREETING}|{uid}\n", done.stderr


# --- apptainer itself ----------------------------------------------------------------------


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

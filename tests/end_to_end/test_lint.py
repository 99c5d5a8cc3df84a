"""`ducc lint` and `ducc check-image-syntax`, as a merge request's job runs them."""

import csv
import io
import subprocess

import pytest

from tests import builders
from tests.needs import need_program

IMAGE = builders.Image([builders.Layer.of(builders.file("a", b"x"))])
HEX = "a" * 64


@pytest.fixture
def pushed(registry):
    """An image name in the registry with two tags."""
    for tag in ("1.9", "1.10"):
        builders.push(registry.host, "lint/image", tag, IMAGE)
    return f"{registry.url}/lint/image"


def write(path, *items: str) -> None:
    path.write_text("cvmfs_repo: a.b\ninput:\n" + "".join(f"  - {item}\n" for item in items))


def test_a_good_wishlist_is_well_offline_and_online(ducc, tmp_path, pushed):
    write(tmp_path / "w.yaml", f"{pushed}:1.9", f"{{image: '{pushed}:1.*', tags: {{newest: 1, semver: '>=1.10'}}}}")
    assert ducc("lint", tmp_path / "w.yaml").lines == ["wishlists: 1, images looked at: 2, errors: 0, warnings: 0"]
    assert ducc("lint", "--online", tmp_path / "w.yaml", "--json").json["findings"] == []


def test_faults_have_their_place_and_their_exit_status(ducc, tmp_path, pushed):
    path = tmp_path / "w.yaml"
    write(path, f"{pushed}:absent", "me:s3cret@host.org/a:1", f"{{image: '{pushed}:none', ignore_errors: true}}")
    offline = ducc("lint", path, status=2)
    assert offline.lines[0].startswith(f"{path}:4:5: error: ***@host.org/a:1: an @ may only stand before a digest")
    both = ducc("lint", path, "--online", "--json", status=2)
    assert [(one["line"], one["level"], one["kind"]) for one in both.json["findings"]] == [
        (4, "error", "MalformedReference"),
        (3, "error", "NoSuchImage"),
        (5, "warning", "NoSuchImage"),
    ]
    assert "s3cret" not in f"{offline}{both}"
    write(path, f"{pushed}:absent")
    assert ducc("lint", path).status == 0
    annotated = ducc("lint", path, "--online", "--format", "github", status=3)
    assert annotated.lines[0].startswith(f"::error file={path},line=3,col=1,title=NoSuchImage::{pushed}:absent: ")


def test_a_merge_request_answers_only_for_the_lines_that_it_changes(ducc, tmp_path, pushed):
    need_program("git")
    path, diff = tmp_path / "w.yaml", tmp_path / "change.diff"
    write(path, f"{pushed}:dead", "host.org/Malformed")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "w.yaml"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "List"], check=True)

    def lint_after(*items: str, status: int) -> list[int]:
        write(path, f"{pushed}:dead", "host.org/Malformed", *items)
        diff.write_bytes(subprocess.run([*git, "diff"], check=True, capture_output=True).stdout)
        done = ducc("lint", path, "--online", "--diff", diff, "--json", status=status)
        return [one["line"] for one in done.json["findings"]]

    assert lint_after(status=0) == []
    assert lint_after(f"{pushed}:1.9", status=0) == []
    assert lint_after(f"{pushed}:1.9", f"{pushed}:absent", status=3) == [6]
    assert lint_after(f"{pushed}:1.9", "host.org/B", status=2) == [6]
    assert ducc("lint", path, status=2).stdout.count("error: ") == 2


def test_a_diff_may_come_on_standard_input_and_must_be_one(ducc, tmp_path):
    write(tmp_path / "w.yaml", "host.org/Malformed")
    assert ducc("lint", tmp_path / "w.yaml", "--diff", "-").status == 0  # nothing stands on it, so nothing is changed
    (tmp_path / "diff").write_text("nonsense")
    refused = ducc("lint", tmp_path / "w.yaml", "--diff", tmp_path / "diff", status=2)
    assert refused.stderr == "ducc: not a unified diff: make one by git diff, or diff -u\n"
    assert "cannot be read" in ducc("lint", tmp_path / "w.yaml", "--diff", tmp_path / "none", status=2).stderr


def test_a_wishlist_that_is_not_there_is_one_clear_line(ducc, tmp_path):
    assert (
        ducc("lint", tmp_path / "none.yaml", status=2)
        .lines[0]
        .endswith("none.yaml:1:1: error: cannot be read: No such file or directory")
    )
    assert "neither a file nor a URL" in ducc("lint", "ftp://host/x", status=2).stderr


def test_an_image_reference_is_shown_as_it_is_read(ducc):
    table = dict(line.split(maxsplit=1) for line in ducc("check-image-syntax", "docker.io/ubuntu").lines if " " in line)
    assert table["name"] == "https://registry.hub.docker.com/library/ubuntu:latest"
    assert table["path"] == "/registry.hub.docker.com/library/ubuntu:latest"
    assert ducc("check-image-syntax", "--json", "host.org/a:1.*").json["is_wildcard"] is True


@pytest.mark.parametrize(
    ("image", "row"),
    [
        (
            "https://host.org:5000/a/b:1",
            ["https://host.org:5000/a/b:1", "", "https", "host.org:5000", "a/b", "1", "", "false"],
        ),
        (
            f"http://host.org/a@sha256:{HEX}",
            [f"http://host.org/a@sha256:{HEX}", "", "http", "host.org", "a", "", f"sha256:{HEX}", "false"],
        ),
    ],
)
def test_the_table_for_programs_has_the_columns_of_the_go_program(ducc, image, row):
    head, values = csv.reader(io.StringIO(ducc("check-image-syntax", "-z", image).stdout))
    assert head == ["name", "user", "scheme", "registry", "repository", "tag", "digest", "is_thin"]
    assert values == row


def test_what_is_no_image_reference_is_one_line_without_passwords(ducc):
    refused = ducc("check-image-syntax", "https://me:s3cret@host.org/a:1", status=2)
    assert refused.stderr == (
        "ducc: https://***@host.org/a:1: an @ may only stand before a digest; passwords go in the credentials\n"
    )

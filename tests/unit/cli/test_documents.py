"""Completion and manual pages: made from the parsers, so they say what `--help` says; judged by shells and by man."""

import subprocess
from pathlib import Path

import pytest

from ducc.cli import main
from tests.needs import need_program

COMPLETE = """
source {file}
COMP_WORDS=({words}) COMP_CWORD={last} COMP_LINE="{line}" COMP_POINT={point}
$(complete -p {program} | sed 's/.*-F \\([^ ]*\\) .*/\\1/') {program} '{word}' ''
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(file: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(words)
    script = COMPLETE.format(
        file=file, words=" ".join(f"'{word}'" for word in words), last=len(words) - 1, line=line, point=len(line),
        program=words[0], word=words[-1],
    )  # fmt: skip
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {word.strip() for word in done.stdout.splitlines()}


def script_of(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture, program: str = "ducc") -> Path:
    assert main.main(["completion", shell, "--program", program]) == 0
    file = tmp_path / f"completion.{shell}"
    file.write_text(capsys.readouterr().out)
    return file


def test_bash_offers_every_command_and_the_options_of_each(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = script_of("bash", tmp_path, capsys)
    assert completed(file, "ducc", "") >= set(main.COMMANDS)
    assert completed(file, "ducc", "convert", "--dry") == {"--dry-run"}
    assert completed(file, "ducc", "completion", "z") == {"zsh"}


@pytest.mark.parametrize("program", ["ducc-graphdriver", "ducc-snapshotter", "ducc-volumes"])
def test_other_programs_are_completed_too(program: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert completed(script_of("bash", tmp_path, capsys, program), program, "--addr") == {"--address"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_read_what_is_made_for_it(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    program = need_program(shell)
    subprocess.run([program, "-n", script_of(shell, tmp_path, capsys)], check=True)


def test_a_program_that_there_is_not_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["completion", "bash", "--program", "other"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ducc: --program other: there are ducc, ducc-")
    assert len(said.splitlines()) == 1


def test_every_program_and_command_has_a_manual_page_that_man_can_show(tmp_path: Path) -> None:
    assert main.main(["man-pages", str(tmp_path)]) == 0
    pages = {page.stem: page for page in (tmp_path / "man1").iterdir()}
    assert pages.keys() >= {f"ducc-{name}" for name in main.COMMANDS} | {"ducc", "ducc-snapshotter", "ducc-volumes"}
    convert = pages["ducc-convert"].read_text()
    assert convert.startswith('.TH DUCC-CONVERT "1"')
    assert "say what would be done, and do nothing" in convert
    need_program("man")
    shown = subprocess.run(["man", "--warnings", "-l", *pages.values()], capture_output=True, text=True, check=True)
    assert shown.stderr == ""


def test_manual_pages_where_nothing_can_be_written_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert main.main(["man-pages", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

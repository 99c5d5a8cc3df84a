import os
import subprocess
from pathlib import Path

import pytest

from ducc.client.shell import BadConfiguration, evaluate
from tests.needs import need_program

SCRIPTS = {
    "plain": "A=1\nB=two # three\n# C=4\n  D=x#y",
    "quotes": "A='one two'\nB=\"three 'four'\"\nC=a\"b c\"'d e'f\nD=\"\"\nE=''\nF=",
    "escapes": 'A=a\\ b\nB="\\$A \\"x\\" \\\\ \\n"\nC=\'\\$A\'\nD="a\\\nb"',
    "variables": "A=1\nB=$A-${A}x\nC=\"$A$B\"\nD='$A'\nE=${NOT:-a b}\nF=${A:-no}\nA=$A;H=$NOT",
    "sets": 'A=1\nG="${EMPTY-x}${A:+y}${NOT:+z}"',
    "defaults": "E=\nA=${E:-x}\nB=${E-x}\nC=${E:+x}\nD=${E+x}\nF=${N:-$A}\nG=$",
    "declared": "export A=1 B=2\nreadonly C=3\nexport A\nunset B",
    "if": 'if [ "x$A" = x ]; then\n  A=1\nfi\nif [ $A = 2 ]\nthen\nB=2\nelif [ $A = 1 ]; then B=1; C=3\nelse\nB=3\nfi',
    "nested if": "if [ $A ]; then\nif [ $A = 1 ]; then B=1; else B=2; fi\nelse\nif ! [ -z a ]; then B=3; fi\nfi",
    "never mind": "if [ 1 = 2 ]; then\nunknown --command\nelif [ 1 = 1 ]; then A=1\nelif unknown; then A=2; fi",
    "and or": "[ 1 = 1 ] && A=1 || A=2\n[ 1 = 2 ] && B=1 || B=2\n[ 1 = 2 ] ||\n C=1",
    "true or false": "true && D=1; false || E=1; test a != b && F=1",
    "tests": '[ -n "" ] || A=1\n[ -z "" ] && B=1\n[ -f /nowhere ] || C=1',
    "more tests": "[ -d / ] && D=1\n[ ! -e / ] || E=1\n[ x ] && F=1",
    "windows": "A=1\r\nB=2\r\n",
    "urls": "A='http://a/cvmfs/@fqrn@;http://b:8000/cvmfs/@fqrn@'\nB=\"http://x:1|http://y:2;DIRECT\"",
    "several": "A=1 B=2; C=3",
}


def variables(text: str, directory: Path = Path("/nowhere")) -> dict[str, str]:
    values: dict[str, str] = {}
    evaluate(directory / "test.conf", text, values)
    return values


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_file_means_what_a_shell_makes_of_it(name: str, tmp_path: Path) -> None:
    script = SCRIPTS[name].replace("\r", "")
    show = "\n".join(f'[ "${{{one}+x}}" ] && printf "%s\\0" "{one}=${one}"' for one in "ABCDEFGH")
    shell = need_program("bash")
    printed = subprocess.run(
        [shell, "-c", f"{script}\n{show}\ntrue"], env={}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    expected = dict(item.split("=", 1) for item in printed.stdout.split("\0") if item)
    assert variables(SCRIPTS[name]) == expected


def test_a_file_can_take_in_another_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "common.conf").write_text("B=$A$A\n")
    assert variables("A=1\n. ./common.conf\n[ -f common.conf ] && source common.conf", tmp_path) == {
        "A": "1",
        "B": "11",
    }


def test_files_that_take_in_one_another_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test.conf").write_text(". test.conf")
    with pytest.raises(BadConfiguration, match="for ever"):
        variables(". test.conf", tmp_path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("A=1\nB='x", "line 2: a quotation is not closed"),
        ("\n\nrm -rf $HOME", "line 3: `rm` is not understood here"),
        ("A=$(hostname)", "line 1: `\\(` is not understood"),
        ('A="$(hostname)"', "line 1: .* no commands"),
        ("A=`hostname`", "no commands"),
        ("A=${B%%.*}", "no commands"),
        ("if [ 1 = 1 ]; then\nA=1", "line 2: an `if` has no `fi`"),
        ("fi", "`fi` without `if`"),
        ("case $A in", "`case` is not understood"),
        ("cat < /etc/passwd", "`<` is not understood"),
        ("if [ 1 -lt 2 ]; then A=1; fi", "the condition .* is not understood"),
        (". nowhere.conf", "nowhere.conf: No such file"),
        ("A=1 &", "`&` is not understood"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(script: str, reason: str) -> None:
    with pytest.raises(BadConfiguration, match=reason):
        variables(script)


def test_nothing_of_the_environment_is_taken_for_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "NOT_OURS", "x")
    assert variables("A=$NOT_OURS") == {"A": ""}

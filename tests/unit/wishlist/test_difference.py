import difflib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.errors import BadInput
from ducc.wishlist.difference import MalformedDiff, read_diff
from tests.needs import need_program

DIFF = """\
diff --git a/lists/site.yaml b/lists/site.yaml
index 1..2 100644
--- a/lists/site.yaml
+++ b/lists/site.yaml
@@ -1,3 +1,4 @@ input:
 one
+two
-old
+new
 three
@@ -10 +11,2 @@
-ten
+eleven
+twelve
\\ No newline at end of file
"""


def test_added_and_rewritten_lines_are_told_by_their_new_numbers():
    assert read_diff(DIFF).of("/home/me/checkout/lists/site.yaml") == {2, 3, 11, 12}


@pytest.mark.parametrize(
    ("path", "touched"),
    [
        ("/checkout/lists/site.yaml", True),
        ("/lists/site.yaml", True),
        ("/checkout/site.yaml", False),
        ("/checkout/otherlists/site.yaml", False),
        ("/checkout/lists/site.yaml/x", False),
    ],
)
def test_a_file_is_touched_if_its_path_ends_with_the_diffs_name_for_it(path, touched):
    assert (read_diff(DIFF).of(path) is not None) is touched


def test_of_several_names_that_fit_the_longest_is_meant():
    both = "--- w.yaml\n+++ w.yaml\n@@ -0,0 +1 @@\n+x\n--- lists/w.yaml\n+++ lists/w.yaml\n@@ -4,0 +5 @@\n+x\n"
    assert read_diff(both).of("/checkout/lists/w.yaml") == {5}
    assert read_diff(both).of("/checkout/w.yaml") == {1}


@pytest.mark.parametrize(
    ("diff", "path", "lines"),
    [
        ("", "/w.yaml", None),
        ("\n \n", "/w.yaml", None),
        ("--- w.yaml\t2026-01-01 00:00:00\n+++ w.yaml\t2026-01-02 00:00:00\n@@ -1 +1 @@\n-a\n+b\n", "/w.yaml", {1}),
        ("--- /dev/null\n+++ b/w.yaml\n@@ -0,0 +1,2 @@\n+a\n+b\n", "/w.yaml", {1, 2}),
        ("--- a/w.yaml\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n", "/w.yaml", None),
        ("--- a/w.yaml\n+++ b/w.yaml\n@@ -1,2 +1 @@\n a\n-b\n", "/w.yaml", set()),
        ('--- "a/w\\303\\244.yaml"\n+++ "b/w\\303\\244.yaml"\n@@ -0,0 +1 @@\n+a\n', "/wä.yaml", {1}),
        ('--- "a/\\"w\\tx"\n+++ "b/\\"w\\tx"\n@@ -0,0 +1 @@\n+a\n', '/"w\tx', {1}),
        ("--- a/w.yaml\r\n+++ b/w.yaml\r\n@@ -0,0 +1 @@\r\n+a\r\n", "/w.yaml", {1}),
        ("diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n", "/y", None),
        ("--- a/w\n+++ b/w\n@@ -1,2 +1,3 @@\n a\n+++ b/other\n b\n", "/w", {2}),
        ("--- a/w\n+++ b/w\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n", "/w", {3}),
    ],
)
def test_diffs_of_all_kinds_are_read(diff, path, lines):
    assert read_diff(diff).of(path) == lines


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "cvmfs_repo: a.b\ninput: []\n",
        "@@ -1 +1 @@\n-a\n+b\n",
        "--- a/w\n+++ b/w\n@@ -1,2 +1,2 @@\n a\n",
        "--- a/w\n+++ b/w\n@@ -1,2 +1,2 @@\n a\nnonsense\n",
        "--- a/w\n+++ b/w\n@@@ -1 -1 +1 @@@\n  a\n",
    ],
)
def test_what_is_no_whole_diff_is_refused(text):
    with pytest.raises(MalformedDiff) as caught:
        read_diff(text)
    assert len(str(caught.value).splitlines()) == 1


LINES = st.lists(st.sampled_from(["a\n", "b\n", "\n", "+++ c\n", "--- d\n", "@@ -1 +1 @@\n"]), max_size=12)


@given(LINES, LINES)
def test_the_changed_lines_are_those_that_are_not_taken_from_the_old_file(old, new):
    text = "".join(difflib.unified_diff(old, new, "a/w", "b/w"))
    steps = difflib.SequenceMatcher(None, old, new).get_opcodes()
    written = {
        line + 1 for step, _, _, first, end in steps if step in ("insert", "replace") for line in range(first, end)
    }
    assert (read_diff(text).of("/w") or set()) == written


@given(st.text("+-@ \\\n1,abd/", max_size=60))
def test_any_text_is_a_diff_or_bad_input(text):
    try:
        read_diff(text).of("/a")
    except BadInput as error:
        lines = str(error).splitlines()
    else:
        lines = ["read"]
    assert len(lines) == 1


@pytest.mark.parametrize("options", [[], ["--no-prefix"], ["--unified=0"]])
def test_what_git_writes_is_read(tmp_path, options):
    need_program("git")
    (tmp_path / "old").write_text("a\nb\nc\n")
    (tmp_path / "new").write_text("a\nB\nc\nd\n")
    done = subprocess.run(
        ["git", "diff", "--no-index", *options, "old", "new"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert read_diff(done.stdout).of(str(tmp_path / "new")) == {2, 4}

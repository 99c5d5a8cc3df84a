import pytest

from volumes.names import BadVolumeName, SnapshotKind, VolumeName

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "snapshot", "kind"),
    [
        ("repo.example.org", "", SnapshotKind.NEWEST),
        ("repo.example.org@trunk-previous", "trunk-previous", SnapshotKind.TAG),
        ("repo.example.org@generic-2026-11-21T08:00:00Z", "generic-2026-11-21T08:00:00Z", SnapshotKind.TAG),
        ("repo.example.org@v1.2+3", "v1.2+3", SnapshotKind.TAG),
        ("repo.example.org@812", "812", SnapshotKind.REVISION),
        (f"repo.example.org@{HASH}", HASH, SnapshotKind.ROOT_HASH),
        (f"repo.example.org@{HASH.upper()}", HASH.upper(), SnapshotKind.TAG),
    ],
)
def test_a_name_says_repository_and_snapshot(text: str, snapshot: str, kind: SnapshotKind) -> None:
    name = VolumeName.parse(text)
    assert (name.fqrn, name.snapshot, name.kind, str(name)) == ("repo.example.org", snapshot, kind, text)


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "repo", "@tag", "repo.example.org@", "repo.example.org@a@b", "repo.example.org@../..",
        "../repo.example.org", "/cvmfs/repo.example.org", "repo.example.org/", "repo.example.org@a/b", "..", "a..b",
        "repo.example.org@-o", "repo.example.org@.", "repo.example.org@a b", "repo.example.org@a'b", 'r.e@a"b',
        "repo.example.org@$(id)", "repo.example.org\n", "repo.example.org@tag\n", "repo.example.org@t\0",
        "réseau.example.org", "repo.example.org@" + "x" * 201, "x" * 200 + ".org",
    ],
)  # fmt: skip
def test_what_names_no_repository_or_could_be_a_path_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadVolumeName) as refused:
        VolumeName.parse(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400

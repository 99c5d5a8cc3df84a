import pytest

from ducc.errors import BadInput
from ducc.image.digest import Digest
from ducc.image.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Platform
from ducc.image.platform import LINUX_AMD64, NoSuchPlatform, choose, normalised, runnable_on


def index(*platforms: str | None) -> Index:
    entries = (
        Descriptor(OCI_MANIFEST, Digest.of(b"%d" % number), 1, Platform(*name.split("/")) if name else None)
        for number, name in enumerate(platforms)
    )
    return Index(b"{}", Digest.of(b"{}"), OCI_INDEX, tuple(entries))


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["windows/amd64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/x86_64"], 0),
        ("linux/amd64", ["linux/amd64/v1"], 0),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", ["linux/386"], 0),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 1),
        ("linux/amd64/v3", ["linux/amd64/v4", "linux/amd64"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm64", ["linux/aarch64"], 0),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 2),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v7", ["linux/arm/v5"], 0),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm/v7", ["linux/arm"], 0),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v6"], 1),
        ("linux/armhf", ["linux/arm/v7"], 0),
        ("linux/armel", ["linux/arm/v6"], 0),
        ("linux/arm/v8", ["linux/arm/v5", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm/v8", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm/v8"], 1),
        ("linux/arm64", ["linux/arm"], 0),
        ("linux/arm64/v8.2", ["linux/arm64", "linux/arm64/v8.1"], 1),
        ("linux/arm64/v8.2", ["linux/arm64/v8.3", "linux/arm64"], 1),
        ("linux/arm64/v8.2", ["linux/arm64"], 0),
        ("linux/arm64/v9", ["linux/arm64"], 0),
        ("linux/arm64/v9", ["linux/arm64/v8", "linux/arm64/v8.5"], 1),
        ("linux/arm64/v9", ["linux/arm64/v8.6", "linux/arm64/v8.5"], 1),
        ("linux/arm64/v9.2", ["linux/arm64/v8.7", "linux/arm64/v9.1"], 1),
        ("linux/aarch64/v9", ["linux/arm64/v9", "linux/arm64"], 0),
        ("linux/amd64/v4", ["linux/386", "linux/amd64/v2", "linux/amd64/v3"], 2),
        ("linux/amd64/v2", ["linux/386"], 0),
        ("linux/x86-64", ["linux/amd64"], 0),
        ("linux/i386", ["linux/386"], 0),
        ("linux/riscv64", ["linux/amd64", "linux/riscv64"], 1),
        ("linux/s390x", ["linux/s390x"], 0),
        ("windows/amd64", ["linux/amd64", "windows/amd64"], 1),
        ("linux/ppc64le", ["linux/amd64", "linux/ppc64le"], 1),
        ("linux/amd64", [None], 0),
        ("linux/amd64", ["linux/arm64", None], 1),
        ("linux/amd64", [None, "linux/amd64"], 1),
        ("linux/amd64", ["unknown/unknown", "linux/amd64", "unknown/unknown"], 1),
    ],
)
def test_the_build_is_chosen_that_containerd_would_choose(wanted, offered, chosen):
    offer = index(*offered)
    assert choose(offer, Platform.parse(wanted)) == offer.manifests[chosen]


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("linux/amd64", []),
        ("linux/amd64", ["linux/arm64", "linux/s390x"]),
        ("linux/amd64", ["linux/amd64/v2"]),
        ("linux/amd64", ["windows/amd64"]),
        ("linux/amd64", [None, None]),
        ("linux/arm/v6", ["linux/arm/v7"]),
        ("linux/386", ["linux/amd64"]),
        ("linux/arm64", ["linux/amd64", "linux/386"]),
        ("linux/arm64", ["linux/arm64/v9", "linux/arm64/v8.1"]),
        ("linux/arm/v7", ["linux/arm64"]),
        ("linux/arm/v5", ["linux/arm/v6", "linux/arm"]),
        ("linux/ppc64le", ["linux/ppc64"]),
        ("linux/amd64", ["unknown/unknown"]),
    ],
)
def test_what_would_not_run_is_never_chosen(wanted, offered):
    with pytest.raises(NoSuchPlatform):
        choose(index(*offered), Platform.parse(wanted))


def test_the_refusal_lists_what_there_is():
    with pytest.raises(
        NoSuchPlatform, match=r"^host/a:1: no build for linux/amd64; there is: linux/arm/v7, linux/s390x$"
    ):
        choose(index("linux/s390x", "linux/arm", "unknown/unknown"), LINUX_AMD64, "host/a:1")


def test_an_attestation_is_known_by_its_annotation_too():
    entry = Descriptor(
        OCI_MANIFEST, Digest.of(b""), 1, LINUX_AMD64, {"vnd.docker.reference.type": "attestation-manifest"}
    )
    with pytest.raises(NoSuchPlatform):
        choose(Index(b"", Digest.of(b""), OCI_INDEX, (entry,)), LINUX_AMD64)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("Linux/AMD64", "linux/amd64"),
    ],
)
def test_the_spellings_of_the_documentation_mean_what_it_says(written, meant):
    assert str(normalised(Platform(*written.split("/")))) == meant


@pytest.mark.parametrize("variant", ["", "v8", "8", "V8"])
def test_one_platform_has_one_spelling(variant):
    assert normalised(Platform("Linux", "AArch64" if not variant else "arm64", variant)) == Platform("linux", "arm64")


def test_no_platform_is_tried_twice():
    for name in (
        "linux/amd64/v4",
        "linux/arm64/v9",
        "linux/arm64/v9.3",
        "linux/arm64/v8.4",
        "linux/arm64",
        "linux/arm/v8",
        "linux/riscv64",
    ):
        tried = list(runnable_on(Platform.parse(name)))
        assert len(tried) == len(set(tried))


@pytest.mark.parametrize("text", ["", "amd64", "linux/", "linux/a/b/c", "linux/../x", "linux/amd 64"])
def test_what_is_not_a_platform_is_refused(text):
    with pytest.raises(BadInput, match="linux/amd64"):
        Platform.parse(text)

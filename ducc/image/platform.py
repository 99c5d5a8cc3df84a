"""Which build of an image runs on a platform.

A build is good for more than its own platform: arm v6 code runs on v7, 32-bit code on most 64-bit processors. The
order tried is containerd's: the platform itself, then its older variants from new to old, then its 32-bit kin.
Attestations, which stand in an index like builds, are none. Pure: no I/O.
"""

from collections.abc import Iterator

from ducc.image.manifest import Descriptor, Index, Platform, UnsupportedImage

LINUX_AMD64 = Platform("linux", "amd64")

_ARCHITECTURES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_IMPLIED_VARIANTS = {("amd64", "v1"), ("arm64", "v8")}
_ARM64_V9_IS_V8 = 5  # v9.0 can all that v8.5 can, v9.1 all that v8.6 can, and so on
_UNKNOWN = Platform("unknown", "unknown")
_REFERENCE_TYPE = "vnd.docker.reference.type"


class NoSuchPlatform(UnsupportedImage):
    """The image has no build that runs on the platform asked for."""

    def __init__(self, source: str, wanted: Platform, offered: list[Platform]) -> None:
        listed = ", ".join(sorted({ascii(str(platform))[1:-1][:60] for platform in offered})[:20]) or "none"
        super().__init__(f"{source}: no build for {wanted}; there is: {listed}")
        self.wanted, self.offered = wanted, offered


def choose(index: Index, wanted: Platform, source: str = "") -> Descriptor:
    """The entry of *index* that fits *wanted* best; of equals the first.

    An entry that does not say its platform is taken when it is the only one left to take.
    """
    entries = [entry for entry in index.manifests if not is_attestation(entry)]
    builds = [(normalised(entry.platform), entry) for entry in entries if entry.platform is not None]
    for platform in runnable_on(wanted):
        for offered, entry in builds:
            if offered == platform:
                return entry
    unnamed = [entry for entry in entries if entry.platform is None]
    if len(unnamed) == 1:
        return unnamed[0]
    raise NoSuchPlatform(source or f"index {index.digest}", wanted, [platform for platform, _ in builds])


def is_attestation(entry: Descriptor) -> bool:
    """Does the entry say something about a build, rather than being one?"""
    return entry.platform == _UNKNOWN or _REFERENCE_TYPE in entry.annotations


def normalised(platform: Platform) -> Platform:
    """One spelling for each platform: `linux/aarch64/v8` is `linux/arm64`, `linux/arm` is `linux/arm/v7`."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture == "aarch64":
        architecture = "arm64"
    architecture, variant = _ARCHITECTURES.get(architecture, (architecture, variant))
    if variant[:1].isdigit():
        variant = f"v{variant}"
    if architecture == "arm64":
        variant = variant.removesuffix(".0")
    if architecture == "arm" and not variant:
        variant = "v7"
    if (architecture, variant) in _IMPLIED_VARIANTS:
        variant = ""
    return Platform(platform.os.lower(), architecture, variant)


def runnable_on(platform: Platform) -> Iterator[Platform]:
    """The platforms whose code runs on *platform*, best first, normalised."""
    wanted = normalised(platform)
    yield wanted
    if wanted.architecture == "amd64":
        yield from _variants(wanted.os, "amd64", range(_level(wanted, 1) - 1, 0, -1))
        yield Platform(wanted.os, "386")
    elif wanted.architecture == "arm64":
        yield from _older_arm64(wanted)
        yield from _variants(wanted.os, "arm", range(8, 4, -1))
    elif wanted.architecture == "arm":
        yield from _variants(wanted.os, "arm", range(_level(wanted, 7) - 1, 4, -1))


def _older_arm64(wanted: Platform) -> Iterator[Platform]:
    """From new to old, down to the first: v9.1 runs v9, v8.6, v8.5 …, v8.1 and what says no variant."""
    major, minor = _level(wanted, 8), _minor(wanted)
    if major == 9:
        for lower in range(minor - 1, -1, -1):
            yield normalised(Platform(wanted.os, "arm64", f"v9.{lower}"))
        major, minor = 8, minor + _ARM64_V9_IS_V8 + 1
    if major == 8:
        for lower in range(minor - 1, -1, -1):
            yield normalised(Platform(wanted.os, "arm64", f"v8.{lower}"))
    elif major > 9:
        yield Platform(wanted.os, "arm64")


def _variants(os: str, architecture: str, levels: range) -> Iterator[Platform]:
    for level in levels:
        yield normalised(Platform(os, architecture, f"v{level}"))


def _minor(platform: Platform) -> int:
    """The number after the point of a variant: of `v8.2` 2, of `v8` 0."""
    digits = platform.variant.partition(".")[2]
    return int(digits) if digits.isdigit() and len(digits) < 3 else 0


def _level(platform: Platform, implied: int) -> int:
    """The major number of a variant: `v8.2` is 8."""
    digits = platform.variant.removeprefix("v").partition(".")[0]
    return int(digits) if digits.isdigit() and len(digits) < 3 else implied

"""`mount.ducc`: what `mount -t ducc` and a line of /etc/fstab run, as mount(8) calls its helpers.

    repo.example.org  /cvmfs/repo.example.org  ducc  defaults,_netdev  0 0
    none              /cvmfs                   ducc  all,_netdev       0 0

Options of ours: `etc=DIR`, `url=URL`, `storage=URL`, `public_key=FILE`, `cache=DIR`, `cache_limit=GIB`,
`no_xattrs`, `no_prefetch`; `all` for whatever is configured, when it is touched, and with it `idle=SECONDS`. Others are
mount's own and change nothing: it passes `rw` where nobody asked for it, and a repository is read-only, without set-uid
programs and devices, in any case.
"""

import sys
from collections.abc import Iterator, Sequence

from ducc.cli import main as ducc
from ducc.errors import BadInput

_OURS = ("etc", "url", "storage", "public_key", "cache", "cache_limit", "config", "idle")
_OURS_WITHOUT_VALUE = ("no_xattrs", "no_prefetch")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: that of `ducc mount`."""
    try:
        words = list(translated(sys.argv[1:] if argv is None else list(argv)))
    except BadInput as error:
        print(f"mount.ducc: {error}", file=sys.stderr)
        return error.exit_code
    return ducc.main(words)


def translated(words: Sequence[str]) -> Iterator[str]:
    """The words of `ducc` for what mount(8) asks for: `SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`."""
    places: list[str] = []
    options: list[str] = []
    waiting = iter(words)
    yield "mount"
    for word in waiting:
        if word == "-o":
            options += next(waiting, "").split(",")
        elif word in ("-t", "-N"):
            next(waiting, None)
        elif word.startswith("-"):
            yield from ["-v"] if "v" in word else []
        else:
            places.append(word)
    if len(places) == 2 and "all" in options:
        places = [f"--all={places[1]}"]
    elif len(places) != 2:
        raise BadInput("wanted: mount.ducc FQRN DIR [-o OPTIONS]; usually called by mount -t ducc")
    for option in options:
        name, _, value = option.partition("=")
        if name in _OURS and value:
            yield f"--{name.replace('_', '-')}={value}"
        elif option in _OURS_WITHOUT_VALUE:
            yield f"--{name.replace('_', '-')}"
        elif name == "remount":
            raise BadInput("nothing about a mount can be changed: unmount and mount it")
    yield from places

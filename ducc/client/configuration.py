"""What `/etc/cvmfs` says about a repository: the stock client's files, in the stock client's order.

Later files win: `default.conf`, `default.d/*.conf`, `default.local`, `domain.d/DOMAIN.conf`, `.local`,
`config.d/FQRN.conf`, `.local`. Before `default.local` and each `.conf` of a domain or repository comes the file of the
same name of the configuration repository, if `CVMFS_CONFIG_REPOSITORY` names one and it is mounted. A domain is a
repository's name without its first part. Source: format, "Configuration".
"""

import os
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ducc.client.shell import BadConfiguration, evaluate, read_text
from ducc.cvmfs.fqrn import require_fqrn

ETC = Path("/etc/cvmfs")
_MOUNT_DIRECTORY = "/cvmfs"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The parameters of one repository, as the files in *directory* say them; `@fqrn@` and `@org@` are filled in."""

    fqrn: str
    directory: Path
    values: Mapping[str, str]

    def text(self, name: str, default: str = "") -> str:
        """A parameter's value; the default where it is not set or empty."""
        return self.values.get(name) or default

    def is_on(self, name: str, default: bool) -> bool:
        text = self.text(name).lower()
        if text in ("yes", "on", "1", "true"):
            return True
        if text in ("no", "off", "0", "false"):
            return False
        if text:
            raise self.bad(name, "yes or no")
        return default

    def number(self, name: str, default: float, least: float = 0) -> float:
        try:
            value = float(self.text(name) or default)
        except ValueError:
            raise self.bad(name, "a number") from None
        if not least <= value < float("inf"):
            raise self.bad(name, f"a number not below {least:g}")
        return value

    def bad(self, name: str, wanted: str) -> BadConfiguration:
        return BadConfiguration(f"{self.directory}: {name}={self.values.get(name, '')!r}: wanted: {wanted}")


def read_configuration(name: str, directory: Path = ETC, environment: Mapping[str, str] | None = None) -> Configuration:
    """The configuration of the repository *name*; without a dot in it, it is in `CVMFS_DEFAULT_DOMAIN`.

    *environment* is what the files may refer to. Raises `BadConfiguration`.
    """
    if not directory.is_dir():
        raise BadConfiguration(f"{directory}: there is no such directory; say --url or --storage, or make it")
    values: dict[str, str] = {}
    variables = ChainMap(values, dict(os.environ if environment is None else environment))
    for file in _common_files(directory, values):
        _read(file, variables)
    fqrn = require_fqrn(name if "." in name else f"{name}.{values.get('CVMFS_DEFAULT_DOMAIN', '')}".rstrip("."))
    for file in _own_files(directory, values, fqrn):
        _read(file, variables)
    filled = {key: _filled(value, fqrn) for key, value in values.items()}
    return Configuration(fqrn, directory, filled)


def _common_files(directory: Path, values: Mapping[str, str]) -> Iterator[Path]:
    """Each is to be read before the next is asked for, since it may say where that is."""
    yield directory / "default.conf"
    yield from sorted(directory.glob("default.d/*.conf"))
    yield from _shared(values, "", "default.conf")
    yield directory / "default.local"


def _own_files(directory: Path, values: Mapping[str, str], fqrn: str) -> Iterator[Path]:
    for name in (f"domain.d/{fqrn.partition('.')[2]}", f"config.d/{fqrn}"):
        yield from _shared(values, fqrn, f"{name}.conf")
        yield directory / f"{name}.conf"
        yield directory / f"{name}.local"


def _shared(values: Mapping[str, str], fqrn: str, name: str) -> Iterator[Path]:
    """The file of the configuration repository, unless that is the one to be configured."""
    repository = values.get("CVMFS_CONFIG_REPOSITORY", "")
    if repository and repository != fqrn:
        yield Path(values.get("CVMFS_MOUNT_DIR") or _MOUNT_DIRECTORY) / repository / "etc" / "cvmfs" / name


def _read(file: Path, variables: ChainMap[str, str]) -> None:
    if file.is_file():
        evaluate(file, read_text(file), variables)


def _filled(value: str, fqrn: str) -> str:
    return value.replace("@fqrn@", fqrn).replace("@org@", fqrn.partition(".")[0])

"""Make a new, empty repository and the keys that sign it."""

import argparse
import json
from datetime import UTC, datetime

from ducc.cli import options
from ducc.cvmfs.fqrn import require_fqrn
from ducc.cvmfs.manifest import Manifest
from ducc.publish.init import init_repository
from ducc.publish.keys import WHITELIST_DAYS, KeyDirectory
from ducc.publish.settings import PROFILES, RepositorySettings
from ducc.storage.open import open_store

_NEEDED = """\
{fqrn}: repository made, revision {revision}, in {location}
Master key (keep it safe; it renews the whitelist): {keys.master_key}
The whitelist is good for {days} days; renew it with: ducc whitelist renew {fqrn} --storage {storage} --keys {directory}

Clients need {keys.public_key} and a URL that ends in /{fqrn}.
On this machine: ducc mount {fqrn} DIRECTORY --url {location} --public-key {keys.public_key}
Stock client, /etc/cvmfs/config.d/{fqrn}.conf:
    CVMFS_SERVER_URL={location}   # elsewhere: http://SERVER/cvmfs/{fqrn}
    CVMFS_HTTP_PROXY=DIRECT
    CVMFS_PUBLIC_KEY={keys.public_key}
    CVMFS_CLAIM_OWNERSHIP=no
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fqrn", metavar="FQRN", help="the repository's name, as repo.example.org")
    options.add_storage(parser)
    options.add_keys(parser)
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="default",
        help="compression, for good: quick (default), smallest (dense), as stock publishers do (compatible), "
        "or quickest, if all who publish have processors of one kind (fast)",
    )  # fmt: skip
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 made, 2 there is something already, or an argument is wrong."""
    fqrn = require_fqrn(arguments.fqrn)
    key_files = KeyDirectory(arguments.keys.absolute(), fqrn)
    settings = RepositorySettings.of_profile(arguments.profile)
    manifest = init_repository(open_store(arguments.storage, fqrn), key_files, settings, datetime.now(UTC))
    location = f"{arguments.storage.rstrip('/')}/{fqrn}"
    if arguments.json:
        print(json.dumps(_summary(manifest, key_files, location)))
    else:
        directory = key_files.public_key.parent
        print(_NEEDED.format(
            fqrn=fqrn, revision=manifest.revision, location=location, keys=key_files, days=WHITELIST_DAYS,
            storage=arguments.storage, directory=directory,
        ), end="")  # fmt: skip
    return 0


def _summary(manifest: Manifest, key_files: KeyDirectory, location: str) -> dict[str, object]:
    return {
        "fqrn": manifest.fqrn,
        "url": location,
        "revision": manifest.revision,
        "root_hash": manifest.root_hash.hex(),
        "public_key": str(key_files.public_key),
        "master_key": str(key_files.master_key),
    }

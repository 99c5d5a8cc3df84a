"""Verify a whole repository: signatures, catalogs, links, what binds point to, and objects."""

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ducc.check.findings import Finding, Severity
from ducc.check.repository import Seen, check_repository
from ducc.cli import options
from ducc.cvmfs.fqrn import require_fqrn
from ducc.cvmfs.signature import load_master_public_key
from ducc.errors import BadInput
from ducc.publish.keys import KeyDirectory
from ducc.storage.open import open_store

FAULTS_FOUND = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fqrn", metavar="FQRN", help="the repository's name")
    options.add_storage(parser)
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--keys", metavar="DIR", type=Path, help="directory with FQRN.pub, the key to trust")
    key.add_argument("--public-key", metavar="FILE", type=Path, action="append", help="a key to trust")
    parser.add_argument("--data", action="store_true", help="read and verify every object, too")
    parser.add_argument("--jobs", metavar="N", type=int, default=4, help="threads (default %(default)s)")
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 no errors (warnings at most), 4 errors found."""
    fqrn = require_fqrn(arguments.fqrn)
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not arguments.json:
            print(f"{finding.fault.severity} {finding.fault.id} {finding.shown_path}: {finding.text}", flush=True)

    seen = check_repository(
        open_store(arguments.storage, fqrn), fqrn, _trusted_keys(arguments), datetime.now(UTC), report,
        data=arguments.data, workers=max(arguments.jobs, 1),
    )  # fmt: skip
    told = Counter(finding.fault.severity for finding in findings)
    print(json.dumps(_summary(fqrn, seen, findings)) if arguments.json else _summary_line(fqrn, seen, told))
    return FAULTS_FOUND if told[Severity.ERROR] else 0


def _trusted_keys(arguments: argparse.Namespace) -> list[RSAPublicKey]:
    if arguments.keys and not arguments.public_key:
        return [KeyDirectory(arguments.keys, arguments.fqrn).load_master_public_key()]
    try:
        return [load_master_public_key(path.read_bytes()) for path in arguments.public_key or ()]
    except OSError as error:
        raise BadInput(f"{error.filename}: {error.strerror}") from error


def _summary_line(fqrn: str, seen: Seen, told: Counter[Severity]) -> str:
    verdict = f"{told[Severity.ERROR]} errors, {told[Severity.WARNING]} warnings" if told else "no problems found"
    return f"{fqrn}: {verdict} in {seen.catalogs} catalogs, {seen.rows} rows, {seen.objects} objects"


def _summary(fqrn: str, seen: Seen, findings: list[Finding]) -> dict[str, object]:
    return {
        "fqrn": fqrn,
        "catalogs": seen.catalogs,
        "rows": seen.rows,
        "objects": seen.objects,
        "findings": [
            {"severity": one.fault.severity, "id": one.fault.id, "path": one.shown_path, "text": one.text}
            for one in findings
        ],
    }

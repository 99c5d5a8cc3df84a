"""Answers that are no: a status, and the errors' form of the OCI distribution specification ("Error Codes")."""

import json
from collections.abc import Mapping
from types import MappingProxyType

from ducc.errors import DuccError


class Refusal(DuccError):
    """What a client is told in place of what it asked for; *code* is one of the specification's, or Docker's."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers

    @property
    def body(self) -> bytes:
        return json.dumps({"errors": [{"code": self.code, "message": str(self)}]}).encode()


def bad_name(reason: str) -> Refusal:
    return Refusal(400, "NAME_INVALID", reason)


def bad_digest(reason: str) -> Refusal:
    return Refusal(400, "DIGEST_INVALID", reason)


def no_manifest(image: object) -> Refusal:
    return Refusal(404, "MANIFEST_UNKNOWN", f"{image} is not published")


def no_blob(message: str) -> Refusal:
    return Refusal(404, "BLOB_UNKNOWN", message)

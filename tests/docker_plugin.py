"""Speaking to a plugin as dockerd does: JSON, or a stream of unknown length, by HTTP over a unix socket."""

import json
import socket
from collections.abc import Iterable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any


class PluginConnection(HTTPConnection):
    def __init__(self, address: Path) -> None:
        super().__init__("plugin", timeout=120)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._address))

    def ask(self, name: str, body: bytes | Iterable[bytes] | None = None, method: str = "POST") -> tuple[int, bytes]:
        """Status and what was answered."""
        headers = {"Accept": "application/vnd.docker.plugins.v1.2+json", "Host": str(self._address)}
        self.request(method, f"/{name}", body, headers, encode_chunked=body is not None and not isinstance(body, bytes))
        response = self.getresponse()
        return response.status, response.read()

    def call(self, name: str, **fields: object) -> dict[str, Any]:
        """The object that is answered; an error is one, too."""
        _, answer = self.ask(name, json.dumps(fields).encode())
        return json.loads(answer)

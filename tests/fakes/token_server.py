"""A token server for a real registry: it checks a password, or lets anybody pull, and signs what it allows.

The registry trusts the certificate in `certificate_path`. Tokens are JSON Web Tokens by ES256, as the distribution
project's "Token Authentication Implementation" describes them.
"""

import base64
import contextlib
import datetime
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.fakes.configured_registry import configured_registry
from tests.registry import Registry

ISSUER, SERVICE = "test-issuer", "test-registry"


class TokenServer:
    """Answers on loopback. *password* (user:password) is asked of everybody when it is set."""

    def __init__(self, directory: Path, password: str | None = None, lifetime_seconds: int = 300) -> None:
        self.password, self.lifetime_seconds = password, lifetime_seconds
        self.scopes: list[str] = []  # as they were asked for
        self.key_of_the_token = "token"
        self.actions: tuple[str, ...] = ("pull",)  # at most allowed
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _self_signed(self._key)
        self.certificate_path = directory / "token.crt"
        self.certificate_path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def guarded_registry(self, directory: Path) -> Iterator[Registry]:
        """Debian's `docker-registry` over the storage in *directory*, open to those who bring our tokens."""
        with configured_registry(directory, "guarded", self.registry_settings()) as registry:
            yield registry

    def registry_settings(self) -> str:
        """The lines of a registry's configuration that make it ask for our tokens."""
        place = f"realm: {self.realm}, service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {self.certificate_path}"
        return f"auth: {{token: {{{place}}}}}\n"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def token(self, scopes: list[str], actions: tuple[str, ...] | None = None) -> str:
        """Sign access to what *scopes* name, for *actions* at most, if they are other than ours."""
        self.scopes += scopes
        access = []
        for scope in scopes:
            kind, name, asked = scope.split(":")
            allowed = [action for action in asked.split(",") if action in (actions or self.actions)]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "",
            "aud": SERVICE,
            "exp": now + self.lifetime_seconds,
            "nbf": now - 10,
            "iat": now,
            "jti": str(time.monotonic_ns()),
            "access": access,
        }
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_base64url(json.dumps(header).encode())}.{_base64url(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _handler(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = None if server.password is None else base64.b64encode(server.password.encode()).decode()
            if expected is not None and self.headers.get("Authorization") != f"Basic {expected}":
                self._answer(401, {"errors": [{"code": "UNAUTHORIZED"}]})
                return
            self._answer_with_token(parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            """An identity token in a form, as OAuth 2 has it; the password stands for it."""
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != [server.password]:
                self._answer(400, {"error": "invalid_grant"})
                return
            self._answer_with_token(form)

        def _answer_with_token(self, asked: dict[str, list[str]]) -> None:
            token = server.token(asked.get("scope", []))
            self._answer(200, {server.key_of_the_token: token, "expires_in": server.lifetime_seconds})

        def _answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(hashlib.sha256(public).digest()[:8], "big"))
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextlib.contextmanager
def token_server(directory: Path, password: str | None = None, lifetime_seconds: int = 300) -> Iterator[TokenServer]:
    server = TokenServer(directory, password, lifetime_seconds)
    try:
        yield server
    finally:
        server.close()

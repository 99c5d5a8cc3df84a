"""What `docker login`, `podman login` and `apptainer registry login` have left: files of credentials, and helpers.

The files are read when a registry asks who we are, so a login counts at once. Keys name a registry or a namespace of
it; the closest wins. Credential helpers are programs called `docker-credential-NAME`; they are told a registry and
answer with a secret. Sources: docker's "docker login" reference, containers-auth.json(5).
"""

import base64
import binascii
import contextlib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ducc.image.reference import Reference
from ducc.image.strictjson import Fields, MalformedDocument, read_object
from ducc.registry.area import Area, MalformedArea
from ducc.registry.credentials import Credential, MalformedCredentials, refuse_exposed

HELPER_SECONDS = 30.0
MAX_LOGIN_FILE = 1024 * 1024

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_IDENTITY_USER = "<token>"  # what helpers call the user of an identity token


def login_files(environ: Mapping[str, str]) -> list[Path]:
    """Where logins lie, the most important first; those that are not there say nothing."""
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    files: list[Path] = []
    if named := environ.get("REGISTRY_AUTH_FILE"):
        files.append(Path(named))
    else:
        if runtime := environ.get("XDG_RUNTIME_DIR"):
            files.append(Path(runtime) / "containers/auth.json")
        if config := environ.get("XDG_CONFIG_HOME"):
            files.append(Path(config) / "containers/auth.json")
        elif home:
            files.append(home / ".config/containers/auth.json")
    if docker := environ.get("DOCKER_CONFIG"):
        files.append(Path(docker) / "config.json")
    elif home:
        files.append(home / ".docker/config.json")
    if home:
        files.append(home / ".apptainer/docker-config.json")
    return files


@dataclass(frozen=True, slots=True)
class LoginFile:
    """One file of logins, in docker's or podman's form. A file that is not there holds none."""

    path: Path
    helper_seconds: float = HELPER_SECONDS

    def for_image(self, reference: Reference) -> Credential | None:
        """The closest login for that image. Raises `MalformedCredentials`."""
        if not self.path.exists():
            return None
        try:
            fields, mode = self._read()
            for key, area in _logins(fields):
                meant = Credential(area.registry, "", "", area.namespace).covers(reference)
                if meant and (credential := self._credential(fields, key, area, mode)):
                    return credential
        except MalformedDocument as error:
            raise MalformedCredentials(str(error)) from error
        return None

    def _read(self) -> tuple[Fields, int]:
        """What the file says, and its mode."""
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(MAX_LOGIN_FILE + 1)
        except OSError as error:
            raise MalformedCredentials(f"{self.path}: cannot be read: {error.strerror}") from error
        return read_object(data, str(self.path), MAX_LOGIN_FILE), mode

    def _credential(self, fields: Fields, key: str, area: Area, mode: int) -> Credential | None:
        if helper := fields.text_map("credHelpers").get(key):
            return self._ask(helper, key, area)
        auths = fields.child("auths")
        login = auths.child(key) if auths else None
        if login is not None and (credential := self._login(login, area, mode)):
            return credential
        store = fields.text("credsStore", "")
        return self._ask(store, key, area) if store else None  # the entry only says that the store has a login

    def _login(self, login: Fields, area: Area, mode: int) -> Credential | None:
        token, auth = login.text("identitytoken", ""), login.text("auth", "")
        username, password = login.text("username", ""), login.text("password", "")
        if not (token or auth or (username and password)):
            return None
        refuse_exposed(self.path, mode)
        if token:
            return Credential(area.registry, "", token, area.namespace, is_identity_token=True)
        if auth:
            username, password = self._decoded(auth)
        return Credential(area.registry, username, password, area.namespace)

    def _decoded(self, auth: str) -> tuple[str, str]:
        try:
            username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise MalformedCredentials(f"{self.path}: an 'auth' is not the base64 of user:password")
        return username, password.rstrip("\0")

    def _ask(self, helper: str, key: str, area: Area) -> Credential | None:
        """Let a helper say who we are; None when it does not know the registry."""
        if not _HELPER.fullmatch(helper):
            raise MalformedCredentials(f"{self.path}: names a credential helper with an impossible name")
        program = f"docker-credential-{helper}"
        try:
            run = subprocess.run(
                [program, "get"], input=key.encode(), capture_output=True, timeout=self.helper_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise MalformedCredentials(f"{program}: no answer in {self.helper_seconds:g} seconds") from None
        except OSError as error:
            raise MalformedCredentials(f"{program}: cannot be run: {error.strerror}") from error
        if run.returncode:
            if b"credentials not found" in run.stdout + run.stderr:
                return None
            raise MalformedCredentials(f"{program}: failed with status {run.returncode}")
        answer = read_object(run.stdout, f"answer of {program}", MAX_LOGIN_FILE)
        username, secret = answer.text("Username", ""), answer.text("Secret", "")
        if not secret:
            return None
        is_token = username in ("", _IDENTITY_USER)
        return Credential(
            area.registry, "" if is_token else username, secret, area.namespace, is_identity_token=is_token
        )


def _logins(fields: Fields) -> list[tuple[str, Area]]:
    """The keys that name a registry, and what they name, closest first; other programs' other keys are left alone."""
    found = []
    for name in ("credHelpers", "auths"):
        for key in fields.get(name) or ():
            place = key.removeprefix("https://").removeprefix("http://").rstrip("/")
            with contextlib.suppress(MalformedArea):
                found.append((key, Area.parse(re.sub(r"/v[12]$", "", place))))
    return sorted(found, key=lambda login: len(login[1].namespace), reverse=True)

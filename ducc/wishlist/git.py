"""Wishlists in git repositories: `git+URL//path@branch`, by the program `git`.

The branch is asked for first; only when it has moved, its newest commit is fetched, alone, into a directory that goes
again. Git asks nobody for a password, runs no program that a repository brings along, and has limited time. URL, path
and branch are checked so that none of them can be an option or another protocol.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ducc.errors import BadInput, DuccError
from ducc.storage.durable import store_errors
from ducc.wishlist.places import Found
from ducc.wishlist.wish import MAX_BYTES, UnreadableWishlist

PREFIX = "git+"
TIME_LIMIT_SECONDS = 120.0

_URL = re.compile(
    r"(?P<scheme>https|http|ssh|file)://(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?"
    r"(?P<host>[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*)?(?P<path>/[!-~]*)"
)
_PATH = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9_.][A-Za-z0-9_./+ -]*")
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock(?:/|$)|[./]$))[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_COMMIT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")
_USER_IN_URL = re.compile(r"//[^/\s@]+@")
_QUIET = (
    "core.askPass=",
    "credential.interactive=false",
    "core.hooksPath=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
)
_KEPT_VARIABLES = ("GIT_SSL_", "GIT_SSH", "GIT_HTTP_")  # how to reach servers; others would point git elsewhere
_COMMIT_KEY = "commit"


class MalformedGitSource(BadInput):
    """A text that should name a file in a git repository does not."""


class GitFailed(DuccError):
    """The program `git` could not get the file."""

    exit_code = 89
    retryable = True


class GitFile:
    """A file on a branch of a git repository; without a branch, on the one that its server shows first."""

    def __init__(self, url: str, path: str, branch: str | None, scratch: Path | None = None) -> None:
        self._url, self._path, self._reference = url, path, f"refs/heads/{branch}" if branch else "HEAD"
        self._scratch = scratch
        self.name = f"{PREFIX}{url}//{path}" + (f"@{branch}" if branch else "")

    @classmethod
    def parse(cls, text: str, scratch: Path | None = None) -> "GitFile":
        """Read `git+URL//path@branch`. What is fetched lies below *scratch* for a moment.

        Raises `MalformedGitSource`, whose text holds no password.
        """
        scheme, separator, rest = text.removeprefix(PREFIX).partition("://")
        place, slashes, file = rest.rpartition("//")
        path, at, branch = file.partition("@")
        url = f"{scheme}{separator}{place}"
        match = _URL.fullmatch(url)
        if not slashes or match is None or (match["host"] is None) != (match["scheme"] == "file"):
            raise MalformedGitSource(
                "git+…: write git+https://host/repository.git//path@branch (or ssh://, file:///), without password"
            )
        if not _PATH.fullmatch(path) or (at and not _BRANCH.fullmatch(branch)):
            raise MalformedGitSource(f"git+{url}//…: not a path in a repository, or not the name of a branch")
        return cls(url, path, branch or None, scratch)

    def read(self, validators: Mapping[str, str]) -> Found:
        """As `Place.read`. Raises `GitFailed` and `UnreadableWishlist`."""
        with self._directory() as directory:
            git = _Git(directory, self.name, self._url)
            answer = git.run("ls-remote", "--exit-code", "--", self._url, self._reference).decode("ascii", "replace")
            if validators.get(_COMMIT_KEY) == answer.split()[0]:
                return Found(None, validators)
            git.run("init", "--bare", "--quiet", "--template=", ".")
            git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--", self._url, self._reference)
            commit = git.run("rev-parse", "--verify", "FETCH_HEAD^{commit}").decode("ascii", "replace").strip()
            return Found(self._blob(git, commit), {_COMMIT_KEY: commit})

    def _blob(self, git: "_Git", commit: str) -> bytes:
        name = f"{commit}:{self._path}"
        try:
            size = int(git.run("cat-file", "-s", name))
            if size > MAX_BYTES:
                raise UnreadableWishlist(f"{self.name}: larger than {MAX_BYTES} bytes: this is no wishlist")
            return git.run("cat-file", "blob", name)
        except GitFailed as error:
            raise UnreadableWishlist(f"{self.name}: the branch has no such file") from error

    @contextlib.contextmanager
    def _directory(self) -> Iterator[Path]:
        """An empty directory that goes with the block."""
        with contextlib.ExitStack() as stack:
            with store_errors(str(self._scratch or "temporary files")):
                if self._scratch is not None:
                    self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
                directory = stack.enter_context(TemporaryDirectory(prefix="git-", dir=self._scratch))
            yield Path(directory)


class _Git:
    """Runs `git` in one directory, all in all for a limited time."""

    def __init__(self, directory: Path, name: str, url: str) -> None:
        self._directory, self._name = directory, name
        self._environment = _environment(os.environ, url.partition(":")[0])
        self._deadline = time.monotonic() + TIME_LIMIT_SECONDS

    def run(self, *words: str) -> bytes:
        """What it writes. Raises `GitFailed`."""
        settings = [word for setting in _QUIET for word in ("-c", setting)]
        try:
            process = subprocess.Popen(
                ["git", *settings, *words],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise GitFailed(f"{self._name}: the program git can't be run: {error.strerror}") from error
        try:
            output, errors = process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise GitFailed(f"{self._name}: git took longer than {TIME_LIMIT_SECONDS:g} s") from error
        except BaseException:
            _end(process)
            raise
        if process.returncode != 0:
            raise GitFailed(f"{self._name}: {_reason(words[0], process.returncode, errors)}")
        return output


def _environment(environ: Mapping[str, str], protocol: str) -> dict[str, str]:
    """What git may know of ours: nothing that points it to other repositories or to somebody to ask."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("GIT_", "SSH_ASKPASS")) or name.startswith(_KEPT_VARIABLES)
    }
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": protocol, "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    return {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=20", **kept, **own}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git, which nobody has waited for yet, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _reason(command: str, status: int, errors: bytes) -> str:
    """Why git failed, in one line without passwords, which may stand in its own configuration."""
    if command == "ls-remote" and status == 2:
        return "there is no such branch"
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    fatal = next((line for line in lines if line.startswith(("fatal:", "ERROR:"))), lines[-1] if lines else "")
    text = _USER_IN_URL.sub("//***@", fatal.partition(":")[2].strip() or fatal)
    return f"git {command} failed: {ascii(text)[1:-1][:300]}" if text else f"git {command} failed ({status})"

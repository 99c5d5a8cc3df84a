"""A registry that does, now and then, something else than it was asked: in every way that it can.

Its dice are seeded, so the faults are the same ones each time, though not their order, since several threads pull.
Canaries stand wherever a secret may stand.
"""

import base64
import collections
import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests import builders
from tests.builders import Image, Index, Layer, file
from tests.fakes.registry import Answer, FakeRegistry, Seen

FAULTY = 0.15  # of all answers
IMAGES = 30

CANARY = "c4nary"
USER, PASSWORD = f"{CANARY}-user", f"{CANARY}-password"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
CANARIES = (CANARY, BASIC, PASSWORD.encode().hex())

HASTY = ("", "1", "0", "-5", "soon", "Fri, 15 Jan 1999 08:00:00 GMT")  # what a busy registry says of when to come again
ABSURD = (*HASTY, "1000000000", "Fri, 15 Jan 2100 08:00:00 GMT")


def image(number: int) -> Image | Index:
    layers = [
        Layer.of(file("base", b"base" * 3000)),
        Layer.of(file(f"{number}", random.Random(number).randbytes(9000))),
    ]
    amd64 = Image(layers, {"Cmd": [f"{number}"]})
    arm64 = Image(layers[:1], {"Cmd": [f"{number}"]}, platform={"os": "linux", "architecture": "arm64"})
    return Index([amd64, arm64]) if number % 3 == 0 else amd64


class FaultyRegistry(FakeRegistry):
    """Lets in who has a fresh token, and then does what it is asked or something else."""

    def __init__(self, seed: int, after: Sequence[str] = HASTY, window_seconds: int = 1) -> None:
        """*after* is what it says when it is busy, *window_seconds* what its limits are for."""
        super().__init__()
        self.after, self.window_seconds = after, window_seconds
        self.seen = collections.deque(maxlen=10)  # type: ignore[assignment]
        self.failing = True
        self.faults: collections.Counter[str] = collections.Counter()
        self._dice, self._guard = random.Random(seed), threading.Lock()
        self._token = 0

    def answer(self, seen: Seen) -> Answer:
        with self._guard:
            roll, fault = self._dice.random(), self._dice.choice(FAULTS)
            if seen.path == "/token":
                right = self._new_token(seen)
            elif "/bucket/" in seen.path:
                right = super().answer(replace(seen, target=seen.path.removeprefix("/bucket")))
            elif seen.headers.get("Authorization") != f"Bearer {CANARY}-token-{self._token}":
                return Answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{self.url}/token",service="s"'})
            else:
                right = super().answer(seen)
                right = replace(right, headers={**right.headers, **self.limits(76)})
            if not self.failing or roll > FAULTY:
                return right
            self.faults[fault.__name__] += 1
            return fault(self, seen, right)

    def forget_tokens(self) -> None:
        """No token that was given out is good from now on."""
        self._token += 1

    def limits(self, remaining: int) -> dict[str, str]:
        window = f"w={self.window_seconds}"
        return {"RateLimit-Limit": f"100;{window}", "RateLimit-Remaining": f"{remaining};{window}"}

    def _new_token(self, seen: Seen) -> Answer:
        if seen.headers.get("Authorization") != f"Basic {BASIC}":
            return Answer(401, b"{}")
        return Answer(200, json.dumps({"token": f"{CANARY}-token-{self._token}"}).encode())


Fault = Callable[[FaultyRegistry, Seen, Answer], Answer]


def busy(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    after = registry.after[registry.faults["busy"] % len(registry.after)]
    return Answer((429, 503)[registry.faults["busy"] % 2], b"{}", {"Retry-After": after} if after else {})


def broken(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return Answer((500, 502, 504)[registry.faults["broken"] % 3], CANARY.encode())


def refused(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return Answer((400, 403, 404, 410, 451)[registry.faults["refused"] % 5], CANARY.encode())


def cut(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, cut_after=len(right.body) // 2, chunked=registry.faults["cut"] % 2 == 0)


def silent(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, silence_seconds=60, stall_after=len(right.body) // 3 if seen.method == "GET" else None)


def other_bytes(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, body=right.body[::-1])


def shorter(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, body=right.body[:-1])


def longer(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, body=right.body + b" ", chunked=True)


def compressed(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, headers={**right.headers, "Content-Encoding": "gzip"})


def web_page(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return Answer(200, f"<html>{CANARY}".encode(), {"Content-Type": "text/html"})


def lying_header(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, headers={**right.headers, "Docker-Content-Digest": builders.sha256(b"another")})


def redirected(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    """To where it is, by a URL that is a secret itself."""
    return Answer(307, headers={"Location": f"{registry.url}/bucket{seen.path}?signature={CANARY}-signature"})


def led_away(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    places = (
        f"http://{USER}:{PASSWORD}@127.0.0.1/",
        "file:///etc/passwd",
        f"http://127.0.0.1:1/?a={CANARY}-a",
        seen.target,
    )
    return Answer(302, headers={"Location": places[registry.faults["led_away"] % len(places)]})


def token_gone(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    registry.forget_tokens()
    return Answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'})


def bad_challenge(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    challenges = (
        f'Bearer realm="http://169.254.169.254/{CANARY}"',
        'Bearer realm="unterminated',
        "Negotiate",
        f'Bearer realm="{registry.url}/token",scope="repository:other:pull"',
    )
    return Answer(401, b"{}", {"WWW-Authenticate": challenges[registry.faults["bad_challenge"] % len(challenges)]})


def low_limit(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, headers={**right.headers, **registry.limits(3)})


FAULTS: list[Fault] = [
    busy, broken, refused, cut, silent, other_bytes, shorter, longer, compressed, web_page, lying_header, redirected,
    led_away, token_gone, bad_challenge, low_limit,
]  # fmt: skip

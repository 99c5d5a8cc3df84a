"""The pull registry as an ASGI application.

Repositories are read in threads, since a mount may have to wait for its servers. Nobody waits for longer than a
deadline, and of requests beyond a number none is begun.
"""

import asyncio
import logging
from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest

from ducc.errors import DuccError
from ducc.image.reference import DOCKER_HUB, shown
from ducc.mirror.answer import NOT_MODIFIED, Answer, Answers, refused
from ducc.mirror.archives import Part
from ducc.mirror.question import BlobOf, read_question
from ducc.mirror.refusal import Refusal
from ducc.serving import Message, Receive, Send
from ducc.threads import ThreadsLeftBehind

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 30.0
_METHODS = ("GET", "HEAD")
_MOST_AT_ONCE = 1000
_THREADS = 16
_FAULT = Refusal(500, "UNKNOWN", "an answer could not be made; the log of the mirror says why")


class MirrorServer:
    """Answers the pull half of the OCI distribution API at `/v2/`, and at `/metrics` what was asked."""

    def __init__(
        self, answers: Answers, default_registry: str = DOCKER_HUB, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        """*default_registry* is meant by names that do not say a registry."""
        self._answers, self._default_registry = answers, default_registry
        self._deadline_seconds = deadline_seconds
        self._threads = ThreadsLeftBehind(_THREADS, "mirror")
        self._blob_threads = ThreadsLeftBehind(_THREADS, "mirror-blob")  # hashing archives holds up nothing else
        self._under_way = 0
        self._metrics = CollectorRegistry()
        self._requests = Counter(
            "ducc_mirror_requests", "requests answered, by status", ["status"], registry=self._metrics
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self._under_way += 1
        try:
            answer = await self._answer(scope)
            self._requests.labels(str(answer.status)).inc()
            log.info("%s %s: status=%d", scope["method"], shown(scope["raw_path"].decode("latin-1")), answer.status)
            await _send(send, receive, answer, scope["method"])
        finally:
            self._under_way -= 1

    async def _answer(self, scope: Message) -> Answer:
        try:
            if scope["method"] not in _METHODS:
                raise Refusal(405, "UNSUPPORTED", "nothing can be changed here", {"allow": ", ".join(_METHODS)})
            if self._under_way > _MOST_AT_ONCE:
                raise Refusal(429, "TOOMANYREQUESTS", "too many requests at once", {"retry-after": "1"})
            path = scope["raw_path"].partition(b"?")[0]
            if path == b"/metrics":
                return Answer(200, {"content-type": CONTENT_TYPE_LATEST}, generate_latest(self._metrics))
            question = read_question(path, scope["query_string"], self._default_registry)
            threads = self._blob_threads if isinstance(question, BlobOf) else self._threads
            asking = asyncio.get_running_loop().run_in_executor(threads, self._answers.to, question, _headers(scope))
            return await asyncio.wait_for(asking, self._deadline_seconds)
        except Refusal as refusal:
            return refused(refusal)
        except TimeoutError:
            return refused(Refusal(503, "UNAVAILABLE", "a repository does not answer", {"retry-after": "10"}))
        except DuccError as error:
            log.error("no answer: %s", error)
            return refused(_FAULT)


def _headers(scope: Message) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _send(send: Send, receive: Receive, answer: Answer, method: str) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    if answer.status != NOT_MODIFIED:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if isinstance(answer.body, Part) and method != "HEAD":
        await _send_part(send, receive, answer.body)
    else:
        body = b"" if method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})


async def _send_part(send: Send, receive: Receive, part: Part) -> None:
    """Send until the client has it all, or has gone; if the file is too short by now, the connection is broken."""
    gone = asyncio.ensure_future(_disconnection(receive))
    sent = 0
    try:
        while not gone.done() and (piece := await asyncio.to_thread(part.piece, sent)):
            sent += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""A server of repositories that counts what it is asked for: `python -m bench.counting DIRECTORY`.

It prints its port. `GET /counts` answers with the number of requests and bytes so far, as JSON.
"""

import json
import sys
from pathlib import Path

from ducc.serving import Message, Receive, RepositoryServer, Send, listen, serve


class Counting:
    """Passes everything on to a server of repositories, and counts."""

    def __init__(self, directory: Path) -> None:
        self._server = RepositoryServer(directory)
        self._requests = self._bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/counts":
            body = json.dumps({"requests": self._requests, "bytes": self._bytes}).encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        self._requests += 1

        async def counted(message: Message) -> None:
            self._bytes += len(message.get("body", b""))
            await send(message)

        await self._server(scope, receive, counted)


def main() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        serve(Counting(Path(sys.argv[1])), listening, lambda: print(port, flush=True))


if __name__ == "__main__":
    main()

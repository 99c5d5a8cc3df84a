"""The least that any FUSE mount costs: a file system that answers from a dict: `python -m bench.floor SOURCE DIR`.

It shows the local directory SOURCE as it was at the start, over the same line to the kernel as the client and with the
same promises to it, but without catalogs, cache and network. It prints a line when it is mounted, and ends when it is
unmounted.
"""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ducc.client import wire
from ducc.client.connection import Buffer, Connection, Patience, Refused, mount
from ducc.client.fuse import FOR_EVER_SECONDS
from ducc.client.wire import Attributes, Op, Request


class Node(NamedTuple):
    """An entry; *listed* is what a directory answers, in parts of one entry each."""

    path: str
    attributes: Attributes
    children: dict[bytes, int]
    listed: list[bytes]


class Floor:
    """Answers everything at once."""

    def __init__(self, source: str) -> None:
        self._nodes: dict[int, Node] = {}
        self._add(source)

    def answer(self, request: Request, patience: Patience) -> Sequence[Buffer]:
        node = self._nodes[request.inode or wire.ROOT_INODE]
        if request.operation == Op.LOOKUP:
            child = node.children.get(wire.name_in(request.body))
            if child is None:
                return [wire.no_entry(FOR_EVER_SECONDS)]
            return [wire.entry(self._nodes[child].attributes, FOR_EVER_SECONDS)]
        if request.operation == Op.GETATTR:
            return [wire.attributes(node.attributes, FOR_EVER_SECONDS)]
        if request.operation == Op.READDIRPLUS:
            return self._page(node, *wire.read_in(request.body))
        if request.operation == Op.READ:
            return self._content(request, node)
        if request.operation == Op.READLINK:
            return [os.fsencode(os.readlink(node.path))]
        if request.operation == Op.STATFS:
            return [wire.statfs(wire.PAGE, 0, 0, 255)]
        raise Refused(errno.ENOSYS)

    def ahead(self, request: Request) -> Sequence[Buffer]:
        return ()

    def rest(self) -> None:
        """Nothing is left to do."""

    def refusal(self, request: Request, error: BaseException) -> Refused:
        return Refused(errno.EIO)

    def forgotten(self, inodes: Sequence[int]) -> None:
        """What was dropped can be looked up again."""

    def _add(self, path: str) -> int:
        inode = len(self._nodes) + 1
        status = os.lstat(path)
        seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
        attributes = Attributes(
            inode, status.st_mode, status.st_nlink, status.st_uid, status.st_gid,
            status.st_size, status.st_blocks, status.st_rdev, seconds, nanoseconds,
        )  # fmt: skip
        node = self._nodes[inode] = Node(path, attributes, {}, [])
        if os.path.isdir(path) and not os.path.islink(path):
            for position, name in enumerate(sorted(os.listdir(path)), 1):
                child = node.children[os.fsencode(name)] = self._add(f"{path}/{name}")
                shown = self._nodes[child].attributes
                listed = wire.directory_entry(child, shown.mode, os.fsencode(name), position)
                node.listed.append(wire.entry(shown, FOR_EVER_SECONDS) + listed)
        return inode

    def _page(self, node: Node, position: int, room: int) -> list[bytes]:
        parts: list[bytes] = []
        for part in node.listed[position:]:
            room -= len(part)
            if room < 0:
                break
            parts.append(part)
        return parts

    def _content(self, request: Request, node: Node) -> Sequence[Buffer]:
        offset, size = wire.read_in(request.body)
        descriptor = os.open(node.path, os.O_RDONLY)
        try:
            return [request.room[: os.preadv(descriptor, [request.room[:size]], offset)]]
        finally:
            os.close(descriptor)


def main() -> None:
    source, directory = sys.argv[1], Path(sys.argv[2])
    floor = Floor(source)
    line = mount(directory, ["ro", "nosuid", "nodev", "noatime", "default_permissions", "allow_other"])
    connection = Connection(line, floor, lambda: None)
    print("mounted", flush=True)
    connection.serve()


if __name__ == "__main__":
    main()

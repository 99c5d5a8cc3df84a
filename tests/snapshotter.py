"""`ducc-snapshotter` as a stranger runs it, and a client that speaks to it as containerd does."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from ducc import layout
from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from snapshotter.api import snapshots_pb2 as api
from snapshotter.service import SERVICE
from tests.plugin_program import PluginProgram

PROGRAM = Path(sys.executable).with_name("ducc-snapshotter")
CAPABILITIES = "-all,+chown,+dac_override,+fowner"  # what its systemd unit leaves it of root


class Client:
    """The ten calls at a socket; what is refused is a `grpc.RpcError` with its code."""

    def __init__(self, address: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{address}")

    def close(self) -> None:
        self._channel.close()

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[api.Mount]:
        request = api.PrepareSnapshotRequest(key=key, parent=parent, labels=labels)
        return list(self._call("Prepare", request, api.PrepareSnapshotResponse).mounts)

    def abandon(self, key: str, parent: str, seconds: float) -> None:
        """Begin a Prepare, and take it back after that time, whatever has become of it."""
        request = api.PrepareSnapshotRequest(key=key, parent=parent)
        call = self._channel.unary_unary(
            f"/{SERVICE}/Prepare",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=api.PrepareSnapshotResponse.FromString,
        ).future(request)
        time.sleep(seconds)
        call.cancel()

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[api.Mount]:
        request = api.ViewSnapshotRequest(key=key, parent=parent, labels=labels)
        return list(self._call("View", request, api.ViewSnapshotResponse).mounts)

    def mounts(self, key: str) -> list[api.Mount]:
        return list(self._call("Mounts", api.MountsRequest(key=key), api.MountsResponse).mounts)

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        self._call("Commit", api.CommitSnapshotRequest(name=name, key=key, labels=labels, parent=parent), Empty)

    def remove(self, key: str) -> None:
        self._call("Remove", api.RemoveSnapshotRequest(key=key), Empty)

    def stat(self, key: str) -> api.Info:
        return self._call("Stat", api.StatSnapshotRequest(key=key), api.StatSnapshotResponse).info

    def update(self, name: str, labels: Mapping[str, str], *paths: str) -> api.Info:
        request = api.UpdateSnapshotRequest(
            info=api.Info(name=name, labels=labels), update_mask=FieldMask(paths=list(paths))
        )
        return self._call("Update", request, api.UpdateSnapshotResponse).info

    def names(self, *filters: str) -> list[str]:
        call = self._channel.unary_stream(
            f"/{SERVICE}/List",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=api.ListSnapshotsResponse.FromString,
        )
        return [info.name for page in call(api.ListSnapshotsRequest(filters=filters), timeout=60) for info in page.info]

    def usage(self, key: str) -> api.UsageResponse:
        return self._call("Usage", api.UsageRequest(key=key), api.UsageResponse)

    def cleanup(self) -> None:
        self._call("Cleanup", api.CleanupRequest(), Empty)

    def _call(self, name: str, request, response):
        call = self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return call(request, timeout=60)


@dataclass
class Program(PluginProgram):
    """One installation in *directory*: settings, state, socket, log. It can be started and killed again and again."""

    directory: Path
    repositories: Sequence[tuple[str, *tuple[Path, ...]]]
    settings: str = ""

    @property
    def address(self) -> Path:
        return self.directory / "run" / "s.sock"

    @property
    def root(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> Path:
        return self.directory / "snapshotter.log"

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "config.toml"
        tables = ["\n".join(_table(name, *places)) for name, *places in self.repositories]
        places = f'root = "{self.root}"\naddress = "{self.address}"\n'
        config.write_text(places + self.settings + "".join(tables))
        sandbox = ("--bounding-set", CAPABILITIES)
        self.run(PROGRAM, ("--config", config), sandbox, self.log, self._listens)

    @contextmanager
    def client(self) -> Iterator[Client]:
        client = Client(self.address)
        try:
            yield client
        finally:
            client.close()

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.address)) == 0


def _table(name: str, mountpoint: Path, *second: Path) -> Iterator[str]:
    yield from ("[[repositories]]", f'name = "{name}"', f'mountpoint = "{mountpoint}"')
    yield from (f'mountpoint-without-xattrs = "{place}"' for place in second)
    yield ""


@contextmanager
def running_snapshotter(
    directory: Path, *repositories: tuple[str, *tuple[Path, ...]], settings: str = ""
) -> Iterator[Program]:
    """Run with *repositories* (name, mountpoint, and a second one without attributes or none) until the block ends."""
    program = Program(directory, repositories, settings)
    program.start()
    try:
        yield program
    finally:
        program.kill()


@contextmanager
def repository_mount(directory: Path, content: Path | None = None) -> Iterator[Path]:
    """A directory that is a mountpoint, as a repository's is: of *content*, or of what is put there meanwhile."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", content or directory, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def publish(repository: Path, digest: str) -> Path:
    """The new directory of the layer *digest* (`sha256:…`), which fits anywhere, and whose diff id is the same."""
    named = Digest.parse(digest)
    layer = repository / os.fsdecode(layout.layer_tree(named)[1:])
    layer.mkdir(parents=True)
    anywhere = repository / os.fsdecode(layout.layer_anywhere(named)[1:])
    anywhere.parent.mkdir()
    anywhere.write_text(f"{named}\n")
    return layer


def publish_whole(repository: Path, *digests: str) -> Path:
    """The new directory of layers of `publish` (base first) as one."""
    whole = layout.whole_stack(Digest.parse(digests[-1]), Digest.parse(chain(*digests)))
    directory = repository / os.fsdecode(whole[1:])
    directory.mkdir(parents=True)
    return directory


def chain(*digests: str) -> str:
    """The chain id of layers of `publish`, base first."""
    return str(chain_ids([Digest.parse(digest) for digest in digests])[-1])


@contextmanager
def mounted(mounts: Sequence[api.Mount], directory: Path) -> Iterator[Path]:
    """What containerd would see of a snapshot with these *mounts*."""
    (mount,) = mounts
    directory.mkdir(exist_ok=True)
    kind = [] if mount.type == "bind" else ["-t", mount.type]
    options = ",".join(mount.options)
    subprocess.run(["mount", *kind, "-o", options, mount.source, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)

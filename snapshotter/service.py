"""The ten calls on the wire: messages to values and back, errors to status codes."""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from ducc.errors import DuccError
from ducc.rootfs.overlay import Mount
from ducc.rootfs.published import LayersUnavailable
from snapshotter.api import snapshots_pb2 as api
from snapshotter.calls import Snapshotter
from snapshotter.server import Answer, Method, Status
from snapshotter.snapshots import InvalidRequest, Snapshot, SnapshotExists, UnknownSnapshot, WrongState

log = logging.getLogger("ducc.snapshotter")

SERVICE = "containerd.services.snapshots.v1.Snapshots"

_CODES = {
    UnknownSnapshot: Status.NOT_FOUND,
    SnapshotExists: Status.ALREADY_EXISTS,
    WrongState: Status.FAILED_PRECONDITION,
    InvalidRequest: Status.INVALID_ARGUMENT,
    LayersUnavailable: Status.UNAVAILABLE,
}
_PAGE = 100  # snapshots in one message of a list

Observe = Callable[[str, str], None]


class Calls:
    """Each method is one call: a request to a response, or to an error that `methods` puts in gRPC's words."""

    def __init__(self, snapshotter: Snapshotter) -> None:
        self._snapshotter = snapshotter

    def prepare(self, request: api.PrepareSnapshotRequest) -> api.PrepareSnapshotResponse:
        mounts = self._snapshotter.prepare(request.key, request.parent, dict(request.labels))
        return api.PrepareSnapshotResponse(mounts=map(_mount, mounts))

    def view(self, request: api.ViewSnapshotRequest) -> api.ViewSnapshotResponse:
        mounts = self._snapshotter.view(request.key, request.parent, dict(request.labels))
        return api.ViewSnapshotResponse(mounts=map(_mount, mounts))

    def mounts(self, request: api.MountsRequest) -> api.MountsResponse:
        return api.MountsResponse(mounts=map(_mount, self._snapshotter.mounts(request.key)))

    def commit(self, request: api.CommitSnapshotRequest) -> Empty:
        self._snapshotter.commit(request.name, request.key, dict(request.labels), request.parent)
        return Empty()

    def remove(self, request: api.RemoveSnapshotRequest) -> Empty:
        self._snapshotter.remove(request.key)
        return Empty()

    def stat(self, request: api.StatSnapshotRequest) -> api.StatSnapshotResponse:
        return api.StatSnapshotResponse(info=_info(self._snapshotter.stat(request.key)))

    def update(self, request: api.UpdateSnapshotRequest) -> api.UpdateSnapshotResponse:
        info = request.info
        changed = self._snapshotter.update(info.name, dict(info.labels), list(request.update_mask.paths))
        return api.UpdateSnapshotResponse(info=_info(changed))

    def list(self, request: api.ListSnapshotsRequest) -> Iterator[api.ListSnapshotsResponse]:
        found = self._snapshotter.listed(request.filters)
        for first in range(0, len(found), _PAGE):
            yield api.ListSnapshotsResponse(info=map(_info, found[first : first + _PAGE]))

    def usage(self, request: api.UsageRequest) -> api.UsageResponse:
        used = self._snapshotter.usage(request.key)
        return api.UsageResponse(size=used.size_bytes, inodes=used.inodes)

    def cleanup(self, request: api.CleanupRequest) -> Empty:
        self._snapshotter.cleanup()
        return Empty()


def methods(snapshotter: Snapshotter, observe: Observe = lambda call, code: None) -> dict[str, Method]:
    """What a server is to be given, by path. *observe* hears of each call that ended: its name and its status code."""
    calls = Calls(snapshotter)
    single: list[tuple[str, Callable[[Any], Message], type[Message]]] = [
        ("Prepare", calls.prepare, api.PrepareSnapshotRequest),
        ("View", calls.view, api.ViewSnapshotRequest),
        ("Mounts", calls.mounts, api.MountsRequest),
        ("Commit", calls.commit, api.CommitSnapshotRequest),
        ("Remove", calls.remove, api.RemoveSnapshotRequest),
        ("Stat", calls.stat, api.StatSnapshotRequest),
        ("Update", calls.update, api.UpdateSnapshotRequest),
        ("Usage", calls.usage, api.UsageRequest),
        ("Cleanup", calls.cleanup, api.CleanupRequest),
    ]
    answered = {name: _answered(name, _only(call), request, observe) for name, call, request in single}
    answered["List"] = _answered("List", calls.list, api.ListSnapshotsRequest, observe)
    return {f"/{SERVICE}/{name}": Method(call, at_once=name == "Stat") for name, call in answered.items()}


def _only(call: Callable[[Any], Message]) -> Callable[[Any], Iterable[Message]]:
    return lambda request: (call(request),)


def _answered(
    name: str, call: Callable[[Any], Iterable[Message]], request: type[Message], observe: Observe
) -> Callable[[bytes], Answer]:
    def answer(data: bytes) -> Answer:
        try:
            messages = tuple(message.SerializeToString() for message in call(request.FromString(data)))
        except Exception as error:  # noqa: BLE001 - the border: whatever it is, the caller hears of it
            status, text = _status(name, error)
            observe(name, status.name)
            return Answer(status, text)
        observe(name, Status.OK.name)
        return Answer(Status.OK, messages=messages)

    return answer


def _status(name: str, error: Exception) -> tuple[Status, str]:
    if isinstance(error, DuccError):
        return _CODES.get(type(error), Status.UNKNOWN), str(error)
    if isinstance(error, (OSError, sqlite3.OperationalError)):
        log.error("%s failed: %s", name, error)
        return Status.UNAVAILABLE, f"the snapshotter's own files: {error}"
    if isinstance(error, DecodeError):
        return Status.INTERNAL, "the message can't be read"
    log.error("%s failed by a fault of ducc-snapshotter", name, exc_info=error)
    return Status.INTERNAL, "a fault of ducc-snapshotter; its log has more"


def _mount(mount: Mount) -> api.Mount:
    return api.Mount(type=mount.type, source=mount.source, options=mount.options)


def _info(snapshot: Snapshot) -> api.Info:
    return api.Info(
        name=snapshot.name,
        parent=snapshot.parent,
        kind=api.Kind.Name(snapshot.kind),
        labels=snapshot.labels,
        created_at=_timestamp(snapshot.created_ns),
        updated_at=_timestamp(snapshot.updated_ns),
    )


def _timestamp(nanoseconds: int) -> Timestamp:
    seconds, rest = divmod(nanoseconds, 10**9)
    return Timestamp(seconds=seconds, nanos=rest)

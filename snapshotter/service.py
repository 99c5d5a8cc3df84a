"""The ten calls on the wire: messages to values and back, errors to status codes."""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ducc.errors import DuccError
from ducc.rootfs.overlay import Mount
from ducc.rootfs.published import LayersUnavailable
from snapshotter.api import snapshots_pb2 as api
from snapshotter.calls import Snapshotter
from snapshotter.snapshots import InvalidRequest, Snapshot, SnapshotExists, UnknownSnapshot, WrongState

log = logging.getLogger("ducc.snapshotter")

SERVICE = "containerd.services.snapshots.v1.Snapshots"

_CODES = {
    UnknownSnapshot: grpc.StatusCode.NOT_FOUND,
    SnapshotExists: grpc.StatusCode.ALREADY_EXISTS,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    LayersUnavailable: grpc.StatusCode.UNAVAILABLE,
}
_PAGE = 100  # snapshots in one message of a list

Observe = Callable[[str, str], None]


class Calls:
    """Each method is one call: a request to a response, or to an error that `handler` puts in gRPC's words."""

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


def handler(snapshotter: Snapshotter, observe: Observe = lambda call, code: None) -> grpc.GenericRpcHandler:
    """What a gRPC server is to be given. *observe* hears of each call that ended: its name and its status code."""
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
    methods = {
        name: grpc.unary_unary_rpc_method_handler(_answered(name, call, observe), request.FromString, _serialized)
        for name, call, request in single
    }
    methods["List"] = grpc.unary_stream_rpc_method_handler(
        _streamed("List", calls.list, observe), api.ListSnapshotsRequest.FromString, _serialized
    )
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _answered(
    name: str, call: Callable[[Any], Message], observe: Observe
) -> Callable[[Any, grpc.ServicerContext], Message]:
    def answer(request: Any, context: grpc.ServicerContext) -> Message:
        try:
            response = call(request)
        except Exception as error:  # the border: whatever it is, the caller hears of it
            code, text = _status(name, error)
            observe(name, code.name)
            context.abort(code, text)
            raise  # not reached: abort raises
        observe(name, grpc.StatusCode.OK.name)
        return response

    return answer


def _streamed(
    name: str, call: Callable[[Any], Iterable[Message]], observe: Observe
) -> Callable[[Any, grpc.ServicerContext], Iterator[Message]]:
    def whole(request: Any) -> Any:
        return list(call(request))

    answered = _answered(name, whole, observe)

    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        yield from answered(request, context)  # type: ignore[misc]  # a list of messages in place of one

    return answer


def _status(name: str, error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, DuccError):
        return _CODES.get(type(error), grpc.StatusCode.UNKNOWN), str(error)
    if isinstance(error, (OSError, sqlite3.OperationalError)):
        log.error("%s failed: %s", name, error)
        return grpc.StatusCode.UNAVAILABLE, f"the snapshotter's own files: {error}"
    log.error("%s failed by a fault of ducc-snapshotter", name, exc_info=error)
    return grpc.StatusCode.INTERNAL, "a fault of ducc-snapshotter; its log has more"


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


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

"""HTTP/2 for gRPC: bytes in, requests out; answers in, bytes out. Pure: no socket, no clock, no thread.

Only what a gRPC server on a unix socket needs: a request is headers and a body that fits in memory, an answer is
headers, a body and trailers. Header compression is the `hpack` library's; what is sent is compressed by no table, so
that an answer depends on none before it. Source: RFC 9113 (frames, streams, flow control); gRPC over HTTP/2.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from hpack import Decoder
from hpack.exceptions import HPACKError

from ducc.errors import DuccError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_REQUEST = 16 << 20  # bytes of a body, as much as containerd sends
MOST_STREAMS = 1000  # at a time in a connection

_LARGEST_FRAME = 1 << 14
_LARGEST_HEADERS = 1 << 16
_LARGEST_WINDOW = (1 << 31) - 1
_DEFAULT_WINDOW = (1 << 16) - 1
_HEAD = struct.Struct(">HBBBI")  # length (24 bits), type, flags, stream
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")


class _Frame(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class _Setting(IntEnum):
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class Fault(IntEnum):
    """Error codes of RFC 9113, section 7."""

    PROTOCOL = 1
    FLOW_CONTROL = 3
    FRAME_SIZE = 6
    REFUSED_STREAM = 7
    COMPRESSION = 9


_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20


class BrokenConnection(DuccError):
    """The peer does not speak HTTP/2 as it must; nothing can be made of what follows."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__(why)
        self.fault = fault


@dataclass(slots=True)
class Request:
    """One that has arrived whole. *is_too_large*: of its body only a part was kept."""

    stream: int
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    is_too_large: bool = False


@dataclass(slots=True)
class _Answer:
    """What has still to be sent to a stream: *body* as far as windows allow, then *trailers*."""

    body: memoryview
    trailers: bytes


class Connection:
    """The server's end of one connection. Not thread-safe: whoever has it locks it."""

    def __init__(self) -> None:
        self._arrived = bytearray()
        self._expected = PREFACE
        self._decoder = Decoder(max_header_list_size=_LARGEST_HEADERS)
        self._block: tuple[int, int, bytearray] | None = None  # headers that go on: stream, flags, what came of them
        self._last_stream = 0
        self._arriving: dict[int, Request] = {}
        self._windows: dict[int, int] = {}  # what may be sent, of streams that are open to us
        self._answers: dict[int, _Answer] = {}  # those that wait for a window, the oldest first
        self._window, self._first_window, self._largest_frame = _DEFAULT_WINDOW, _DEFAULT_WINDOW, _LARGEST_FRAME
        self._out: list[bytes] = []
        settings = {
            _Setting.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
            _Setting.INITIAL_WINDOW_SIZE: _LARGEST_WINDOW,  # `LARGEST_REQUEST` is the bound
        }
        self._send(_Frame.SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in settings.items()))
        self._send(_Frame.WINDOW_UPDATE, 0, 0, _NUMBER.pack(_LARGEST_WINDOW - _DEFAULT_WINDOW))

    def to_send(self) -> bytes:
        """What is to be sent to the peer now, once."""
        out, self._out = b"".join(self._out), []
        return out

    def receive(self, data: bytes) -> list[Request]:
        """The requests that *data* completes. Raises `BrokenConnection`, after which there is only `to_send`."""
        self._arrived += data
        try:
            return list(self._requests())
        except BrokenConnection as error:
            self._send(_Frame.GOAWAY, 0, 0, struct.pack(">II", self._last_stream, error.fault))
            raise

    def answer(self, stream: int, headers: bytes, body: bytes, trailers: bytes) -> None:
        """Answer the request of *stream*; *headers* and *trailers* as `encoded`. Does nothing if it was taken back."""
        if stream not in self._windows:
            return
        if headers:
            self._send(_Frame.HEADERS, _END_HEADERS, stream, headers)
        self._answers[stream] = _Answer(memoryview(body), trailers)
        self._send_answers()

    # --- receiving ---

    def _requests(self) -> Iterator[Request]:
        if self._expected:
            if not PREFACE.startswith(self._arrived[: len(PREFACE)]):
                raise BrokenConnection(Fault.PROTOCOL, "what began is not HTTP/2")
            if len(self._arrived) < len(PREFACE):
                return
            del self._arrived[: len(PREFACE)]
            self._expected = b""
        while len(self._arrived) >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(self._arrived)
            length = high << 8 | low
            if length > _LARGEST_FRAME:
                raise BrokenConnection(Fault.FRAME_SIZE, f"a frame has {length} bytes")
            if len(self._arrived) < _HEAD.size + length:
                return
            payload = bytes(self._arrived[_HEAD.size : _HEAD.size + length])
            del self._arrived[: _HEAD.size + length]
            if request := self._frame(kind, flags, stream & _LARGEST_WINDOW, payload):
                yield request

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> Request | None:
        if self._block is not None and (kind != _Frame.CONTINUATION or stream != self._block[0]):
            raise BrokenConnection(Fault.PROTOCOL, "headers were interrupted")
        match kind:
            case _Frame.DATA:
                return self._data(flags, stream, payload)
            case _Frame.HEADERS:
                return self._headers(flags, stream, payload)
            case _Frame.CONTINUATION:
                return self._continuation(flags, payload)
            case _Frame.RST_STREAM:
                self._forget(stream)
            case _Frame.SETTINGS if not flags & _ACK:
                self._settings(payload)
            case _Frame.PING if not flags & _ACK:
                self._send(_Frame.PING, _ACK, 0, payload)
            case _Frame.WINDOW_UPDATE:
                self._widen(stream, payload)
            case _Frame.PUSH_PROMISE:
                raise BrokenConnection(Fault.PROTOCOL, "a client promised to push")
        return None

    def _headers(self, flags: int, stream: int, payload: bytes) -> Request | None:
        payload = _unpadded(flags, payload)
        if flags & _PRIORITY:
            payload = payload[5:]
        self._block = stream, flags, bytearray()
        return self._continuation(flags, payload)

    def _continuation(self, flags: int, payload: bytes) -> Request | None:
        if self._block is None:
            raise BrokenConnection(Fault.PROTOCOL, "headers go on that never began")
        stream, first_flags, block = self._block
        block += payload
        if len(block) > _LARGEST_HEADERS:
            raise BrokenConnection(Fault.PROTOCOL, "headers are too large")
        if not flags & _END_HEADERS:
            return None
        self._block = None
        return self._opened(stream, self._decoded(bytes(block)), bool(first_flags & _END_STREAM))

    def _decoded(self, block: bytes) -> dict[str, str]:
        try:
            return {name.decode(): value.decode() for name, value in self._decoder.decode(block, raw=True)}
        except (HPACKError, UnicodeDecodeError) as error:
            raise BrokenConnection(Fault.COMPRESSION, f"headers can't be read: {error}") from error

    def _opened(self, stream: int, headers: dict[str, str], is_whole: bool) -> Request | None:
        if stream in self._arriving:  # trailers; a request has none that mean something
            return self._arriving.pop(stream) if is_whole else None
        if stream % 2 == 0 or stream <= self._last_stream:
            raise BrokenConnection(Fault.PROTOCOL, f"stream {stream} can't begin now")
        self._last_stream = stream
        if len(self._windows) >= MOST_STREAMS:
            self._send(_Frame.RST_STREAM, 0, stream, _NUMBER.pack(Fault.REFUSED_STREAM))
            return None
        self._windows[stream] = self._first_window
        request = Request(stream, headers)
        if is_whole:
            return request
        self._arriving[stream] = request
        return None

    def _data(self, flags: int, stream: int, payload: bytes) -> Request | None:
        if payload:
            self._send(_Frame.WINDOW_UPDATE, 0, 0, _NUMBER.pack(len(payload)))
        request = self._arriving.get(stream)
        if request is None:
            return None  # of one that was taken back or refused
        request.body += _unpadded(flags, payload)
        if len(request.body) > LARGEST_REQUEST:
            request.is_too_large = True
            request.body.clear()
        return self._arriving.pop(stream) if flags & _END_STREAM else None

    def _settings(self, payload: bytes) -> None:
        if len(payload) % _SETTING.size:
            raise BrokenConnection(Fault.FRAME_SIZE, "settings are cut off")
        for setting, value in _SETTING.iter_unpack(payload):
            if setting == _Setting.INITIAL_WINDOW_SIZE:
                if value > _LARGEST_WINDOW:
                    raise BrokenConnection(Fault.FLOW_CONTROL, "a window is too large")
                for stream in self._windows:
                    self._windows[stream] += value - self._first_window
                self._first_window = value
            elif setting == _Setting.MAX_FRAME_SIZE and _LARGEST_FRAME <= value < 1 << 24:
                self._largest_frame = value
        self._send(_Frame.SETTINGS, _ACK, 0, b"")
        self._send_answers()

    def _widen(self, stream: int, payload: bytes) -> None:
        if len(payload) != _NUMBER.size:
            raise BrokenConnection(Fault.FRAME_SIZE, "a window's update is cut off")
        (more,) = _NUMBER.unpack(payload)
        if stream == 0:
            self._window += more
        elif stream in self._windows:
            self._windows[stream] += more
        if more == 0 or max(self._window, self._windows.get(stream, 0)) > _LARGEST_WINDOW:
            raise BrokenConnection(Fault.FLOW_CONTROL, f"a window is widened by {more}")
        self._send_answers()

    def _forget(self, stream: int) -> None:
        self._arriving.pop(stream, None)
        self._answers.pop(stream, None)
        self._windows.pop(stream, None)

    # --- sending ---

    def _send_answers(self) -> None:
        """Send as much of all answers as windows allow."""
        for stream, answer in list(self._answers.items()):
            while answer.body:
                size = min(self._window, self._windows[stream], self._largest_frame, len(answer.body))
                if size <= 0:
                    break
                self._send(_Frame.DATA, 0, stream, bytes(answer.body[:size]))
                answer.body = answer.body[size:]
                self._window -= size
                self._windows[stream] -= size
            if not answer.body:
                self._send(_Frame.HEADERS, _END_HEADERS | _END_STREAM, stream, answer.trailers)
                self._forget(stream)

    def _send(self, kind: _Frame, flags: int, stream: int, payload: bytes) -> None:
        self._out.append(_HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream))
        self._out.append(payload)


def encoded(headers: dict[str, str]) -> bytes:
    """A block of headers, of ASCII, for `Connection.answer`: names and values as they are (RFC 7541, section 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())


def _text(text: str) -> bytes:
    data = text.encode("ascii")
    size = len(data)
    if size < 0x7F:
        return bytes([size]) + data
    length, rest = bytearray([0x7F]), size - 0x7F
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*length, rest]) + data


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise BrokenConnection(Fault.PROTOCOL, "a frame is nothing but padding")
    return payload[1 : len(payload) - payload[0]]

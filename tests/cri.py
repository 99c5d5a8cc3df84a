"""The calls that a kubelet makes, with no more of the messages than the tests say; names and numbers are CRI's (v1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

HOST_NETWORK = 2
RUNTIME_HANDLER = "io.containerd.cri.runtime-handler"  # the annotation by which containerd chooses, when it pulls


class Message(dict[int, object]):
    """Fields by number: text, bytes, numbers, messages, and lists of them."""

    def encoded(self) -> bytes:
        return b"".join(_field(number, value) for number, value in self.items())


def fields(data: bytes) -> dict[int, bytes]:
    """The fields of a message, undecoded, the last of each number."""
    found: dict[int, bytes] = {}
    while data:
        key, data = _number(data)
        if key & 7 == 0:
            value, data = _number(data)
            found[key >> 3] = b"%d" % value
        else:
            length, data = _number(data)
            found[key >> 3], data = data[:length], data[length:]
    return found


@dataclass(frozen=True)
class Kubelet:
    """A client of containerd's socket *address*; its pods are of the runtime class, if one is named."""

    address: Path
    logs: Path
    runtime_class: str = ""

    def version(self) -> str:
        """Which version answers."""
        return self._runtime("Version", Message())[3].decode()

    def pull(self, reference: str) -> str:
        """What CRI calls the image."""
        return self._image("PullImage", Message({1: Message({1: reference}), 3: self._pod_config("pod")}))[1].decode()

    def remove_image(self, reference: str) -> None:
        self._image("RemoveImage", Message({1: Message({1: reference})}))

    @contextmanager
    def pod(self, name: str) -> Iterator[str]:
        """A pod in the host's network, until the block ends."""
        request = Message({1: self._pod_config(name), 2: self.runtime_class})
        sandbox = self._runtime("RunPodSandbox", request)[1].decode()
        try:
            yield sandbox
        finally:
            self._runtime("StopPodSandbox", Message({1: sandbox}))
            self._runtime("RemovePodSandbox", Message({1: sandbox}))

    def start(self, sandbox: str, pod: str, name: str, reference: str, *command: str) -> str:
        """Create and start a container, which logs to `<name>.log`; its id."""
        config = Message({1: Message({1: name}), 2: Message({1: reference}), 3: list(command), 11: f"{name}.log"})
        request = Message({1: sandbox, 2: config, 3: self._pod_config(pod)})
        container = self._runtime("CreateContainer", request)[1].decode()
        self._runtime("StartContainer", Message({1: container}))
        return container

    def execute(self, container: str, *command: str) -> str:
        """What a further program in the container prints."""
        answer = self._runtime("ExecSync", Message({1: container, 2: list(command), 3: 60}))
        assert answer.get(3, b"0") == b"0", answer
        return answer.get(1, b"").decode()

    def remove(self, container: str) -> None:
        self._runtime("StopContainer", Message({1: container}))
        self._runtime("RemoveContainer", Message({1: container}))

    def _pod_config(self, name: str) -> Message:
        network = Message({1: Message({1: HOST_NETWORK})})
        linux = Message({2: network})
        handler = [Message({1: RUNTIME_HANDLER, 2: self.runtime_class})] if self.runtime_class else []
        metadata = Message({1: name, 2: f"uid-{name}", 3: "default"})
        return Message({1: metadata, 3: str(self.logs), 7: handler, 8: linux})

    def _runtime(self, call: str, request: Message) -> dict[int, bytes]:
        return self._call(f"/runtime.v1.RuntimeService/{call}", request)

    def _image(self, call: str, request: Message) -> dict[int, bytes]:
        return self._call(f"/runtime.v1.ImageService/{call}", request)

    def _call(self, path: str, request: Message) -> dict[int, bytes]:
        with grpc.insecure_channel(f"unix:{self.address}") as channel:
            return fields(channel.unary_unary(path)(request.encoded(), timeout=120))


def _field(number: int, value: object) -> bytes:
    if isinstance(value, list):
        return b"".join(_field(number, one) for one in value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encoded() if isinstance(value, Message) else value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _number(data: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, data[index + 1 :]
    raise ValueError("a number that does not end")

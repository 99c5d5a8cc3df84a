"""Ask running mounts about themselves, or tell them what to do.

status [MOUNT …]       what is shown, from where, and what it has cost so far (--json, --prometheus)
probe [MOUNT …]        does the mount answer, and do its servers?
reload [MOUNT …]       read the configuration again, and show the newest revision now
upgrade [MOUNT …]      let the program as it is now installed go on with the mount, and with all that is open on it
pin PATH …             fetch everything below a path of a mount, and keep it at hand while it is mounted
evict PATH …           drop everything below a path of a mount from the cache
record start [MOUNT …] begin to note which objects are wanted
record stop [MOUNT …]  end that, and name them in the order in which they were first wanted
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ducc.client.control import Message, NotAnswering, ask
from ducc.client.metrics import prometheus
from ducc.client.mountpoint import our_mounts
from ducc.errors import BadInput, DuccError

_OF_PATHS = ("pin", "evict")
_OF_TARGETS = {"PATH": "a path in a mount", "MOUNT": "a mountpoint or the name of a repository (default: all)"}
_STATUS_SECONDS = 10.0
_RENEWAL_SECONDS = 120.0
_UNREACHABLE = 58


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name in _ACTIONS:
        action = actions.add_parser(name)
        shape = action.add_mutually_exclusive_group()
        shape.add_argument("--json", action="store_true", help="one JSON document on standard output, for programs")
        if name == "status":
            shape.add_argument("--prometheus", action="store_true", help="as Prometheus reads it")
        if name == "record":
            action.add_argument("what", choices=("start", "stop"), help="begin to note, or end and show what was noted")
        named, number = ("PATH", "+") if name in _OF_PATHS else ("MOUNT", "*")
        action.add_argument("targets", metavar=named, nargs=number, help=_OF_TARGETS[named])


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 all of them answered well, 2 no such mount, 58 no answer or no server, 59 it was not done."""
    return _ACTIONS[arguments.action](arguments)


def _status(arguments: argparse.Namespace) -> int:
    answers = [(mount, _asked(mount, {"command": "status"})) for mount in _mounts(arguments.targets)]
    good = [answer for _, answer in answers if "problem" in answer and "revision" in answer]
    if arguments.prometheus:
        print(prometheus(good), end="")
    elif arguments.json:
        print(json.dumps({"mounts": [answer for _, answer in answers]}))
    else:
        for mount, answer in answers:
            print("\n".join(_described(mount, answer)))
    return 0 if len(good) == len(answers) else _UNREACHABLE


def _probe(arguments: argparse.Namespace) -> int:
    results = []
    for mount in _mounts(arguments.targets):
        answer: Message = {"problem": "the mount hangs"}
        if _shows_its_root(mount):
            answer = _asked(mount, {"command": "probe"})
        good = any(server["ok"] for server in answer.get("servers", ()))
        results.append({"mountpoint": str(mount), "ok": good, **answer})
    if arguments.json:
        print(json.dumps({"mounts": results}))
    else:
        for result in results:
            print(f"{result['mountpoint']}: {'OK' if result['ok'] else 'FAILED'}")
            for server in result.get("servers", ()):
                said = server.get("problem") or f"revision {server['revision']}"
                print(f"  {server.get('host', 'store')}: {said}")
    return 0 if all(result["ok"] for result in results) else _UNREACHABLE


def _reload(arguments: argparse.Namespace) -> int:
    return _show(
        arguments, [{"mountpoint": str(mount), **_reloaded(mount)} for mount in _mounts(arguments.targets)], "revision"
    )


def _reloaded(mount: Path) -> Message:
    answer = ask(mount, {"command": "reload"})
    while answer.get("renewed"):
        _successor(mount, answer["pid"])
        answer = ask(mount, {"command": "reload"})
    return answer


def _upgrade(arguments: argparse.Namespace) -> int:
    answers = []
    for mount in _mounts(arguments.targets):
        status = _successor(mount, ask(mount, {"command": "renew"})["pid"])
        answers.append({"mountpoint": str(mount), "version": status["version"], "pid": status["pid"]})
    return _show(arguments, answers, "version")


def _successor(mount: Path, predecessor: int) -> Message:
    """The status of the process that has taken another one's place, waited for."""
    deadline = time.monotonic() + _RENEWAL_SECONDS
    while True:
        with suppress(NotAnswering):
            status = ask(mount, {"command": "status"}, _STATUS_SECONDS)
            if status["pid"] != predecessor:
                return status
        if time.monotonic() > deadline:
            raise NotAnswering(f"no other process has taken over {mount} in time; see its log")
        time.sleep(0.05)


def _below_paths(command: str) -> Callable[[argparse.Namespace], int]:
    def tell(arguments: argparse.Namespace) -> int:
        orders = [(mount, {"command": command, "path": path}) for mount, path in map(_place, arguments.targets)]
        return _tell(arguments, orders, "objects")

    return tell


def _record(arguments: argparse.Namespace) -> int:
    for mount in _mounts(arguments.targets):
        objects = ask(mount, {"command": "record", "on": arguments.what == "start"})["objects"]
        if arguments.what == "stop":
            print(json.dumps({"objects": objects}) if arguments.json else _listed(objects), end="")
    return 0


def _tell(arguments: argparse.Namespace, orders: Sequence[tuple[Path, Message]], figure: str) -> int:
    return _show(arguments, [{"mountpoint": str(mount), **ask(mount, message)} for mount, message in orders], figure)


def _show(arguments: argparse.Namespace, answers: Sequence[Message], figure: str) -> int:
    if arguments.json:
        print(json.dumps({"mounts": answers}))
    else:
        for answer in answers:
            print(f"{answer['mountpoint']}: {figure} {answer[figure]}")
    return 0


def _asked(mount: Path, message: Message) -> Message:
    """The answer; where there is none, what is wrong."""
    try:
        return ask(mount, message, _STATUS_SECONDS + 60 * (message["command"] == "probe"))
    except DuccError as error:
        return {"mountpoint": str(mount), "error": str(error)}


def _mounts(targets: Sequence[str]) -> Iterator[Path]:
    """The mountpoints that are meant: by place or by name; all, if none is named."""
    known = our_mounts()
    if not targets:
        yield from (Path(entry.mountpoint) for entry in known)
        return
    for target in targets:
        place = os.path.abspath(target)
        found = [entry for entry in known if target == entry.source or place == entry.mountpoint]
        if not found:
            raise BadInput(f"no repository is mounted at {target}, and none of that name anywhere")
        yield from (Path(entry.mountpoint) for entry in found)


def _place(path: str) -> tuple[Path, str]:
    """The mountpoint that a path is below, and the rest of it. Nothing on the way is touched: it may not answer."""
    whole = Path(os.path.abspath(path))
    above = [Path(entry.mountpoint) for entry in our_mounts() if whole.is_relative_to(entry.mountpoint)]
    if not above:
        raise BadInput(f"{path}: no repository is mounted there")
    mount = max(above, key=lambda one: len(one.parts))
    return mount, str(whole.relative_to(mount)) if whole != mount else ""


def _shows_its_root(mount: Path) -> bool:
    """Does the kernel get an answer in time? A thread that waits for ever is left behind."""
    shown = threading.Event()

    def look() -> None:
        try:
            os.listdir(mount)
        except OSError:
            return
        shown.set()

    threading.Thread(target=look, daemon=True).start()
    return shown.wait(_STATUS_SECONDS)


def _described(mount: Path, answer: Message) -> Iterator[str]:
    if "error" in answer:
        yield f"{mount}: {answer['error']}"
        return
    cache, network = answer["cache"], answer["network"]
    yield f"{answer['fqrn']} at {mount}: revision {answer['revision']}, root {answer['root_hash']}"
    if answer["problem"]:
        yield f"  off-line: {answer['problem']}"
    limit = "no limit" if cache["limit_bytes"] is None else f"limit {cache['limit_bytes']}"
    yield f"  cache {cache['directory']}: {cache['used_bytes']} bytes, {limit}, {_hits(cache)}"
    if network:
        yield f"  from {network['host']} through {network['proxy']}: {network['requests']} requests, " + (
            f"{network['received_bytes']} bytes, {network['failures']} failures"
        )


def _hits(cache: dict[str, Any]) -> str:
    asked = cache["hits"] + cache["misses"]
    return f"{100 * cache['hits'] / asked:.1f} % of {asked} hit" if asked else "not asked yet"


def _listed(objects: list[dict[str, Any]]) -> str:
    return "".join(f"{one['name']} {one['bytes'] if one['bytes'] is not None else '-'}\n" for one in objects)


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "status": _status,
    "probe": _probe,
    "reload": _reload,
    "upgrade": _upgrade,
    "pin": _below_paths("pin"),
    "evict": _below_paths("evict"),
    "record": _record,
}

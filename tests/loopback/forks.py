"""A quick start for the stand-in of ``benchmark_model``: numpy and LiteRT are loaded once.

A tool that :func:`forked` made sends its command line, environment and streams to a server that has
both loaded already; a fork of that runs what stands in the tool's file. To whoever started the tool
nothing else differs: it waits, ends as the fork ended, and the fork ends with it. Each process that
starts phones has one server, which ends with it. Linux only, as these phones are.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from types import CodeType
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_CONNECT_S: Final = 60.0

#: What a tool does first; a fork, which has the name, does the rest of the file instead.
_ASK: Final = """\
if "FORKED" not in globals():
    import array, json, os, resource, signal, socket, sys
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect("\\0" + {name!r})
    told = json.dumps([os.path.abspath(__file__), sys.argv, dict(os.environ), os.getcwd()])
    streams = array.array("i", [0, 1, 2])
    link.sendmsg([told.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    code = int(link.recv(64) or b"70")
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
"""


def forked(stand_in: str) -> str:
    """The stand-in's source as the file of a tool that starts at once."""
    future = "from __future__ import annotations\n"
    assert stand_in.count(future) == 1
    # Neither site-packages nor the user's: what the stand-in imports the server has.
    return f"#!{sys.executable} -IS\n{_ASK.format(name=_server())}{stand_in.replace(future, '')}"


@cache
def _server() -> str:
    """Start the server of this process; the name of its socket."""
    name = f"hwbench-forks-{os.getpid()}-{time.monotonic_ns()}"
    subprocess.Popen([sys.executable, __file__, name], stdin=subprocess.DEVNULL)
    end = time.monotonic() + _CONNECT_S
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            try:
                link.connect("\0" + name)
                return name
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
        time.sleep(0.01)


# --- in the server ----------------------------------------------------------------------------


def serve(name: str) -> None:
    """Fork for each tool that asks; tell it how its fork ended, or end that with it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's start is quicker, and a fork is sound
    import ai_edge_litert.interpreter  # noqa: F401

    with (
        selectors.DefaultSelector() as events,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        listener.bind("\0" + name)
        listener.listen(64)
        events.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fileobj is listener:
                    events.register(listener.accept()[0], selectors.EVENT_READ, None)
                elif isinstance(key.fileobj, int):
                    _ended(events, key.fileobj, *key.data)
                elif key.data is None:
                    _asked(events, key.fileobj)  # type: ignore[arg-type]
                elif events.get_map().get(key.fd) == key:  # it asks only once: now it has gone
                    os.kill(key.data, signal.SIGKILL)
                    events.unregister(key.fileobj)


def _asked(events: selectors.BaseSelector, link: socket.socket) -> None:
    told, streams = _received(link)
    if not told:  # somebody who looked whether there is a server
        events.unregister(link)
        link.close()
        return
    file, arguments, environment, folder = json.loads(told)
    with open(file, encoding="utf-8") as source:
        code = _compiled(source.read(), file)
    pid = os.fork()
    if pid == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv[:] = arguments
        _run(code, file)
    for stream in streams:
        os.close(stream)
    events.modify(link, selectors.EVENT_READ, pid)
    events.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, link))


def _received(link: socket.socket) -> tuple[bytes, array.array[int]]:
    streams = array.array("i")
    told, ancillary, _, _ = link.recvmsg(1 << 20, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, data in ancillary:
        streams.frombytes(data[: len(data) - len(data) % streams.itemsize])
    return told, streams


@cache
def _compiled(source: str, file: str) -> CodeType:
    return compile(source, file, "exec")


def _run(code: CodeType, file: str) -> None:
    """In the fork: the tool's file, to its end."""
    status: Any = 0
    try:
        exec(code, {"__name__": "__main__", "__file__": file, "FORKED": True})
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


def _ended(events: selectors.BaseSelector, watch: int, pid: int, link: socket.socket) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    events.unregister(watch)
    os.close(watch)
    with suppress(KeyError, OSError):  # it may have gone
        events.unregister(link)
        link.send(str(code).encode())
    link.close()


if __name__ == "__main__":
    serve(sys.argv[1])

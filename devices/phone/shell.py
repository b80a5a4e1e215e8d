"""A device's shell: run a script there, and know for certain what became of it.

A client's exit code proves nothing (adb 29 says 0 when the phone dies in mid-command), so each
script is wrapped and prints a random sentinel with its own exit code; without the sentinel it
failed. Scripts are put together from argument lists, and quoted once, where they leave for the
device: serials, file names and properties are somebody else's text.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar, Self

from hwbench.errors import (
    DeviceError,
    NoSpaceError,
    PushError,
    ShellError,
    ShellTimeoutError,
    UsageError,
)

#: For a command that only looks or cleans up.
QUICK_S = 20.0
#: A push is given a while for its start, and then the time of the slowest link that is any use.
PUSH_START_S, PUSH_BYTES_PER_S = 30.0, 200_000
#: A block of launches prints some hundred kilobytes.
MOST_OUTPUT = 16 << 20
#: After its group was killed, a client has this long to let go of its pipes.
_LETTING_GO_S = 2.0
#: How every system words a full disk where its language is not set.
NO_SPACE = "No space left on device"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,12}")
_BEGIN = re.compile(r"^([0-9a-f]{32}) begin 0\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Completed:
    """A script that ran to its end: its exit code and what it printed."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class Section:
    """One command of a block that ran to its end; ``text`` is both of its streams."""

    index: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A process of this machine that is gone; ``code`` is None where its time was up."""

    code: int | None
    output: bytes
    errors: bytes


def clean(text: str, most: int = 80) -> str:
    """A device's text, made fit for a message or a record: one line, printable, and short."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:most]


def block_script(commands: Sequence[Sequence[str]]) -> str:
    """One script that runs argument lists one after the other, whatever becomes of each.

    On a phone the launches that belong together run in one such script: a round trip between
    them would let it cool down, or be noticed by its governor.
    """
    token = secrets.token_hex(16)
    lines = []
    for i, arguments in enumerate(commands):
        lines.append(f"echo {token} begin {i}")
        lines.append(f"{shlex.join(arguments)} 2>&1 </dev/null")
        lines.append(f"printf '\\n%s end {i} %s\\n' {token} $?")
    return "\n".join(lines)


def split_block(output: str) -> tuple[Section, ...]:
    """The commands of a :func:`block_script` that ended, out of its output, however that was cut.

    The block's token is on the first line, which no command could have written.
    """
    begin = _BEGIN.search(output)
    if begin is None:
        return ()
    token = begin[1]
    section = re.compile(
        rf"^{token} begin (\d+)\r?\n(.*?)\r?\n{token} end \1 (\d+)\r?\n", re.MULTILINE | re.DOTALL
    )
    found = section.finditer(output, begin.start())
    return tuple(Section(int(m[1]), int(m[3]), m[2]) for m in found)


def call(arguments: Sequence[str], timeout_s: float) -> Ended:
    """Run a program of this machine; when its time is up, its whole process group is killed.

    Raises ShellError where it cannot be started, and where it prints without end.
    """
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ShellError(f"cannot start {clean(arguments[0])!r}: {error.strerror}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = _Pipe(process.stdout, process), _Pipe(process.stderr, process)
    try:
        in_time = _drained(pipes, timeout_s)
    except BaseException:  # an interrupt, which the group does not see by itself
        _kill_group(process)
        process.wait()
        raise
    if not in_time:
        _kill_group(process)
        _drained(pipes, _LETTING_GO_S)  # a child that left the group may hold the pipes
    code = process.wait()
    if any(pipe.full for pipe in pipes):
        raise ShellError(
            f"{clean(arguments[0])} printed more than {MOST_OUTPUT >> 20} MiB and was ended: look"
            " at what runs there"
        )
    output, errors = (bytes(pipe.content) for pipe in pipes)
    return Ended(code if in_time else None, output, errors)


class _Pipe(threading.Thread):
    """Reads a process's pipe to its end; a process that prints too much is killed."""

    def __init__(self, stream: IO[bytes], process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream, self._process = stream, process
        self.content, self.full = bytearray(), False
        self.start()

    def run(self) -> None:
        with self._stream:
            while chunk := os.read(self._stream.fileno(), 1 << 16):
                if len(self.content) + len(chunk) > MOST_OUTPUT:
                    self.full = True
                    _kill_group(self._process)
                    return
                self.content += chunk


def _drained(pipes: Iterable[_Pipe], timeout_s: float) -> bool:
    """Whether both pipes came to their end in time."""
    until = time.monotonic() + timeout_s
    for pipe in pipes:
        pipe.join(max(until - time.monotonic(), 0))
    return not any(pipe.is_alive() for pipe in pipes)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Shell(ABC):
    """A device's shell and one folder on it. ``label`` says how the device is reached.

    Files are pushed under the hash of their content, so that a name never stands for the wrong
    model. Use :meth:`fresh` around the pushes; it removes them afterwards.
    """

    label: ClassVar[str]

    def __init__(self, folder: str) -> None:
        root, *parts = PurePosixPath(folder).parts or ("",)
        if not root.startswith("/") or not parts or ".." in parts or not folder.isprintable():
            raise UsageError(
                "the device's folder must be an absolute path of a folder of its own, not "
                f"{clean(folder)!r}"
            )
        self.folder = "/" + "/".join(parts)
        self._pushed: set[str] = set()
        self._made_folder = False
        self._kill_leftover = ""

    @abstractmethod
    def _call(self, script: str, timeout_s: float) -> Ended:
        """Hand a script to the device's sh."""

    @abstractmethod
    def _send(self, path: Path, remote: str, timeout_s: float) -> None:
        """Copy a file to the device. It need not notice that it failed."""

    def wait_until_online(self, bound_s: float) -> None:
        """Wait until the device answers again after it broke off.

        Raises DeviceError when it has not within ``bound_s``.
        """
        self.run(":", min(QUICK_S, bound_s))

    def _broken(self, ended: Ended, partial: str) -> DeviceError:
        """Why a script ended without its sentinel."""
        said = clean(ended.errors.decode(errors="replace"), 160) or "it said nothing"
        return ShellError(
            f"{self.label}: the shell ended in the middle of a command ({said}): look at the"
            " device, then run it again",
            partial,
        )

    def run(self, script: str, timeout_s: float) -> Completed:
        """Run a script. A non-zero exit code is an answer, not an error.

        Raises ShellTimeoutError when it takes longer, and ShellError (or DeviceOfflineError)
        when it did not come to its end; both hold the ``partial`` output. What such a script left
        running is killed before the next one starts.
        """
        if "\0" in script:
            raise UsageError("a script for a device holds a zero byte")
        token = secrets.token_hex(16)
        wrapped = (
            f"{self._kill_leftover}echo {token} $$; sh -c {shlex.quote(script)};"
            f" printf '\\n%s %s\\n' {token} $?"
        )
        ended = self._call(wrapped, timeout_s)
        text = ended.output.decode(errors="replace")
        head = re.match(rf"{token} (\d+)\r?\n", text)
        body = text[head.end() :] if head else ""
        tail = re.search(rf"\r?\n{token} (\d+)\r?\n", body)
        if tail:
            self._kill_leftover = ""
            errors = ended.errors.decode(errors="replace")
            return Completed(int(tail[1]), body[: tail.start()], errors)
        if head:
            # It may still run, and would disturb the next measurement. A device that was
            # restarted has given the number to another process: the token tells.
            leader = head[1]
            self._kill_leftover = (
                f"grep -qs {token} /proc/{leader}/cmdline && kill -s KILL -- -{leader}; "
            )
        if ended.code is not None:
            raise self._broken(ended, body)
        raise ShellTimeoutError(
            f"{self.label}: a command was not done within {timeout_s:g} s and was ended: look"
            " whether the device hangs",
            body,
        )

    def checked(self, script: str, timeout_s: float = QUICK_S, *, cure: str = "") -> str:
        """Run a script that has to succeed; its output. ``cure`` ends the message if it fails."""
        done = self.run(script, timeout_s)
        if done.code:
            said = clean(done.errors or done.output, 160) or "it said nothing"
            if NO_SPACE in said:
                raise NoSpaceError(f"{self.label}: no space left on the device: free some")
            raise DeviceError(
                f"{self.label}: a command failed on the device, exit code {done.code}: {said}{cure}"
            )
        return done.output

    def push(self, path: Path) -> str:
        """Copy a file into the folder, executable, and return where it lies.

        Nothing is sent where a file of that content lies there already. Raises UsageError for a
        file that cannot be read, NoSpaceError, and PushError for one that arrived damaged.
        """
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
        except OSError as error:
            raise UsageError(f"cannot read {clean(str(path))}: {error.strerror}") from error
        suffix = path.suffix if _SUFFIX.fullmatch(path.suffix) else ""
        remote = f"{self.folder}/{content[:32]}{suffix}"
        self._make_folder()
        self._pushed.add(remote)
        if self._content(remote) != content:
            self._deliver(path, remote, content, PUSH_START_S + size / PUSH_BYTES_PER_S)
        return remote

    def _make_folder(self) -> None:
        place = shlex.quote(self.folder)
        made = self.checked(
            f"[ -d {place} ] || {{ mkdir -p -m 700 {place} && echo made; }}",
            cure=": name another folder with --option folder=PATH",
        )
        self._made_folder |= bool(made)

    def _content(self, remote: str) -> str | None:
        """The SHA-256 of a file on the device; None where there is no such file."""
        place = shlex.quote(remote)
        return self.checked(f"if [ -f {place} ]; then sha256sum <{place}; fi")[:64] or None

    def _deliver(self, path: Path, remote: str, content: str, timeout_s: float) -> None:
        """Send to a temporary name, look at the hash there, and only then rename."""
        temporary = f"{self.folder}/.{secrets.token_hex(8)}.part"
        self._pushed.add(temporary)
        self._send(path, temporary, timeout_s)
        if self._content(temporary) != content:
            raise PushError(
                f"{self.label}: {clean(path.name)} arrived damaged or not at all: check the cable"
                " and the device's storage, then run it again"
            )
        place = shlex.quote(temporary)
        self.checked(f"chmod 755 {place} && mv -f {place} {shlex.quote(remote)}")
        self._pushed.discard(temporary)

    def remove(self, remotes: Iterable[str]) -> None:
        """Remove files of the folder, by the names that :meth:`push` gave; missing ones are fine.

        Raises UsageError for a name outside the folder.
        """
        names = sorted(remotes)
        for name in names:
            place = PurePosixPath(name)
            if str(place.parent) != self.folder or place.name == "..":
                raise UsageError(f"{clean(name)!r} does not lie in {self.folder}")
        if names:
            self.checked(shlex.join(["rm", "-f", "--", *names]))
        self._pushed.difference_update(names)

    @contextmanager
    def fresh(self) -> Iterator[Self]:
        """Remove what is pushed inside, and a folder made for it, at the end, however it ends."""
        try:
            yield self
        except BaseException as error:
            try:
                self._clean_up()
            except DeviceError as left:  # must not hide what happened first
                error.add_note(f"files were left in {self.folder} on the device: {left}")
            raise
        self._clean_up()

    def _clean_up(self) -> None:
        self.remove(self._pushed)
        if self._made_folder:
            # Not where another session still uses it.
            self.run(f"rmdir {shlex.quote(self.folder)}", QUICK_S)
            self._made_folder = False


class LocalShell(Shell):
    """This machine's own shell: a Linux board runs the benchmark tool natively."""

    label = "local"

    def _call(self, script: str, timeout_s: float) -> Ended:
        return call(["/bin/sh", "-c", script], timeout_s)

    def _send(self, path: Path, remote: str, timeout_s: float) -> None:
        try:
            shutil.copyfile(path, remote)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoSpaceError(f"no space left in {self.folder}: free some") from error
            raise PushError(
                f"cannot write into {self.folder} ({error.strerror}): "
                "name another folder with --option folder=PATH"
            ) from error

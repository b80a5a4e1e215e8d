"""A device's shell: run a script there, and know for certain what became of it.

A client's exit code proves nothing (adb 29 says 0 when the phone dies in mid-command), so each
script is wrapped and prints a random sentinel with its own exit code; without the sentinel it
failed. What a script that did not come to its end left running is killed before the next one.
"""

from __future__ import annotations

import errno
import hashlib
import re
import secrets
import shlex
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

from hwbench.devices.phone.leftovers import (
    MARK,
    clear_script,
    dead_sessions,
    kill_script,
    list_commands,
    session_name,
)
from hwbench.devices.phone.process import Ended, call
from hwbench.devices.phone.script import block_script, clean, split_block
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
#: How every system words a full disk where its language is not set.
NO_SPACE = "No space left on device"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Completed:
    """A script that ran to its end: its exit code and what it printed."""

    code: int
    output: str
    errors: str


class Shell(ABC):
    """A device's shell and, in ``base``, this session's own ``folder`` on it.

    ``label`` says how the device is reached. Files are pushed under the hash of their content, so
    that a name never stands for the wrong model. Use :meth:`fresh` around the pushes; it removes
    them afterwards.
    """

    label: ClassVar[str]

    def __init__(self, base: str) -> None:
        root, *parts = PurePosixPath(base).parts or ("",)
        if not root.startswith("/") or not parts or ".." in parts or not base.isprintable():
            raise UsageError(
                "the device's folder must be an absolute path of a folder of its own, not "
                f"{clean(base)!r}"
            )
        self.base = "/" + "/".join(parts)
        self._session = session_name()
        self.folder = f"{self.base}/{self._session}"
        self._made_base = self._unfinished = False
        self._one_at_a_time = threading.Lock()

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
        """Run a script. A non-zero exit code is an answer, not an error. Threads take turns.

        Raises ShellTimeoutError when it takes longer, and ShellError (or DeviceOfflineError)
        when it did not come to its end; both hold the ``partial`` output. What such a script left
        running is killed before the next one starts.
        """
        if "\0" in script:
            raise UsageError("a script for a device holds a zero byte")
        with self._one_at_a_time:  # another thread's script would pass for a left-over, and die
            return self._run(script, timeout_s)

    def _run(self, script: str, timeout_s: float) -> Completed:
        token = secrets.token_hex(16)
        first = f"{kill_script(self._session)}; " if self._unfinished else ""
        wrapped = (
            f"{first}echo {token}; {MARK}={self._session} sh -c {shlex.quote(script)};"
            f" printf '\\n%s %s\\n' {token} $?"
        )
        self._unfinished = True  # until its sentinel says otherwise: an interrupt ends it as well
        ended = self._call(wrapped, timeout_s)
        text = ended.output.decode(errors="replace")
        head = re.match(rf"{token}\r?\n", text)
        body = text[head.end() :] if head else ""
        tail = re.search(rf"\r?\n{token} (\d+)\r?\n", body)
        if tail:
            self._unfinished = False
            errors = ended.errors.decode(errors="replace")
            return Completed(int(tail[1]), body[: tail.start()], errors)
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
        if self._make_folder():
            self._clear_leftovers()
        if self._content(remote) != content:
            self._deliver(path, remote, content, PUSH_START_S + size / PUSH_BYTES_PER_S)
        return remote

    def _make_folder(self) -> bool:
        """Whether it was not there yet."""
        base, place = shlex.quote(self.base), shlex.quote(self.folder)
        made = self.checked(
            f"[ -d {place} ] && exit; [ -d {base} ] || {{ mkdir -p -m 700 {base} && echo base; }}"
            f" && mkdir -m 700 {place} && echo folder",
            cure=": name another folder with --option folder=PATH",
        )
        self._made_base |= "base" in made
        return bool(made)

    def _clear_leftovers(self) -> None:
        """Remove what sessions that are dead left beside this one's folder."""
        listed = split_block(self.run(block_script(list_commands(self.base)), QUICK_S).output)
        dead = dead_sessions(*(section.text for section in listed)) if len(listed) == 2 else []
        if dead:
            self.run(clear_script(self.base, dead), QUICK_S)

    def _content(self, remote: str) -> str | None:
        """The SHA-256 of a file on the device; None where there is no such file."""
        place = shlex.quote(remote)
        return self.checked(f"if [ -f {place} ]; then sha256sum <{place}; fi")[:64] or None

    def _deliver(self, path: Path, remote: str, content: str, timeout_s: float) -> None:
        """Send to a temporary name, look at the hash there, and only then rename."""
        temporary = f"{self.folder}/.{secrets.token_hex(8)}.part"
        self._send(path, temporary, timeout_s)
        if self._content(temporary) != content:
            raise PushError(
                f"{self.label}: {clean(path.name)} arrived damaged or not at all: check the cable"
                " and the device's storage, then run it again"
            )
        place = shlex.quote(temporary)
        self.checked(f"chmod 755 {place} && mv -f {place} {shlex.quote(remote)}")

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

    @contextmanager
    def fresh(self) -> Iterator[Self]:
        """Remove the session's folder, and a base made for it, at the end, however it ends."""
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
        self.checked(shlex.join(["rm", "-rf", "--", self.folder]))
        if self._made_base:
            # Not where another session still uses it.
            self.run(f"rmdir {shlex.quote(self.base)}", QUICK_S)
            self._made_base = False


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

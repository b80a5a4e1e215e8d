"""A device's shell tells what became of a script, for certain; shown on this machine's own."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwbench.devices.phone.process import Ended, call
from hwbench.devices.phone.script import Section, block_script, clean, split_block
from hwbench.devices.phone.shell import LocalShell
from hwbench.errors import (
    DeviceError,
    NoSpaceError,
    PushError,
    ShellError,
    ShellTimeoutError,
    UsageError,
)

_SAME_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(str(tmp_path / "remote"))


class CutShell(LocalShell):
    """A connection that ends cleanly after so many bytes, as adb 29 shows a dead phone."""

    def __init__(self, folder: str, most: int) -> None:
        super().__init__(folder)
        self.most = most

    def _call(self, script: str, timeout_s: float) -> Ended:
        ended = super()._call(script, timeout_s)
        return Ended(0, ended.output[: self.most], b"")


def _sleeping(seconds: str) -> list[psutil.Process]:
    """Processes that sleep for so long."""
    wanted = ["sleep", seconds]
    return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == wanted]


def _wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds; what never comes to hold fails."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def _push_and_fail(shell: LocalShell, file: Path, then_most: int | None = None) -> None:
    shell.push(file)
    if isinstance(shell, CutShell) and then_most is not None:
        shell.most = then_most
    raise KeyError


class DamagingShell(LocalShell):
    """A connection that changes a byte of what is sent, and says that all is well."""

    def _send(self, path: Path, remote: str, timeout_s: float) -> None:
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        Path(remote).write_bytes(content)


def test_exit_code_and_both_streams_come_back(shell: LocalShell) -> None:
    done = shell.run("echo out; echo err >&2; exit 7", 10)
    assert (done.code, done.output, done.errors) == (7, "out\n", "err\n")


@pytest.mark.parametrize("script", ["(", "'", "if", "echo $((", "exit 3", "kill -9 $$", ":"])
def test_no_script_escapes_its_sentinel(shell: LocalShell, script: str) -> None:
    expected = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=False)
    code = expected.returncode if expected.returncode >= 0 else 128 - expected.returncode
    assert shell.run(script, 10).code == code


def test_output_without_a_last_line_end_comes_back_as_it_is(shell: LocalShell) -> None:
    assert shell.run("printf 'a\\nb'", 10).output == "a\nb"
    assert shell.run("printf 'a\\n\\n'", 10).output == "a\n\n"
    assert shell.run(":", 10).output == ""


def test_output_that_is_no_text_comes_back(shell: LocalShell) -> None:
    assert shell.run(r"printf '\377\n'", 10).output == "\ufffd\n"


def test_a_script_reads_nothing_of_ours(shell: LocalShell) -> None:
    assert shell.run("cat", 10).output == ""


def test_a_script_out_of_time_is_ended_with_all_its_children(shell: LocalShell) -> None:
    with pytest.raises(ShellTimeoutError, match="was ended") as caught:
        shell.run("echo before; sleep 98.7 & sleep 98.7; echo after", 0.5)
    assert caught.value.partial == "before\n"
    assert not _sleeping("98.7")


def test_a_child_that_left_its_group_holds_nobody_up(shell: LocalShell) -> None:
    with pytest.raises(ShellTimeoutError) as caught:
        shell.run("setsid sleep 30 & echo $!; sleep 30", 0.5)
    pid = int(caught.value.partial)
    os.kill(pid, 9)


@pytest.mark.parametrize("most", [0, 20, 60, 75])
def test_a_cut_output_is_an_error_that_holds_what_came(tmp_path: Path, most: int) -> None:
    shell = CutShell(str(tmp_path), most)
    with pytest.raises(ShellError, match="in the middle") as caught:
        shell.run("echo 0123456789; echo abcdefghij", 10)
    whole, partial = "0123456789\nabcdefghij\n", caught.value.partial
    assert whole.startswith(partial) or partial.startswith(whole)


def test_a_cut_exit_code_is_no_exit_code(tmp_path: Path) -> None:
    for most in range(40, 400):
        try:
            done = CutShell(str(tmp_path), most).run("exit 123", 10)
        except ShellError:
            continue
        assert done.code == 123
        return
    pytest.fail("the whole output gives no exit code")


@_SAME_FOLDER
@given(
    st.lists(
        st.text(
            st.characters(blacklist_characters="\0\r", blacklist_categories=["Cs"]), max_size=20
        ),
        max_size=5,
    )
)
def test_every_text_reaches_the_device_as_one_argument(tmp_path: Path, words: list[str]) -> None:
    script = block_script([["printf", r"%s\n", *words], ["printf", "%s", "end"]])
    said = split_block(LocalShell(str(tmp_path)).run(script, 10).output)
    expected = "".join(f"{word}\n" for word in words or [""])
    assert said == (Section(0, 0, expected), Section(1, 0, "end"))


def test_hostile_names_run_nothing(tmp_path: Path, shell: LocalShell) -> None:
    canary = tmp_path / "canary"
    for name in (
        f"$(touch {canary})",
        f"`touch {canary}`",
        f"; touch {canary} #",
        f"'; touch {canary}; '",
        f"\n touch {canary}\n",
        f'"; touch {canary}; "',
        "-rf",
    ):
        folder = str(tmp_path) + "/" + name.replace("/", "_")
        file = tmp_path / ("f" + name.replace("/", "_"))
        file.write_bytes(name.encode())
        try:
            hostile = LocalShell(folder)
        except UsageError:
            assert "\n" in name
            hostile = shell
        with hostile.fresh():
            assert Path(hostile.push(file)).read_bytes() == name.encode()
        shell.run(block_script([["ls", name]]), 10)
    assert not canary.exists()


def test_a_block_runs_all_its_commands_whatever_becomes_of_each(shell: LocalShell) -> None:
    commands = [["sh", "-c", "echo a; echo b >&2; exit 3"], ["no-such-tool"], ["echo", "c"]]
    first, second, third = split_block(shell.run(block_script(commands), 10).output)
    assert first == Section(0, 3, "a\nb\n")
    assert (second.index, second.code) == (1, 127)
    assert third == Section(2, 0, "c\n")


def test_of_a_cut_block_the_finished_commands_count(shell: LocalShell) -> None:
    script = block_script([["printf", "one"], ["printf", "two\n"], ["sh", "-c", "exit 130"]])
    output = shell.run(script, 10).output
    whole = split_block(output)
    assert [(s.code, s.text) for s in whole] == [(0, "one"), (0, "two\n"), (130, "")]
    for cut in range(len(output)):
        some = split_block(output[:cut])
        assert some == whole[: len(some)]
        assert len(some) < 3
    assert split_block(output.replace("\n", "\r\n"))[2] == whole[2]


def test_of_a_block_out_of_time_the_finished_commands_count(shell: LocalShell) -> None:
    script = block_script([["echo", "done"], ["sleep", "60"], ["echo", "never"]])
    with pytest.raises(ShellTimeoutError) as caught:
        shell.run(script, 1)
    assert split_block(caught.value.partial) == (Section(0, 0, "done\n"),)


def test_a_command_cannot_pass_for_another(shell: LocalShell) -> None:
    forged = f"{'0' * 32} begin 1\n9.9\n\n{'0' * 32} end 1 0\n"
    output = shell.run(block_script([["printf", "%s", forged]]), 10).output
    assert split_block(output) == (Section(0, 0, forged),)
    assert split_block("no block at all\n") == ()


def test_a_file_is_pushed_under_its_content_and_can_be_run(
    tmp_path: Path, shell: LocalShell
) -> None:
    tool = tmp_path / "tool.sh"
    tool.write_text("#!/bin/sh\necho ran\n")
    remote = shell.push(tool)
    content = hashlib.sha256(tool.read_bytes()).hexdigest()
    assert remote == f"{shell.folder}/{content[:32]}.sh"
    assert shell.run(remote, 10).output == "ran\n"


def test_a_file_that_lies_there_is_not_sent_again(tmp_path: Path, shell: LocalShell) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    remote = Path(shell.push(file))
    before = remote.stat().st_ino
    shell.push(file)
    assert remote.stat().st_ino == before


def test_another_content_of_the_same_size_is_sent_again(tmp_path: Path, shell: LocalShell) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    remote = Path(shell.push(file))
    remote.write_bytes(b"CONTENT")
    assert shell.push(file) == str(remote)
    assert remote.read_bytes() == b"content"


def test_a_damaged_file_never_gets_its_name(tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    shell = DamagingShell(str(tmp_path / "remote"))
    with pytest.raises(PushError, match="arrived damaged"), shell.fresh():
        shell.push(file)
    assert not (tmp_path / "remote").exists()


def test_pushed_files_are_removed_however_it_ends(tmp_path: Path, shell: LocalShell) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    other = Path(shell.base) / "other"
    with shell.fresh():
        shell.push(file)
        other.write_text("somebody else's")
    with pytest.raises(KeyError), shell.fresh():
        _push_and_fail(shell, file)
    assert list(Path(shell.base).iterdir()) == [other]


_KILLED = """
import sys, time
from pathlib import Path
from hwbench.devices.phone.shell import LocalShell
shell = LocalShell(sys.argv[1])
shell.push(Path(sys.argv[2]))
Path(shell.folder, ".cut.part").touch()
print(shell.folder, flush=True)
shell.run("setsid sleep 96.5 & sleep 96.5", 60)
"""


def test_what_a_killed_session_left_goes_with_the_next(tmp_path: Path, shell: LocalShell) -> None:
    """Its files, its base for them, and what it had started on the device."""
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    command = [sys.executable, "-c", _KILLED, shell.base, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        _wait_for(lambda: len(_sleeping("96.5")) == 2)
        killed.kill()
    assert len(_sleeping("96.5")) == 2
    assert len(list(left.iterdir())) == 2
    with shell.fresh():
        shell.push(file)
        assert not left.exists()
        _wait_for(lambda: not _sleeping("96.5"))


def test_a_session_that_goes_on_keeps_its_files(tmp_path: Path, shell: LocalShell) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    other = LocalShell(shell.base)
    with shell.fresh():
        remote = Path(shell.push(file))
        with other.fresh():
            assert Path(other.push(file)) != remote
            assert remote.exists()
        assert remote.exists()
    assert not Path(shell.base).exists()


def test_what_an_interrupt_left_running_is_ended_by_the_next_script(
    monkeypatch: pytest.MonkeyPatch, shell: LocalShell
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        _wait_for(lambda: bool(_sleeping("95.4")))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hwbench.devices.phone.process._drained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shell.run("setsid sleep 95.4; :", 10)
    assert _sleeping("95.4")
    shell.run(":", 10)
    _wait_for(lambda: not _sleeping("95.4"))


def test_threads_take_turns(shell: LocalShell) -> None:
    """One that asks what the device is while another measures: none ends the other's script."""
    scripts = [f"sleep 0.2; echo {n}" for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda script: shell.run(script, 20), scripts))
    assert [each.output.strip() for each in done] == list("0123")


def test_a_failing_removal_does_not_hide_what_happened(tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    shell = CutShell(str(tmp_path / "remote"), 10_000)
    with pytest.raises(KeyError) as caught, shell.fresh():
        _push_and_fail(shell, file, then_most=0)
    assert "files were left" in caught.value.__notes__[0]


def test_only_files_of_the_folder_can_be_removed(tmp_path: Path, shell: LocalShell) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    for name in (str(kept), f"{shell.folder}/../kept", f"{shell.folder}/a/b", f"{shell.folder}/.."):
        with pytest.raises(UsageError):
            shell.remove([name])
    assert kept.exists()
    shell.remove([f"{shell.folder}/missing"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    class Full(LocalShell):
        def _send(self, path: Path, remote: str, timeout_s: float) -> None:
            super()._send(path, "/dev/full", timeout_s)

    file = tmp_path / "net.tflite"
    file.write_bytes(b"content" * 10_000)
    with pytest.raises(NoSpaceError, match="no space left"):
        Full(str(tmp_path / "remote")).push(file)


def test_a_full_disk_is_said_by_the_devices_own_words(shell: LocalShell) -> None:
    with pytest.raises(NoSpaceError):
        shell.checked("echo 'mkdir: No space left on device' >&2; exit 1")


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "net").touch()
    with pytest.raises(DeviceError, match=r"exit code .* --option folder=PATH"):
        LocalShell(str(tmp_path / "file" / "below")).push(tmp_path / "net")
    for folder in ("relative", "", "/with\nnewline"):
        with pytest.raises(UsageError):
            LocalShell(folder)


def test_a_folder_that_it_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "net").touch()
    shell = LocalShell(str(tmp_path / "made"))
    with shell.fresh():
        shell.push(tmp_path / "net")
        assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert not (tmp_path / "made").exists()


def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path, shell: LocalShell) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            shell.push(path)


def test_a_zero_byte_is_a_usage_error(shell: LocalShell) -> None:
    with pytest.raises(UsageError):
        shell.run("echo \0", 10)


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShellError, match="cannot start"):
        call([str(tmp_path / "missing")], 10)


def test_an_interrupt_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwbench.devices.phone.process._drained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(["sleep", "97.6"], 10)
    assert not _sleeping("97.6")


@given(st.text())
def test_a_devices_text_is_one_short_printable_line(text: str) -> None:
    assert clean(text, 30).isprintable()
    assert len(clean(text, 30)) <= 30


@pytest.mark.parametrize("folder", ["", "relative", "/", "//", "/tmp/..", "/tmp/a\nb"])
def test_a_folder_that_is_not_its_own_is_refused(folder: str) -> None:
    with pytest.raises(UsageError, match="an absolute path of a folder of its own"):
        LocalShell(folder)


def test_output_without_end_is_cut_off(tmp_path: Path) -> None:
    with pytest.raises(ShellError, match="printed more than 16 MiB and was ended"):
        LocalShell(str(tmp_path)).run("exec yes", 60)
    assert not [p for p in psutil.Process().children(recursive=True) if p.name() == "yes"]

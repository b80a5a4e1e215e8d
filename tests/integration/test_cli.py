"""The real `hwbench` command: exit codes, valid JSON or nothing, errors in one line."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from hwbench.cli import main
from hwbench.cli.app import app, search
from hwbench.cli.frame import explain
from hwbench.cli.options import core_list, shapes
from hwbench.cli.verify import exit_code
from hwbench.errors import InconclusiveError, UnknownNameError, UsageError
from hwbench.records import Outcome, Verdict
from hwbench.store import Store
from hwbench.verify import claim_times
from tests.measurements import measurement

HWBENCH = [sys.executable, "-m", "hwbench"]
VERBS = (
    "doctor", "devices", "spaces", "bench", "profile", "suggest", "fit", "evaluate", "kernels",
    "predict", "supernet", "search", "generate", "verify", "export", "import", "demo",
)  # fmt: skip
#: The commands of the one verb that is a group, and what is run: verbs, and these.
GROUP = ("pnag", "eas", "s2dnas", "dash")
COMMANDS = (*(v for v in VERBS if v != "search"), *(f"search {name}" for name in GROUP))


def hwbench(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HWBENCH, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_line(stderr: str, *words: str) -> None:
    assert stderr.startswith("hwbench: ")
    assert stderr.count("\n") == 1
    for word in words:
        assert word in stderr


def examples(command: str) -> list[list[str]]:
    """The commands that a command's help shows."""
    name = command.rsplit(maxsplit=1)[-1]
    known = [*app.registered_commands, *search.registered_commands]
    (text,) = {c.callback.__doc__ for c in known if c.name == name and c.callback}
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    found = [shlex.split(line)[1:] for line in paragraphs if line.startswith("hwbench ")]
    return [words for words in found if words]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"Example:\s+hwbench {command}\b", shown)
    assert "--json" in shown
    assert "--debug" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_the_paragraphs_of_a_help_fill_their_lines(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out.partition("╭")[0].splitlines()
    for line, below in itertools.pairwise(text):
        if line.strip() and below.strip():
            assert len(line.rstrip()) + 1 + len(below.split()[0]) > 79, line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_commands_that_parse(command: str) -> None:
    *groups, name = command.split()
    owner = typer.main.get_command(search if groups else app)
    with owner.make_context("hwbench", [name]) as context:
        for words in examples(command):
            assert words[: len(groups) + 1] == command.split()
            found = owner.get_command(context, name)
            found.make_context(name, words[len(groups) + 1 :], parent=context).close()
    assert examples(command)


def test_the_help_of_a_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"Example:\s+hwbench search pnag\b", shown)
    assert all(re.search(rf"^│ {name} ", shown, re.MULTILINE) for name in GROUP)


def test_the_help_of_verify_lists_the_claims(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    for name, (full, quick) in claim_times().items():
        assert f"{name} {full} (--quick: {quick})" in shown


def test_the_help_lists_every_verb() -> None:
    done = hwbench("--help")
    assert done.returncode == 0
    assert not done.stderr
    assert all(re.search(rf"^│ {verb} ", done.stdout, re.MULTILINE) for verb in VERBS)


def test_no_verb_shows_the_help_and_counts_as_a_usage_error() -> None:
    done = hwbench()
    assert done.returncode == 2
    assert "Usage: hwbench" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["benhc"], ["benhc", "'bench'", "hwbench --help"]),
        (["bench"], ["MODEL", "hwbench bench --help"]),
        (["bench", "--nonsense", "x.onnx"], ["--nonsense"]),
        (["bench", "x.onnx", "--threads", "0"], ["--threads"]),
        (["bench", "x.onnx", "--shape", "x:1,3"], ["'x:1,3'", "name=1,3,224,224"]),
        (["bench", "x.onnx", "--shape", "x=1,0"], ["'0'", "positive"]),
        (["bench", "x.onnx", "--shape", "x=1", "--shape", "x=2"], ["'x'", "twice"]),
        (["bench", "x.onnx", "--cores", "2-1"], ["'2-1'", "backwards"]),
        (["bench", "x.onnx", "--cores", "0,x"], ["'x'"]),
        (["profile", "-s", "ofa_mbv3", "-n", "0"], ["-n"]),
        (["profile", "-s", "ofa_mbv3", "-n", "-3"], ["-n"]),
        (["profile", "-s", "ofa_mbv3", "-n", "9" * 14], ["-n", "20000"]),
        (["profile", "-s", "ofa_mb", "-n", "3"], ["'ofa_mb'", "did you mean 'ofa_mbv3'?"]),
        (["profile", "-s", "ofa_mbv3", "--fix", "resolution"], ["name=value"]),
        (["predict", "absent.json", "--file", "absent.txt"], ["absent.txt", "No such file"]),
    ],
)
def test_a_usage_error_is_one_line_and_exits_with_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert_one_line(said.err, *words)


def test_a_usage_error_of_the_command_itself_is_the_same() -> None:
    done = hwbench("profile", "-s", "ofa_mb", "-n", "3", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, "'ofa_mb'", "did you mean 'ofa_mbv3'?")


def test_hostile_text_in_an_error_stays_one_printable_line() -> None:
    done = hwbench("bench\n\x1b[2J")
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert done.stderr.rstrip("\n").isprintable()


def test_a_traceback_appears_with_debug_only() -> None:
    quiet = hwbench("profile", "-s", "nonsense")
    loud = hwbench("profile", "-s", "nonsense", "--debug")
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr
    assert loud.stderr.endswith(quiet.stderr)
    assert loud.returncode == quiet.returncode == 2


@pytest.mark.parametrize("arguments", [["--version"], ["bench", "--help"]])
def test_a_reader_that_left_is_no_error(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        done = subprocess.run(
            [*HWBENCH, *arguments],
            stdout=broken,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_told(unbuffered: str) -> None:
    """Also where Python still holds what did not fit, and tries it again at exit."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*HWBENCH, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 4
    assert_one_line(done.stderr, "no space left")


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_internal_error(closed: int) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"$@" {closed}>&-', "bash", *HWBENCH, "spaces"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if closed == 1:
        assert done.returncode == 2
        assert_one_line(done.stderr, "standard output is closed")
    else:
        assert done.returncode == 0
        assert "mbv3_small" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:surrogateescape"])
@pytest.mark.parametrize("arguments", [["fit", "-h"], ["log"]])
def test_a_stream_that_cannot_hold_a_character_shows_an_escape(
    tmp_path: Path, arguments: list[str], encoding: str
) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.add(measurement(1, tags={"note": "网络…"}))
    done = subprocess.run(
        [*HWBENCH, *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "HWBENCH_STORE": f"{tmp_path}/store.db"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert arguments != ["log"] or rb"\u7f51\u7edc\u2026" in done.stdout


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupt_is_one_line(tmp_path: Path, number: int, code: int) -> None:
    pipe = tmp_path / "archs"
    os.mkfifo(pipe)
    with (
        subprocess.Popen(
            [*HWBENCH, "predict", str(tmp_path / "p.npz"), "--file", str(pipe)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        pipe.open("w"),
    ):  # opens once the command waits for architectures
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stdout == ""
    assert_one_line(stderr, "interrupted")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_offers_the_verbs(shell: str) -> None:
    environment = {
        **os.environ,
        "_HWBENCH_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "hwbench e",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "hwbench e",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        HWBENCH, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "evaluate" in done.stdout
    assert "export" in done.stdout
    assert "bench" not in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InconclusiveError("too few"), 3, "too few"),
        (UnknownNameError("space", "x", []), 2, "unknown space 'x'"),
        (MemoryError(), 4, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "a.db"), 4, "no space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), 2, "a.csv"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 4, "internal error"),
        (ZeroDivisionError("division by zero"), 4, "internal error: ZeroDivisionError"),
    ],
)
def test_each_error_has_its_line_and_code(error: Exception, code: int, words: str) -> None:
    line, exit_code = explain(error)
    assert exit_code == code
    assert words in line


def test_an_unforeseen_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail: Callable[[object], None] = lambda _: {}["no such key"]  # noqa: E731
    monkeypatch.setattr("hwbench.console.write_text", fail)
    assert main(["--version"]) == 4
    assert_one_line(capsys.readouterr().err, "internal error", "--debug")


def test_shapes_and_cores_are_read_as_written() -> None:
    assert shapes(["x=1,3,224,224", "a=b=2", "scalar="]) == {
        "x": (1, 3, 224, 224),
        "a=b": (2,),
        "scalar": (),
    }
    with pytest.raises(UsageError, match=r"separate the sizes by commas, as 1,3,224,224"):
        shapes(["x=1x3x48x192"])
    with pytest.raises(UsageError, match=r"'3\.5' is not a positive whole number"):
        shapes(["x=1,3.5"])
    assert core_list("3,0-1") == (0, 1, 3)
    assert core_list(None) is None


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        (["confirmed", "not testable here"], 0),
        (["confirmed", "inconclusive"], 3),
        (["inconclusive", "refuted"], 1),
        (["partly"], 1),
    ],
)
def test_the_worst_verdict_decides_the_exit_code(outcomes: list[Outcome], code: int) -> None:
    verdicts = [Verdict("a claim", "how", outcome, {}, None, "now") for outcome in outcomes]
    assert exit_code(verdicts) == code

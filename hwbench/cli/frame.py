"""From an argument list to an exit code: the one place where an exception becomes a line.

Standard output carries results only, so that with ``--json`` it is always valid JSON or empty;
errors, notes and progress go to standard error. A traceback appears with ``--debug`` alone.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import typer

from hwbench import console
from hwbench.cli.app import app
from hwbench.errors import (
    EXIT_DEVICE,
    EXIT_OK,
    EXIT_USAGE,
    TORCH_MISSING,
    HwbenchError,
    UsageError,
)

EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE: what a shell reports for `hwbench ... | head`

#: A path that the user named can't be used: theirs to correct.
_PATH_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

#: The variable by which a shell's completion script asks for completions.
_COMPLETE = "_HWBENCH_COMPLETE"

#: Of the same app once: to put all verbs together takes a tenth of a second.
_command = cache(typer.main.get_command)


@dataclass(slots=True)
class Invocation:
    """What the options of one run say about the run itself; typer carries it as ``ctx.obj``."""

    debug: bool = False


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; only Ctrl-C escapes as an exception."""
    invocation = Invocation()
    if sys.stderr is None:  # closed: whoever did that wants to hear nothing
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as we run
    try:
        if sys.stdout is None:
            raise UsageError("standard output is closed: send it to a file, or to /dev/null")
        if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error does of itself
            sys.stdout.reconfigure(errors="backslashreplace")
        code = _invoke(argv, invocation)
        console.flush()
    except console.ClosedPipeError:
        return EXIT_CLOSED_PIPE
    except Exception as error:  # noqa: BLE001 - the outermost border: all becomes one line
        code = _report(error, invocation)
        console.settle()  # or Python's own flush at exit fails, and the code is its 120
    return code


def _invoke(argv: Sequence[str], invocation: Invocation) -> int:
    command = _command(app)
    try:
        if _COMPLETE in os.environ:
            command.main(list(argv), "hwbench", _COMPLETE)
        # Not command.main(): it would take a worker's broken pipe for our standard output's.
        with command.make_context("hwbench", list(argv), obj=invocation) as context:
            command.invoke(context)
    except typer.Exit as exit_:
        return exit_.exit_code
    except BrokenPipeError:
        if not console.is_read():  # typer's echo of a help text
            console.closed_pipe()
        raise
    except SystemExit as exit_:  # typer's own ways out use 1, which means a regression here
        if isinstance(exit_.__context__, BrokenPipeError):  # rich's print of a help text
            console.closed_pipe()
        return EXIT_USAGE if exit_.code else EXIT_OK
    return EXIT_OK


def _report(error: Exception, invocation: Invocation) -> int:
    message, code = explain(error)
    if invocation.debug:
        traceback.print_exception(error, file=sys.stderr)
    console.error("; ".join([message, *getattr(error, "__notes__", ())]))
    return code


def explain(error: Exception) -> tuple[str, int]:
    """The line and the exit code for an exception that reached the border."""
    match error:
        case HwbenchError():
            return str(error), error.exit_code
        case typer.TyperException():
            return _usage_line(error), error.exit_code
        case ModuleNotFoundError(name="torch"):
            return TORCH_MISSING, EXIT_USAGE
        case MemoryError():
            return "out of memory: close other programs, or ask for fewer at a time", EXIT_DEVICE
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"no space left on device{_where(error)}: free some and run again", EXIT_DEVICE
        case OSError() if error.errno in _PATH_ERRORS and error.filename is not None:
            return f"{os.strerror(error.errno or 0)}{_where(error)}: name another path", EXIT_USAGE
        case _:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return f"internal error: {what}; run again with --debug to see where", EXIT_DEVICE


def _usage_line(error: typer.TyperException) -> str:
    message = error.format_message().rstrip(".") or "say what to do"
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hwbench"
    return f"{message} (see '{path} --help')"


def _where(error: OSError) -> str:
    return f": {error.filename}" if error.filename is not None else ""

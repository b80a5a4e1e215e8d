"""Other interpreters than ours: what they hold, and how a runner of ours is run by one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import hwbench
from hwbench.errors import DeviceError
from hwbench.measure.jobs import RunnerSpec

_RUNNER: Final = str(Path(__file__).resolve().parent / "runners" / "elsewhere.py")
_PATIENCE_S: Final = 60
_PROBE: Final = """
import json
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("ai-edge-litert", "tflite-runtime", "numpy", "onnxruntime"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def packages_of(python: str) -> dict[str, str]:
    """Versions of numpy and of the runtimes that an interpreter has.

    Raises DeviceError, without a cure, for what does not run.
    """
    if python == sys.executable:
        command = [sys.executable, "-c", _PROBE]
    else:  # an environment of its own: without what this process was told to import from
        command = [python, "-I", "-c", _PROBE]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
        found: dict[str, str] = json.loads(done.stdout)
        if not isinstance(found, dict):
            raise ValueError("no Python answered")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DeviceError(f"the interpreter {python} does not run ({reason})") from error
    return found


def run_elsewhere(runner: RunnerSpec, folder: Path) -> RunnerSpec:
    """A runner that another interpreter can load; ``folder`` is for what it imports from.

    A link to hwbench alone: nothing else that is installed beside it is another's to import.
    """
    place = folder / "imports"
    place.mkdir(exist_ok=True)
    link = place / "hwbench"
    if not link.is_symlink():
        link.symlink_to(Path(hwbench.__file__).resolve().parent, target_is_directory=True)
    args = {"file": runner.file, "args": dict(runner.args), "path": str(place)}
    return RunnerSpec(_RUNNER, args)

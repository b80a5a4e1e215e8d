"""A plain install has no torch: what needs it says in one sentence how to get it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwbench.errors import EXIT_OK, EXIT_USAGE, TORCH_MISSING

_ROOT = Path(__file__).resolve().parents[2]

#: Runs as each interpreter starts: no finder finds torch, as where it was never installed.
_HIDE = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec


def without_torch(name, path=None, target=None):
    return None if name.partition(".")[0] == "torch" else find(name, path, target)


PathFinder.find_spec = without_torch
"""


def hwbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(_HIDE, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "hwbench", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(_ROOT)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(
    "command",
    [
        "supernet -s mbv3_small --data digits",
        "search pnag -s mbv3_small --budgets 1ms,2ms",
        "search eas -s mbv3_small --budgets 1ms,2ms --tasks in --supernet in --data digits",
        "search s2dnas --model net.py:build --weights in --data digits",
        "search dash --task mnist1d",
        "demo",
    ],
)
def test_it_is_told_how_to_get_it(command: str, tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    done = hwbench(tmp_path, *command.split())
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert done.stderr == f"hwbench: {TORCH_MISSING}\n"


@pytest.mark.usefixtures("own_store")
def test_claims_that_need_it_cannot_be_tested(tmp_path: Path) -> None:
    claims = ["repeatability", "lowering", "pnag", "eas", "dash", "s2dnas"]
    done = hwbench(tmp_path, "verify", *claims, "--quick", "--json")
    assert done.returncode == EXIT_OK, done.stderr
    told = json.dumps(json.loads(done.stdout))
    assert told.count(TORCH_MISSING) == len(claims)

"""The adb clients that tests use: Debian's (29) and the one in adbutils' wheel (36)."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

CLIENTS = ("system", "wheel")


def find_client(name: str) -> str:
    """The path of an adb client of `CLIENTS`; skips the test where that is not installed."""
    if name == "system":
        found = shutil.which("adb")
        if found is None:
            pytest.skip("no adb on PATH: apt-get install adb")
        return found
    spec = find_spec("adbutils")
    if spec is None or spec.origin is None:
        pytest.skip("no adbutils: pip install 'hwbench[mobile]'")
    return str(Path(spec.origin).parent / "binaries/adb")


def major_version(adb: str) -> int:
    """29 of "Version 29.0.6-debian"."""
    said = subprocess.run([adb, "version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"^Version (\d+)\.", said, re.MULTILINE)
    assert match, said
    return int(match[1])

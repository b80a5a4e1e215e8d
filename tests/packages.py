"""Packages of somebody else's, really installed: into a folder, not into our environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "1.2"

[tool.setuptools]
packages = ["{module}"]

"""


def install(folder: Path, name: str, modules: Mapping[str, str], entry_points: str) -> Path:
    """A folder for the path that holds package ``name``: its modules by their names, and the tables
    of entry points that its pyproject.toml ends with.
    """
    project, module = folder / "project", name.replace("-", "_")
    (project / module).mkdir(parents=True)
    head = _PROJECT.format(name=name, module=module)
    (project / "pyproject.toml").write_text(head + entry_points, encoding="utf-8")
    for each, source in {"__init__": "", **modules}.items():
        (project / module / f"{each}.py").write_text(source, encoding="utf-8")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(site), str(project)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return site

"""The wheel holds all of hwbench under that one name, and works outside the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

_NOT_SOURCE = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "results", "tests"
)

_IMPORT_ALL = """
import importlib, pathlib, pkgutil, hwbench
assert pathlib.Path(hwbench.__file__).is_relative_to({site!r}), hwbench.__file__
for module in pkgutil.walk_packages(hwbench.__path__, "hwbench."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


@dataclass(frozen=True)
class Install:
    """A built wheel and sdist, and a clean environment that holds the wheel."""

    wheel: Path
    sdist: Path
    bin: Path
    site: Path
    outside: Path

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [*map(str, command)],
            cwd=self.outside,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def install(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    place = tmp_path_factory.mktemp("packaging")
    shutil.copytree(root, place / "clone", symlinks=True, ignore=_NOT_SOURCE)
    # The wheel is built from the sdist, so a file that the sdist forgets fails here too.
    _check([sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "clone"], place)
    (wheel,) = (place / "dist").glob("*.whl")
    (sdist,) = (place / "dist").glob("*.tar.gz")

    venv.create(place / "venv", with_pip=False, symlinks=True)
    python = place / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    _check([*pip, "install", "--no-deps", "--no-index", str(wheel)], place)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    # The dependencies come from our own environment. A folder named in a .pth file has its own
    # .pth files ignored, so an editable hwbench there stays invisible.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    outside = place / "outside"
    outside.mkdir()
    return Install(wheel, sdist, python.parent, site, outside)


def _check(command: list[str], cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_wheel_holds_every_source_file_under_hwbench_only(install: Install, root: Path) -> None:
    packed = {n for n in zipfile.ZipFile(install.wheel).namelist() if ".dist-info/" not in n}
    assert packed == _sources(root)


def test_sdist_unpacks_to_the_same_sources(install: Install, root: Path) -> None:
    with tarfile.open(install.sdist) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if not m.isdir()}
    assert _sources(root) <= names


def _sources(root: Path) -> set[str]:
    """Every file under hwbench/, its symlinked packages included, as a path from the root."""
    return {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root / "hwbench", followlinks=True)
        for name in names
        if not folder.endswith("__pycache__")
    }


def test_every_module_imports_outside_the_clone(install: Install) -> None:
    done = install.run(
        install.bin / "python", "-W", "error", "-c", _IMPORT_ALL.format(site=str(install.site))
    )
    assert done.returncode == 0, done.stderr


def test_the_command_runs_outside_the_clone(install: Install) -> None:
    done = install.run(install.bin / "hwbench", "--help")
    assert done.returncode == 0, done.stderr
    assert "bench" in done.stdout


def test_pytest_finds_the_plugin(install: Install) -> None:
    code = (
        "from importlib.metadata import entry_points;"
        "print(entry_points(group='pytest11')['hwbench'].load().latency)"
    )
    done = install.run(install.bin / "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert "fixture" in done.stdout


def test_the_bare_folder_names_are_not_installed(install: Install) -> None:
    for name in ("devices", "predictors", "search"):
        done = install.run(install.bin / "python", "-c", f"import {name}")
        assert "ModuleNotFoundError" in done.stderr

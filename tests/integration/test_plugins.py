"""Packages whose plug-ins do not work: each is named, and hides no other's.

Those that do work are the README's: ``test_readme.py`` installs them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.errors import EXIT_DEVICE, EXIT_USAGE, PluginError, PredictorError, UnknownNameError
from hwbench.predictors import Provenance, fit_predictor, load_predictor, model_kinds
from hwbench.predictors.model import _KINDS
from hwbench.spaces import get_space, space_names
from hwbench.testing.predictors import made_up_training
from tests.packages import install

_DEVICES = """
from hwbench.devices.onnx_cpu import OnnxCpu

class Fine(OnnxCpu):
    name = "fine"
    description = "works"

NUMBER = 5
"""
_SPACES = """
from hwbench.spaces import get_space

def other():
    return get_space("mbv3_small")

def raises():
    raise ValueError("no table\\nof this machine")
"""
_PREDICTORS = """
from hwbench.predictors import MacsLine, register_model

@register_model("odd-line")
class OddLine(MacsLine):
    pass
"""
_POINTS = """
[project.entry-points."hwbench.devices"]
fine = "odd_package.devices:Fine"
gone = "odd_package.devices:Gone"
missing = "odd_package.missing:Fine"
number = "odd_package.devices:NUMBER"
raising = "odd_package.raising:Fine"

[project.entry-points."hwbench.spaces"]
other = "odd_package.spaces:other"
raises = "odd_package.spaces:raises"

[project.entry-points."hwbench.predictors"]
odd-line = "odd_package.predictors:OddLine"
misnamed = "odd_package.predictors:OddLine"
"""
_BAD_DEVICES = {"gone", "missing", "number", "raising"}
_BAD_SPACES = {"other", "raises"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    modules = {
        "devices": _DEVICES,
        "raising": "1 / 0",
        "spaces": _SPACES,
        "predictors": _PREDICTORS,
    }
    return install(tmp_path_factory.mktemp("odd"), "odd-package", modules, _POINTS)


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package is there for one test, which imports it anew."""
    kinds = dict(_KINDS)
    monkeypatch.syspath_prepend(str(site))
    yield site
    _KINDS.clear()
    _KINDS.update(kinds)
    for name in [name for name in sys.modules if name.partition(".")[0] == "odd_package"]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("verb", "bad"), [("devices", _BAD_DEVICES), ("spaces", _BAD_SPACES)], ids=["devices", "spaces"]
)
def test_a_listing_leaves_out_what_is_broken_and_says_so(
    verb: str, bad: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--json"]) == 0
    printed = capsys.readouterr()
    found = {each["name"]: each["package"] for each in json.loads(printed.out)[verb]}
    assert not bad & found.keys()
    if verb == "devices":
        assert found["fine"] == "odd-package 1.2"
        assert found["cpu"] == "hwbench"
    else:
        assert found == dict.fromkeys(set(space_names()) - bad, "hwbench")
    warnings = printed.err.splitlines()
    assert len(warnings) == len(bad)
    for name, line in zip(sorted(bad), warnings, strict=True):
        assert line.startswith(f"odd-package 1.2: its entry point {name} = odd_package.")
        assert f"of hwbench.{verb} does not work (" in line
    assert main([verb]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.usefixtures("installed", "own_store")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "x.onnx", "-d", "gone"], "has no attribute 'Gone'"),
        (["doctor", "-d", "missing"], "No module named 'odd_package.missing'"),
        (["profile", "-s", "mbv3_small", "-d", "raising"], "ZeroDivisionError: division by zero"),
        (["doctor", "-d", "number"], "5 is no subclass of hwbench.devices.base.Device"),
        (["profile", "-s", "raises"], "ValueError: no table of this machine"),
        (["profile", "-s", "other"], "it gives 'mbv3_small', not a space called 'other'"),
    ],
    ids=lambda each: each[-1] if isinstance(each, list) else "",
)
def test_asked_for_it_names_its_package_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == EXIT_DEVICE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hwbench: odd-package 1.2: its entry point {arguments[-1]} = odd_")
    assert words in line
    assert line.endswith("): correct that package, or uninstall it")


def test_without_the_package_its_names_are_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-d", "fine"]) == EXIT_USAGE
    assert "unknown device 'fine'" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_what_works_is_not_held_back_by_what_does_not() -> None:
    assert get_device("fine").description == "works"


PROVENANCE = Provenance("check", "0" * 32, "no runtime", 1)


class TestPredictors:
    def test_a_file_is_read_where_its_package_is_installed(
        self, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space, path = get_space("mbv3_small"), tmp_path / "odd.hwp"
        assert "odd-line" in model_kinds()
        assert "odd_package.predictors" not in sys.modules  # a list of names imports nothing
        made = fit_predictor(space, made_up_training(space, 20), PROVENANCE, kind="odd-line")
        made.save(path)
        codes = made_up_training(space, 9, seed=1).codes
        assert (load_predictor(path).predict(codes).mean_ms == made.predict(codes).mean_ms).all()
        _KINDS.pop("odd-line")
        monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(installed)])
        with pytest.raises(PredictorError, match="kind 'odd-line', which no package here offers"):
            load_predictor(path)

    @pytest.mark.usefixtures("installed")
    def test_one_that_is_registered_under_another_name_is_refused(self) -> None:
        space = get_space("mbv3_small")
        with pytest.raises(PluginError, match=r"is not registered by @register_model\('misnamed'"):
            fit_predictor(space, made_up_training(space, 20), PROVENANCE, kind="misnamed")

    @pytest.mark.usefixtures("installed")
    def test_a_name_that_is_misspelt_is_suggested(self) -> None:
        space = get_space("mbv3_small")
        with pytest.raises(UnknownNameError, match="did you mean 'odd-line'"):
            fit_predictor(space, made_up_training(space, 20), PROVENANCE, kind="odd-lime")

"""What the outside relies on: the names of `hwbench`, how light they are, the exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hwbench
from hwbench import errors

HEAVY = {
    "dask", "distributed", "matplotlib", "numpy", "onnx", "onnxruntime", "pandas", "plotly",
    "pyarrow", "scipy", "sklearn", "sqlalchemy", "torch",
}  # fmt: skip


@pytest.mark.parametrize("name", hwbench.__all__)
def test_every_public_name_loads(name: str) -> None:
    value = getattr(hwbench, name)
    assert name == "__version__" or value.__name__ == name


def test_public_names_are_listed_before_they_are_loaded() -> None:
    code = "import hwbench; assert set(hwbench.__all__) <= set(dir(hwbench))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'hwbench' has no attribute 'nonsense'"):
        hwbench.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import hwbench",
        "import hwbench.cli; hwbench.cli.main(['--help'])",
        "import hwbench.cli; hwbench.cli.main(['bench', '--help'])",
        "import hwbench.cli; hwbench.cli.main(['verify', '--help'])",
        "import hwbench.cli; hwbench.cli.main(['fleet', 'worker', '--help'])",
    ],
)
def test_light_paths_load_nothing_heavy(code: str) -> None:
    code += "; import sys; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert HEAVY.isdisjoint(done.stderr.split())


def test_exit_codes_follow_the_next_step_of_the_user() -> None:
    def code(error: type[errors.HwbenchError]) -> int:
        return error.exit_code

    assert {
        code(e)
        for e in (
            errors.UsageError,
            errors.UnknownNameError,
            errors.GraphError,
            errors.ModelError,
            errors.PredictorError,
            errors.ImportFileError,
            errors.StoreVersionError,
        )
    } == {2}
    assert code(errors.InconclusiveError) == 3
    assert {code(e) for e in (errors.DeviceError, errors.WorkerError, errors.StoreError)} == {4}


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    text = str(errors.UnknownNameError("space", "ofa_mbv", ["nasbench201", "ofa_mbv3"]))
    assert "did you mean 'ofa_mbv3'?" in text
    assert "known: nasbench201, ofa_mbv3" in text
    assert "known: none" in str(errors.UnknownNameError("space", "x", []))

"""Devices by their names, and the files that they are given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwbench.devices import get_device
from hwbench.devices.models import input_names, read_model_file
from hwbench.errors import ModelError, UnknownNameError


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("gpu", "cuda"),
        ("GPU:0", "cuda"),
        ("phone", "adb"),
        ("android:0123", "adb"),
        ("board", "shell"),
        ("tflite", "litert"),
        ("cdua", "cuda"),
    ],
)
def test_what_a_device_is_called_elsewhere_leads_to_it(said: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{meant}'"):
        get_device(said)


@pytest.mark.parametrize("said", ["npu", "tpu", "x", "mps", "raspberry", "pixel7"])
def test_a_name_that_is_far_off_is_not_taken_for_another(said: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        get_device(said)
    assert "did you mean" not in str(caught.value)
    assert "known: adb, cpu" in str(caught.value)


def test_what_is_no_tflite_file_is_refused_by_its_first_bytes(tmp_path: Path) -> None:
    """More than any memory holds: it would have to be read to be parsed."""
    path = tmp_path / "disk.tflite"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    for read in (read_model_file, input_names):
        with pytest.raises(ModelError, match="lacks the mark TFL3"):
            read(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    os.mkfifo(path)
    with pytest.raises(ModelError, match="a pipe, not a file"):
        read_model_file(path)


@pytest.mark.parametrize("name", ["missing.tflite", "nul\0.tflite"])
def test_a_tflite_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"tflite"):
        read_model_file(tmp_path / name)
    with pytest.raises(ModelError, match=r"tflite"):
        input_names(tmp_path / name)

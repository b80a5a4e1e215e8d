"""Predictor files: all of it comes back, nothing in them is believed, nothing is executed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwbench.errors import PredictorError
from hwbench.predictors import LatencyPredictor, Provenance, files, fit_predictor, load_predictor
from hwbench.records import digest
from hwbench.spaces import Decision, get_space
from hwbench.spaces.mbv3 import MobileNetV3Space
from hwbench.spaces.mbv3_small import MBV3_SMALL
from hwbench.testing.predictors import made_up_training

SPACE = get_space("mbv3_small")
KEY = "d41d8cd98f00b204e9800998ecf8427e"

within_one_file = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    provenance = Provenance("cpu", KEY, "onnxruntime 1.31.0", 1, "epoch-1", (1.5e6, 2.5e6))
    return fit_predictor(SPACE, made_up_training(SPACE, 40), provenance)


@pytest.fixture(scope="module")
def content(predictor: LatencyPredictor, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("predictor") / "good.hwp"
    predictor.save(path)
    return path.read_bytes()


def rewritten(content: bytes, change: Callable[[dict[str, Any]], None], *, honest: bool) -> bytes:
    """The file with its members changed; an honest one has a header that knows."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members.pop(files.HEADER))
    everything = {"header": header, "members": members}
    change(everything)
    if honest:
        header.pop("checksum", None)
        header["checksum"] = digest(header)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(files.HEADER, json.dumps(header))
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def refusal(tmp_path: Path, content: bytes) -> str:
    """The message with which a file of this content is refused."""
    path = tmp_path / "bad.hwp"
    path.write_bytes(content)
    with pytest.raises(PredictorError) as caught:
        load_predictor(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# --- there and back ---------------------------------------------------------------------------


def test_a_loaded_predictor_is_the_same_to_the_last_bit(
    predictor: LatencyPredictor, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "good.hwp"
    path.write_bytes(content)
    loaded = load_predictor(path, fingerprint_key=KEY)
    codes = SPACE.sample(200, np.random.default_rng(3))
    assert loaded.meta == predictor.meta
    assert np.array_equal(loaded.predict(codes).mean_ms, predictor.predict(codes).mean_ms)
    assert np.array_equal(loaded.predict(codes).sd_ms, predictor.predict(codes).sd_ms)
    assert np.array_equal(loaded.upper(codes, 0.98), predictor.upper(codes, 0.98))


def test_it_is_plain_json_and_arrays_that_numpy_opens(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read("predictor.json"))
        errors = np.load(io.BytesIO(archive.read("calibration.npy")), allow_pickle=False)
    assert header["meta"]["provenance"]["device"] == "cpu"
    assert header["meta"]["provenance"]["c0_ns"] == [1.5e6, 2.5e6]
    assert len(errors) == header["meta"]["n_train"] == 40


def test_saving_twice_gives_equal_bytes_and_replaces(
    predictor: LatencyPredictor, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "p.hwp"
    path.write_bytes(b"an old file")
    predictor.save(path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["p.hwp"]


def test_a_folder_that_is_not_there_is_named(predictor: LatencyPredictor, tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match=r"cannot write .*No such file"):
        predictor.save(tmp_path / "nowhere" / "p.hwp")


# --- damage -----------------------------------------------------------------------------------


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.hwp", tmp_path):
        with pytest.raises(PredictorError, match=r"cannot read .*(No such file|Is a directory)"):
            load_predictor(path)


@within_one_file
@given(st.data())
def test_a_truncated_file(content: bytes, tmp_path: Path, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(content) - 1))
    assert "fit it again" in refusal(tmp_path, content[:kept])


@within_one_file
@given(st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(
    predictor: LatencyPredictor, content: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(content)
    flipped[place] ^= 1 << bit
    path = tmp_path / "flipped.hwp"
    path.write_bytes(flipped)
    with suppress(PredictorError):
        loaded = load_predictor(path)
        # Zip's own dates and flags hold nothing of ours.
        codes = SPACE.sample(5, np.random.default_rng(0))
        assert loaded.meta == predictor.meta
        assert np.array_equal(loaded.predict(codes).mean_ms, predictor.predict(codes).mean_ms)


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", pickle.dumps([1])])
def test_something_else(tmp_path: Path, junk: bytes) -> None:
    assert "not a predictor file" in refusal(tmp_path, junk)


def test_another_zip(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({}))
    assert "no predictor.json inside" in refusal(tmp_path, out.getvalue())


# --- tampering --------------------------------------------------------------------------------


def drop_array(parts: dict[str, Any]) -> None:
    parts["members"].pop("calibration.npy")


def add_member(parts: dict[str, Any]) -> None:
    parts["members"]["run_me.py"] = b"print()"


def change_array(parts: dict[str, Any]) -> None:
    array = np.load(io.BytesIO(parts["members"]["calibration.npy"])) * 0.5
    out = io.BytesIO()
    np.save(out, array)
    parts["members"]["calibration.npy"] = out.getvalue()


def forged(name: str, array: np.ndarray) -> Callable[[dict[str, Any]], None]:
    """An array in place of another, with a description and a checksum that fit."""

    def change(parts: dict[str, Any]) -> None:
        out = io.BytesIO()
        np.lib.format.write_array(out, array, version=(1, 0))
        parts["members"][f"{name}.npy"] = out.getvalue()
        parts["header"]["arrays"][name] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "sha256": hashlib.sha256(out.getvalue()).hexdigest(),
        }

    return change


def scalar(place: int, value: float) -> Callable[[dict[str, Any]], None]:
    """One of unit, floor, tail, learned noise, its power, labels' noise, factor in its place."""

    def change(parts: dict[str, Any]) -> None:
        numbers = np.load(io.BytesIO(parts["members"]["model.scalars.npy"]))
        numbers[place] = value
        forged("model.scalars", numbers)(parts)

    return change


def filled(name: str, value: float) -> Callable[[dict[str, Any]], None]:
    """An array of the same shape that holds this value everywhere."""

    def change(parts: dict[str, Any]) -> None:
        array = np.load(io.BytesIO(parts["members"][f"{name}.npy"]))
        forged(name, np.full_like(array, value))(parts)

    return change


def validated_says(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts["header"]["meta"]["cross_validated"].update(changes)


def header_says(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts["header"].update(changes)


def forget(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts["header"]["meta"].pop(name)


def meta_says(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts["header"]["meta"].update(changes)


def provenance_says(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts["header"]["meta"]["provenance"].update(changes)


def test_a_pipe_and_a_device_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.hwp")
    (tmp_path / "zeros.hwp").symlink_to("/dev/zero")
    for name in ("pipe.hwp", "zeros.hwp"):
        with pytest.raises(PredictorError, match=rf"{name}: a pipe or a device, not a file$"):
            load_predictor(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (meta_says(n_train=4000), "predictor.json was changed after it was written"),
        (change_array, "'calibration' was changed after it was written"),
    ],
)
def test_changes_are_noticed(
    tmp_path: Path, content: bytes, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    assert message in refusal(tmp_path, rewritten(content, change, honest=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_array, "not those that its header names"),
        (add_member, "not those that its header names"),
        (header_says(format="other"), "not that of a predictor"),
        (header_says(version=99), "written by a newer hwbench (format 99, this one reads up to 4)"),
        (meta_says(session_sd=-0.1), "session_sd is -0.1"),
        (meta_says(session_sd="wide"), "session_sd is 'wide'"),
        (meta_says(session_sd=True), "session_sd is True"),
        (meta_says(session_sd=10**400), "session_sd is 1000"),
        (provenance_says(c0_ns=[10**400]), "its header is not understood"),
        (provenance_says(c0_ns=[float("nan")]), "threads or c0_ns cannot be"),
        (provenance_says(threads=0), "threads or c0_ns cannot be"),
        (forget("space"), "is of no space: a predictor of kernels takes ONNX files"),
        (forget("session_sd"), "its header is not understood ('session_sd')"),
        (header_says(version=0), "format version 0 does not exist"),
        (header_says(version="1"), "format version '1' does not exist"),
        (header_says(arrays=[]), "lacks its parts"),
        (header_says(meta=None), "lacks its parts"),
        (meta_says(space="no_space"), "unknown space 'no_space'"),
        (meta_says(kind="no-kind"), "kind 'no-kind', which no package here offers"),
        (meta_says(n_train="many"), "header is not understood"),
        (meta_says(provenance=None), "header is not understood"),
        (meta_says(witnesses=3), "header is not understood"),
        (meta_says(witnesses=[[99999]]), "witnesses are no codes"),
        (meta_says(created="yesterday"), "header is not understood"),
        (meta_says(created="2026-01-31T12:00:00"), "no UTC offset"),
        (forged("calibration", np.array([1.0, -1.0])), "arrays do not fit together"),
        (forged("calibration", np.array([np.nan, 1.0])), "holds values that are no numbers"),
        (forged("model.scopes", np.array([[99]], dtype=np.int16)), "arrays do not fit together"),
        (forged("model.kernel_map", np.zeros((3, 2), np.float32)), "arrays do not fit together"),
        (forged("model.scalars", np.zeros(2)), "arrays do not fit together"),
        (forged("calibration", np.array(["x"])), "has dtype '<U1'"),
        # What would answer with latencies that are negative, zero, NaN or infinite.
        *((scalar(0, unit), "a unit, a floor or a power") for unit in (-1.0, 0.0, 1e300)),
        *((scalar(1, floor), "a unit, a floor or a power") for floor in (-1.0, 0.0, 1e300)),
        *((scalar(place, -1.0), "scales that cannot be") for place in (2, 3, 5, 6)),
        *((scalar(place, 1e300), "scales that cannot be") for place in (2, 3, 5, 6)),
        (scalar(4, 1e300), "a unit, a floor or a power"),
        (scalar(6, 0.0), "scales that cannot be"),
        (filled("model.offset", 1e38), "scales that cannot be"),
        (filled("model.centres", 1e38), "scales that cannot be"),
        (filled("model.tables", -1e6), "a latency's scale is"),
        (filled("calibration", -1e9), "errors beyond 1e+06 scales"),
        (meta_says(widest_sd=float("inf")), "widest_sd is inf"),
        (meta_says(held_ms=[2.0, 1.0]), "held_ms is"),
        (meta_says(held_ms=[1.0]), "not enough values"),
        (meta_says(held_ms=[0.0, float("inf")]), "held_ms is"),
        (meta_says(n_train=-5), "n_train is -5"),
        (meta_says(seed=-1), "seed -1"),
        (validated_says(rmspe=float("nan")), "metrics that cannot be"),
        (validated_says(coverage_90=1.5), "metrics that cannot be"),
        (provenance_says(threads=10**400), "threads or c0_ns cannot be"),
        (forged("extra", np.zeros(3)), "arrays that no predictor of this kind has"),
        (meta_says(witnesses=[]), "witnesses are no codes"),
        (meta_says(witnesses=[[9] * 46]), "its witnesses are no networks"),
    ],
)
def test_forgeries_with_a_fitting_checksum_are_refused_by_what_they_say(
    tmp_path: Path, content: bytes, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    assert message in refusal(tmp_path, rewritten(content, change, honest=True))


def test_a_baseline_that_answers_with_negative_latencies_is_refused(tmp_path: Path) -> None:
    training = made_up_training(SPACE, 10)
    for kind, name in (("constant", "model.mean_and_sd"), ("macs-line", "model.line")):
        path = tmp_path / f"{kind}.hwp"
        fit_predictor(SPACE, training, Provenance("cpu", KEY, "", 1), kind=kind).save(path)
        load_predictor(path)
        bad = rewritten(path.read_bytes(), filled(name, -1.0), honest=True)
        assert "a network takes" in refusal(tmp_path, bad)


@pytest.mark.parametrize(
    ("version", "unknown"),
    [
        (1, ("session_sd", "sources", "widest_sd", "held_ms")),
        (2, ("sources", "widest_sd", "held_ms")),
        (3, ("held_ms",)),
    ],
)
def test_a_file_of_an_older_format_still_loads(
    tmp_path: Path,
    content: bytes,
    predictor: LatencyPredictor,
    version: int,
    unknown: tuple[str, ...],
) -> None:
    def as_it_was(parts: dict[str, Any]) -> None:
        parts["header"]["version"] = version
        for name in unknown:
            del parts["header"]["meta"][name]

    path = tmp_path / "old.hwp"
    path.write_bytes(rewritten(content, as_it_was, honest=True))
    codes = SPACE.sample(20, np.random.default_rng(0))
    old = load_predictor(path)
    assert np.array_equal(old.upper(codes, 0.9), predictor.upper(codes, 0.9))
    assert old.meta.held_ms is None
    if "widest_sd" in unknown:
        assert not old.unfamiliar(old.predict(codes)).any()


def test_a_pickled_array_is_not_unpickled(tmp_path: Path, content: bytes) -> None:
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (ran,)

    def change(parts: dict[str, Any]) -> None:
        forged("calibration", np.array([1.0, 2.0]))(parts)
        out = io.BytesIO()
        np.save(out, np.array([Payload()], dtype=object), allow_pickle=True)
        data = parts["members"]["calibration.npy"] = out.getvalue()
        described = parts["header"]["arrays"]["calibration"]
        described["sha256"] = hashlib.sha256(data).hexdigest()

    assert "not what the header says" in refusal(tmp_path, rewritten(content, change, honest=True))
    assert not ran.exists()


def test_a_header_that_breaks_a_parser_is_damage(tmp_path: Path, content: bytes) -> None:
    junk = b"(" * 9000

    def change(parts: dict[str, Any]) -> None:
        data = b"\x93NUMPY\x01\x00" + len(junk).to_bytes(2, "little") + junk
        parts["members"]["calibration.npy"] = data
        described = parts["header"]["arrays"]["calibration"]
        described["sha256"] = hashlib.sha256(data).hexdigest()

    message = refusal(tmp_path, rewritten(content, change, honest=True))
    assert "not in numpy's format: fit it again" in message


@pytest.mark.parametrize("shape", [(0, 2**70), (0,) * 99], ids=["long", "many axes"])
def test_a_shape_that_no_array_has_is_damage(
    tmp_path: Path, content: bytes, shape: tuple[int, ...]
) -> None:
    def change(parts: dict[str, Any]) -> None:
        described = parts["header"]["arrays"]["calibration"]
        file = io.BytesIO()
        said = {"descr": described["dtype"], "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, said)
        data = parts["members"]["calibration.npy"] = file.getvalue()
        described |= {"shape": shape, "sha256": hashlib.sha256(data).hexdigest()}

    assert "fit it again" in refusal(tmp_path, rewritten(content, change, honest=True))


def test_a_small_file_cannot_claim_a_huge_array(tmp_path: Path, content: bytes) -> None:
    def claim(parts: dict[str, Any]) -> None:
        parts["header"]["arrays"]["calibration"]["shape"] = [10**15]

    def inflate(parts: dict[str, Any]) -> None:
        parts["members"]["calibration.npy"] = bytes((1 << 28) + 10)

    message = refusal(tmp_path, rewritten(content, claim, honest=True))
    assert "not what the header says" in message
    bomb = rewritten(content, inflate, honest=True)
    assert len(bomb) < 1 << 20
    assert "larger than 256 MB" in refusal(tmp_path, bomb)


# --- of something else ------------------------------------------------------------------------


def test_a_predictor_of_another_device_is_refused_with_the_reason(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "p.hwp"
    path.write_bytes(content)
    with pytest.raises(PredictorError, match=r"another device or runtime \(cpu, onnxruntime"):
        load_predictor(path, fingerprint_key="0" * 32)


def test_a_predictor_of_another_space_is_refused_with_the_reason(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "p.hwp"
    path.write_bytes(content)
    with pytest.raises(PredictorError, match="a predictor of mbv3_small, not of ofa_mbv3"):
        load_predictor(path, space=get_space("ofa_mbv3"))


class OtherNetworks(MobileNetV3Space):
    """The decisions of mbv3_small, but every network has one more activation."""

    def build(self, choice):
        from hwbench.graph import GraphBuilder

        graph = super().build(choice)
        b = GraphBuilder(self.name)
        (name, spec), *_ = graph.inputs
        b.input(name, spec.shape)
        for op in graph.ops:
            b.op(op.kind, op.inputs, dict(op.attrs), name=op.name)
        return b.build(b.activation(graph.outputs[0], "relu"))


class OtherDecisions(MobileNetV3Space):
    """mbv3_small with the values of a decision in another order."""

    def __init__(self) -> None:
        super().__init__(MBV3_SMALL)
        first = self.decisions[0]
        turned = Decision(first.name, first.values[::-1])
        self.decisions = (turned, *self.decisions[1:])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (OtherNetworks(MBV3_SMALL), "the networks of mbv3_small"),
        (OtherDecisions(), "the decisions of mbv3_small have changed"),
    ],
)
def test_a_predictor_goes_stale_when_its_space_changes(
    tmp_path: Path, content: bytes, space: MobileNetV3Space, message: str
) -> None:
    path = tmp_path / "p.hwp"
    path.write_bytes(content)
    with pytest.raises(PredictorError, match=message):
        load_predictor(path, space=space)

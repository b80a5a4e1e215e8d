"""Phones and boards end to end: real adb clients, real inference, on a phone on loopback."""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.devices.models import read_model_file
from hwbench.devices.phone.device import AdbPhone, Board
from hwbench.devices.profile import Profile, sample_profile
from hwbench.errors import (
    EXIT_DEVICE,
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    EXIT_USAGE,
    ToolOutputError,
    UnsupportedDeviceError,
    UsageError,
)
from hwbench.fleet.seats import seats_of
from hwbench.lower import Int8, to_tflite
from hwbench.measure.jobs import Launched, RunnerSpec
from hwbench.measure.launches import measure_launches
from hwbench.measure.ops import profile_ops
from hwbench.measure.plan import Failure, Plan
from hwbench.records import Measurement
from hwbench.spaces import get_space
from hwbench.store import Store
from hwbench.testing.devices import check_device
from tests.measurements import measurement
from tests.phones import BIG_MASK, EPOCH, Lent, anchored
from tests.targets import tiny_net

ROOT = Path(__file__).resolve().parents[2]
#: On a machine that others use too an interval may be too wide to be an answer.
ANSWERED = (EXIT_OK, EXIT_INCONCLUSIVE)
CANARY = ROOT / "devices/canaries/conv_dw_v1.tflite"


@pytest.fixture
def board(tmp_path: Path, one: Lent) -> Board:
    """This machine, with the stand-in as its tool."""
    options = {"benchmark_model": str(one.phone.tool), "folder": str(tmp_path / "board")}
    return Board.open(None, {**options, "drift": "60"})


def write_net(folder: Path, name: str, channels: int, *, int8: bool = False) -> Path:
    path = folder / f"{name}.tflite"
    graph = tiny_net(channels).graph
    to_tflite(graph, int8=Int8() if int8 else None).save(path)
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


class TestContract:
    def test_a_phone_keeps_it(self, one: Lent) -> None:
        check_device(one.device())
        assert one.left_over() == []

    def test_a_board_keeps_it(self, board: Board, tmp_path: Path) -> None:
        check_device(board)
        assert not (tmp_path / "board").exists()


class TestProfile:
    def test_it_measures_a_sample_and_goes_on_where_it_was_interrupted(
        self, lent: Lent, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        device = lent.device()
        anchored(device, own_store)
        sample = sample_profile(device, get_space("mbv3_small"), 3)
        first = Profile(sample.space, sample.codes, device)
        with Store.open(own_store) as store:
            campaign = first.campaign(store)
            running = first.run(store, Plan(processes=2, seconds=0.02))
            measured = next(running)
            running.close()
            assert isinstance(measured, Measurement)
            done = store.done(campaign)
        assert len(done) == 1
        assert lent.left_over() == []
        assert lent.main("profile", "-s", "mbv3_small", "-n", "3", "--json") in ANSWERED
        told = printed(capsys)
        assert told["campaign"] == campaign
        assert (told["already_stored"], told["measured"]) == (1, 2)
        assert told["failed"] == 0
        with Store.open(own_store) as store:
            stored = store.measurements(plan=campaign)
        assert len({m.workload.key for m in stored}) == 3
        for result in stored:
            assert result.latency_ns is not None
            assert 1e4 < result.latency_ns < 1e9
            assert result.epoch == EPOCH
            assert result.tags["delegated"] == "1.000"
            assert result.fingerprint.facts["model"] == "loopback-x86"
            assert "mobile" not in json.dumps(dict(result.fingerprint.facts))
        assert lent.left_over() == []


class TestBench:
    def test_the_models_own_latency_comes_back(
        self, one: Lent, tmp_path: Path, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Of a model ten times as slow as the canary, of the canary, and of a quantised one."""
        anchored(one.device(), own_store)
        (code,) = sample_profile(one.device(), get_space("ofa_mbv3"), 1).codes
        graph = get_space("ofa_mbv3").graph(code)
        large = tmp_path / "large.tflite"
        to_tflite(graph).save(large)
        quantised = write_net(tmp_path, "quantised", 8, int8=True)
        models = [str(large), str(CANARY), str(quantised)]
        options = ("--seconds", "0.1", "--precision", "50", "--json")
        assert one.main("bench", *models, *options) in ANSWERED
        results = {entry["name"]: entry for entry in printed(capsys)["results"]}
        assert set(results) == {"large.tflite", CANARY.name, "quantised.tflite"}
        for entry in results.values():
            assert 0 < entry["latency_ms_low"] <= entry["latency_ms_high"]
        # Launches of the canary as a model agree with it as a canary, whatever this machine does.
        with Store.open(own_store) as store:
            (stored,) = (m for m in store.measurements() if m.workload.name == CANARY.name)
        ratio = stored.bursts.sample_ns / stored.bursts.canary_ns[:, :, 0].mean(axis=1)
        assert ((ratio > 1 / 5) & (ratio < 5)).all()
        large, small = results["large.tflite"], results[CANARY.name]
        assert large["latency_ms_high"] > 3 * small["latency_ms_low"]
        # A file has its own type of numbers.
        assert dict(stored.workload.options) == {"delegate": "xnnpack"}

    def test_operators_are_timed_in_a_pass_of_their_own(
        self, one: Lent, tmp_path: Path, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        anchored(one.device(), own_store)
        net = write_net(tmp_path, "net", 4)
        one.options["delegate"] = "none"
        options = ("--seconds", "0.1", "--precision", "50", "--profile-ops", "--json")
        assert one.main("bench", str(net), *options) in ANSWERED
        (entry,) = printed(capsys)["results"]
        assert "CONV_2D" in json.dumps(entry["operators"])
        assert one.left_over() == []

    def test_shares_of_operators_are_of_the_whole(self, one: Lent) -> None:
        found = profile_ops(one.device(), one.device().job(tiny_net(4), 1))
        assert sum(op.share for op in found.ops) == pytest.approx(1)
        assert found.whole_ns > 0

    def test_threads_and_cores_reach_the_tool(self, one: Lent) -> None:
        device = one.device()
        with device.launcher(2) as launcher:
            model = device.job(tiny_net(4), 2)
            handles = [launcher.load(device.canaries(2)[0].runner)]
            handles.append(launcher.load(RunnerSpec("benchmark_model", {"model": str(CANARY)})))
            commands = [launcher.command(handle, 0.1) for handle in handles]
            assert model.workload.threads == 2
        # One file, but only one of them is a canary.
        assert "--num_threads=1" in commands[0]
        assert "--num_threads=2" in commands[1]
        assert all(command[:2] == ("taskset", BIG_MASK) for command in commands)


class TestDelegates:
    def test_a_gpu_that_falls_back_gives_no_number(
        self, one: Lent, tmp_path: Path, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        anchored(one.device(delegate="gpu"), own_store)
        net = write_net(tmp_path, "net", 4)
        code = one.main("bench", str(net), "--json", "--option", "delegate=gpu")
        assert code == EXIT_DEVICE
        told = capsys.readouterr()
        (entry,) = json.loads(told.out)["results"]
        assert entry.get("latency_ms") is None
        assert "the gpu delegate did not run the model" in told.err
        with Store.open(own_store) as store:
            assert store.measurements() == []

    def test_a_partial_one_is_an_error_unless_it_is_allowed(
        self, one: Lent, own_store: Path
    ) -> None:
        one.phone.set_tool("partial")
        plan = Plan(processes=2, seconds=0.02)
        answers = {}
        for partial in ("no", "yes"):
            device = one.device(delegate="gpu", partial=partial)
            space = get_space("mbv3_small")
            jobs = sample_profile(device, space, 1).jobs
            (answers[partial],) = measure_launches(device, device.launcher(1), jobs, plan, None)
        refused, result = answers["no"], answers["yes"]
        assert isinstance(refused, Failure)
        assert "delegate ran" in str(refused.error)
        assert isinstance(result, Measurement)
        assert 0 < float(result.tags["delegated"]) < 1
        assert dict(result.workload.options)["precision_loss"] == "off"


class TestWhatItIs:
    def test_the_fingerprint_says_all_that_makes_the_latency(self, one: Lent) -> None:
        found = one.device().fingerprint(1)
        assert found.device == f"adb:{one.phone.serial}"
        facts = dict(found.facts)
        assert facts["model"] == "loopback-x86"
        assert facts["mask"] == BIG_MASK
        assert facts["reached by"] == "adb"
        assert len(facts["benchmark_model"]) == 16
        assert found.state["governors"] == "schedutil"
        one.phone.set_state("throttling")
        assert one.device().fingerprint(1).key == found.key
        one.phone.tool.write_text(one.phone.tool.read_text() + "\n# another build\n")
        assert one.device().fingerprint(1).key != found.key
        assert one.device(cores="little").fingerprint(1).key != found.key

    def test_a_phone_is_found_without_its_serial(self, one: Lent) -> None:
        device = AdbPhone.open(None, one.options)
        assert device.fingerprint(1).device == f"adb:{one.phone.serial}"

    def test_a_fleet_knows_it_by_its_serial_from_the_first(self, one: Lent) -> None:
        (seat,) = seats_of(["pixel7=adb"], one.options, "desk")
        assert seat.name == f"adb:{one.phone.serial}@desk"
        with pytest.raises(UsageError, match="is named twice"):
            seats_of(["adb", f"pixel7=adb:{one.phone.serial}"], one.options, "desk")

    def test_doctor_tells_phone_tool_and_state(
        self, one: Lent, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        anchored(one.device(), own_store)
        assert one.main("doctor", "--json") == EXIT_OK
        checks = {check["name"]: check for check in printed(capsys)["checks"]}
        assert "loopback-x86" in checks["connection"]["detail"]
        assert "ran a canary" in checks["benchmark_model"]["detail"]
        one.phone.set_state("throttling")
        assert one.main("doctor", "--json") == EXIT_OK
        checks = {check["name"]: check for check in printed(capsys)["checks"]}
        assert checks["state"]["state"] == "warn"
        assert "thermal status 2" in checks["state"]["detail"]

    def test_doctor_says_where_the_tool_is_published(
        self, one: Lent, capsys: pytest.CaptureFixture[str]
    ) -> None:
        del one.options["benchmark_model"]
        assert one.main("doctor", "--json") == EXIT_DEVICE
        checks = {check["name"]: check for check in printed(capsys)["checks"]}
        assert checks["benchmark_model"]["state"] == "fail"
        assert "storage.googleapis.com" in checks["benchmark_model"]["cure"]


class TestFit:
    """Options that reach a phone are no label of what was measured on it."""

    @pytest.fixture
    def measured(self, one: Lent, own_store: Path) -> int:
        device, space = one.device(), get_space("mbv3_small")
        here = device.fingerprint(1)
        elsewhere = dataclasses.replace(here, facts={**here.facts, "mask": "f"})
        texts = space.decode(space.sample(40, np.random.default_rng(0)))
        with Store.open(own_store) as store:
            for number, text in enumerate(texts):
                made = measurement(
                    number,
                    work_space=space.name,
                    work_arch=text,
                    work_name=text,
                    work_options=device.options.labels,
                    fingerprint=here if number < 30 else elsewhere,  # the newer ones
                )
                store.add(made)
        return 30

    def test_the_phones_own_are_found_with_the_options_that_reach_it(
        self, one: Lent, measured: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = str(tmp_path / "p.hwp")
        assert one.main("fit", "-s", "mbv3_small", "-o", path, "--json") == EXIT_OK
        assert printed(capsys)["n_train"] == measured

    @pytest.mark.usefixtures("measured")
    def test_an_option_that_it_has_not_is_refused(
        self, one: Lent, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one.options["benchmark_modell"] = "/x"
        assert one.main("fit", "-s", "mbv3_small") == EXIT_USAGE
        assert "did you mean 'benchmark_model'" in capsys.readouterr().err


class TestCores:
    def test_a_board_that_hides_its_speeds_runs_on_all(self, board: Board) -> None:
        if Path("/sys/devices/system/cpu/cpu0/cpufreq").exists():
            pytest.skip("this machine tells its cores' speeds")
        assert board.fingerprint(1).facts["mask"] == "all"
        big = Board(dataclasses.replace(board.options, cores="big"))
        with pytest.raises(UnsupportedDeviceError, match="which cores are big"):
            big.launcher(1)

    def test_big_ones_are_the_default_of_a_phone(self, one: Lent) -> None:
        assert one.device().mask == one.device(cores="big").mask == BIG_MASK
        assert one.device(cores="all").mask is None
        assert one.device(cores="little").mask == "f"
        assert one.device(cores="1").mask == "1"

    @pytest.mark.parametrize("cores", ["100", "0", "; reboot", "-1", "$(id)"])
    def test_a_mask_that_is_none_is_refused(self, one: Lent, cores: str) -> None:
        with pytest.raises(UsageError, match="cores must be"):
            one.device(cores=cores).launcher(1)


class TestFiles:
    def test_they_are_named_by_content_and_gone_afterwards(self, one: Lent, tmp_path: Path) -> None:
        device = one.device()
        nets = [write_net(tmp_path, f"net{i}", 4 + i) for i in range(2)]
        specs = [RunnerSpec("benchmark_model", {"model": str(net)}) for net in nets]
        with device.launcher(1) as launcher:
            handles = [launcher.load(spec) for spec in (*specs, specs[0])]
            assert len(set(handles)) == 3
            names = one.left_over()
            assert len(names) == 3  # of the tool and of two contents
            assert all(len(Path(name).stem) == 32 for name in names)
            launcher.unload(handles[0])
            (outcome,) = launcher.run(handles[2:], 0.02).outcomes
            assert isinstance(outcome, Launched)
            launcher.unload(handles[2])
            assert len(one.left_over()) == 2
        assert one.left_over() == []
        assert not one.folder.exists()

    def test_a_folder_that_was_there_stays(self, one: Lent) -> None:
        one.folder.mkdir()
        (one.folder / "notes").write_text("mine")
        with one.device().launcher(1) as launcher:
            launcher.load(one.device().canaries(1)[0].runner)
        assert one.left_over() == ["notes"]


def test_a_tool_that_ignores_a_flag_gives_no_number(one: Lent, tmp_path: Path) -> None:
    one.forget_flag("gpu_precision_loss_allowed")
    device = one.device(delegate="gpu", partial="yes")
    one.phone.set_tool("partial")
    with device.launcher(1) as launcher:
        handle = launcher.load(RunnerSpec("", {"model": str(CANARY)}))
        (outcome,) = launcher.run([handle], 0.02).outcomes
    assert isinstance(outcome, ToolOutputError)
    assert "--gpu_precision_loss_allowed=false" in str(outcome)
    assert "newer build" in str(outcome)


def test_a_boards_folder_has_a_name_that_nobody_can_have_taken() -> None:
    folders = {Board.open(None, {"benchmark_model": "/bin/true"}).shell.folder for _ in "abc"}
    assert len(folders) == 3


def test_a_board_measures_like_the_phone(board: Board, tmp_path: Path) -> None:
    """Whole, with a file and a graph in int8."""
    net = write_net(tmp_path, "net", 4)
    int8 = Board(dataclasses.replace(board.options, dtype="int8"))
    jobs = [board.job(read_model_file(net), 1), int8.job(tiny_net(8), 1)]
    plan = Plan(processes=2, seconds=0.02)
    results = list(measure_launches(board, board.launcher(1), jobs, plan, None))
    assert all(isinstance(result, Measurement) for result in results)
    assert {result.fingerprint.facts["reached by"] for result in results} == {"local"}  # type: ignore[union-attr]
    kinds = {dict(result.workload.options).get("dtype") for result in results}
    assert kinds == {None, "int8"}


def test_a_board_is_told_of_the_build_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HWBENCH_BENCHMARK_MODEL", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert main(["doctor", "-d", "shell", "--json"]) == EXIT_DEVICE
    checks = {check["name"]: check for check in printed(capsys)["checks"]}
    assert "linux_x86-64_benchmark_model" in json.dumps(checks["benchmark_model"])
    assert checks["connection"]["detail"].endswith(platform.release())


def test_a_temporary_folder_that_cannot_be_is_not_taken_for_the_users_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a\nb"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with pytest.raises(UsageError, match="set TMPDIR to another") as caught:
        _ = Board.open(None, {}).shell
    assert str(caught.value).isprintable()
    assert Board.open(None, {"folder": str(tmp_path)}).shell.base == str(tmp_path)


def test_there_is_one_board() -> None:
    assert main(["doctor", "-d", "shell:other"]) == EXIT_USAGE

"""What a user reads where a phone cannot be measured, and texts that are out for harm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwbench.cli import main
from hwbench.devices.models import GraphModel
from hwbench.errors import EXIT_DEVICE, EXIT_USAGE, DeviceError, UsageError
from hwbench.lower import to_tflite
from hwbench.measure.jobs import Launched, RunnerSpec
from hwbench.measure.launches import measure_launches
from hwbench.measure.plan import Plan
from hwbench.records import Measurement
from tests.loopback import DieInShell, LoopbackPhone, NoSpace
from tests.phones import Lent
from tests.targets import tiny_net

pytestmark = pytest.mark.usefixtures("impatient")

PLAN = Plan(processes=2, seconds=0.02, loaded=1)
#: In a script of launches, and in a push.
LAUNCH, PUSH = "--graph", ".part"


class TestWhatTheCommandSays:
    """Nothing can be measured: one line with the cure, and exit code 4."""

    def refused(self, one: Lent, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        code = one.main("profile", "-s", "mbv3_small", "-n", "2")
        said = capsys.readouterr().err
        assert code == EXIT_DEVICE, said
        error = [line for line in said.splitlines() if line.startswith("hwbench: ")]
        assert len(error) == 1
        assert all(word in error[0] for word in words), said

    def test_a_32_bit_phone(self, one: Lent, capsys: pytest.CaptureFixture[str]) -> None:
        one.phone.set_property("ro.product.cpu.abilist64", "")
        self.refused(one, capsys, "32-bit phone", "64-bit")

    def test_no_adb(self, one: Lent, capsys: pytest.CaptureFixture[str]) -> None:
        one.options["adb"] = "/nowhere/adb"
        self.refused(one, capsys, "/nowhere/adb", "name an adb that runs")

    def test_no_tool(self, one: Lent, capsys: pytest.CaptureFixture[str]) -> None:
        one.options["benchmark_model"] = "/nowhere/benchmark_model"
        self.refused(one, capsys, "/nowhere", "https://storage.googleapis.com")
        del one.options["benchmark_model"]
        self.refused(one, capsys, "name it by --option", "https://storage.googleapis.com")

    def test_an_unauthorised_phone(self, one: Lent, capsys: pytest.CaptureFixture[str]) -> None:
        one.phone.adb(one.client, "disconnect")
        one.phone.faults.authorise(False)
        one.phone.adb(one.client, "connect", one.phone.serial)
        self.refused(one, capsys, "does not trust this machine", "unlock it")

    def test_a_phone_that_is_not_there(self, one: Lent, capsys: pytest.CaptureFixture[str]) -> None:
        one.phone.adb(one.client, "disconnect")
        self.refused(one, capsys, "is connected", "USB debugging")

    def test_several_phones(self, one: Lent, capsys: pytest.CaptureFixture[str]) -> None:
        with LoopbackPhone(beside=one.phone) as other:
            other.connect(one.client)
            given = [f"--option={name}={value}" for name, value in one.options.items()]
            code = main(["profile", "-d", "adb", "-s", "mbv3_small", "-n", "2", *given])
            said = capsys.readouterr().err
            assert code == EXIT_DEVICE
            assert one.phone.serial in said
            assert other.serial in said

    def test_a_full_phone(self, one: Lent, capsys: pytest.CaptureFixture[str]) -> None:
        one.phone.faults.order(NoSpace(PUSH), times=99)
        self.refused(one, capsys, "no space left", "free some")

    def test_a_phone_that_drops_for_good(
        self, lent: Lent, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lent.phone.faults.order(DieInShell(LAUNCH, after_bytes=100, offline_s=60), times=99)
        self.refused(lent, capsys, "did not come back within")


HOSTILE = [
    "; touch {}",
    "$(touch {})",
    "`touch {}`",
    "'; touch {}; '",
    '"; touch {}; "',
    "a\ntouch {}\n",
    "-rf && touch {}",
    "| touch {} &",
]


class TestHostileText:
    """A file that is never made tells that no text became a command."""

    @pytest.fixture
    def trap(self, tmp_path: Path) -> Iterator[Path]:
        path = tmp_path / "trap"
        yield path
        assert not path.exists()

    @pytest.fixture
    def texts(self, trap: Path) -> list[str]:
        return [text.format(trap) for text in HOSTILE]

    def test_as_a_serial(self, one: Lent, texts: list[str]) -> None:
        given = [f"--option={name}={value}" for name, value in one.options.items()]
        for text in texts:
            assert main(["doctor", "-d", f"adb:{text}", *given]) in (EXIT_USAGE, EXIT_DEVICE)

    @pytest.mark.parametrize("option", ["cores", "adb", "benchmark_model", "delegate"])
    def test_as_an_option(self, one: Lent, option: str, texts: list[str]) -> None:
        for text in texts:
            with (
                pytest.raises((UsageError, DeviceError)),
                one.device(**{option: text}).launcher(1) as launcher,
            ):
                launcher.load(one.device().canaries(1)[0].runner)

    def test_as_a_folder(self, one: Lent, texts: list[str]) -> None:
        """Any name will do, of one line."""
        for text in texts:
            device = one.device(folder=f"{one.phone.folder}/{text}")
            if "\n" in text:
                with pytest.raises(UsageError, match="folder must be"):
                    device.launcher(1)
                continue
            with device.launcher(1) as launcher:
                script = launcher.run([launcher.load(device.canaries(1)[0].runner)], 0.01)
            assert isinstance(script.outcomes[0], Launched)

    def test_as_the_names_of_models_and_tools(
        self, one: Lent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        net = tiny_net(4).graph
        paths = [tmp_path / f"{text.format('trap')}.tflite" for text in HOSTILE]
        for path in paths:
            to_tflite(net).save(path)
        tool = tmp_path / "-$(touch trap);'"
        shutil.copy(one.phone.tool, tool)
        device = one.device(benchmark_model=str(tool))
        with device.launcher(1) as launcher:
            specs = [RunnerSpec("benchmark_model", {"model": str(path)}) for path in paths]
            script = launcher.run([launcher.load(spec) for spec in specs], 0.01)
        assert script.broken is None
        assert all(isinstance(outcome, Launched) for outcome in script.outcomes)
        assert len(script.outcomes) == len(HOSTILE)
        for folder in (tmp_path, one.phone.folder):
            assert not (folder / "trap").exists()

    def test_as_a_property(self, one: Lent, texts: list[str]) -> None:
        for text in texts:
            for name in ("ro.product.model", "ro.build.fingerprint", "ro.soc.model"):
                one.phone.set_property(name, text)
            facts = one.device().fingerprint(1).facts
            assert facts["model"]
            assert all(value.isprintable() and len(value) <= 80 for value in facts.values())

    def test_as_an_architecture(self, one: Lent, texts: list[str]) -> None:
        device, graph = one.device(), tiny_net(4).graph
        jobs = [device.job(GraphModel(graph, text), 1) for text in texts[:2]]
        results = list(measure_launches(device, device.launcher(1), jobs, PLAN, None))
        assert all(isinstance(result, Measurement) for result in results)

"""Hosts of a fleet train the seeds of a search: the controllers that this machine would make."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.errors import NoDeviceError, UsageError
from hwbench.fleet import link
from hwbench.fleet.seats import Seats
from hwbench.predictors import BudgetOracle, MacsLine, Provenance, fit_predictor
from hwbench.search import hosts as hosts_module
from hwbench.search.accuracy.proxy import CapacityProxy
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag import Costs, Schedule, train_generator
from hwbench.search.pnag.afar import trainer_afar
from hwbench.search.seeds import trained_here
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training
from tests.fleet_hosts import hosts

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL = get_space("mbv3_small")
SHORT = Schedule(steps=3, last=2, first=20)
#: Of a ledger, what does not depend on how busy the machine is.
COUNTS = ("training_steps", "validations", "evaluator_calls", "oracle_queries")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A predictor where ``hwbench fit`` would put it."""
    folder = tmp_path_factory.mktemp("seeds")
    place = Provenance("cpu", "0" * 32, "made up", 1)
    predictor = fit_predictor(SMALL, made_up_training(SMALL, 40), place, kind=MacsLine.kind)
    predictor.save(folder / "cpu-mbv3_small.hwp")
    return folder


def searched(folder: Path, trainer: object) -> tuple[object, SearchLedger, list[float]]:
    from hwbench.predictors import load_predictor

    oracle, shares = BudgetOracle(load_predictor(folder / "cpu-mbv3_small.hwp")), list[float]()
    made, ledger = train_generator(
        CapacityProxy(SMALL),
        oracle,
        [0.9, 2.0],
        costs=Costs(30, plan=SHORT),
        seed=5,
        seeds=2,
        trainer=trainer,
        progress=lambda what, share: shares.append(share),
    )
    return made, ledger, shares


def test_they_are_those_of_this_machine_bit_for_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, costs, _ = searched(folder, trained_here)
    # One: hosts are processes, and torch's generator is one a process.
    with hosts(1, Seats(())) as client:
        trainer = trainer_afar(client)
        there, same_costs, shares = searched(folder, trainer)
        assert same_costs.by_seed == costs.by_seed
        for name, array in here.policy.state().items():
            assert np.array_equal(array, there.policy.state()[name])
        assert np.array_equal(here.kept, there.kept)
        for name in COUNTS:
            assert getattr(costs, name) == getattr(same_costs, name)
        assert shares == sorted(shares)

        other = iter(range(9))
        monkeypatch.setattr(hosts_module, "software", lambda: {"torch": str(next(other))})
        with pytest.raises(UsageError, match="install the same on both"):
            searched(folder, trainer)


def test_the_command_trains_them_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("hwbench.search.pnag.Costs", lambda *spent: Costs(*spent, plan=SHORT))
    fleet = ["--seeds", "2", "--fleet", "tcp://127.0.0.1:9"]
    command = ["search", "pnag", "-s", "mbv3_small", "--budgets", "0.9,2", "--labels", "30"]
    with hosts(1, Seats(())) as client:
        monkeypatch.setattr(link, "connected", lambda address, tls: nullcontext(client))
        assert main([*command, *fleet, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {*found["by_seed"]} == {"0", "1"}
        assert main([*command, *fleet]) == 0
        assert "what each seed would answer by itself: 0: " in capsys.readouterr().err
    with hosts(1, Seats(()), computes=False) as client:
        monkeypatch.setattr(link, "connected", lambda address, tls: nullcontext(client))
        assert main([*command, *fleet]) == NoDeviceError.exit_code
        assert "fleet worker … --compute" in capsys.readouterr().err
    assert main([*command, "--fleet", "tcp://127.0.0.1:9"]) == UsageError.exit_code
    assert "or trains --seeds: give one" in capsys.readouterr().err

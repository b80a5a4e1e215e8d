"""From a known device to a new one: `suggest`, `profile --file`, `fit --sources`, `evaluate`."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.errors import EXIT_OK, EXIT_USAGE
from hwbench.predictors import Provenance, fit_predictor, load_predictor, training_set
from hwbench.spaces import get_space
from hwbench.store import Store
from tests.measurements import measurement

SPACE = get_space("mbv3_small")


def known_device(path: Path, seed: int) -> Path:
    """A predictor of a made-up device."""
    rng = np.random.default_rng(seed)
    codes = SPACE.sample(60, rng)
    latency_ms = rng.uniform(0.1, 1) + SPACE.macs(codes) / rng.uniform(0.5e7, 2e7)
    training = training_set(SPACE, codes, latency_ms, 0.01 * latency_ms)
    fit_predictor(SPACE, training, Provenance(path.stem, "f" * 32, "x", 1)).save(path)
    return path


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("known")
    return ",".join(str(known_device(folder / f"{name}.hwp", i)) for i, name in enumerate("ab"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


class TestSuggest:
    def test_it_names_architectures_one_a_line(
        self, devices: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["suggest", "-s", "mbv3_small", "-n", "7", "--sources", devices]
        assert main(arguments) == EXIT_OK
        texts = said(capsys).splitlines()
        assert len(set(texts)) == 7
        SPACE.encode(texts)
        assert main([*arguments, "--json"]) == EXIT_OK
        assert json.loads(said(capsys))["architectures"] == texts

    def test_into_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["suggest", "-s", "mbv3_small", "-n", "3"]
        assert main(arguments) == EXIT_OK
        texts, shown = capsys.readouterr()
        assert shown.startswith("choosing 3 architectures ...\n")
        assert main([*arguments, "-o", str(tmp_path / "next.txt")]) == EXIT_OK
        texts_only, told = capsys.readouterr()
        assert texts_only == ""
        assert told.endswith(f"Written to {tmp_path / 'next.txt'}\n")
        assert (tmp_path / "next.txt").read_text() == texts
        assert main([*arguments, "-o", str(tmp_path / "no" / "next.txt")]) == EXIT_USAGE
        refused = capsys.readouterr().err  # before anything is chosen
        assert refused.startswith("hwbench: ")
        assert "make it first" in refused

    def test_a_list_stays_where_no_new_one_can_be_written(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "next.txt").write_text("the old one\n")

        def full(path: Path, *_: object, **__: object) -> None:
            path.open("w").close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_text", full)
        asked = ["suggest", "-s", "mbv3_small", "-n", "2", "-o", str(tmp_path / "next.txt")]
        assert main(asked) == EXIT_USAGE
        assert "No space left on device" in capsys.readouterr().err
        assert (tmp_path / "next.txt").read_text() == "the old one\n"
        assert len(list(tmp_path.iterdir())) == 1

    def test_too_many_are_refused_before_any_is_drawn(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["suggest", "-s", "mbv3_small", "-n", "1000000000"]) == EXIT_USAGE
        assert "--samples 1,000,000,000: at most 5,000 of a space" in capsys.readouterr().err

    def test_what_is_known_is_not_named_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["suggest", "-s", "mbv3_small", "-n", "5"]) == EXIT_OK
        first = said(capsys)
        known = tmp_path / "known.txt"
        known.write_text(first)
        assert main(["suggest", "-s", "mbv3_small", "-n", "5", "--known", str(known)]) == EXIT_OK
        assert not {*said(capsys).splitlines()} & {*first.splitlines()}

    def test_known_ones_that_are_none(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        known = tmp_path / "known.txt"
        known.write_text("\n")
        assert main(["suggest", "-s", "mbv3_small", "--known", str(known)]) == EXIT_USAGE
        told = capsys.readouterr().err
        assert told == f"hwbench: {known} names no architecture: give one a line\n"

    @pytest.mark.parametrize("verb", ["suggest --known", "profile --file"])
    def test_a_list_that_was_cut_short_is_named(
        self, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (text,) = SPACE.decode(SPACE.sample(1, np.random.default_rng(0)))
        (tmp_path / "cut.txt").write_text(f"{text}\n{text[:20]}")
        arguments = [*verb.split(), str(tmp_path / "cut.txt"), "-s", "mbv3_small"]
        assert main(arguments) == EXIT_USAGE
        assert capsys.readouterr().err.startswith(f"hwbench: {tmp_path / 'cut.txt'}: mbv3_small: ")

    def test_more_than_there_are(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        space = get_space("nasbench201")
        every = space.all_codes()
        asked = ["suggest", "-s", "nasbench201", "-n"]
        assert main([*asked, str(len(every) + 1)]) == EXIT_USAGE
        assert f"nasbench201 has {len(every):,} architectures: " in capsys.readouterr().err
        known = tmp_path / "known.txt"
        known.write_text("\n".join(space.decode(every[:-3])))
        assert main([*asked, "4", "--known", str(known)]) == EXIT_USAGE
        assert f"has 3 architectures that {known} does not name" in capsys.readouterr().err
        assert main([*asked, "3", "--known", str(known)]) == EXIT_OK
        assert {*said(capsys).splitlines()} == {*space.decode(every[-3:])}

    def test_sources_that_are_none(
        self, tmp_path: Path, devices: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = devices.split(",", maxsplit=1)[0]
        for given, message in (
            (f"{one},{one}", "each once"),
            (f"{one},", "write names with commas"),
            (str(tmp_path / "no.hwp"), "no.hwp"),
        ):
            assert main(["suggest", "-s", "mbv3_small", "--sources", given]) == EXIT_USAGE
            assert message in capsys.readouterr().err
        assert main(["suggest", "-s", "ofa_mbv3", "--sources", one]) == EXIT_USAGE
        assert "mbv3_small" in capsys.readouterr().err


@pytest.mark.usefixtures("short_calibration")
def test_suggested_architectures_are_measured(
    own_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suggest", "-s", "mbv3_small", "-n", "2"]) == EXIT_OK
    texts = said(capsys)
    twice = texts + texts
    monkeypatch.setattr("sys.stdin", io.StringIO(twice))
    code = main(["profile", "-d", "cpu", "-s", "mbv3_small", "--file", "-", "--json"])
    assert code in (EXIT_OK, 3)  # a busy machine may have no answer
    assert json.loads(said(capsys))["architectures"] == 2
    with Store.open(own_store) as store:
        assert {m.workload.arch for m in store.measurements()} == {*texts.split("\n")[:2]}


def test_profile_takes_a_file_or_a_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("nonsense\n")
    given = ["profile", "-d", "cpu", "-s", "mbv3_small", "--file", str(file)]
    assert main([*given, "-n", "3"]) == EXIT_USAGE
    assert "leave --samples and --fix out" in capsys.readouterr().err
    assert main(given) == EXIT_USAGE


def test_fit_learns_from_other_devices(
    own_store: Path, devices: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = SPACE.sample(8, np.random.default_rng(5))
    latency_ns = 1e6 * (0.4 + SPACE.macs(codes) / 1e7)
    with Store.open(own_store) as store:
        for i, (text, ns) in enumerate(zip(SPACE.decode(codes), latency_ns, strict=True)):
            times = {"latency_ns": float(ns), "low_ns": 0.99 * ns, "high_ns": 1.01 * ns}
            store.add(measurement(i, work_space="mbv3_small", work_arch=text, **times))
    path = tmp_path / "new.hwp"
    arguments = ["fit", "-d", "cpu", "-s", "mbv3_small", "-o", str(path), "--sources", devices]
    assert main(arguments) == EXIT_OK
    predictor = load_predictor(path)
    assert list(predictor.meta.sources) == devices.split(",")
    fresh = SPACE.sample(200, np.random.default_rng(6))
    wanted = 0.4 + SPACE.macs(fresh) / 1e7
    assert np.median(np.abs(predictor.predict(fresh).mean_ms / wanted - 1)) < 0.03

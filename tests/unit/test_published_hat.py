"""HAT: its space, and its tables of averages read as networks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.cli import main
from hwbench.errors import EXIT_USAGE, PredictorError, UnknownNameError
from hwbench.predictors import Provenance, fit_predictor
from hwbench.predictors.costs import COSTS, CostTables, cost_tables, op_costs
from hwbench.predictors.published import fit_published, read_published
from hwbench.predictors.published_hat import COLUMNS, codes_of_averages
from hwbench.predictors.tables import symbols
from hwbench.spaces import Choice, Codes
from hwbench.spaces.hat import CROSS, IWSLT14, WMT14, HatSpace

WMT = HatSpace(WMT14)
SMALL = [512, 6, 512, 2, 512, 1, 512, 2, 2, 1]
PAIR = "wmt14ende/cpu_xeon"


def averages(choice: Choice) -> list[float]:
    """The ten numbers that HAT writes of a network (``get_config_features``)."""

    def mean(prefix: str, count: int) -> float:
        return float(np.mean([choice[f"{prefix}{i}"] for i in range(count)]))

    depth = choice["d"]
    cross = np.mean([CROSS[choice[f"dc{i}"]] for i in range(depth)], axis=0)
    encoder = [choice["ew"], 6, mean("em", 6), mean("eh", 6)]
    return [*encoder, choice["dw"], depth, mean("dm", depth), mean("dh", depth), *cross.tolist()]


def read(rows: Sequence[Sequence[float]]) -> Codes:
    """The codes of rows of averages, whose indices are 10, 11, …"""
    table = pd.DataFrame(rows, columns=[*COLUMNS], index=range(10, 10 + len(rows)))
    return codes_of_averages(Path("a.csv"), WMT, table)


@st.composite
def codes(draw: st.DrawFn) -> Codes:
    code = [draw(st.integers(0, count - 1)) for count in WMT.cardinalities]
    return WMT.canonical(np.array([code]))


def weights(code: Codes) -> dict[str, tuple[int, ...]]:
    """Sums of the costs of what has weights."""
    totals: dict[str, tuple[int, ...]] = {}
    for name, *costs in op_costs(WMT.graph(code)):
        if name.startswith("linear"):
            before = totals.get(name, (0, 0, 0))
            totals[name] = tuple(a + b for a, b in zip(before, costs, strict=True))
    return totals


class TestSpace:
    @settings(max_examples=40, deadline=None)
    @given(code=codes())
    def test_code_text_and_graph_name_one_network(self, code: Codes) -> None:
        texts = WMT.decode(code)
        assert np.array_equal(WMT.encode(texts), code)
        depth = WMT.choice(code[0])["d"]
        assert {op.kind for op in WMT.graph(code[0]).ops} >= {"softmax", "relu", "layer_norm"}
        assert len(WMT.graph(code[0]).inputs) == 2 + 3 * depth

    def test_tasks_differ_in_words_and_vocabulary(self) -> None:
        code = WMT.sample(1, np.random.default_rng(0))[0]
        graphs = [HatSpace(task).graph(code) for task in (WMT14, IWSLT14)]
        source = [dict(graph.inputs)["source"].shape[1] for graph in graphs]
        words = [graph.ops[-1]["out_features"] for graph in graphs]
        assert (source, words) == ([30, 23], [32768, 6632])

    def test_macs_are_those_counted_by_hand(self) -> None:
        code = read([[640, *SMALL[1:]]])[0]
        tokens = 30
        layer = tokens * 640 * (4 * 512 + 2 * 512) + 2 * tokens**2 * 512
        past = 512 * 512 * 4 + 2 * 16 * 512
        cross = 512 * 512 * 2 + 2 * tokens * 640 * 512 + 2 * tokens * 512
        step = past + cross + 2 * 512 * 512 + 512 * 32768
        assert WMT.graph(code).macs == 6 * layer + step

    @settings(max_examples=25, deadline=None)
    @given(code=codes())
    def test_costs_are_exact_sums_over_tables(self, code: Codes) -> None:
        tables = wmt_tables()
        totals = dict(zip(tables.names, tables.totals(symbols(WMT, code))[0], strict=True))
        wanted = dict.fromkeys(tables.names, 0)
        for name, *values in op_costs(WMT.graph(code[0])):
            for cost, value in zip(COSTS, (1, *values), strict=True):
                wanted[name, cost] += value
        assert totals == wanted


@cache
def wmt_tables() -> CostTables:
    tables = cost_tables(WMT)
    assert tables is not None
    return tables


class TestAverages:
    @settings(max_examples=60, deadline=None)
    @given(code=codes())
    def test_a_row_is_a_network_of_its_averages_and_costs(self, code: Codes) -> None:
        row = averages(WMT.choice(code[0]))
        written = [float(f"{value:.8g}") for value in row]
        (found,) = read([written])
        assert averages(WMT.choice(found)) == pytest.approx(row)
        assert weights(found) == weights(code[0])
        (again,) = read([averages(WMT.choice(found))])
        assert np.array_equal(again, found)

    @pytest.mark.parametrize(
        ("column", "value", "message"),
        [
            (0, 600, "encoder_embed_dim is 600: give one of 512, 640"),
            (0, float("nan"), "encoder_embed_dim is nan"),
            (1, 5, "encoder_layer_num is 5"),
            (2, 600, "no 6 layers have 600 for encoder_ffn_embed_dim_avg"),
            (3, float("inf"), "no 6 layers have inf for encoder_self_attention_heads_avg"),
            (5, 2.5, "decoder_layer_num is 2.5"),
            (6, 1536, "no 1 layers have 1536 for decoder_ffn_embed_dim_avg"),
            (8, 9, "no 1 layers have 9 for decoder_ende_attention_heads_avg"),
            (9, float("nan"), "no 1 layers have nan for decoder_arbitrary_ende_attn_avg"),
        ],
    )
    def test_a_row_that_is_no_network_is_named(
        self, column: int, value: float, message: str
    ) -> None:
        row: list[float] = [*SMALL]
        row[column] = value
        with pytest.raises(PredictorError) as caught:
            read([SMALL, row])
        assert str(caught.value).startswith("a.csv: arch_idx 11 is no network of hat: ")
        assert message in str(caught.value)


class TestReading:
    def write(self, path: Path, rows: Sequence[Sequence[object]]) -> Path:
        names = ["task", "device", "arch_idx", *COLUMNS]
        names += ["latency_mean_encoder", "latency_mean_decoder"]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])
        return path

    def test_a_sentence_takes_encoder_and_decoder_of_its_own_pair(self, tmp_path: Path) -> None:
        wide = [640, *SMALL[1:]]
        path = self.write(
            tmp_path / "hat.csv",
            [
                ["wmt14ende", "cpu_xeon", 1, *SMALL, 10, 100.5],
                ["wmt14ende", "gpu", 1, *wide, 1, 2],
                ["wmt14ende", "cpu_xeon", 2, *wide, 20, 200],
                ["iwslt14deen", "gpu", 1, *wide, 3, 4],
            ],
        )
        table = read_published("hat", path, path, PAIR)
        assert table.space.name == "hat_wmt14"
        assert dict(zip(table.labels.codes[:, 0], table.labels.latency_ms, strict=True)) == {
            0: 110.5,
            1: 220,
        }
        other = read_published("hat", path, path, "iwslt14deen/gpu")
        assert (other.space.name, other.labels.latency_ms.tolist()) == ("hat_iwslt14", [7])

    @pytest.mark.parametrize("column", ["latency_mean_encoder", "latency_mean_decoder"])
    @pytest.mark.parametrize("value", ["", "-3", "0"])
    def test_each_part_of_the_sum_is_a_latency(
        self, tmp_path: Path, column: str, value: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """However large the other part is."""
        parts = ["10", value] if column.endswith("decoder") else [value, "10"]
        rows: list[list[object]] = [
            ["wmt14ende", "gpu", 7, *SMALL, "", ""],  # of another device
            ["wmt14ende", "cpu_xeon", 1, *SMALL, 10, 100],
            ["wmt14ende", "cpu_xeon", 7, 640, *SMALL[1:], *parts],
        ]
        path = str(self.write(tmp_path / "hat.csv", rows))
        command = ["evaluate", "--space", "hat", "--archs", path, "--latency", path]
        assert main([*command, "-d", PAIR, "--train", "5"]) == EXIT_USAGE
        shown = float(value or "nan")
        assert capsys.readouterr().err == (
            f"hwbench: {path}: arch_idx 7 has {shown:g} for {column}: latencies are positive\n"
        )

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "hat.csv", [["wmt14ende", "cpu_xeon", 1, *SMALL, 10, 100]])
        with pytest.raises(UnknownNameError, match="did you mean 'wmt14ende/cpu_xeon'"):
            read_published("hat", path, path, "wmt14ende/cpu_xenon")
        with pytest.raises(PredictorError, match="leave the sources out"):
            read_published("hat", path, path, PAIR, ["wmt14ende/gpu"])
        path.write_text("arch_idx,phone\n1,2\n")
        with pytest.raises(PredictorError, match="has no column 'task'"):
            read_published("hat", path, path, PAIR)


class TestPublished:
    """On the published table itself."""

    def test_every_row_is_read_and_the_steady_card_is_learned(
        self, shared_data: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = str(shared_data / "latency" / "hat_latency.csv.gz")
        command = ["evaluate", "--space", "hat", "--archs", path, "--latency", path]
        assert main([*command, "-d", "wmt14enfr/gpu_titanxp", "--train", "900"]) == 0
        shown = capsys.readouterr().out
        assert "tested on 697 others" in shown
        table = read_published("hat", Path(path), Path(path), "wmt14enfr/gpu_titanxp")
        found = fit_published(table, train=900).metrics
        assert found.within_10 >= 0.98
        assert 0.87 <= found.coverage_90 <= 0.97

    @pytest.mark.parametrize("pair", ["iwslt14deen/gpu_titanxp", "wmt14ende/gpu_titanxp"])
    def test_what_is_missed_on_the_other_cards_is_their_state(
        self, shared_data: Path, pair: str
    ) -> None:
        """For whole stretches of the session, all networks took 20 % longer. No function of the
        architecture can tell; the rows measured just before and after do.
        """
        path = shared_data / "latency" / "hat_latency.csv.gz"
        table = read_published("hat", path, path, pair)
        rows = np.arange(len(table.labels))
        learned, tested = table.labels[rows[::2]], table.labels[rows[1::2]]
        source = Provenance("published", "", "unknown", 1)
        predictor = fit_predictor(table.space, learned, source)
        off = learned.latency_ms / predictor.predict(learned.codes).mean_ms
        near = np.lib.stride_tricks.sliding_window_view(np.pad(off, 7, mode="edge"), 14)
        state = np.median(near, axis=1)[1 : len(tested) + 1]
        expected = predictor.predict(tested.codes).mean_ms
        errors = np.abs([expected, expected * state] / tested.latency_ms - 1)
        blind, aware = (errors <= 0.1).mean(axis=1)
        assert blind < 0.9
        assert aware > 0.97

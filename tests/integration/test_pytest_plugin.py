"""The fixture ``latency`` in a pytest of its own: verdicts, the summary, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

from hwbench.devices import get_device
from hwbench.devices.calls import Calls
from hwbench.errors import ModelError, UsageError
from hwbench.lower import random_weights, to_onnx
from hwbench.measure import plan
from hwbench.measure.process import WorkerProcess
from hwbench.records import CanaryEpoch
from hwbench.store import Store
from hwbench.watch import latencies, pytest_plugin
from hwbench.watch.gate import GATE
from hwbench.watch.latencies import Question
from tests.measurements import epoch_on
from tests.stores import history
from tests.targets import tiny_net, with_light_canaries

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "hwbench.watch.pytest_plugin", "-p", "no:cacheprovider")
#: What tests measure: functions at the top of a module.
WORK = """
import functools

import onnxruntime

def short():
    sum(range(20_000))

def long():
    sum(range(200_000))

def prepared():
    numbers = list(range(20_000))
    return lambda: sum(numbers)

def session():
    return onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])

def broken():
    raise RuntimeError("no weights here")

def hostile():
    raise ValueError("\\x1b[31m" * 500)

@functools.wraps(short)
def disguised():
    sum(range(60_000))

class Kind:
    def method(self):
        sum(range(20_000))

    @classmethod
    def of_class(cls):
        sum(range(20_000))

bound = Kind().method
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with functions and a model, whose tests measure little."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    with_light_canaries(pytester.path, monkeypatch)
    monkeypatch.setattr(latencies, "GATE", dataclasses.replace(GATE, processes=2))
    monkeypatch.setattr(latencies, "Plan", functools.partial(plan.Plan, processes=2))
    pytester.makepyfile(work=WORK)
    pytester.makeini("[pytest]\npythonpath = .\n")
    for name, channels in (("net.onnx", 4), ("large.onnx", 256)):
        graph = tiny_net(channels).graph
        to_onnx(graph, random_weights(graph)).save(pytester.path / name)
    return pytester


def run(inner: pytest.Pytester, code: str, *options: str) -> pytest.RunResult:
    inner.makepyfile(test_it="from work import *\n" + textwrap.dedent(code))
    # As an object: ours may be imported already, by its entry point.
    return inner.runpytest_inprocess("-p", "no:cacheprovider", *options, plugins=[pytest_plugin])


class TestVerdicts:
    def test_a_slower_function_fails_and_a_faster_model_does_not(
        self, inner: pytest.Pytester
    ) -> None:
        with Store.open(inner.path / "kept.db") as store:
            for target in (Calls(), get_device("cpu")):
                store.add_epoch(epoch_on(target, id=target.name))
        found = run(
            inner,
            """
            def test_slower(latency):
                latency(long, baseline=short, seconds=0.4, sessions=5)

            def test_faster(latency):
                found = latency("net.onnx", baseline="large.onnx", seconds=0.2, sessions=5)
                assert found.verdict == "faster"
                assert found.change_pct < -30
            """,
            "--latency-store=kept.db",
        )
        found.assert_outcomes(passed=1, failed=1)
        found.stdout.fnmatch_lines(["SLOWER: work.long is * slower than work.short*"])
        (heading,) = (n for n, line in enumerate(found.outlines) if "latency ms" in line)
        shown = found.outlines[heading:]
        assert shown[1].split()[0] == "work.long"
        assert "slower" in shown[1]
        assert max(map(len, shown[:4])) <= 80
        with Store.open(inner.path / "kept.db", create=False) as store:
            kept = {m.workload.name: m.epoch for m in store.measurements()}
        assert kept.keys() == {"work.long", "work.short", "net.onnx", "large.onnx"}
        assert None not in kept.values()

    def test_the_first_into_a_new_store_calibrates(
        self, inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beside a baseline as well."""

        def anchor(target: Calls, threads: int, store: Store) -> CanaryEpoch:
            store.add_epoch(epoch_on(target))
            return store.epochs()[0]

        monkeypatch.setattr(latencies, "anchor", anchor)
        code = """
            def test_it(latency):
                latency(short, baseline=long, seconds=0.1)
            """
        run(inner, code, "--latency-store=new.db").assert_outcomes(passed=1)
        with Store.open(inner.path / "new.db") as store:
            (known,) = store.epochs()
            assert {m.epoch for m in store.measurements()} == {known.id}

    def test_a_file_that_is_the_same_or_new_in_git_is_measured_and_no_more(
        self, inner: pytest.Pytester
    ) -> None:
        """As in `hwbench gate`: whatever a store has, and without one."""
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        for what in (
            ("init", "-q"),
            ("add", "net.onnx"),
            ("commit", "-q", "-m", "one"),
            ("add", "large.onnx"),
        ):
            subprocess.run(["git", *who, *what], cwd=inner.path, check=True)
        code = """
            def test_it(latency):
                for name in ("net.onnx", "large.onnx"):
                    found = latency(name, baseline="HEAD", seconds=0.2)
                    assert found.change_pct is None
            """
        run(inner, code).assert_outcomes(passed=1)

    def test_the_first_of_a_history_is_said_loudly(self, inner: pytest.Pytester) -> None:
        known = epoch_on(Calls())
        with Store.open(inner.path / "kept.db") as store:
            store.add_epoch(known)
        found = run(
            inner,
            """
            def test_it(latency):
                assert latency(short, seconds=0.1).verdict == "inconclusive"
            """,
            "--latency-store=kept.db",
            "--latency-baseline=history",
        )
        found.assert_outcomes(passed=1, warnings=1)
        found.stdout.fnmatch_lines(["*LatencyWarning: INCONCLUSIVE: work.short: the store had no*"])
        with Store.open(inner.path / "kept.db") as store:
            (kept,) = store.measurements()
        assert kept.epoch == known.id

    def test_a_history_is_held(self, inner: pytest.Pytester) -> None:
        """By one that is a thousand times as fast as its level; by the ini file's defaults."""
        known = epoch_on(Calls())
        before = history("work.short", Calls().fingerprint(1), [1e3] * 6)
        with Store.open(inner.path / "kept.db") as store:
            store.add_epoch(known)
            work = dataclasses.replace(before[0].workload, inputs=())
            changes = {"workload": work, "epoch": known.id, "beta": (1.0,) * len(known.names)}
            store.merge(dataclasses.replace(m, **changes) for m in before)
        inner.makeini(
            "[pytest]\npythonpath = .\nlatency_store = kept.db\nlatency_baseline = history\n"
        )
        found = run(
            inner,
            """
            def test_it(latency):
                assert latency(short, seconds=0.1).verdict == "faster"
            """,
        )
        found.assert_outcomes(passed=1)
        found.stdout.fnmatch_lines(["work.short is * faster than its level (6 stored)*"])


class TestRefusals:
    def test_mistakes_are_one_line_each(self, inner: pytest.Pytester) -> None:
        found = run(
            inner,
            """
            def test_lambda(latency):
                latency(lambda: 1)

            def test_kinds(latency):
                latency("net.onnx", baseline=short)

            def test_absent(latency):
                latency("absent.onnx")

            def test_reference(latency):
                latency("net.onnx", baseline="nonsense")

            def test_shapes(latency):
                latency("net.onnx", shapes={"y": (1,)})

            def test_storeless(latency):
                latency(short, baseline="history")

            def test_nothing(latency):
                latency(None)

            def test_hostile(latency):
                latency(hostile, seconds=0.1)
            """,
        )
        found.assert_outcomes(failed=8)
        said = found.stdout.str()
        assert "Traceback" not in said
        found.stdout.fnmatch_lines_random(
            [
                "*test_lambda.<locals>.<lambda>: latencies are measured in fresh processes*",
                "*a function is held against functions, a file against files*",
                "*absent.onnx: No such file*",
                "*unknown model input 'y': known: x*",
                "*baseline 'nonsense': no file, folder, or commit of git*",
                "*name one with --latency-store, or another baseline*",
                "what None: give a file, or a function",
                r"work.hostile: \x1b[[]31m*",
            ]
        )
        assert "\x1b" not in said
        assert max(map(len, found.outlines)) <= 4 * 1000

    @pytest.mark.parametrize("option", ["--latency-store=", "--latency-baseline="])
    def test_an_unset_variable_of_a_build_switches_nothing_off(
        self, option: str, inner: pytest.Pytester
    ) -> None:
        found = run(inner, "def test_it(latency): latency(short)", option)
        found.assert_outcomes(failed=1)
        found.stdout.fnmatch_lines([f"{option[:-1]} is empty: name one, or leave it out"])

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("what", 5),
            ("what", ""),
            ("baseline", ""),
            ("baseline", 5),
            ("baseline", dataclasses.replace),
            ("shapes", {"x": (1,)}),
            ("tolerance_pct", -1),
            ("tolerance_pct", float("nan")),
            ("tolerance_pct", "1"),
            ("seconds", "1"),
            ("seconds", 0),
            ("seconds", True),
            ("seconds", float("inf")),
            ("sessions", 0),
            ("sessions", 1.5),
        ],
    )
    def test_what_cannot_be_asked(self, field: str, value: object) -> None:
        asked = Question(dataclasses.replace, None, None, {}, 1.0, None, 3)
        with pytest.raises(UsageError, match=f"^{field}"):
            dataclasses.replace(asked, **{field: value})

    @pytest.mark.parametrize("shapes", [5, {"x": 5}, {1: (1,)}])
    def test_shapes_are_of_inputs_by_name(self, shapes: object) -> None:
        with pytest.raises(UsageError, match="shapes: of inputs by name"):
            Question("net.onnx", None, None, shapes, 1.0, None, 3)  # type: ignore[arg-type]

    def test_tests_can_be_skipped(self, inner: pytest.Pytester) -> None:
        run(inner, "def test_it(latency): assert 0", "--latency-skip").assert_outcomes(skipped=1)


def test_it_costs_nothing_unused_and_measures_nothing_beside_other_workers(
    inner: pytest.Pytester,
) -> None:
    inner.makepyfile(
        test_it="""
        import sys

        def test_unused():
            assert "hwbench.watch.pytest_plugin" in sys.modules
            heavy = {"numpy", "torch", "onnx", "onnxruntime", "sqlalchemy", "typer", "scipy"}
            assert not heavy & sys.modules.keys()
            assert "hwbench.watch.latencies" not in sys.modules

        def test_skipped(latency):
            assert 0
        """
    )
    found = inner.runpytest_subprocess(*PLUGIN, "-p", "xdist", "-n", "2", "-rs")
    found.assert_outcomes(passed=1, skipped=1)
    found.stdout.fnmatch_lines(["*2 xdist workers disturb each other*run these with -n 0*"])


@pytest.fixture
def work(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of functions."""
    monkeypatch.chdir(inner.path)
    inner.syspathinsert()
    return importlib.import_module("work")


class TestFunctions:
    @pytest.mark.parametrize("name", ["short", "prepared", "session"])
    def test_what_is_timed(self, work: ModuleType, name: str, inner: pytest.Pytester) -> None:
        spec = Calls().job(getattr(work, name)).build(inner.path)
        with WorkerProcess(sys.executable) as worker:
            worker.load("it", spec)
            times = worker.ask("warm", "it", 0.0, 3, 3)["ns"]
        assert len(times) == 3
        assert min(times) > 0

    def test_a_function_that_raises_is_named(
        self, work: ModuleType, inner: pytest.Pytester
    ) -> None:
        spec = Calls().job(work.broken).build(inner.path)
        with (
            WorkerProcess(sys.executable) as worker,
            pytest.raises(ModelError, match="RuntimeError: no weights here"),
        ):
            worker.load("it", spec)

    def test_what_a_fresh_process_would_not_find(self, work: ModuleType) -> None:
        for function in (work.disguised, work.bound):
            with pytest.raises(UsageError, match="finds something else of that name"):
                Calls().job(function)
        assert Calls().job(work.Kind.of_class).workload.name == "work.Kind.of_class"

    def test_one_function_is_one_series(self, work: ModuleType) -> None:
        one, again, other = (Calls().job(f).workload for f in (work.short, work.short, work.long))
        assert one == again
        assert one.key != other.key

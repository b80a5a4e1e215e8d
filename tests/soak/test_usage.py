"""A leak of each kind is seen, in this process and in the judgement; noise is not one."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import pytest

from tests.soak.usage import MEMORY, MIB, held, leaks

ROUNDS = 24


def rounds(name: str, values: list[float]) -> list[dict[str, dict[str, float]]]:
    return [{"client": {MEMORY: 100.0, "files": 20, name: value}} for value in values]


def test_what_a_process_holds_is_counted() -> None:
    before = held()
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    with open(__file__) as file, subprocess.Popen([sys.executable, "-c", "input()"]) as child:
        thread.start()
        kept = bytearray(b"x" * 64 * MIB)
        after = held()
        child.kill()
    ended.set()
    thread.join()
    assert file.closed
    assert len(kept) == 64 * MIB
    more = {name: after[name] - before[name] for name in before}
    assert (more["files"], more["threads"], more["processes"]) == (1, 1, 1)
    assert more[MEMORY] > 50


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", ["files", "threads", "processes"])
def test_one_that_stays_now_and_then_is_a_leak(name: str, every: int) -> None:
    dice = random.Random(0)
    values = [20.0 + i // every + dice.choice((0, 0, 1)) for i in range(ROUNDS)]
    (found,) = leaks(rounds(name, values))
    assert found == f"{name} of client"


def test_memory_that_grows_is_a_leak_and_what_wanders_is_none() -> None:
    dice = random.Random(0)
    noise = [100 + dice.uniform(-3, 3) for _ in range(ROUNDS)]
    assert leaks(rounds(MEMORY, noise)) == {}
    assert leaks(rounds(MEMORY, [x + i for i, x in enumerate(noise)]))
    assert leaks(rounds("files", [20.0 + dice.choice((0, 1, 4)) for _ in range(ROUNDS)])) == {}
    assert leaks(rounds("files", [20.0 + min(i, 5) for i in range(ROUNDS)])) == {}, "a warm-up"

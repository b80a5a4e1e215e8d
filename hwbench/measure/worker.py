"""The process that runs models and times them: one stand-alone file.

It imports nothing of hwbench, so it also runs under another interpreter (an old runtime in an
environment of its own). The parent sends one JSON request a line on standard input and reads
one JSON answer a line; a crash, a hang or an out-of-memory kill ends this process and nothing
else. What is run comes from *runner files*: Python files with a function
``load(args: dict) -> runner``, where ``runner.run(n)`` makes n timed runs and returns n
integer nanoseconds. A runner may also have ``info()``, ``check()`` (raises ``ValueError`` on an
output that is no number) and ``profile(n)``. A file that may be loaded by a thread beside others
says ``LOADS_TOGETHER = True``.

Requests: ``load``, ``load_together``, ``warm``, ``round``, ``check``, ``profile``, ``memory``. The
one argument, if given, is the descriptor of a file of ``NOTE_BYTES``, in which this process keeps
the slot whose turn it is: it survives any death, and tells the parent whose fault that was.
"""

import contextlib
import ctypes
import importlib.util
import json
import mmap
import os
import platform
import signal
import sys
import threading
import time
import traceback

try:
    import resource
except ImportError:  # not on Windows, where preemptions stay unknown
    resource = None  # type: ignore[assignment]

NOTE_BYTES = 64
_PR_SET_PDEATHSIG = 1
_now = time.perf_counter_ns


def runner_module(file):
    """Import a runner file, and with it the runtime."""
    spec = importlib.util.spec_from_file_location("hwbench_runner", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def memory():
    """Resident memory now and at its peak, in bytes; None where the system does not say."""
    try:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        kib = {name: int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")}
    except (OSError, KeyError):
        return {"now": None, "peak": None}
    return {"now": kib["VmRSS"] * 1024, "peak": kib["VmHWM"] * 1024}


def checked(times, runs):
    """The times that a runner answered, as integers; ValueError where they make no sense."""
    times = [int(t) for t in times]
    if len(times) != runs or min(times, default=0) < 0:
        raise ValueError(f"the runner answered run({runs}) with {len(times)} times: {times[:3]}")
    return times


class Contention:
    """What the operating system says of disturbances to this thread, read around a burst."""

    def __init__(self):
        linux = platform.system() == "Linux"
        self._stat = open("/proc/stat", "rb", buffering=0) if linux else None  # noqa: SIM115
        self._tick_ns = 10**9 // os.sysconf("SC_CLK_TCK") if self._stat else 0
        self._wait = self._cpu = None
        if linux:
            with contextlib.suppress(OSError):  # a kernel may be built without it
                self._wait = open("/proc/thread-self/schedstat", "rb", buffering=0)  # noqa: SIM115
            with contextlib.suppress(OSError, AttributeError):
                self._cpu = ctypes.CDLL(None).sched_getcpu

    def preemptions(self):
        """Involuntary context switches of this thread so far."""
        if resource is None:
            return 0
        who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
        return resource.getrusage(who).ru_nivcsw

    def waited_ns(self):
        """Time this thread stood ready while others had its CPU; 0 where unknown."""
        if self._wait is None:
            return 0
        self._wait.seek(0)
        return int(self._wait.read(64).split()[1])

    def steal_ns(self, cpu):
        """Time that the hypervisor took from this CPU so far; 0 where unknown."""
        if self._stat is None or cpu < 0:
            return 0
        self._stat.seek(0)
        name = b"cpu%d" % cpu
        for line in self._stat.read(128 * (cpu + 2)).split(b"\n"):
            fields = line.split()
            if fields[:1] == [name]:
                return int(fields[8]) * self._tick_ns if len(fields) > 8 else 0
        return 0

    def cpu(self):
        """The CPU this thread is on, -1 where unknown."""
        return self._cpu() if self._cpu else -1


class Worker:
    """Holds the loaded runners and answers requests."""

    def __init__(self, note):
        self._runners = {}
        self._last = {}  # a canary's slot: its last reading, and when that was
        self._contention = Contention()
        self._note = note

    def _turn(self, slot):
        """Note whose turn it is (a store to memory: nothing that a burst could feel)."""
        self._note[:] = slot.encode()[:NOTE_BYTES].ljust(NOTE_BYTES)

    def load(self, slot, file, args):
        """Load a runner and run it once: how long each took, and what memory that took.

        ``resident`` is the memory in use before, ``grown`` what has come to it since, in bytes;
        ``launch_bound`` whether a device waits for its host to hand it this model's work.
        """
        self._turn(slot)
        module = runner_module(file)
        resident = memory()["now"]
        start = _now()
        runner = module.load(args)
        loaded = _now()
        checked(runner.run(1), 1)
        times = {"load_ns": loaded - start, "first_ns": _now() - loaded}
        self._runners[slot] = runner
        self._last.pop(slot, None)
        grown = None if resident is None else max(memory()["now"] - resident, 0)
        launch_bound = bool(getattr(runner, "launch_bound", False))
        return {**times, "resident": resident, "grown": grown, "launch_bound": launch_bound}

    def load_together(self, loads):
        """Load several, each ``(slot, file, args)``: at once, as far as their files allow it.

        Answers what :meth:`load` does, by slot. One at least is loaded by the thread that does all
        else, as it would be alone: what a runtime allocates may come from a part of memory that is
        its thread's own.
        """
        beside = [
            each for each in loads if getattr(runner_module(each[1]), "LOADS_TOGETHER", False)
        ]
        alone = [each for each in loads if each not in beside] or [beside.pop(0)]
        answers, errors = {}, []

        def load(several):
            try:
                for slot, *how in several:
                    answers[slot] = self.load(slot, *how)
            except Exception as error:  # noqa: BLE001 - it is raised below
                errors.append(error)

        threads = [threading.Thread(target=load, args=([each],)) for each in beside]
        for thread in threads:
            thread.start()
        load(alone)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return answers

    def warm(self, slot, seconds, least, most):
        """Run until ``seconds`` have passed, within ``least`` and ``most`` runs."""
        self._turn(slot)
        runner, times = self._runners[slot], []
        end = _now() + int(seconds * 1e9)
        while len(times) < least or (len(times) < most and _now() < end):
            times += checked(runner.run(1), 1)
        return {"ns": times}

    def round(self, steps, canaries, settle_s=0.0):
        """Time each step's burst between two readings of the canaries.

        ``steps``: (slot, runs, warm runs); ``canaries``: the same, and the seconds for which a
        reading stands. A reading is the minimum over the canary's runs. ``settle_s`` is waited
        before each reading, so that threads which a runtime leaves spinning come to rest.
        Answers one row a burst, and one reading more.
        """
        contention, readings, bursts = self._contention, [self._read(canaries)], []
        for slot, runs, warm in steps:
            self._turn(slot)
            runner = self._runners[slot]
            if warm:
                runner.run(warm)
            cpu, waited = contention.cpu(), contention.waited_ns()
            steal = contention.steal_ns(cpu)
            switches = contention.preemptions()
            start = _now()
            times = runner.run(runs)
            switches = contention.preemptions() - switches
            waited = contention.waited_ns() - waited
            moved = contention.cpu() != cpu
            bursts.append(
                {
                    "slot": slot,
                    "start": start,
                    "ns": checked(times, runs),
                    "preemptions": switches,
                    "waited_ns": waited,
                    "migrated": moved,
                    "steal_ns": contention.steal_ns(cpu) - steal,
                    "cause": runner.cause() if hasattr(runner, "cause") else None,
                }
            )
            if settle_s:
                time.sleep(settle_s)
            readings.append(self._read(canaries))
        return {"bursts": bursts, "readings": readings}

    def _read(self, canaries):
        values = []
        for slot, runs, warm, every_s in canaries:
            value, read = self._last.get(slot, (0, None))
            if read is None or _now() - read >= every_s * 1e9:
                self._turn(slot)
                runner = self._runners[slot]
                if warm:
                    runner.run(warm)
                value = min(checked(runner.run(runs), runs))
                self._last[slot] = (value, _now())
            values.append(value)
        return values

    def check(self, slot):
        """Let the runner look at its own output."""
        self._turn(slot)
        runner = self._runners[slot]
        if hasattr(runner, "check"):
            runner.check()
        return {}

    def profile(self, slot, runs):
        """Per-operator times of a separate, instrumented pass."""
        self._turn(slot)
        return {"ops": self._runners[slot].profile(runs)}

    def memory(self):
        """See :func:`memory`."""
        return memory()


def explain(error):
    """One line; a plain exception's text says little without its type."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if not text:
        return kind
    plain = type(error).__module__ == "builtins" and not isinstance(error, ValueError)
    return (f"{kind}: {text}" if plain else text)[:500]


def serve(requests, answers, note):
    """Answer requests until standard input ends, which it does when the parent dies."""
    worker = Worker(note)
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(worker, request["op"])(*request.get("args", []))
        except Exception as error:  # noqa: BLE001 - a model's failure is an answer, not our end
            traceback.print_exc()
            answer = {"error": explain(error), "type": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def end_with_parent():
    """A killed parent closes our input, but in the middle of a long run we would not see it."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main():
    """Keep the answers' pipe to ourselves: a runtime that prints must not corrupt it."""
    end_with_parent()
    # Python puts this file's folder first, where a runner's `import stats` would find ours.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    note = mmap.mmap(int(sys.argv[1]) if len(sys.argv) > 1 else -1, NOTE_BYTES)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers, note)
    # Nothing is left to do, and to take runtimes apart in order lasts a quarter of a second.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

"""Times a .tflite model's operators by LiteRT's own profiler. Stand-alone, loaded by path.

The Python interpreter has no profiler, but the package's C library has: a model compiled there
with profiling on runs on the same XNNPACK, which tells each of its operators. The declarations
are those of LiteRT's headers (``litert/c``); what cannot be read as they say is an error.
"""

import ctypes
import os
from contextlib import contextmanager
from time import perf_counter_ns

import numpy as np

_CPU = 1
#: Kinds of events that are an operator: a node, and an operator inside of a delegate's.
_NODE, _INSIDE = 2, (4, 8)
_EVENT_KINDS = (1, *(1 << bit for bit in range(1, 9)))
#: Words of an event: tag, kind, start, elapsed, what memory was in use (twice), three more.
_WORDS = (11, 13, 15)
_TYPE_BYTES = 512
_WARM = 3


class _Library:
    """The C library: calls that raise ValueError where a status says that they failed."""

    def __init__(self, path):
        if not os.path.isfile(path):
            raise ValueError(f"no operator profile: this runtime has no {os.path.basename(path)}")
        self._functions = ctypes.CDLL(path)

    def call(self, name, *args):
        """Call a function; whole numbers are sizes."""
        sizes = [ctypes.c_size_t(a) if isinstance(a, int) else a for a in args]
        try:
            function = getattr(self._functions, name)
        except AttributeError:
            raise ValueError(f"no operator profile: this LiteRT has no {name}") from None
        status = function(*sizes)
        if status:
            raise ValueError(f"no operator profile: {name} answered {status}")

    def made(self, name, *args):
        """What a function answers through its last argument."""
        handle = ctypes.c_void_p()
        self.call(name, *args, ctypes.byref(handle))
        return handle

    def destroy(self, kind, handle):
        """Free a handle."""
        destroy = getattr(self._functions, f"LiteRtDestroy{kind}")
        destroy.restype = None
        destroy(handle)


@contextmanager
def _held(library, kind, handle):
    try:
        yield handle
    finally:
        library.destroy(kind, handle)


def _option(library, options, name, text):
    """Add options by their name; the library frees the text."""
    libc = ctypes.CDLL(None)
    libc.strdup.restype = ctypes.c_void_p
    copy, free = ctypes.c_void_p(libc.strdup(text)), ctypes.cast(libc.free, ctypes.c_void_p)
    added = library.made("LiteRtCreateOpaqueOptions", name, copy, free)
    library.call("LiteRtAddOpaqueOptions", options, added)


def _buffers(library, environment, model, compiled, kind, inputs):
    """Tensors of the model's ``kind``, Input or Output; inputs hold what they are given."""
    graph = library.made("LiteRtGetModelSubgraph", model, 0)
    count = ctypes.c_size_t()
    library.call(f"LiteRtGetNumSubgraph{kind}s", graph, ctypes.byref(count))
    buffers = (ctypes.c_void_p * count.value)()
    for i in range(count.value):
        tensor = library.made(f"LiteRtGetSubgraph{kind}", graph, i)
        shape = ctypes.create_string_buffer(_TYPE_BYTES)
        library.call("LiteRtGetRankedTensorType", tensor, shape)
        needs = library.made(f"LiteRtGetCompiledModel{kind}BufferRequirements", compiled, 0, i)
        name = "LiteRtCreateManagedTensorBufferFromRequirements"
        buffers[i] = library.made(name, environment, shape, needs).value
        if kind == "Input":
            _fill(library, ctypes.c_void_p(buffers[i]), inputs[i])
    return buffers


def _fill(library, buffer, value):
    size, place = ctypes.c_size_t(), ctypes.c_void_p()
    library.call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
    if size.value != value.nbytes:
        raise ValueError(f"no operator profile: an input of {size.value} bytes, not {value.nbytes}")
    write = 1
    library.call("LiteRtLockTensorBuffer", buffer, ctypes.byref(place), write)
    ctypes.memmove(place, np.ascontiguousarray(value).ctypes.data, value.nbytes)
    library.call("LiteRtUnlockTensorBuffer", buffer)


def _events(library, profiler):
    """The events so far: kind, tag, elapsed microseconds."""
    count = ctypes.c_int()
    library.call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
    words = (ctypes.c_uint64 * (max(_WORDS) * count.value))()
    library.call("LiteRtGetProfilerEvents", profiler, count, words)
    table = np.frombuffer(words, np.uint64)
    for width in _WORDS:
        rows = table[: width * count.value].reshape(-1, width)
        kinds = rows[:, 1] & 0xFFFFFFFF
        if count.value and np.isin(kinds, _EVENT_KINDS).all() and (rows[:, 0] > 4096).all():
            tags = [ctypes.string_at(int(tag)).decode(errors="replace") for tag in rows[:, 0]]
            return list(zip(kinds.tolist(), tags, rows[:, 3].tolist(), strict=True))
    raise ValueError("no operator profile: the events of this LiteRT cannot be read")


def operator_times(path, model, threads, inputs, n):
    """Mean time of each operator over n runs, in the order in which they ran, and of the whole.

    ``path`` is the C library's, ``inputs`` the arrays of the model's inputs, in their order.
    Where a delegate tells what is inside of it, its own node is left out. Times are in ns; the
    profiler's are whole microseconds.
    """
    library, content = _Library(path), open(model, "rb").read()  # noqa: SIM115
    kept = ctypes.create_string_buffer(content, len(content))
    held = lambda kind, name, *args: _held(library, kind, library.made(name, *args))  # noqa: E731
    with (
        held("Environment", "LiteRtCreateEnvironment", ctypes.c_int(0), None) as environment,
        held("Options", "LiteRtCreateOptions") as options,
        held("Model", "LiteRtCreateModelFromBuffer", environment, kept, len(content)) as parsed,
    ):
        library.call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        _option(library, options, b"runtime_options_string", b"enable_profiling = true\n")
        _option(library, options, b"xnnpack", b"num_threads = %d\n" % threads)
        with held(
            "CompiledModel", "LiteRtCreateCompiledModel", environment, parsed, options
        ) as compiled:
            return _profiled(library, environment, parsed, compiled, inputs, n)


def _profiled(library, environment, model, compiled, inputs, n):
    parts = library, environment, model, compiled
    sources, sinks = _buffers(*parts, "Input", inputs), _buffers(*parts, "Output", inputs)
    profiler = library.made("LiteRtCompiledModelGetProfiler", compiled)
    passes, wholes = [], []
    for run in range(_WARM + n):
        library.call("LiteRtResetProfiler", profiler)
        library.call("LiteRtStartProfiler", profiler)
        call = (compiled, 0, len(sources), sources, len(sinks), sinks)
        start = perf_counter_ns()
        library.call("LiteRtRunCompiledModel", *call)
        whole = perf_counter_ns() - start
        library.call("LiteRtStopProfiler", profiler)
        if run >= _WARM:
            passes.append(_events(library, profiler))
            wholes.append(whole)
    for buffer in (*sources, *sinks):
        library.destroy("TensorBuffer", ctypes.c_void_p(buffer))
    return {"nodes": _means(passes), "whole_ns": float(np.mean(wholes))}


def _means(passes):
    """Rows of operators from the events of equal runs."""
    inside = any(kind in _INSIDE for kind, _, _ in passes[0])
    rows = []
    for place, (kind, tag, _) in enumerate(passes[0]):
        if kind in _INSIDE or (kind == _NODE and not (inside and "delegate" in tag.lower())):
            times = [events[place][2] for events in passes if len(events) == len(passes[0])]
            name = tag.removeprefix("Delegate/")
            rows.append({"name": f"{name}:{len(rows)}", "kind": name, "ns": 1e3 * np.mean(times)})
    return rows

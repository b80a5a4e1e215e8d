"""Times a function of Python, found by its module's file and its name. A worker loads this file.

The function is called once. If what it returns can be called, that is what is timed; a session of
onnxruntime is run on random inputs; else the function itself is timed.
"""

import importlib
import importlib.util
import inspect
import os
import sys
from time import perf_counter_ns

#: onnxruntime's names of types that random inputs can be made of, and numpy's.
_TYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
}


class CallRunner:
    """Calls a function without arguments."""

    def __init__(self, function):
        self._function = function

    def run(self, n):
        """Time n calls, in nanoseconds."""
        function, times = self._function, []
        for _ in range(n):
            start = perf_counter_ns()
            function()
            times.append(perf_counter_ns() - start)
        return times


def session_runner(session):
    """A runner of a session that exists already."""
    from hwbench.devices.runners.ort import OrtRunner

    class SessionRunner(OrtRunner):
        """Runs what it was given."""

        def _open(self, profile):
            return session

    inputs = []
    for given in session.get_inputs():
        if given.type not in _TYPES or not all(isinstance(size, int) for size in given.shape):
            raise ValueError(
                f"input {given.name!r} is a {given.type} of shape {given.shape}: return a function "
                "that runs the session on inputs of your own"
            )
        inputs.append({"name": given.name, "dtype": _TYPES[given.type], "shape": given.shape})
    return SessionRunner({"inputs": inputs})


def module_of(name, file):
    """The module of that name and file: imported, or loaded from the file where it has no home."""
    try:
        module = importlib.import_module(name)
        if module.__file__ and os.path.samefile(module.__file__, file):
            return module
    except ImportError:
        pass  # if it is the module's own, it comes again
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def require_eager(function):
    """ValueError for what a call of makes a coroutine or a generator alone."""
    kinds = (
        inspect.isasyncgenfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
    )
    if any(is_kind(function) for is_kind in kinds):
        raise ValueError("a call runs none of its code: give a function that runs it to its end")


def load(args):
    """The runner of ``module``, ``file`` and ``function``, imported from ``path``."""
    sys.path.extend(folder for folder in args["path"] if folder not in sys.path)
    function = module_of(args["module"], args["file"])
    for part in args["function"].split("."):
        function = getattr(function, part)
    require_eager(function)
    made = function()
    if hasattr(made, "run_with_iobinding"):
        return session_runner(made)
    if callable(made):
        require_eager(made)
        return CallRunner(made)
    return CallRunner(function)

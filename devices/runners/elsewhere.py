"""Loads another runner file where hwbench is not installed: its code is found in ``path``.

What that interpreter has itself comes first. A worker loads this file by its path.
"""

import importlib.util
import sys


def load(args):
    """The runner that ``file`` makes of ``args``."""
    sys.path.append(args["path"])
    spec = importlib.util.spec_from_file_location("hwbench_runner_elsewhere", args["file"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(args["args"])

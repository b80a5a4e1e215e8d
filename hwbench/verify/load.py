"""A noisy neighbour: ``python load.py compute|stream`` keeps one core busy until it is ended.

``compute`` multiplies matrices that fit the cache; ``stream`` copies blocks that fit none.
It prints its kind when it begins. Stand-alone.
"""

import ctypes
import os
import platform
import signal
import sys

# One core: a neighbour, not a flood.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np


def compute():
    """Multiply 256 x 256 matrices."""
    a = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    out = np.empty_like(a)
    sys.stdout.write("compute\n")
    sys.stdout.flush()
    while True:
        np.matmul(a, a, out=out)


def stream():
    """Copy 64 MiB to and fro."""
    a, b = np.ones(16 << 20, np.float32), np.empty(16 << 20, np.float32)
    sys.stdout.write("stream\n")
    sys.stdout.flush()
    while True:
        np.copyto(b, a)
        np.copyto(a, b)


if __name__ == "__main__":
    if platform.system() == "Linux":  # it must not outlive a check that was killed
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    {"compute": compute, "stream": stream}[sys.argv[1]]()

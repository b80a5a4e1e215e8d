"""One thread for matrix products that are asked for many times.

Threads of a BLAS wait for each other in a loop: beside anything else that runs they make a
hundred thousand predictions take five times as long.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[Any]:
    """While it lasts, numpy multiplies matrices in one thread. Takes microseconds."""
    limit: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limit


@cache
def _libraries() -> ThreadpoolController:
    """Those that are loaded; to find them takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

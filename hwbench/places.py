"""Where hwbench keeps what it measured.

The order is ``--store``, else ``HWBENCH_STORE``, else ``results/hwbench.db`` inside a clone,
else the user's own data folder (by platformdirs).
"""

from __future__ import annotations

import os
from pathlib import Path

from hwbench.errors import UsageError

STORE_VARIABLE = "HWBENCH_STORE"


def clone_root() -> Path | None:
    """Root of the clone that this code runs from; ``None`` for an installed package."""
    root = Path(__file__).resolve().parents[1]
    is_clone = (root / "pyproject.toml").is_file() and (root / "results").is_dir()
    return root if is_clone else None


def store_location(option: str | Path | None = None) -> str | Path:
    """The store to use: a database URL (``str``) or a file (absolute ``Path``).

    ``option`` is what the user gave with ``--store``. An empty ``HWBENCH_STORE`` counts as
    unset. Nothing is created here. Raises UsageError for an empty ``option``.
    """
    if option is not None:
        if not str(option):
            raise UsageError("--store is empty: give a file or a database URL, or leave it out")
        return _url_or_path(option)
    if named := os.environ.get(STORE_VARIABLE):
        return _url_or_path(named)
    if (root := clone_root()) is not None:
        return root / "results" / "hwbench.db"
    import platformdirs

    return platformdirs.user_data_path("hwbench", appauthor=False) / "hwbench.db"


def _url_or_path(named: str | Path) -> str | Path:
    if isinstance(named, str) and "://" in named:
        return named
    return Path(named).expanduser().absolute()

"""Which store is used: the option, the variable, the clone's, the user's; in this order."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from hwbench import places
from hwbench.errors import UsageError
from hwbench.places import clone_root, store_location


def test_the_option_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_STORE", "/elsewhere.db")
    assert store_location("/given.db") == Path("/given.db")
    assert store_location(Path("/given.db")) == Path("/given.db")


def test_then_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_STORE", "/elsewhere.db")
    assert store_location() == Path("/elsewhere.db")


@pytest.mark.parametrize("variable", [None, ""])
def test_then_the_clone(monkeypatch: pytest.MonkeyPatch, root: Path, variable: str | None) -> None:
    if variable is None:
        monkeypatch.delenv("HWBENCH_STORE")
    else:
        monkeypatch.setenv("HWBENCH_STORE", variable)
    assert clone_root() == root
    assert store_location() == root / "results" / "hwbench.db"


def test_then_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HWBENCH_STORE")
    monkeypatch.setattr(places, "__file__", str(tmp_path / "site-packages/hwbench/places.py"))
    assert clone_root() is None
    assert store_location() == platformdirs.user_data_path("hwbench") / "hwbench.db"


def test_paths_are_absolute_and_know_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert store_location("here.db") == tmp_path / "here.db"
    assert store_location("~/x.db") == Path("/home/me/x.db")


def test_a_url_stays_a_url() -> None:
    assert store_location("postgresql://host/db") == "postgresql://host/db"


def test_an_empty_option_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="--store is empty"):
        store_location("")

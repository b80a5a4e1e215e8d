"""What all tests share: where things are, and that no test touches the user's own store."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgres import place, postgres

__all__ = ["place", "postgres"]

ROOT = Path(__file__).resolve().parents[1]

# A shared CI machine stalls for seconds at will: the time of one example proves nothing.
settings.register_profile("hwbench", deadline=None, print_blob=True)
settings.load_profile("hwbench")


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone's root."""
    return ROOT


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths that are new, one after the other. A folder for each of thousands of tests takes its
    time.
    """
    folder = tmp_path_factory.mktemp("stores")
    return (folder / f"{number}.db" for number in itertools.count())


@pytest.fixture(autouse=True)
def no_users_store(places: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A default store of this test alone (subprocesses inherit it)."""
    monkeypatch.setenv("HWBENCH_STORE", str(next(places)))


@pytest.fixture
def own_store(no_users_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where that is, in the test's folder."""
    path = tmp_path / "store.db"
    monkeypatch.setenv("HWBENCH_STORE", str(path))
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data that lies beside the clone."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no reference data: ../shared/data is absent")
    return path


@pytest.fixture(scope="session")
def third_party_models() -> Callable[[str], list[Path]]:
    """The .onnx files that an installed package carries, by the package's name."""

    def find(package: str) -> list[Path]:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed: run `make dev`")
        paths = sorted(Path(str(f.locate())) for f in files if f.suffix == ".onnx")
        assert paths, f"{package} carries no .onnx file"
        return paths

    return find


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """The order of additions, and so the last bits, are those of one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

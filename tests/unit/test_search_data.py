"""Data are split once and for all, read with care, and the test part has to be asked for."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hwbench.errors import ImportFileError, UsageError
from hwbench.search.data import (
    check_fits,
    digits,
    download,
    fashion_mnist,
    image_folder,
    load_dataset,
    make_dataset,
    npz_dataset,
)
from hwbench.search.data.files import read_npz
from hwbench.search.data.idx import read_idx

HOME = "hwbench.search.data.fashion"


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def numbered(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images that hold their own number, and labels: ``counts[i]`` of class i."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.float32)[:, None, None, None]
    return np.broadcast_to(images, (len(labels), 1, 2, 2)).copy(), labels


# --- splits ----------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_every_image_is_in_one_part_and_every_class_in_every_part(counts, seed, data) -> None:
    images, labels = numbered(counts)
    is_test = None
    if data.draw(st.booleans()):  # one a class for the test, and as many more as drawn
        ends = np.cumsum(counts)
        is_test = np.zeros(len(labels), bool)
        is_test[ends - 1] = True
        spare = ends[np.array(counts) > 3] - 4
        is_test[
            spare[data.draw(st.lists(st.booleans(), min_size=len(spare), max_size=len(spare)))]
        ] = True
    dataset = make_dataset(
        "numbers", [str(i) for i in range(len(counts))], images, labels, is_test=is_test, seed=seed
    )
    parts = dataset.train, dataset.validation, dataset.test_for_the_final_report()
    seen = np.concatenate([part.images[:, 0, 0, 0] for part in parts]).astype(int)
    assert sorted(seen) == list(range(len(labels)))
    for part in parts:
        assert np.array_equal(labels[part.images[:, 0, 0, 0].astype(int)], part.labels)
        assert set(part.labels) == set(range(len(counts)))
    if is_test is not None:
        assert sorted(parts[2].images[:, 0, 0, 0]) == np.flatnonzero(is_test).tolist()


def test_a_split_follows_from_its_seed_and_keeps_the_classes_shares() -> None:
    images, labels = numbered([600, 60])
    first, again, other = (make_dataset("n", "ab", images, labels, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.train.images, again.train.images)
    assert first.digest == again.digest
    assert first.digest != other.digest
    assert np.bincount(first.validation.labels).tolist() == [83, 8]
    assert np.bincount(first.test_for_the_final_report().labels).tolist() == [100, 10]


def test_the_test_part_shows_nowhere_but_where_it_is_asked_for() -> None:
    dataset = digits()
    public = [name for name in dir(dataset) if not name.startswith("_") and "test" in name]
    assert public == ["test_for_the_final_report"]
    assert "test" not in repr(dataset)
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.images[0] = 0


def test_a_task_numbers_its_classes_anew() -> None:
    train = digits().train
    task = train.of_classes([7, 0])
    assert np.array_equal(task.images, train.images[np.isin(train.labels, [0, 7])])
    assert np.array_equal(
        np.array([7, 0])[task.labels], train.labels[np.isin(train.labels, [0, 7])]
    )
    assert len(train.some(10, seed=0)) == 10
    assert len(train.some(10**6, seed=0)) == len(train)


def test_digits_are_enlarged_not_invented() -> None:
    from sklearn.datasets import load_digits

    dataset = digits(32)
    assert dataset.train.images.shape[1:] == (1, 32, 32)
    assert dataset.classes == tuple("0123456789")
    total = len(dataset.train) + len(dataset.validation) + len(dataset.test_for_the_final_report())
    assert total == len(load_digits().target)
    means = np.sort(dataset.train.images.mean((1, 2, 3)) * 16 / 255)
    assert abs(np.median(means) - np.median(load_digits().images.mean((1, 2)))) < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((6, 5), np.uint8)}, r"images have shape \(6, 5\): give"),
        ({"images": np.zeros((6, 2, 4, 4), np.uint8)}, r"\(6, 2, 4, 4\): give .*c 1 or 3"),
        ({"images": np.zeros((0, 1, 4, 4), np.uint8)}, r"shape \(0, 1, 4, 4\)"),
        ({"images": np.zeros((6, 1, 4, 4), np.int64)}, "int64: give uint8 or float32"),
        ({"images": np.full((6, 1, 4, 4), np.nan, np.float32)}, "no numbers: mend it"),
        ({"labels": np.zeros(6)}, r"labels are float64 \(6,\) for 6 images: give one integer"),
        ({"labels": np.zeros(5, int)}, r"int64 \(5,\) for 6 images"),
        ({"labels": np.array([0, 0, 0, 1, 1, 2])}, "from 0 to 2, but there are 2 classes"),
        ({"labels": np.array([0, 0, 0, 0, 1, 1])}, "class 'b' has no image for train: .*at least"),
        ({"classes": ["a"]}, "1 class: a task needs at least 2"),
        ({"is_test": np.ones(6, bool)}, "class 'a' has no image for train"),
        ({"is_test": np.zeros(6, int)}, r"is_test is int64 \(6,\): give one bool"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(change, message: str) -> None:
    arguments = {
        "name": "own",
        "classes": ["a", "b"],
        "images": np.zeros((6, 1, 4, 4), np.uint8),
        "labels": np.array([0, 0, 0, 1, 1, 1]),
    } | change
    with pytest.raises(ImportFileError, match=message) as raised:
        make_dataset(**arguments)
    assert len(str(raised.value).splitlines()) == 1


def test_data_of_another_shape_than_the_nets_are_refused() -> None:
    with pytest.raises(UsageError, match="images of 1 channels, but nets takes 3"):
        check_fits(digits(), channels=3, classes=10, what="nets")
    with pytest.raises(UsageError, match="10 classes, but nets has 7"):
        check_fits(digits(), channels=1, classes=7, what="nets")


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_as_they_were_written(tmp_path: Path, packed: bool) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    assert np.array_equal(read_idx(path, 3), array)
    with pytest.raises(ImportFileError, match="no idx file of bytes with 1 axes"):
        read_idx(path, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(np.zeros((2, 2, 2)))[:-1], r"holds less than the 8 bytes .*shape \(2, 2, 2\)"),
        (idx(np.zeros((2, 2, 2))) + b"x", "holds more than the 8 bytes"),
        (bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 2), "more than 1 GiB"),
        (b"", "no idx file"),
        (b"\x89PNG and more than sixteen", "no idx file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx_files_are_refused(tmp_path, content, message, packed) -> None:
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ImportFileError, match=message):
        read_idx(path, 3)


@pytest.mark.parametrize("cut", [0, 5, 30])
def test_gzip_that_is_none_or_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx(np.arange(64).reshape(4, 4, 4)))[:cut] or b"plain bytes")
    with pytest.raises(ImportFileError, match=r"a\.gz"):
        read_idx(path, 3)


def small_fashion(folder: Path) -> dict[str, bytes]:
    """Four files like the published ones, but with 60 and 20 images of 4x4."""
    rng = np.random.default_rng(0)
    contents = {}
    for prefix, n in (("train", 60), ("t10k", 20)):
        contents[f"{prefix}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 4, 4)))
        contents[f"{prefix}-labels-idx1-ubyte"] = idx(np.arange(n) % 10)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return contents


@pytest.mark.parametrize("place", [".", "raw", "FashionMNIST/raw"])
def test_fashion_mnist_is_found_in_the_users_folder_or_torchvisions(tmp_path, place: str) -> None:
    small_fashion(tmp_path / place)
    dataset = load_dataset(f"fashion-mnist:{tmp_path}")
    assert (len(dataset.train), len(dataset.validation)) == (50, 10)
    assert len(dataset.test_for_the_final_report()) == 20
    assert dataset.train.images.shape[1:] == (1, 4, 4)


def test_fashion_mnist_that_is_nowhere_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no Fashion-MNIST in .*dataset-fashion-mnist"):
        fashion_mnist(tmp_path)


def test_the_published_fashion_mnist() -> None:
    try:
        dataset = fashion_mnist()
    except UsageError as missing:
        pytest.skip(str(missing))
    assert (len(dataset.train), len(dataset.validation)) == (50_000, 10_000)
    test = dataset.test_for_the_final_report()
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert abs(dataset.train.images.mean() / 255 - 0.286) < 0.002


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A site with small files in place of the published ones; what was asked of it."""
    contents = small_fashion(tmp_path / "site")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write((tmp_path / "site" / self.path[1:]).read_bytes())

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(f"{HOME}.ADDRESS", f"http://127.0.0.1:{server.server_port}")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(f"{HOME}.FILES", sums)
    yield asked
    server.shutdown()
    server.server_close()


def test_a_download_comes_once_and_is_then_at_hand(site: list[str], tmp_path: Path) -> None:
    folder = download(tmp_path / "cache" / "fashion")
    assert len(site) == 4
    assert download(folder) == folder
    assert len(site) == 4
    assert len(fashion_mnist(folder).train) == 50


def test_a_download_that_is_not_the_published_file_is_not_kept(
    site: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "site" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(20))))
    with pytest.raises(ImportFileError, match=r"t10k-labels.*its checksum differs"):
        download(tmp_path / "cache")
    assert not (tmp_path / "cache" / "t10k-labels-idx1-ubyte").exists()
    path.write_bytes(b"not gzip")
    with pytest.raises(ImportFileError, match="cannot download"):
        download(tmp_path / "cache")


def test_an_npz_of_the_user(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 5, 6)), np.arange(30) % 3
    np.savez(tmp_path / "own.npz", x=x, y=y.astype(np.uint8), is_test=np.arange(30) >= 21)
    dataset = load_dataset(str(tmp_path / "own.npz"))
    assert dataset.name == "own"
    assert dataset.classes == ("0", "1", "2")
    assert dataset.train.images.dtype == np.float32
    assert np.array_equal(dataset.test_for_the_final_report().images[:, 0], x[21:].astype("f4"))
    np.savez(tmp_path / "named.npz", x=x, y=y, class_names=["u", "v", "w"])
    assert npz_dataset(tmp_path / "named.npz").classes == ("u", "v", "w")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((9, 4, 4), np.uint8)}, "no array 'y'"),
        ({"x": np.array([{}] * 9), "y": np.arange(9) % 3}, "no npz file of plain arrays"),
        ({"x": np.zeros((9, 4, 4), np.uint8), "y": np.zeros((9, 1), int)}, r"labels are int64 \(9"),
        ({"x": np.zeros((9, 4, 4), np.uint8), "y": np.array(["a"] * 9)}, "labels are <U1|0 class"),
        ({"x": np.zeros((9, 4, 4), np.uint8), "y": np.arange(9) - 1}, "labels run from -1"),
        (
            {"x": np.zeros((9, 4, 4), np.uint8), "y": np.array([0, 1, 2] * 2 + [0, 1, 2**62])},
            "labels run up to 4611686018427387904, but there are 9 images",
        ),
        (
            {"x": np.zeros((9, 4, 4), np.uint8), "y": np.arange(9) % 3, "class_names": [1, 2, 3]},
            "class_names are int64",
        ),
    ],
)
def test_an_npz_that_is_out_of_order_is_refused(tmp_path, arrays, message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ImportFileError, match=message):
        npz_dataset(tmp_path / "bad.npz")


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ImportFileError, match="no npz file"):
        npz_dataset(tmp_path / "bad.npz")
    with pytest.raises(UsageError, match=r"no data .*give digits, fashion-mnist"):
        load_dataset(str(tmp_path / "absent.npz"))


@pytest.mark.parametrize("kind", ["huge", "negative", "no npy", "pickle", "cut", "lzma", "flipped"])
def test_a_damaged_npz_is_refused_before_it_is_believed(tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / "bad.npz", io.BytesIO()
    shape = {"huge": (10**12, 28, 28), "negative": (-3, -12)}.get(kind, (6, 6))
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    data = content.getvalue() + bytes(36)
    data = {"no npy": b"text" * 9, "pickle": pickle.dumps([1]), "cut": data[:20]}.get(kind, data)
    packing = zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("x.npy", data)
    if kind in ("lzma", "flipped"):
        whole = path.read_bytes()
        path.write_bytes(whole[:50] + bytes(b ^ 0x55 for b in whole[50:60]) + whole[60:])
    with pytest.raises(ImportFileError, match=r"cannot read .*bad\.npz: it is damaged, or no npz"):
        read_npz(path, ("x", "y"))


def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ImportFileError, match="a pipe or a device, not a file"):
        load_dataset(str(tmp_path / "pipe.npz"))
    paint(tmp_path / "own" / "dark", 10, 3)
    os.mkfifo(tmp_path / "own" / "dark" / "pipe.png")
    with pytest.raises(ImportFileError, match=r"the image .*pipe\.png: .*a pipe or a device"):
        image_folder(tmp_path / "own", size=8, channels=1)
    (tmp_path / "own" / "dark" / "pipe.png").unlink()
    with (tmp_path / "own" / "dark" / "large.png").open("wb") as file:
        file.truncate(1 << 29)
    with pytest.raises(ImportFileError, match=r"the image .*large\.png: it has more than 256 MiB"):
        image_folder(tmp_path / "own", size=8, channels=1)


def paint(folder: Path, shade: int, n: int) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (9, 7), (shade, shade, 255 - shade)).save(folder / f"{i}.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_folder(tmp_path: Path, channels: int) -> None:
    paint(tmp_path / "own" / "dark", 10, 6)
    paint(tmp_path / "own" / "light", 200, 5)
    dataset = load_dataset(str(tmp_path / "own"), size=8, channels=channels)
    assert dataset.classes == ("dark", "light")
    assert dataset.train.images.shape[1:] == (channels, 8, 8)
    assert dataset.channels == channels
    reds = dataset.train.images[:, 0, 4, 4]
    assert (reds[dataset.train.labels == 0].max()) < reds[dataset.train.labels == 1].min()
    if channels == 3:
        assert set(map(tuple, dataset.train.images[:, :, 4, 4])) == {(10, 10, 245), (200, 200, 55)}


@pytest.mark.parametrize("held", ["test", "val"])
def test_an_image_folder_that_is_split_already(tmp_path: Path, held: str) -> None:
    for shade, name in ((10, "dark"), (200, "light")):
        paint(tmp_path / "train" / name, shade, 6)
        paint(tmp_path / held / name, shade + 1, 2)
    dataset = image_folder(tmp_path, size=8, channels=3)
    assert dataset.classes == ("dark", "light")
    test = dataset.test_for_the_final_report()
    assert sorted(test.images[:, 0, 0, 0]) == [11, 11, 201, 201]
    paint(tmp_path / held / "odd", 1, 1)
    with pytest.raises(ImportFileError, match=f"class 'odd' is in train or {held} only"):
        image_folder(tmp_path, size=8, channels=3)


def test_image_folders_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="has no folders"):
        image_folder(tmp_path, size=8, channels=1)
    paint(tmp_path / "a", 1, 3)
    (tmp_path / "b").mkdir()
    with pytest.raises(ImportFileError, match=r"b has no images \(\.png"):
        image_folder(tmp_path, size=8, channels=1)
    (tmp_path / "b" / "x.png").write_bytes(b"no picture")
    with pytest.raises(ImportFileError, match=r"cannot read the image .*x\.png"):
        image_folder(tmp_path, size=8, channels=1)
    with pytest.raises(ImportFileError, match="2 channels cannot be read"):
        image_folder(tmp_path, size=8, channels=2)

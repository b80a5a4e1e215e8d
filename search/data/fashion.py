"""Fashion-MNIST (Xiao et al., arXiv 1708.07747): 70,000 grey images of ten kinds of clothes."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from hwbench.errors import ImportFileError, UsageError
from hwbench.predictors.files import replace_file
from hwbench.search.data.dataset import Dataset, make_dataset
from hwbench.search.data.idx import read_idx

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

#: Where Debian's package dataset-fashion-mnist lays the files.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

#: The authors' own place has no https: what comes is held against its checksum.
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

#: Images and labels for training, then for the test: SHA-256 of what is inside the .gz.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

_MOST_BYTES = 1 << 26
_TIMEOUT_SECONDS = 60


def fashion_mnist(folder: Path | None = None, *, seed: int = 0) -> Dataset:
    """The 28x28 images as published: their 10,000 for the test, a sixth of the others to validate.

    Read from ``folder`` (the four idx files, or a torchvision root that has
    ``FashionMNIST/raw``), else from Debian's package, else from :func:`download`'s place.
    UsageError where they are nowhere; nothing is fetched.
    """
    parts = [read_idx(path, 1 + 2 * ("images" in path.name)) for path in _find(folder)]
    train_x, train_y, test_x, test_y = parts
    is_test = np.arange(len(train_y) + len(test_y)) >= len(train_y)
    return make_dataset(
        "fashion-mnist",
        CLASSES,
        np.concatenate([train_x, test_x])[:, None],
        np.concatenate([train_y, test_y]),
        is_test=is_test,
        seed=seed,
    )


def download(folder: Path | None = None) -> Path:
    """Fetch the four files (30 MB) from the authors' site, unless they are there; the folder.

    By default into the user's cache. ImportFileError where one does not come, or is not the one
    published.
    """
    folder = folder or _cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, sha256 in FILES.items():
            if not (folder / name).exists():
                replace_file(folder / name, _fetch(f"{ADDRESS}/{name}.gz", sha256))
    except OSError as error:
        raise ImportFileError(f"cannot write to {folder}: {error.strerror or error}") from None
    return folder


def _find(folder: Path | None) -> list[Path]:
    """The four files, in the order of ``FILES``."""
    if folder is not None:
        places = [folder, folder / "raw", folder / "FashionMNIST" / "raw"]
    else:
        places = [DEBIAN, _cache()]
    for place in places:
        found = [
            next((p for p in (place / name, place / f"{name}.gz") if p.is_file()), None)
            for name in FILES
        ]
        if all(found):
            return [path for path in found if path]
    raise UsageError(
        f"no Fashion-MNIST in {folder or 'the usual places'}: install Debian's package "
        "dataset-fashion-mnist, or name a folder with its four idx files (torchvision's too) as "
        "fashion-mnist:FOLDER"
    )


def _cache() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("hwbench", appauthor=False) / "fashion-mnist"


def _fetch(address: str, sha256: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer:
            packed = answer.read(_MOST_BYTES)
        content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(packed, _MOST_BYTES)
    except (OSError, http.client.HTTPException, zlib.error) as error:
        raise ImportFileError(
            f"cannot download {address} ({error}): name a folder that has the files"
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ImportFileError(f"{address} did not give the published file: its checksum differs")
    return content

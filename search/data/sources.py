"""Data by name: what is built in, and what the user has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwbench.errors import UsageError
from hwbench.search.data.dataset import Dataset, make_dataset
from hwbench.search.data.fashion import fashion_mnist
from hwbench.search.data.files import image_folder, npz_dataset


def digits(size: int = 28, *, seed: int = 0) -> Dataset:
    """scikit-learn's 1797 handwritten digits of 8x8 pixels, enlarged bilinearly to ``size``.

    At 28 that is what a 28x28 digit looks like out of focus: enough to try a search on, without a
    file to fetch. For accuracy that means something take Fashion-MNIST.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.zeros((len(found.images), 1, size, size), dtype=np.uint8)
    for row, image in enumerate(np.rint(found.images * 255 / 16).astype(np.uint8)):
        scaled = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
        images[row, 0] = np.asarray(scaled)
    names = [str(name) for name in found.target_names]
    return make_dataset("digits", names, images, found.target, seed=seed)


def load_dataset(what: str, *, size: int = 28, channels: int = 1, seed: int = 0) -> Dataset:
    """``digits``, ``fashion-mnist``, an .npz file or an image folder.

    ``fashion-mnist:FOLDER`` reads it from there. ``size`` and ``channels`` are what digits and an
    image folder are scaled to; the others come as they are.
    """
    if what == "digits":
        return digits(size, seed=seed)
    name, _, folder = what.partition(":")
    if name == "fashion-mnist":
        return fashion_mnist(Path(folder).expanduser() if folder else None, seed=seed)
    path = Path(what).expanduser()
    if path.is_dir():
        return image_folder(path, size=size, channels=channels, seed=seed)
    if path.suffix == ".npz" and path.exists():
        return npz_dataset(path, seed=seed)
    raise UsageError(
        f"no data {what!r}: give digits, fashion-mnist (or fashion-mnist:FOLDER), an .npz file or "
        "a folder of images"
    )

"""Data to train and validate on; what is for the test a search never sees."""

from __future__ import annotations

from hwbench.search.data.dataset import Dataset, Part, check_fits, make_dataset
from hwbench.search.data.fashion import download, fashion_mnist
from hwbench.search.data.files import image_folder, npz_dataset
from hwbench.search.data.sources import digits, load_dataset

__all__ = [
    "Dataset",
    "Part",
    "check_fits",
    "digits",
    "download",
    "fashion_mnist",
    "image_folder",
    "load_dataset",
    "make_dataset",
    "npz_dataset",
]

"""Torch's files: read as tensors, numbers and text, no code in them runs."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from hwbench.errors import ModelError
from hwbench.inputs import require_finite


def load_tensors(path: Path, what: str, cure: str) -> Any:
    """What a file holds, on the CPU. ModelError, with the ``cure``, where it is not ``what``."""
    try:
        require_finite(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, on how a file that is refused was pickled
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    except pickle.UnpicklingError:  # torch's own text says how to run what is in it
        raise ModelError(
            f"{path} is not {what}, or damaged: it holds more than tensors, numbers and text, "
            f"which is never run; {cure}"
        ) from None
    except Exception:  # noqa: BLE001 - a damaged pickle makes torch raise any kind, in its own words
        raise ModelError(f"{path} is not {what}, or damaged: {cure}") from None

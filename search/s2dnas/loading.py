"""The user's network from a file of code and a file of weights."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from hwbench.errors import ModelError, UsageError
from hwbench.search.tensor_files import load_tensors

_CURE: Final = "save the state dict, torch.save(module.state_dict(), ...)"


def load_module(where: str, weights: Path) -> nn.Module:
    """``FILE.py:FUNCTION`` gives the module, ``weights`` (.pt or .npz) its state dict.

    The code runs, as it is the user's; the file of weights is data and runs nothing. UsageError
    where there is no such function, or where it fails; ModelError where the weights do not fit.
    """
    module = build_module(where)
    state = _state(weights)
    try:
        missing, extra = module.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{weights} does not fit {where}: {reason}") from None
    # How many batches a norm has seen plays no part at inference: npz files seldom have it.
    missing = [name for name in missing if not name.endswith(".num_batches_tracked")]
    if missing or extra:
        name, what = (missing[0], "lacks") if missing else (extra[0], "has, unlike the module,")
        raise ModelError(f"{weights} {what} {name!r}: give the state dict of {where}")
    return module.eval()


def build_module(where: str) -> nn.Module:
    """What ``FILE.py:FUNCTION`` gives. UsageError where there is no such, or where it fails."""
    file, _, function = where.rpartition(":")
    path = Path(file).expanduser()
    if path.suffix != ".py" or not function.isidentifier():
        raise UsageError(f"model {where!r}: write it as FILE.py:FUNCTION")
    if not path.is_file():
        raise UsageError(f"there is no {path}: name the file that builds the network")
    spec = importlib.util.spec_from_file_location(f"hwbench_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be read as Python")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # dataclasses and pickles look a module up by its name
    sys.path.insert(0, str(path.absolute().parent))  # it may import what lies beside it
    try:
        spec.loader.exec_module(code)
        if not callable(build := getattr(code, function, None)):
            raise UsageError(f"{path} has no function {function!r}")
        module = build()
    except UsageError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{where} failed with {type(error).__name__}: {said}") from error
    finally:
        sys.path.remove(str(path.absolute().parent))
    if not isinstance(module, nn.Module):
        raise UsageError(f"{where} gives {type(module).__name__}: let it return a torch module")
    return module


def _state(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".npz":
        return _arrays(path)
    content = load_tensors(path, "a file of weights", _CURE)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{path} holds no state dict: {_CURE}")
    return content


def _arrays(path: Path) -> Mapping[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.array(file[name])) for name in file.files}
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise ModelError(f"cannot read {path}: {_first_line(error)}") from None
    except (zipfile.BadZipFile, zlib.error) as error:
        reason = _first_line(error)
        raise ModelError(f"{path} is no npz, or damaged ({reason}): save it again") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip().rstrip(".:")

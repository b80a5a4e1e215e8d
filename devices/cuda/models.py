"""A network of the user's own, as torch code: what a GPU can be given beside graphs and files."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hwbench.errors import ModelError, UsageError
from hwbench.inputs import Stamp
from hwbench.records import InputSpec


@dataclass(frozen=True, slots=True)
class TorchModule:
    """A function without arguments that makes a ``torch.nn.Module``. **Its code is run.**

    ``factory`` is ``package.module:function``, looked up as Python does, and in ``folder`` after
    everything else. Build it with :func:`read_torch_module`; ``hash`` is that of the module's
    own file (one of ``files``), so a change in what it imports passes unseen.
    """

    factory: str
    inputs: tuple[InputSpec, ...]
    hash: str
    folder: Path
    files: tuple[Stamp, ...]

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.factory


def read_torch_module(
    factory: str, shapes: Mapping[str, tuple[int, ...]], folder: Path | None = None
) -> TorchModule:
    """A user's module by the name of its factory; ``shapes`` are its inputs', in their order.

    Inputs are float32 (the device's dtype option converts them). Finding a module imports the
    packages around it: their code runs here, the module's own only where it is measured. Raises
    UsageError for a text of another form or without inputs, ModelError for a module that is not
    there.
    """
    module, colon, function = factory.partition(":")
    if not colon or not function.isidentifier() or not _is_dotted(module):
        raise UsageError(f"torch module {factory!r}: write it as package.module:function")
    if not shapes:
        raise UsageError(f"torch module {factory!r}: name its inputs, as --shape x=1,3,224,224")
    folder = (folder or Path.cwd()).resolve()
    source = _source(module, folder)
    stamp = Stamp.of(source)
    sha = hashlib.sha256(source.read_bytes()).hexdigest()[:32]
    inputs = tuple(InputSpec(name, "float32", shape) for name, shape in shapes.items())
    return TorchModule(factory, inputs, f"torch:{function}:{sha}", folder, (stamp,))


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _source(module: str, folder: Path) -> Path:
    with findable(folder):
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError as error:
            raise ModelError(f"torch module {module!r}: {error}: is it installed?") from error
    if spec is None or not spec.has_location or spec.origin is None:
        raise ModelError(
            f"torch module {module!r} is no Python file that is installed or lies in {folder}"
        )
    return Path(spec.origin)


@contextmanager
def findable(folder: Path) -> Iterator[None]:
    """Look for modules in ``folder`` too, after all other places: none there shadows another."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))

"""Loads a model into onnxruntime, with random weights made on the spot where it names some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwbench.errors import ModelError
from hwbench.lower.weights import RANDOM_LOCATION, Floats, random_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

_SILENT = 4  # onnxruntime's level "fatal"
_LARGEST_SKELETON = 16 << 20  # bytes; a model without its weights is far smaller


def external_initializers(model: bytes | ModelProto) -> Mapping[str, Floats]:
    """The random weights that a model lowered without weights asks for; empty for any other.

    Keyed by initialiser name; all that is needed stands in the model itself.
    """
    if isinstance(model, bytes):
        if RANDOM_LOCATION.encode() not in model:
            return {}
        from onnx import load_from_string

        model = load_from_string(model)
    return random_tensors(
        (tensor.name, tuple(tensor.dims))
        for tensor in model.graph.initializer
        if any(e.key == "location" and e.value == RANDOM_LOCATION for e in tensor.external_data)
    )


def create_session(
    model: bytes | str | Path,
    options: Any = None,
    *,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Any:
    """An ``onnxruntime.InferenceSession`` of a model file, or of its bytes.

    ``options`` is an ``onnxruntime.SessionOptions`` of this session's own: weights that the
    model only names are added to it, and its log is silenced, since what goes wrong is raised.
    There is no fallback to other providers.

    Raises :class:`ModelError`, in one line, for a file that cannot be read and for a model that
    the runtime refuses.
    """
    import onnxruntime as ort

    label = "model" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes):
        model = _skeleton(Path(model)) or str(model)
    weights = external_initializers(model) if isinstance(model, bytes) else {}
    if options is None:
        options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    # onnxruntime copies them into the session, so they need not outlive this call.
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers(list(weights), values)
    try:
        return ort.InferenceSession(model, options, list(providers), enable_fallback=0)
    except _runtime_errors() as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{label}: onnxruntime cannot load it: {reason}") from error


def _skeleton(path: Path) -> bytes | None:
    """Content of a file that may name random weights; ``None`` where it is too large for that.

    A path goes to the runtime as it is, which then finds external data beside it.
    """
    try:
        if path.stat().st_size > _LARGEST_SKELETON:
            return None
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    return content if RANDOM_LOCATION.encode() in content else None


def _runtime_errors() -> tuple[type[Exception], ...]:
    """onnxruntime's exceptions: one a status code, without a base class in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    members = vars(state).values()
    return tuple(m for m in members if isinstance(m, type) and issubclass(m, Exception))

"""Runs a deployed multi-stage network: each input leaves where it is sure enough. Without torch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import ModelError, UsageError
from hwbench.lower import create_session, open_onnx
from hwbench.lower.onnx_file import external_tensors
from hwbench.search.s2dnas.manifest import Manifest, StageEntry, TensorPort, read_manifest

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """For each of n images: ``labels`` (n,), ``confidences`` (n,), ``stages`` (n,) at which it
    left (from 1), ``logits`` (n, classes)."""

    labels: NDArray[np.int64]
    confidences: Floats
    stages: NDArray[np.int64]
    logits: Floats


class StageRunner(Protocol):
    """One stage in a runtime."""

    def bind(self, buffers: Mapping[str, Floats]) -> None:
        """Work on these tensors of one image from now on, in and out, by name."""

    def once(self) -> None:
        """Run on the bound tensors."""

    def batch(self, tensors: Mapping[str, Floats]) -> dict[str, Floats]:
        """Run on others, (n, …) each."""


class _Step(NamedTuple):
    """What answering one image has to know of a stage."""

    confidence: Floats
    threshold: float
    logits: Floats
    number: NDArray[np.int64]


class DynamicModel:
    """A network that :func:`~hwbench.search.s2dnas.deploy` wrote, in onnxruntime or LiteRT.

    >>> model = DynamicModel("net/manifest.json")
    >>> model.predict(model.inputs(pixels)).labels

    ``thresholds`` replace the manifest's: one for each stage but the last. ModelError where a file
    is missing, damaged or another than the manifest says. Not for use from several threads.
    """

    def __init__(
        self,
        manifest: str | Path,
        *,
        thresholds: Sequence[float] | None = None,
        threads: int = 1,
    ) -> None:
        self.manifest = read_manifest(manifest)
        stages = self.manifest.stages
        given = [stage.threshold for stage in stages[:-1]] if thresholds is None else thresholds
        if len(given) != len(stages) - 1:
            raise UsageError(
                f"{len(given)} thresholds for {len(stages)} stages: give one for each but the last"
            )
        if threads < 1:
            raise UsageError(f"{threads} threads: give at least 1")
        self.thresholds = tuple(float(t) for t in given if t is not None)
        if not all(0 <= t <= 1 for t in self.thresholds):
            raise UsageError(f"thresholds {list(self.thresholds)} are not all from 0 to 1")
        self._runners = [_runner(self.manifest, stage, threads) for stage in stages]
        self._later = [
            {port.name for later in stages[j + 1 :] for port in later.inputs}
            for j in range(len(stages))
        ]
        ports = [port for stage in stages for port in (*stage.inputs, *stage.outputs)]
        self._one = {port.name: np.zeros(port.shape, np.float32) for port in ports}
        for runner in self._runners:
            runner.bind(self._one)
        self._steps = [
            _Step(self._one[stage.confidence], threshold, self._one[stage.logits], number)
            for stage, threshold, number in zip(
                stages,
                (*self.thresholds, -math.inf),
                np.arange(1, len(stages) + 1)[:, None],
                strict=True,
            )
        ]

    def inputs(self, pixels: NDArray[Any]) -> Floats:
        """Images (n, c, h, w) as the network reads them: uint8 over 255, less mean, over std."""
        entry = self.manifest.image
        x = np.asarray(pixels, dtype=np.float32)
        if pixels.dtype == np.uint8:
            x = x / np.float32(255)
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (entry.mean, entry.std))
        images: Floats = (x - mean) / std
        return images

    def predict(self, images: NDArray[Any]) -> Answers:
        """Classify images (n, c, h, w), float32 as :meth:`inputs` gives them.

        After each stage the undecided go on together, and nothing else: one image leaves where it
        can, of many the rest becomes a smaller batch.
        """
        shape = self.manifest.image.shape
        if images.ndim != 4 or images.shape[1:] != shape or not len(images):
            wanted = ", ".join(map(str, shape))
            raise UsageError(f"images have shape {images.shape}: give (n, {wanted})")
        found = self._single(images) if len(images) == 1 else self._several(images)
        # Of one image numpy's own check takes longer than all else that is done here.
        sure = found.confidences
        if not (math.isfinite(sure[0]) if len(sure) == 1 else np.isfinite(sure).all()):
            raise UsageError("the network gives values that are no numbers: look at the images")
        return found

    def _single(self, image: NDArray[Any]) -> Answers:
        """Without a copy: each stage finds what earlier ones left where they left it."""
        self._one["image"][...] = image
        for runner, step in zip(self._runners, self._steps, strict=True):
            runner.once()
            if step.confidence[0] >= step.threshold:
                break
        logits = step.logits.copy()
        return Answers(logits.argmax(1), step.confidence.copy(), step.number.copy(), logits)

    def answering_ms(self, images: NDArray[Any]) -> tuple[float, ...]:
        """What answering an image takes beside its stages, by the stage at which it leaves (s,).

        Timed now, on n images one after the other: the whole answer, less the same stages run once
        more on what is then in the processor's caches, as a stage is measured alone. A stage that
        is run seldom has been driven out of them. Medians; where no image leaves, that of the stage
        before.
        """
        times: list[list[int]] = [[] for _ in self._runners]
        now = time.perf_counter_ns
        for image in images:
            start = now()
            (left,) = self.predict(image[None]).stages
            answered = now()
            for runner in self._runners[:left]:
                runner.once()
            times[left - 1].append(2 * answered - start - now())
        found: list[float] = []
        for each in times:
            before = found[-1] if found else 0.0
            found.append(float(np.median(each)) / 1e6 if each else before)
        return tuple(found)

    def _several(self, images: NDArray[Any]) -> Answers:
        n, last = len(images), len(self._runners) - 1
        logits = np.empty((n, self.manifest.classes), np.float32)
        confidences, left_at = np.empty(n, np.float32), np.empty(n, np.int64)
        rows = np.arange(n)
        live: dict[str, Floats] = {"image": np.ascontiguousarray(images, np.float32)}
        for j, (stage, runner) in enumerate(zip(self.manifest.stages, self._runners, strict=True)):
            live |= runner.batch({port.name: live[port.name] for port in stage.inputs})
            sure = live[stage.confidence]
            done = sure >= self.thresholds[j] if j < last else np.ones(len(rows), bool)
            at = rows[done]
            logits[at], confidences[at], left_at[at] = live[stage.logits][done], sure[done], j + 1
            if done.all():
                break
            live = {name: live[name] for name in self._later[j] if name in live}
            if done.any():
                rows, live = rows[~done], {name: x[~done] for name, x in live.items()}
        return Answers(logits.argmax(axis=1), confidences, left_at, logits)


def _runner(manifest: Manifest, stage: StageEntry, threads: int) -> StageRunner:
    content, what = manifest.content(stage), manifest.folder / stage.file
    if manifest.runtime == "onnxruntime":
        return _OnnxStage(what, stage, threads)
    return _LiteRtStage(what, content, stage, threads)


class _OnnxStage:
    """A stage in onnxruntime, which takes a whole batch at once."""

    def __init__(self, what: Path, stage: StageEntry, threads: int) -> None:
        import onnxruntime as ort

        if any(external_tensors(open_onnx(what))):
            raise ModelError(f"{what}: its weights lie in another file: deploy again")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = create_session(what, options)
        self._stage, self._outputs = stage, [port.name for port in stage.outputs]
        _check_names(what, stage.inputs, (i.name for i in self._session.get_inputs()))
        _check_names(what, stage.outputs, (o.name for o in self._session.get_outputs()))

    def bind(self, buffers: Mapping[str, Floats]) -> None:
        self._binding = binding = self._session.io_binding()
        for bind, ports in (
            (binding.bind_input, self._stage.inputs),
            (binding.bind_output, self._stage.outputs),
        ):
            for port in ports:
                at = buffers[port.name].ctypes.data
                bind(port.name, "cpu", 0, np.float32, port.shape, at)
        self._bound = buffers  # the runtime holds their addresses alone

    def once(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def batch(self, tensors: Mapping[str, Floats]) -> dict[str, Floats]:
        found = self._session.run(self._outputs, tensors)
        return dict(zip(self._outputs, found, strict=True))


class _LiteRtStage:
    """A stage in LiteRT, whose files are of one image: a batch goes through it one by one."""

    def __init__(self, what: Path, content: bytes, stage: StageEntry, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with _quiet():
                self._interpreter = Interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{what}: LiteRT cannot load it: {reason}") from None
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        _check_names(what, stage.inputs, (d["name"] for d in inputs))
        _check_names(what, stage.outputs, (d["name"] for d in outputs))
        at = {d["name"]: (d["index"], d["shape"]) for d in (*inputs, *outputs)}
        self._inputs = [(port, *at[port.name]) for port in stage.inputs]
        self._outputs = [(port, *at[port.name]) for port in stage.outputs]

    def bind(self, buffers: Mapping[str, Floats]) -> None:
        self._bound = buffers

    def once(self) -> None:
        for port, index, shape in self._inputs:
            lying = self._bound[port.name].transpose(port.order).reshape(shape)
            self._interpreter.set_tensor(index, lying)
        self._interpreter.invoke()
        for port, index, _ in self._outputs:
            value = self._interpreter.get_tensor(index)
            lying = value.reshape([port.shape[axis] for axis in port.order])
            np.copyto(self._bound[port.name], lying.transpose(np.argsort(port.order)))

    def batch(self, tensors: Mapping[str, Floats]) -> dict[str, Floats]:
        found: dict[str, list[Floats]] = {port.name: [] for port, *_ in self._outputs}
        for row in range(len(next(iter(tensors.values())))):
            for name, x in tensors.items():
                np.copyto(self._bound[name], x[row : row + 1])
            self.once()
            for name, rows in found.items():
                rows.append(self._bound[name].copy())
        return {name: np.concatenate(rows) for name, rows in found.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on standard error, where LiteRT tells of its delegate, past ``sys.stderr``."""
    try:
        kept = os.dup(2)
    except OSError:  # closed: nothing can be said anyway
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_names(what: Path, ports: Sequence[TensorPort], names: Any) -> None:
    if sorted(names) != sorted(port.name for port in ports):
        raise ModelError(f"{what}: its inputs and outputs are not those of the manifest")

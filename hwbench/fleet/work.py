"""What an order is of: architectures of a space that the worker knows itself, or model files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from hwbench.devices.base import Device
from hwbench.devices.models import Model, OnnxModelFile, TfliteModelFile, read_model_file
from hwbench.devices.profile import architecture_jobs
from hwbench.errors import DeviceError, ModelError, UsageError
from hwbench.measure.jobs import Job, RunnerSpec
from hwbench.records import Workload
from hwbench.spaces import get_space

#: A model's files together. They pass through the scheduler, which holds them until they are sent.
MOST_BYTES = 512 << 20


class Work(Protocol):
    """Some workloads, each by a name of its own that answers use: ``items``."""

    @property
    def items(self) -> tuple[str, ...]:
        """Their names."""

    def document(self) -> dict[str, Any]:
        """As it travels, in JSON's own types."""

    def jobs(self, device: Device, threads: int, folder: Path) -> list[Job]:
        """On the worker: one job an item. What they need of files is written into ``folder``.

        Raises UsageError for what no device here can know or run.
        """


def work_of(document: Mapping[str, Any]) -> Work:
    """The work behind a document."""
    if "archs" in document:
        return Architectures(document["space"], tuple(document["archs"]))
    return Models({item: Sent.of(each) for item, each in document["models"].items()})


@dataclass(frozen=True)
class Architectures:
    """Architectures of a space, by their texts: no model comes along."""

    space: str
    items: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As it travels."""
        return {"space": self.space, "archs": self.items}

    def jobs(self, device: Device, threads: int, folder: Path) -> list[Job]:
        """One job an architecture."""
        space = get_space(self.space)
        codes = space.encode(list(self.items))
        return architecture_jobs(device, space, codes, threads)


@dataclass(frozen=True)
class Sent:
    """A model as it travels: all its files by their paths beside it, and its inputs' shapes.

    ``name`` is what its measurements are to be called.
    """

    name: str
    file: str
    files: Mapping[str, bytes]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, job: Job) -> Sent:
        """The files that a job's workload names. Raises ModelError where they cannot be sent."""
        main, work = job.files[0].path, job.workload
        try:
            if sum(stamp.path.stat().st_size for stamp in job.files) > MOST_BYTES:
                raise ModelError(
                    f"{main}: more than {MOST_BYTES >> 20} MiB are too many to send: measure it on "
                    "the device's own host"
                )
            names = {s.path.relative_to(main.parent).as_posix(): s.path for s in job.files}
            files = {name: path.read_bytes() for name, path in names.items()}
        except OSError as error:
            raise ModelError(f"{main}: cannot be read: {error.strerror or error}") from error
        job.require_unchanged()
        return cls(work.name, main.name, files, {i.name: i.shape for i in work.inputs})

    def document(self) -> dict[str, Any]:
        """As it travels."""
        files = {name: base64.b64encode(content).decode() for name, content in self.files.items()}
        return {"name": self.name, "file": self.file, "files": files, "shapes": dict(self.shapes)}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Sent:
        """The model behind a document. Raises UsageError for a file that would lie elsewhere, and
        where the model's own is none of those sent."""
        if document["file"] not in document["files"]:
            raise UsageError(f"a model's file {document['file']!r} did not come along")
        for name in document["files"]:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise UsageError(f"a model's file {name!r} is not beside it")
        files = {n: base64.b64decode(t, validate=True) for n, t in document["files"].items()}
        shapes = {name: tuple(sizes) for name, sizes in document["shapes"].items()}
        return cls(document["name"], document["file"], files, shapes)

    def job(self, device: Device, threads: int, folder: Path) -> Job:
        """On the worker: write it into a folder of its own, and the work of running it."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        job = device.job(read_model_file(folder / self.file, self.shapes), threads)
        return replace(job, workload=replace(job.workload, name=self.name))


@dataclass(frozen=True)
class Models:
    """Model files, by whatever names the client gave them."""

    sent: Mapping[str, Sent]

    @property
    def items(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.sent)

    def document(self) -> dict[str, Any]:
        """As it travels."""
        return {"models": {item: each.document() for item, each in self.sent.items()}}

    def jobs(self, device: Device, threads: int, folder: Path) -> list[Job]:
        """One job a model."""
        parts = enumerate(self.sent.values())
        return [each.job(device, threads, folder / str(index)) for index, each in parts]


def far_job(model: Model, threads: int) -> Job:
    """The work of running a model's file on a device that is elsewhere, whose options come later.

    Raises ModelError for what is no file.
    """
    if not isinstance(model, OnnxModelFile | TfliteModelFile):
        raise ModelError(
            f"{model.name}: a fleet is sent model files, not code: export it to .onnx, or bench "
            "it on the device's own host"
        )
    workload = Workload(model.name, model.hash, model.inputs, threads)
    return Job(workload, _not_here, model.files)


def _not_here(folder: Path) -> RunnerSpec:
    raise DeviceError("this model runs on a fleet's device, not here")

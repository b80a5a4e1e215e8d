"""Every exception of hwbench, and the exit code that the command line gives it.

The tree follows the user's next step, not our modules: something to correct in the
command or the file (2), a device or the machine to look after (4), more data to take (3).
A message is one line: what happened, to what, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_REGRESSION = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_DEVICE = 4

#: For whoever needs torch, which a plain install leaves out.
TORCH_MISSING = (
    "torch is not installed: run make search where hwbench was cloned, "
    "or pip install 'hwbench[search]'"
)


class HwbenchError(Exception):
    """Root of all errors that hwbench raises on purpose."""

    exit_code = EXIT_DEVICE


class UsageError(HwbenchError):
    """The command, an argument or a file has to be corrected."""

    exit_code = EXIT_USAGE


class UnknownNameError(UsageError):
    """A device, space, verb or predictor of that name does not exist.

    ``meant`` is the known name that somebody who says ``name`` has in mind; without it, one that
    is spelt much like it is suggested.
    """

    def __init__(
        self, what: str, name: str, known: Iterable[str], meant: str | None = None
    ) -> None:
        known = sorted(known)
        near = [meant] if meant else difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {what} {name!r}: {hint}known: {', '.join(known) or 'none'}")


class GraphError(UsageError):
    """An architecture or graph is not well formed."""


class ModelError(UsageError):
    """A model file cannot be read, or the runtime refuses it."""


class PredictorError(UsageError):
    """A predictor file is damaged, or does not fit what is asked of it."""


class ImportFileError(UsageError):
    """A file to import is damaged or of another format."""


class PluginError(HwbenchError):
    """What another package offers does not work: that package has to be looked after."""


class DeviceError(HwbenchError):
    """A device, its runtime or a worker process failed."""


class WorkerError(DeviceError):
    """A worker process died, hung, answered nonsense, or its device gave out."""


class ShellError(DeviceError):
    """A command on a device ended without saying how: only ``partial`` of its output came back."""

    def __init__(self, message: str, partial: str = "") -> None:
        super().__init__(message)
        self.partial = partial


class ShellTimeoutError(ShellError):
    """A command on a device was not done in its time, and was ended."""


class DeviceOfflineError(ShellError):
    """A device is known, but does not answer (any more)."""


class AdbMissingError(DeviceError):
    """There is no working adb on this machine."""


class NoDeviceError(DeviceError):
    """No device, or not the one asked for, is connected."""


class SeveralDevicesError(DeviceError):
    """Several devices are connected, and none was chosen."""


class UnauthorisedError(DeviceError):
    """A device does not trust this machine yet."""


class UnsupportedDeviceError(DeviceError):
    """A device lacks what a measurement needs."""


class PushError(DeviceError):
    """A file did not arrive on a device as it was sent."""


class NoSpaceError(PushError):
    """A device's storage is full."""


class ToolOutputError(DeviceError):
    """A benchmark tool's output holds no trustworthy number."""


class DelegateError(DeviceError):
    """A model was not run by the accelerator that was asked for."""


class StoreError(HwbenchError):
    """The results store cannot be read or written."""


class StoreVersionError(StoreError):
    """The store was written by a newer hwbench."""

    exit_code = EXIT_USAGE


class InconclusiveError(HwbenchError):
    """The data at hand do not decide the question."""

    exit_code = EXIT_INCONCLUSIVE


class NoHistoryError(InconclusiveError):
    """A store has nothing to hold a measurement against."""

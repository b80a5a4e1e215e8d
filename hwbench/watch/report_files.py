"""Files that a report shows beside the store: predictors, generators, and operators' times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwbench.errors import UsageError
from hwbench.records import Measurement
from hwbench.watch import report_generators, report_operators, report_predictors
from hwbench.watch.report_generators import GeneratorShown
from hwbench.watch.report_operators import Operators
from hwbench.watch.report_predictors import PredictorShown


@dataclass(frozen=True, slots=True)
class Beside:
    """What is shown of the files, in their order."""

    predictors: list[PredictorShown] = field(default_factory=list)
    generators: list[GeneratorShown] = field(default_factory=list)
    operators: list[Operators] = field(default_factory=list)


def read(paths: Sequence[Path], measurements: Sequence[Measurement]) -> Beside:
    """Each file by its ending, held against a store's measurements.

    UsageError (PredictorError among them) for a file that cannot be read or is none of these.
    """
    beside = Beside()
    for number, path in enumerate(paths):
        match path.suffix.lower():
            case ".hwp":
                beside.predictors.append(report_predictors.shown(f"p{number}", path, measurements))
            case ".hwg":
                beside.generators.append(report_generators.shown(f"g{number}", path, measurements))
            case ".jsonl":
                beside.operators.extend(report_operators.of_samples(f"o{number}", path))
            case ".json":
                beside.operators.extend(report_operators.of_profiles(f"o{number}", path))
            case _:
                raise UsageError(
                    f"{path}: name a predictor (.hwp), a generator (.hwg), samples of hwbench "
                    "kernels (.jsonl), or what bench --profile-ops --json wrote (.json)"
                )
    return beside

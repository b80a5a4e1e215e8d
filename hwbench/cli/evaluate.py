"""``hwbench evaluate``: a predictor against measurements that it never saw."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli import accuracy
from hwbench.cli.options import Debug, Json, Session, Since, StoreUrl, opened
from hwbench.errors import PredictorError, UsageError

if TYPE_CHECKING:
    from hwbench.predictors import LatencyPredictor
    from hwbench.records import Measurement
    from hwbench.store import Store


def evaluate(
    predictor: Annotated[Path, typer.Argument(metavar="PREDICTOR", help="A .hwp file.")],
    session: Session = None,
    since: Since = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare a predictor with later measurements of architectures that it never saw.

    Profile again with another --seed to have some. Measurements made before the predictor was
    fitted don't count, nor do architectures that were measured before.

    Example:

    hwbench evaluate cpu.hwp --json
    """
    from hwbench import predictors
    from hwbench.predictors.measured import training_from

    tested = predictors.load_predictor(predictor)
    with opened(store, create=False) as results:
        known = comparable(tested, results)
        chosen = {m.workload.key for m in comparable(tested, results, session, since)}
    before, unseen = split(tested, known)
    fresh = [m for m in unseen if m.workload.key in chosen]
    if not fresh:
        raise UsageError(
            f"{predictor}: nothing was measured since that it has not seen: "
            f"run hwbench profile -s {tested.space.name} with another --seed"
        )
    test = training_from(tested.space, fresh)
    compared = {"predictor": tested}
    if before:
        training = training_from(tested.space, before)
        compared |= accuracy.fit_baselines(
            tested.space, training, tested.meta.provenance, seed=tested.meta.seed
        )
    scores = {name: predictors.evaluate(each, test) for name, each in compared.items()}
    if as_json:
        console.write_json(
            {
                "predictor": predictor,
                "space": tested.space.name,
                "provenance": tested.meta.provenance,
                "n_train": tested.meta.n_train,
                "n_test": len(test),
                "results": scores,
            }
        )
        return
    console.show(f"On {len(test)} architectures that it never saw", accuracy.table(scores))


def comparable(
    predictor: LatencyPredictor, store: Store, session: str | None = None, since: str | None = None
) -> list[Measurement]:
    """Measurements whose milliseconds are those of the predictor, the oldest first."""
    source = predictor.meta.provenance
    found = store.measurements(
        device=source.device,
        space=predictor.meta.space,
        fingerprint=source.fingerprint_key,
        session=session,
        since=since,
        with_bursts=False,
    )
    wanted = (source.threads, source.options, source.epoch)
    same = [m for m in found if (m.workload.threads, m.workload.options, m.epoch) == wanted]
    if found and not same:
        raise PredictorError(
            "the measurements of this device are of other threads, options or another canary epoch "
            "than the predictor: fit a new one"
        )
    return same


def split(
    predictor: LatencyPredictor, measured: list[Measurement]
) -> tuple[list[Measurement], list[Measurement]]:
    """Those from before the predictor was fitted, and later ones of other architectures.

    A predictor doesn't list what it learned, but it can't have learned from what came later.
    """
    fitted = datetime.fromisoformat(predictor.meta.created)
    before = [m for m in measured if datetime.fromisoformat(m.created) <= fitted]
    known = {m.workload.key for m in before}
    later = [m for m in measured if datetime.fromisoformat(m.created) > fitted]
    return before, [m for m in later if m.workload.key not in known]

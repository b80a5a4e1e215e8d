"""``hwbench predict``: latencies without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwbench import console
from hwbench.cli.options import Confidence, Debug, Json, lines


def predict(
    predictor: Annotated[Path, typer.Argument(metavar="PREDICTOR", help="A .hwp file.")],
    architectures: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARCH", help="Architectures in their text form."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Architectures, one a line; - is standard input."),
    ] = None,
    confidence: Confidence = 0.98,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict the latency of architectures, with an upper bound.

    Example:

    hwbench predict cpu.hwp --file architectures.txt --confidence 0.98
    """
    texts = lines(architectures or (), file)
    from hwbench.predictors import load_predictor

    loaded = load_predictor(predictor)
    codes = loaded.space.encode(texts)
    prediction = loaded.predict(codes)
    upper_ms = loaded.bound(prediction, confidence)
    answers = zip(texts, prediction.mean_ms, prediction.sd_ms, upper_ms, strict=True)
    if as_json:
        names = ("architecture", "mean_ms", "sd_ms", "upper_ms")
        console.write_json(
            {
                "predictor": predictor,
                "device": loaded.meta.provenance.device,
                "space": loaded.space.name,
                "confidence": confidence,
                "results": [dict(zip(names, answer, strict=True)) for answer in answers],
            }
        )
        return
    headings = ("architecture", "mean ms", "sd ms", f"upper ms ({confidence:g})")
    console.show(console.table(headings, answers))

"""``hwbench suggest``: which architectures to measure next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import (
    Debug,
    Json,
    Seed,
    SourceFiles,
    SpaceName,
    lines,
    require_folder,
    sources_of,
    told_of,
)
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.spaces import Codes, Space


def suggest(
    space: SpaceName,
    samples: Annotated[
        int, typer.Option("-n", "--samples", min=1, metavar="N", help="How many.")
    ] = 10,
    sources: SourceFiles = None,
    known: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Architectures measured before, one a line."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Default: standard output."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which architectures to measure, one a line: those that tell most about all the others.

    Nothing needs to be measured before. Known devices make it a better choice. The verb profile
    measures them: give it the file.

    Example:

    hwbench suggest -s ofa_mbv3 -n 10 --sources cpu.hwp -o next.txt
    """
    import numpy as np

    from hwbench.predictors import most_telling
    from hwbench.spaces import get_space
    from hwbench.spaces.base import ENUMERABLE

    if out is not None:
        require_folder(out)
    searched = get_space(space)
    rng = np.random.default_rng(seed)
    before = None if known is None else _encoded(searched, known)
    small = searched.raw_size() <= ENUMERABLE
    measured = set() if before is None else {code.tobytes() for code in before}
    if samples > _MOST and not small:
        raise UsageError(
            f"--samples {samples:,}: at most {_MOST:,} of a space as large as {space} are chosen "
            "at once: ask for fewer"
        )
    many = max(_POOL, samples + len(measured))
    pool = searched.all_codes() if small else searched.sample(many, rng)
    pool = pool[[code.tobytes() not in measured for code in pool]]
    if samples > len(pool):
        fresh = "" if known is None else f" that {known} does not name"
        raise UsageError(
            f"--samples {samples:,}: {space} has {len(pool):,} architectures{fresh}: ask for fewer"
        )
    others = sources_of(searched, sources)
    with console.progress(f"choosing {console.counted(samples, 'architecture')}") as report:
        rows = most_telling(
            searched, pool, samples, rng, known=before, sources=others, progress=report
        )
    texts = searched.decode(pool[rows])
    if as_json:
        console.write_json({"space": space, "architectures": texts})
        return
    told = "".join(f"{text}\n" for text in texts)
    if out is None:
        console.write_text(told)
    else:
        from hwbench.interchange.files import replacing

        with replacing(out) as draft:
            draft.write_text(told, encoding="utf-8")
        console.note(f"Written to {out}")


def _encoded(space: Space, known: Path) -> Codes:
    with told_of(known):
        return space.encode(lines((), known))


#: So many random architectures are chosen from where a space is too large to list, and as many at
#: most: time and memory grow with their square.
_POOL, _MOST = 1200, 5000

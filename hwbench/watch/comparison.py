"""How two latencies differ, with an interval, and what may be said of it.

A comparison is three-valued, and says so: *slower* or *faster* where the whole interval of the
ratio lies beyond what anybody would mind (the tolerance), *same* where the whole interval lies
within it, *inconclusive* else. Over many comparisons at once the Benjamini-Hochberg procedure
keeps the share of false alarms among all alarms (Benjamini and Hochberg, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import special

from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.pairs import Pairs
from hwbench.watch.ratio import undisturbed_ratio

Word = Literal["slower", "faster", "same", "inconclusive"]
#: Two latencies of a smaller relative difference are called the same.
TOLERANCE = 0.01
#: Degrees of freedom of an interval whose own are not stored: the least that a plan gives.
STORED_DOF = 6.0
_Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A: the log ratio of their undisturbed latencies, with its standard error on
    ``dof`` degrees of freedom.

    ``paired`` over so many ``pairs`` of bursts in ``processes`` fresh processes, of which
    ``rejected`` more did not count; else of latencies that were measured apart. ``confidence`` is
    that of the verdict; of its error this look at the data may spend ``share``, and the interval
    allows for that. ``before_ns`` is A's undisturbed latency, where that is known.
    """

    a: str
    b: str
    log_ratio: float
    se: float
    dof: float
    confidence: float = 0.95
    share: float = 1.0
    paired: bool = True
    processes: int = 0
    pairs: int = 0
    rejected: int = 0
    seconds: float = 0.0
    before_ns: float | None = None

    @property
    def ratio(self) -> float:
        """Latency of B over that of A."""
        return math.exp(self.log_ratio)

    @property
    def log_half_width(self) -> float:
        """Half the width of the interval of the log ratio."""
        error = (1 - self.confidence) * self.share
        return float(special.stdtrit(self.dof, 1 - error / 2)) * self.se

    @property
    def interval(self) -> tuple[float, float]:
        """Of the ratio, two-sided."""
        half = self.log_half_width
        return math.exp(self.log_ratio - half), math.exp(self.log_ratio + half)

    def p_value(self, tolerance: float = TOLERANCE) -> float:
        """Two-sided, of a ratio beyond the tolerance against one within it, over all looks."""
        beyond = abs(self.log_ratio) - math.log1p(tolerance)
        return float(min(1.0, 2 * special.stdtr(self.dof, -beyond / self.se) / self.share))

    def word(self, tolerance: float = TOLERANCE) -> Word:
        """The verdict on this comparison alone."""
        return self._word(self.p_value(tolerance), tolerance)

    def _word(self, p: float, tolerance: float) -> Word:
        if p <= 1 - self.confidence:
            return "slower" if self.log_ratio > 0 else "faster"
        low, high = self.interval
        alike = 1 / (1 + tolerance) < low and high < 1 + tolerance
        return "same" if alike else "inconclusive"


def verdicts(comparisons: Sequence[Comparison], tolerance: float = TOLERANCE) -> list[Word]:
    """The verdict on each of many, the share of false alarms among all alarms kept."""
    if len(comparisons) < 2:
        return [each.word(tolerance) for each in comparisons]
    from scipy.stats import false_discovery_control  # takes a second to load

    adjusted = false_discovery_control([c.p_value(tolerance) for c in comparisons])
    return [c._word(p, tolerance) for c, p in zip(comparisons, adjusted, strict=True)]


def compare_pairs(
    names: tuple[str, str],
    pairs: Pairs,
    *,
    versions: bool = False,
    confidence: float = 0.95,
    share: float = 1.0,
    seconds: float = 0.0,
    before_ns: float | None = None,
) -> Comparison:
    """Of two models, by their ``names``, that took turns in the same processes; they may be
    ``versions`` of one.
    """
    found = undisturbed_ratio(pairs, versions=versions)
    return Comparison(
        *names,
        found.log_ratio,
        found.se,
        found.dof,
        confidence,
        share,
        processes=len(set(pairs.process.tolist())),
        pairs=pairs.log_ratio.size,
        rejected=pairs.rejected,
        seconds=seconds,
        before_ns=before_ns,
    )


def together(first: Comparison, second: Comparison) -> Comparison:
    """Two comparisons of the same two models, of sessions that share nothing: their mean by what
    each is known to.
    """
    weights = [each.se**-2.0 for each in (first, second)]
    total = sum(weights)
    logs = (first.log_ratio, second.log_ratio)
    spent = sum(w**2 / each.dof for w, each in zip(weights, (first, second), strict=True))
    return replace(
        second,
        log_ratio=sum(w * log for w, log in zip(weights, logs, strict=True)) / total,
        se=total**-0.5,
        dof=total**2 / spent,
        share=1.0,
        processes=first.processes + second.processes,
        pairs=first.pairs + second.pairs,
        rejected=first.rejected + second.rejected,
        seconds=first.seconds + second.seconds,
    )


def compare_stored(
    a: Measurement, b: Measurement, epoch: CanaryEpoch | None, *, confidence: float = 0.95
) -> Comparison | None:
    """Of two stored latencies; ``None`` where one has none, or their milliseconds do not mix.

    ``epoch`` is the one that both are anchored to, if any. What both share cancels: the
    uncertainty of the canonical times as far as both feel the canaries alike, and, within a
    session, what all its measurements share.
    """
    spreads = [latency_spread(m, epoch) for m in (a, b)]
    comparable = a.epoch == b.epoch and (a.epoch is not None or a.session == b.session)
    if spreads[0] is None or spreads[1] is None or not comparable:
        return None
    assert a.latency_ns is not None
    assert b.latency_ns is not None
    variance = spreads[0] ** 2 + spreads[1] ** 2
    if epoch is not None:
        differ = [y - x for x, y in zip(a.beta, b.beta, strict=True)]
        variance += sum((d * s) ** 2 for d, s in zip(differ, _anchor_se(epoch), strict=True))
    if a.session == b.session:
        shared = min(a.session_sd, b.session_sd) ** 2
        variance = max(variance - 2 * shared, 0.1 * variance)
    return Comparison(
        a.workload.name,
        b.workload.name,
        math.log(b.latency_ns / a.latency_ns),
        math.sqrt(variance),
        2 * STORED_DOF,
        confidence,
        paired=False,
        before_ns=a.latency_ns,
    )


def latency_spread(m: Measurement, epoch: CanaryEpoch | None) -> float | None:
    """Standard error of a log latency without what its canonical times add; None without one."""
    if m.status == "observed_only" or not (m.latency_ns and m.low_ns and m.high_ns):
        return None
    t = float(special.stdtrit(STORED_DOF, 0.5 + m.confidence / 2))
    variance = (math.log(m.high_ns / m.low_ns) / 2 / t) ** 2
    if epoch is None:
        return math.sqrt(variance)
    anchor = sum((b * s) ** 2 for b, s in zip(m.beta, _anchor_se(epoch), strict=True))
    # Never less than a tenth: the two are known from different data.
    return math.sqrt(max(variance - anchor, 0.1 * variance))


def _anchor_se(epoch: CanaryEpoch) -> list[float]:
    """Standard errors of the logarithms of an epoch's canonical times."""
    ends = zip(epoch.c0_low_ns, epoch.c0_high_ns, strict=True)
    return [math.log(high / low) / (2 * _Z95) for low, high in ends]


def sentence(comparison: Comparison, word: Word) -> str:
    """One honest line: what differs, by how much, and what that rests on."""
    low, high = (100 * (end - 1) for end in comparison.interval)
    by = 100 * (comparison.ratio - 1)
    level = f"{100 * comparison.confidence:g} %"
    if word in ("slower", "faster"):
        ends = sorted((abs(low), abs(high)))
        said = f"{comparison.b} is {abs(by):.1f} % {word} than {comparison.a} ({level}: "
        said += f"{ends[0]:.1f} to {ends[1]:.1f}"
    else:
        said = "is the same as" if word == "same" else "cannot be told from"
        said = (
            f"{comparison.b} {said} {comparison.a}: {by:+.1f} % ({level}: {low:+.1f} to {high:+.1f}"
        )
    return f"{said}, {_basis(comparison)}){_milliseconds(comparison)}"


def _milliseconds(comparison: Comparison) -> str:
    """From what to what, as far as that is known."""
    if comparison.before_ns is None:
        return ""
    before = comparison.before_ns / 1e6
    return f", {before:.4g} to {before * comparison.ratio:.4g} ms"


def _basis(comparison: Comparison) -> str:
    if not comparison.paired:
        return "not measured side by side"
    lost = f"{comparison.rejected} rejected" if comparison.rejected else "nothing rejected"
    return f"{comparison.processes} processes, {lost}"

"""Which operator is the fastest here: by the device's cost model, and by a trial where that is
not sure."""

from __future__ import annotations

import math

from hwbench.devices.cuda.stream import Stream
from hwbench.search.dash.cases import Case
from hwbench.search.dash.cost_model import CostModel
from hwbench.search.dash.operators import FOURIER
from hwbench.search.dash.timing import Race

#: Predictions this many of their errors apart are held to be in the right order, if they are a
#: factor of ``_OUT`` apart as well: a trial takes a second once, a wrong choice time at each step.
_SURE = 2.0
_TRIAL_ROUNDS, _TRIAL_SECONDS = 5, 0.2
#: What takes so many times the best so far is out of a trial.
_OUT = 2.0


class Chooser:
    """Knows the fastest operator of each case on the device of ``stream``; asks once a case."""

    def __init__(self, stream: Stream, model: CostModel) -> None:
        self._stream, self.model = stream, model
        self._known: dict[Case, str] = {}
        self.trials = 0

    def choose(self, case: Case) -> str:
        """The operator to take. The first time for a case, near ones may be tried."""
        if case not in self._known:
            near = self.near(case)
            self._known[case] = near[0] if len(near) == 1 else self._tried(case, near)
        return self._known[case]

    def near(self, case: Case) -> list[str]:
        """Operators that may be the fastest for all that the model knows, the likeliest first."""
        names = (FOURIER, *case.dense)
        logs = {name: self.model.predict(name, case) for name in names}
        first, *others = sorted(names, key=lambda name: logs[name][0])
        mean, sd = logs[first]

        def apart(name: str) -> float:
            return max(math.log(_OUT), _SURE * math.hypot(sd, logs[name][1]))

        return [first, *(name for name in others if logs[name][0] - mean < apart(name))]

    def _tried(self, case: Case, names: list[str]) -> str:
        self.trials += 1
        work = case.works(self._stream.device)
        race = Race(self._stream)
        for name in names:
            race.add(name, work(name), _OUT * min(race.trial_ns.values(), default=math.inf))
        most = _OUT * min(race.trial_ns.values())
        left = [name for name, ns in race.trial_ns.items() if ns <= most]
        times = race.run(left, _TRIAL_SECONDS, _TRIAL_ROUNDS)
        return min(left, key=times.median_ns)


class TryingChooser(Chooser):
    """Knows no model: every case is tried once, as a search's few cases may be."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, CostModel([]))

    def near(self, case: Case) -> list[str]:
        """All operators that may be the fastest."""
        return [FOURIER, *case.dense]

"""Results of a study's runs, by arm, over the examples that they share.

Axes: N = test examples of all folds, each once.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmoe.config.study import Study
from jaxmoe.evaluation.engine.rows import WORST_CASE
from jaxmoe.evaluation.measures.significance import Estimate, estimate_difference
from jaxmoe.runs.study.cost import Cost
from jaxmoe.runs.study.found import Found
from jaxmoe.threat import format_epsilon

Costs = Mapping[tuple[str, str], Cost]
"""By architecture and arm."""


class Results:
    """The results of one architecture's runs, by arm, in the blocks that all arms have.

    Attributes:
      study: of the arms.
      arms: those that have runs, in the study's order.
      left_out: runs in blocks that some arm lacks.
      norm: of ε.
    """

    def __init__(self, study: Study, found: Sequence[Found], costs: Costs):
        """Takes what was found.

        Args:
          study: of the arms.
          found: of one architecture.
          costs: what the arms take.
        """
        self.study, self.costs = study, costs
        own: dict[str, dict] = {}
        for each in found:
            own.setdefault(each.cell.arm, {})[each.cell.block] = each
        shared = set.intersection(*(set(runs) for runs in own.values()))
        shared = shared or {block for runs in own.values() for block in runs}
        self.arms = {
            name: [run for block, run in own[name].items() if block in shared]
            for name in study.arms
            if name in own
        }
        self.left_out = len(found) - sum(map(len, self.arms.values()))
        self.norm = study.experiment.threat.norm

    @property
    def alike(self) -> bool:
        """Returns whether all arms have runs in the same blocks, and so over the same examples."""
        return len({frozenset(run.cell.block for run in runs) for runs in self.arms.values()}) == 1

    def radius(self, epsilon: float) -> str:
        """Returns ε in words."""
        return format_epsilon(epsilon, self.norm)

    @property
    def incomplete(self) -> str:
        """A sentence on the runs that are left out, if there are any."""
        if not self.alike:
            return "Arms have runs in other blocks than each other, and so of other examples."
        said = f"{self.left_out} runs are in blocks that other arms lack: left out."
        return said if self.left_out else ""

    @property
    def beside(self) -> list[str]:
        """The arms that the study compares with all others, and its simplest."""
        named = dict.fromkeys(filter(None, (*self.study.compared, self.study.simplest)))
        return [arm for arm in named if arm in self.arms]

    def pairs(self, arm: str, other: str) -> list[tuple[Found, Found]]:
        """The runs of two arms in the blocks that both have."""
        own = {run.cell.block: run for run in self.arms[arm]}
        both = [run for run in self.arms[other] if run.cell.block in own]
        return [(own[run.cell.block], run) for run in both]

    def title(self, arm: str) -> str:
        """The arm's name in tables."""
        return self.study.arms[arm].title

    def cost(self, arm: str) -> Cost | None:
        """Returns the cost of the arm, if it was counted."""
        return self.costs.get((self.arms[arm][0].cell.block.architecture, arm))

    def share(self, runs: Sequence[Found], attack: str, epsilon: float) -> str:
        """Robust accuracy in %, ± the standard error over folds, or else over seeds."""
        if attack != WORST_CASE and any((attack, epsilon) not in run.correct for run in runs):
            return "–"
        each = [100 * float(of(run, attack, epsilon).mean()) for run in runs]
        value = f"{100 * over_seeds(runs, attack, epsilon).mean():.1f}"
        folds: dict[str, list[float]] = {}
        for run, mean in zip(runs, each, strict=True):
            folds.setdefault(run.cell.block.fold, []).append(mean)
        units = [statistics.mean(means) for means in folds.values()] if len(folds) > 1 else each
        if len(units) == 1:
            return value
        return f"{value} ± {statistics.stdev(units) / math.sqrt(len(units)):.1f}"


def of(run: Found, attack: str, epsilon: float) -> np.ndarray:
    """Returns what was right of a run's examples."""
    return run.worst(epsilon) if attack == WORST_CASE else run.correct[attack, epsilon]


def over_seeds(runs: Sequence[Found], attack: str, epsilon: float) -> np.ndarray:
    """Returns `[N]`, what was right of each example: of several seeds the share of them.

    Raises:
      ValueError: runs of one fold were judged by other examples than each other.
    """
    folds: dict[str, list[Found]] = {}
    for run in runs:
        folds.setdefault(run.cell.block.fold, []).append(run)
    shares = []
    for own in folds.values():
        for other in own[1:]:
            _check_same(own[0], other)
        shares.append(np.mean([of(run, attack, epsilon) for run in own], axis=0))
    return np.concatenate(shares)


def _check_same(first: Found, other: Found) -> None:
    if not np.array_equal(first.index, other.index):
        raise ValueError(
            f"{first.cell.name} and {other.cell.name} were judged by other test examples; "
            "expected the same for all arms of a fold"
        )


def by_architecture(study: Study, found: Sequence[Found], costs: Costs) -> dict[str, Results]:
    """Returns the results of each architecture that has runs."""
    own = {
        architecture: [each for each in found if each.cell.block.architecture == architecture]
        for architecture in study.architectures
    }
    return {name: Results(study, runs, costs) for name, runs in own.items() if runs}


def difference(pairs: Sequence[tuple[Found, Found]], attack: str, epsilon: float) -> Estimate:
    """Returns the first runs' accuracy less the second's, paired over the same examples.

    Raises:
      ValueError: runs of one fold were judged by other examples than each other.
    """
    for first, second in pairs:
        _check_same(first, second)
    first, second = (over_seeds([pair[i] for pair in pairs], attack, epsilon) for i in (0, 1))
    return estimate_difference(first, second)

"""Differences of runs over the examples that they were judged on: the most robust against each.

Axes: N = test examples that two runs share.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, Row
from jaxmoe.evaluation.measures.significance import estimate_difference
from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.reporting.page.wording import NORMS, epsilon, percent, several, title_of

_TOLERANCE = 1e-9  # of two radii that are the same
_MOST_NAMES = 12


class Difference(NamedTuple):
    """One attack: the first run's figure, another's, and their difference in points."""

    attack: str
    first: str
    second: str
    points: str
    range: str
    sure: bool  # the interval does not hold 0


class Paired(NamedTuple):
    """A run, `name`, less another, `base`."""

    base: str
    name: str
    what: str  # is compared, in words
    note: str  # on the attacks that both have
    rows: list[Difference]
    sentence: str = ""  # how far the most robust run is above this one


class _Shared(NamedTuple):
    """An attack at an ε that both runs have, with its lines in their examples."""

    row: Row
    first: int
    second: int


def all_paired(runs: Sequence[RunFiles]) -> tuple[list[Paired], dict[str, str]]:
    """Returns the most robust run less each other one, and why some runs have no difference.

    Runs that were judged on other examples are compared among themselves.
    """
    groups: list[list[RunFiles]] = []
    for run in runs:
        fitting = (group for group in groups if not why_not_paired(group[0], run))
        if (group := next(fitting, None)) is None:
            groups.append([run])
        else:
            group.append(run)
    known = max(groups, key=len)[0]
    alone = [group[0] for group in groups if len(group) == 1 and group[0] is not known]
    return (
        [found for group in groups for found in _of_group(group)],
        {run.name: why_not_paired(known, run) for run in alone},
    )


def _of_group(group: list[RunFiles]) -> list[Paired]:
    most = _most_robust(group)
    if most is None:  # of no attack is it known
        return [paired(group[0], run) for run in group[1:]]
    found = [paired(run, most) for run in group if run is not most]
    return [each._replace(sentence=_above(each, len(group))) for each in found]


def _most_robust(group: list[RunFiles]) -> RunFiles | None:
    """The run with the highest worst case over what all have, at the largest ε of all.

    Runs in another norm than the first are left out; None where the others share no attack.
    """
    alike = [run for run in group if run.clean.norm == group[0].clean.norm]
    keys = [{(name, round(at, 9)) for name, at in run.examples.lines} for run in alike]
    shared = set.intersection(*keys)
    known = {name: [run for run in alike if run.made_of(name)] for name, _ in shared}
    shared = {
        (name, at)
        for name, at in shared
        if all(run.is_same(known[name][0], name) for run in known[name])
    }
    radii = [{round(row.epsilon, 9) for row in run.worst} for run in alike]
    radii = set.intersection(*radii) & {at for _, at in shared}
    if len(alike) < 2 or not radii:
        return None
    within = [(name, at) for name, at in shared if at <= max(radii)]
    common = functools.reduce(np.intersect1d, [run.examples.index for run in alike])

    def worst(run: RunFiles) -> float:
        places = [run.examples.line(*line) for line in within]
        here = np.isin(run.examples.index, common)
        return float(run.examples.correct[places].min(axis=0)[here].mean())

    return max(alike, key=worst)


def _above(found: Paired, runs: int) -> str:
    """How far the most robust run is above another, in the worst case at their largest ε."""
    worst = [row for row in found.rows if row.attack.startswith(WORST_CASE)]
    if not worst:
        return ""
    row = worst[-1]
    points, left = float(row.points), f"{row.second} % in the {row.attack}"
    if points > 0:
        said = f"{found.name} is the most robust: {left}; above {found.base} by"
    elif points < 0:
        said = f"Under all that both have {found.name} is below {found.base}: {left}; by"
    else:
        said = f"{found.name} is the most robust, as is {found.base}: {left}; above it by"
    sentence = f"{said} {row.points} points ({row.range})."
    if not row.sure:
        sentence += " The interval holds 0: this may be chance."
    if runs > 2:
        sentence += " It was picked by the same examples, which flatters it a little."
    return sentence


def paired(first: RunFiles, second: RunFiles) -> Paired:
    """Returns the differences of two runs that `why_not_paired` does not object to.

    The worst case is that over the attacks at every ε that both have; across norms there is but
    the clean line.
    """
    one, other = first.examples, second.examples
    _, here, there = np.intersect1d(one.index, other.index, return_indices=True)

    def difference(name: str, right: np.ndarray, right_of_other: np.ndarray) -> Difference:
        return _difference(name, right[here], right_of_other[there])

    shared = _shared(first, second)
    same = len(shared) == len(first.attacks) == len(second.attacks)
    rows, names = [], []
    for radius in _common_radii(first, second):
        within = [s for s in shared if s.row.epsilon <= radius + _TOLERANCE]
        if not any(abs(s.row.epsilon - radius) < _TOLERANCE for s in within):
            continue
        names += [s.row.attack for s in within]
        worst = one.correct[[one.clean, *(s.first for s in within)]].min(axis=0)
        of_other = other.correct[[other.clean, *(s.second for s in within)]].min(axis=0)
        title = WORST_CASE if same else f"{WORST_CASE} of shared attacks"
        title = f"{title}, ε = {epsilon(shared[0].row._replace(epsilon=radius))}"
        rows.append(difference(title, worst, of_other))
    rows.append(difference(CLEAN, one.correct[one.clean], other.correct[other.clean]))
    for s in shared:
        rows.append(difference(title_of(s.row), one.robust(s.first), other.robust(s.second)))
    what = f"Points of robust accuracy over the same {len(here)} examples"
    if one.dense:
        what = (
            "Points of robust pixels, which are right when clean and under the attack, over the "
            f"same {len(here)} images (this is not mIoU)"
        )
    note = _note(first, second, bool(shared), list(dict.fromkeys(names)), same)
    return Paired(first.name, second.name, what, note, rows)


def why_not_paired(first: RunFiles, second: RunFiles) -> str:
    """Returns why two runs cannot be compared example by example; nothing where they can."""
    for run in (first, second):
        if run.examples is None:
            return f"{run.name} kept no single examples"
    splits = [(run.description.get("splits") or {}).get("test") for run in (first, second)]
    sets = [run.clean.test_set for run in (first, second)]
    other = f"judged on other examples than {first.name}"
    if sets[0] != sets[1] or (sets[0] is None and None not in splits and splits[0] != splits[1]):
        return other
    common, here, there = np.intersect1d(
        first.examples.index, second.examples.index, return_indices=True
    )
    labels = first.examples.label[here], second.examples.label[there]
    same = labels[0].shape == labels[1].shape and bool(np.array_equal(*labels))
    return "" if common.size and same else other


def _shared(first: RunFiles, second: RunFiles) -> list[_Shared]:
    if first.clean.norm != second.clean.norm:
        return []
    found = []
    for row in second.attacks:
        lines = [run.examples.line(row.attack, row.epsilon) for run in (first, second)]
        # Two cascades that somebody made may have one name and other attacks.
        if None not in lines and first.is_same(second, row.attack):
            found.append(_Shared(row, *lines))
    return found


def _common_radii(first: RunFiles, second: RunFiles) -> list[float]:
    """The radii at which both have a worst case, from the smallest."""
    return sorted(
        row.epsilon
        for row in second.worst
        if any(abs(own.epsilon - row.epsilon) < _TOLERANCE for own in first.worst)
    )


def _note(first: RunFiles, second: RunFiles, any_shared: bool, names: list[str], same: bool) -> str:
    norms = [NORMS.get(run.clean.norm, run.clean.norm) for run in (first, second)]
    if norms[0] != norms[1]:
        return (
            f"{first.name} was attacked in {norms[0]} and {second.name} in {norms[1]}: only what "
            "is right when clean is compared."
        )
    if not any_shared:
        return "No attack is in both at the same ε: only what is right when clean is compared."
    if not names:
        return ""
    said = several(names, _MOST_NAMES)
    if same:
        return f"The worst case is over the attacks that both have: {said}."
    return f"The worst case here is over {said} alone, which both runs have at the same ε."


def _difference(name: str, first: np.ndarray, second: np.ndarray) -> Difference:
    found = estimate_difference(second, first)
    return Difference(
        name,
        percent(float(first.mean())),
        percent(float(second.mean())),
        f"{100 * found.value:+.1f}",
        f"{100 * found.low:+.1f} to {100 * found.high:+.1f}",
        bool(found.low > 0 or found.high < 0),
    )

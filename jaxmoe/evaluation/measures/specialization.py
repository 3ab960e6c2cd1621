"""Is it a mixture? What each expert can do alone, and what the router decides.

A claim about routers is a claim about a mixture of these figures. Three kinds behave differently
under attack: copies, whose turned routes cost nothing; specialists, whose turned routes cost the
routing gain; and a mixture that collapsed onto one expert, beside others that are weak.

Axes: N = valid clips, M = experts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxmoe.evaluation.measures.metrics import load_of_choices
from jaxmoe.evaluation.measures.significance import Estimate, estimate_difference, estimate_mean
from jaxmoe.mixture import PartScores
from jaxmoe.mixture.parts import COLLAPSED, NOTHING

_FEWEST_OF_A_GROUP = 10  # clips, on average

Kind = Literal["copies", "specialists", "collapsed"]


class Specialization(NamedTuple):
    """The figures of a mixture, shares 0–1 of `n` clean clips; of dense labels, of pixels.

    Each has its 95 % interval. The gains compare clip by clip.
    """

    n: int
    mixture: Estimate  # accuracy
    experts: tuple[Estimate, ...]  # [M], of each alone on all clips
    random_route: Estimate  # of routes that see no clip (`mixture.fixed_routes`)
    by_trust: tuple[Estimate, ...]  # [M], of the expert of each rank of trust, the first the most
    oracle: Estimate  # some expert is right
    routing_gain: Estimate  # the mixture less a random route
    mixture_gain: Estimate  # the mixture less its best single expert
    agreement: float  # two experts predict the same, mean over pairs
    load: tuple[float, ...]  # [M], clips by first choice
    # Nats, of the first choice and: the class (none of dense labels), and each column.
    class_information: Estimate | None
    column_information: dict[str, Estimate]
    # By column: the accuracy where all clips of one value go to the expert that is best on them.
    perfect_route: dict[str, Estimate]

    @property
    def best_single(self) -> Estimate:
        """Accuracy of the expert that is best alone."""
        return max(self.experts)

    @property
    def kind(self) -> Kind:
        """Returns the kind of mixture that these figures show.

        It has collapsed where one expert takes nearly all clips. Its experts are copies where a
        random route costs next to nothing, or nothing that so many clips could show. Else they are
        specialists.
        """
        if max(self.load) >= COLLAPSED:
            return "collapsed"
        nothing = self.routing_gain.low <= 0 or self.routing_gain.value < NOTHING
        return "copies" if nothing else "specialists"

    def as_json(self) -> dict[str, Any]:
        """Returns all of it as JSON holds it, with `best_single`, `kind` and the sentence."""
        record = jax.tree.map(
            lambda leaf: leaf._asdict() if isinstance(leaf, Estimate) else leaf,
            self._asdict(),
            is_leaf=lambda leaf: isinstance(leaf, Estimate),
        )
        said = {"kind": self.kind, "sentence": specialization_sentence(self)}
        return {**said, **record, "best_single": self.best_single._asdict()}


def specialization(
    parts: PartScores,
    correct: Float[np.ndarray, " N"],
    label: np.ndarray,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Specialization:
    """Returns the figures of a mixture of at least two experts.

    Args:
      parts: the scores of all valid clips, by `mixture.score_parts`.
      correct: 1 where the mixture itself is right.
      label: the clips' labels, [N]; dense ones [N, …].
      columns: by name, other labels of the clips, [N]. One that has hardly more than a clip for
        each value is left out.
    """
    experts, trust = np.asarray(parts.experts), np.asarray(parts.trust)
    route = trust[0]
    random_route = np.mean(parts.routes, axis=0, dtype=np.float64)
    best = experts[experts.mean(axis=1, dtype=np.float64).argmax()]
    by_trust = np.take_along_axis(experts, trust, axis=0)
    columns = {name: np.asarray(values) for name, values in (columns or {}).items()}
    columns = {name: values for name, values in columns.items() if _groups(values)}
    return Specialization(
        n=len(correct),
        mixture=estimate_mean(correct),
        experts=tuple(map(estimate_mean, experts)),
        random_route=estimate_mean(random_route),
        by_trust=tuple(map(estimate_mean, by_trust)),
        oracle=estimate_mean(experts.max(axis=0)),
        routing_gain=estimate_difference(correct, random_route),
        mixture_gain=estimate_difference(correct, best),
        agreement=float(np.mean(parts.agreement, dtype=np.float64)),
        load=tuple(load_of_choices(route, len(experts)).tolist()),
        class_information=None if np.ndim(label) > 1 else mutual_information(route, label),
        column_information={n: mutual_information(route, c) for n, c in columns.items()},
        perfect_route={n: estimate_mean(_routed_by(c, experts)) for n, c in columns.items()},
    )


def row_fields(found: Specialization | None) -> dict[str, Any]:
    """Returns the fields of a suite's clean row; none for a model without several experts."""
    if found is None:
        return {}
    information = found.class_information
    return {
        "expert_accuracy": [expert.value for expert in found.experts],
        "trust_accuracy": [rank.value for rank in found.by_trust],
        "random_route_accuracy": found.random_route.value,
        "oracle_accuracy": found.oracle.value,
        "routing_gain": found.routing_gain.value,
        "mixture_gain": found.mixture_gain.value,
        "expert_agreement": found.agreement,
        "route_class_information": information and information.value,
    }


def columns_of(
    index: Iterable[int], columns: Mapping[str, Mapping[int, str]] | None
) -> dict[str, list[str]]:
    """Returns columns in the order of the clips with these numbers.

    Raises:
      ValueError: a column lacks a clip.
    """
    index, found = [int(i) for i in index], {}
    for name, values in (columns or {}).items():
        for i in index:
            if i not in values:
                raise ValueError(
                    f"columns: {name!r} has no value for example {i}; expected one for each"
                )
        found[name] = [values[i] for i in index]
    return found


def _groups(column: np.ndarray) -> bool:
    """Returns whether a column sorts the clips into groups, and does not name each by itself."""
    values = len(np.unique(column))
    return 2 <= values <= max(len(column) // _FEWEST_OF_A_GROUP, 2)


def _routed_by(column: np.ndarray, experts: np.ndarray) -> np.ndarray:
    """Returns 1 where a clip's value has an expert that is right on it, [N].

    All clips of a value go to the expert that is best on them.
    """
    right = np.zeros(experts.shape[1])
    for value in np.unique(column):
        mine = column == value
        right[mine] = experts[experts[:, mine].mean(axis=1).argmax(), mine]
    return right


def mutual_information(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Returns the mutual information of two labellings of the same clips, [N] each, in nats.

    The Miller–Madow bias `(R − 1)(C − 1) / 2n` is taken off, R and C being the values that occur;
    around 0 the figure may be negative. The interval is the delta method's.
    """
    rows, row = np.unique(first, return_inverse=True)
    values, column = np.unique(second, return_inverse=True)
    n = len(row)
    joint = np.zeros((len(rows), len(values)))
    np.add.at(joint, (row, column), 1 / n)
    ratio = joint / (joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True))
    log_ratio = np.log(ratio, where=joint > 0, out=np.zeros_like(joint))
    raw = np.sum(joint * log_ratio)
    variance = max(float(np.sum(joint * log_ratio**2) - raw**2), 0.0) / n
    value = float(raw - (len(rows) - 1) * (len(values) - 1) / (2 * n))
    half = 1.96 * variance**0.5
    return Estimate(value, value - half, value + half)


def specialization_sentence(found: Specialization) -> str:
    """Puts the figures into words that stand beside every claim about this mixture's router."""
    gain, best = found.routing_gain, found.mixture_gain
    cost = f"a random route {'costs' if gain.value >= 0 else 'gains'} {_points(gain)}"
    single = f"the best expert alone is {_better(best)}"
    if found.kind == "collapsed":
        others = [e.value for i, e in enumerate(found.experts) if i != int(np.argmax(found.load))]
        return (
            f"One expert takes {max(found.load):.0%} of the examples: this is one network. The "
            f"others alone are right on {_range(others)}."
        )
    if found.kind == "copies":
        return f"The router decides nothing: {cost}, and {single}."
    return f"The router decides: {cost}, and {single}."


def _points(gain: Estimate) -> str:
    sign = 1 if gain.value >= 0 else -1
    low, high = sorted((100 * sign * gain.low, 100 * sign * gain.high))
    return f"{100 * abs(gain.value):.1f} points ({low:.1f} to {high:.1f})"


def _better(gain: Estimate) -> str:
    points = abs(100 * gain.value)
    if points < 0.05:
        return "as good"
    return f"{points:.1f} points {'worse' if gain.value > 0 else 'better'}"


def _range(shares: Sequence[float]) -> str:
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.1f} %" if low == high else f"{low:.1f} to {high:.1f} %"

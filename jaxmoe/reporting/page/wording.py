"""Words and numbers of the page, as the tables of a terminal have them."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxmoe.attacks import ATTACKS, CASCADES
from jaxmoe.evaluation.engine.rows import WORST_CASE, Row, limits
from jaxmoe.evaluation.measures.significance import interval
from jaxmoe.reporting.text_table import TextTable
from jaxmoe.threat import format_epsilon

PARTS = {
    "model": "on the whole",
    "router": "on the router",
    "experts": "on the experts",
    "joint": "on router and experts at once",
    "others": "others",
}
NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}
UNKNOWN = "–"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")


class Share(NamedTuple):
    """A share in words, with its exact 95 % interval."""

    value: float  # 0–1
    text: str  # 12.3 %
    range: str  # 5.0 to 25.1 %, or nothing
    of: str  # 4 of 23


def part_of(attack: str) -> str:
    """Returns the part that an attack is on, a key of `PARTS`."""
    if attack in ATTACKS:
        return ATTACKS[attack].component
    return "model" if attack in CASCADES or attack == "auto-attack-custom" else "others"


def percent(value: float | None, digits: int = 1) -> str:
    """Returns a share of 0–1 in %, without the sign."""
    return UNKNOWN if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def leading(said: str) -> str:
    """Returns the number that a cell begins with, which it is sorted by; words as they are."""
    found = _NUMBER.match(said)
    return found[0] if found else said


def columns_of_words(table: TextTable) -> list[int]:
    """Returns the columns that hold words: the first, and each where a cell has no number."""
    columns = zip(*table.rows, strict=True)
    known = [[cell for cell in column if cell != UNKNOWN] for column in columns]
    words = [not all(_NUMBER.match(cell) for cell in cells) for cells in known]
    return [place for place, own in enumerate(words) if own or not place]


def share(count: float, n: int) -> Share:
    """Returns `count` of `n`; of nothing there is none."""
    if not n:
        return Share(math.nan, UNKNOWN, "", "none")
    low, high = interval(count, n)
    value = count / n
    shown = f"{count:g} of {n}" if abs(count - round(count)) < 1e-9 else f"of {n}"
    return Share(value, f"{percent(value)} %", f"{percent(low)} to {percent(high)} %", shown)


def figure_of(row: Row) -> float:
    """Returns the field's own figure: mean IoU where every pixel has a label."""
    return row.robust_accuracy if row.mean_iou is None else row.mean_iou


def range_of(row: Row) -> str:
    """Returns the interval of a row's figure in words; nothing where there is none."""
    between = limits(row)
    return "" if between is None else " to ".join(map(percent, between))


def epsilon(row: Row) -> str:
    """Returns a row's ε in words."""
    return format_epsilon(row.epsilon, row.norm)


def title_of(row: Row) -> str:
    """Returns an attack and its ε."""
    return f"{row.attack}, ε = {epsilon(row)}"


def strongest(rows: Sequence[Row], radius: float) -> Row | None:
    """Returns the row of the attack that left the least, up to a radius."""
    within = [row for row in rows if row.epsilon <= radius + 1e-9 and row.attack != WORST_CASE]
    return min(within, key=figure_of, default=None)


def several(names: Sequence[str], most: int = 3) -> str:
    """Returns names as a list in words, cut off after a few."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def count_of(number: float) -> str:
    """Returns a count with spaces between thousands."""
    return f"{number:,.0f}".replace(",", " ")

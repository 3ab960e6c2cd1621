"""The arrays beside an evaluation's table: `examples.npz`, and whole examples in `shown.npz`.

Evaluations of before have fewer arrays, or none: those are None here.
Axes: N = test examples, R = lines (attack × ε, clean among them), M = experts, T = frames,
E = whole examples, S = steps, K = classes, H = height, W = width, C = channels.
"""

import pathlib
import zipfile
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxmoe.evaluation.engine.rows import CLEAN, robust
from jaxmoe.reporting.results import EXAMPLES

SHOWN = "shown.npz"
WRONG_WHEN_CLEAN = -1.0  # in the place of the smallest ε that broke an example


class Examples(NamedTuple):
    """Each test example under each line; the line `clean` is without an attack."""

    index: Int[np.ndarray, " N"]
    label: Int[np.ndarray, "N ..."]  # of pixels where it has more axes
    lines: tuple[tuple[str, float], ...]  # [R], attack and ε
    correct: Float[np.ndarray, "R N"]  # 1 right, 0 wrong; of pixels the share that is right
    prediction: Int[np.ndarray, "R N"] | None = None  # −1 where it is not known
    confidence: Float[np.ndarray, "R N"] | None = None  # NaN where it is not known
    expert: Int[np.ndarray, "R N"] | None = None  # the router's first choice; −1 not known
    weights: Float[np.ndarray, "R N M"] | None = None  # of the router, NaN not known
    size: Float[np.ndarray, "R N T"] | None = None  # ‖δ‖ of each frame; NaN not known
    confusion: Int[np.ndarray, "R K K"] | None = None  # pixels of all N by label and prediction

    @property
    def clean(self) -> int:
        """The line of clean examples."""
        return self.lines.index((CLEAN, 0.0))

    @property
    def dense(self) -> bool:
        """Returns whether labels are of pixels."""
        return self.label.ndim > 1

    def line(self, attack: str, epsilon: float) -> int | None:
        """Returns the line of an attack at an ε, if there is one."""
        for place, (name, at) in enumerate(self.lines):
            if name == attack and abs(at - epsilon) < 1e-9:
                return place
        return None

    def robust(self, line: int) -> Float[np.ndarray, " N"]:
        """Returns what is right when clean and under the attack of a line, by example."""
        return robust(self.correct[line], self.correct[self.clean])

    def worst(self, epsilon: float) -> Float[np.ndarray, " N"]:
        """Returns what is right under every attack up to ε, and when clean, by example."""
        within = [place for place, (_, at) in enumerate(self.lines) if at <= epsilon + 1e-9]
        return self.correct[within].min(axis=0)

    def moved(self, line: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the clean expert and that under the attack where both are known, and which.

        The first is `[n, 2]`, the second the places of these examples; None where none is known.
        """
        if self.expert is None:
            return None
        pair = np.stack([self.expert[self.clean], self.expert[line]], axis=-1)
        known = np.flatnonzero((pair >= 0).all(axis=-1))
        return (pair[known].astype(int), known) if known.size else None


class Shown(NamedTuple):
    """A few whole examples."""

    position: Int[np.ndarray, " E"]  # places in 0..N−1
    line: Int[np.ndarray, " E"]  # whose attack made the adversarial one
    why: tuple[str, ...]  # [E]
    clean: UInt8[np.ndarray, "E T H W C"]
    adversarial: Float[np.ndarray, "E T H W C"]  # 0–1
    label_map: Int[np.ndarray, "E ..."] | None = None
    clean_map: Int[np.ndarray, "E ..."] | None = None
    adversarial_map: Int[np.ndarray, "E ..."] | None = None
    step_sizes: Float[np.ndarray, "E S T"] | None = None  # of temporal momentum, NaN elsewhere


def read_examples(folder: pathlib.Path) -> Examples | None:
    """Returns what `examples.npz` holds; None where there is none.

    Raises:
      ValueError: it is damaged, or its arrays do not fit each other; one line.
    """
    found = _load(folder, EXAMPLES, ("index", "label", "attack", "epsilon", "correct"))
    if found is None:
        return None
    names, radii = found.pop("attack").tolist(), found.pop("epsilon").tolist()
    lines = tuple(zip(names, radii, strict=True)) if len(names) == len(radii) else ()
    known = {name: found[name] for name in Examples._fields if name in found}
    examples = Examples(lines=lines, **known)
    count = len(lines), len(examples.index)
    if (CLEAN, 0.0) not in lines:
        raise _damaged(folder, EXAMPLES, "it has no line of clean examples")
    if len(examples.label) != count[1]:
        raise _damaged(folder, EXAMPLES, f"label has {len(examples.label)} of {count[1]} examples")
    axes = {"correct": 2, "prediction": 2, "confidence": 2, "expert": 2, "weights": 3, "size": 3}
    for name, number in axes.items():
        value = getattr(examples, name)
        if value is not None and (value.ndim != number or value.shape[:2] != count):
            raise _damaged(
                folder, EXAMPLES, f"{name} has the shape {value.shape}; expected {count} first"
            )
    pixels = examples.confusion
    if pixels is not None and (
        pixels.ndim != 3 or pixels.shape != (count[0], *pixels.shape[1:2] * 2)
    ):
        said = f"confusion has the shape {pixels.shape}; expected ({count[0]}, K, K)"
        raise _damaged(folder, EXAMPLES, said)
    return examples


def read_shown(folder: pathlib.Path, examples: Examples) -> Shown | None:
    """Returns what `shown.npz` holds; None where there is none.

    Raises:
      ValueError: as `read_examples`, or it is of other examples than these.
    """
    found = _load(folder, SHOWN, ("position", "line", "why", "clean", "adversarial"))
    if found is None:
        return None
    own = {name: found[name] for name in Shown._fields if name in found}
    own["why"] = tuple(map(str, own["why"].tolist()))
    shown = Shown(**own)
    count = len(shown.position)
    for name, value in own.items():
        if len(value) != count:
            raise _damaged(folder, SHOWN, f"{name} has {len(value)} of {count} examples")
    if shown.clean.ndim != 5 or shown.clean.shape != shown.adversarial.shape:
        raise _damaged(
            folder,
            SHOWN,
            f"clean has the shape {shown.clean.shape} and adversarial {shown.adversarial.shape}; "
            "expected [E, T, H, W, C] twice",
        )
    for name, value, most in (
        ("position", shown.position, len(examples.index)),
        ("line", shown.line, len(examples.lines)),
    ):
        if count and not 0 <= value.min() <= value.max() < most:
            raise _damaged(folder, SHOWN, f"{name} is not in 0 to {most - 1}")
    return shown


def smallest_breaking(
    examples: Examples,
) -> tuple[Float[np.ndarray, " N"], list[list[str]]]:
    """Returns for each example the smallest ε that broke it, and which attacks did at any ε.

    The ε is `WRONG_WHEN_CLEAN` where it was wrong without an attack and infinite where nothing
    broke it; of pixels an example counts as broken where less than half of what was right when
    clean is left.
    """
    clean = examples.correct[examples.clean]
    threshold = 0.5 * clean if examples.dense else np.full(len(clean), 0.5)
    right = clean > (0 if examples.dense else 0.5)
    least = np.where(right, np.inf, WRONG_WHEN_CLEAN)
    by: list[list[str]] = [[] for _ in clean]
    for line, (attack, epsilon) in enumerate(examples.lines):
        if line == examples.clean:
            continue
        broken = (examples.correct[line] < threshold) & right
        least = np.where(broken, np.minimum(least, epsilon), least)
        for place in np.flatnonzero(broken).tolist():
            if attack not in by[place]:
                by[place].append(attack)
    return least, by


def _load(folder: pathlib.Path, name: str, needed: tuple[str, ...]) -> dict | None:
    path = folder / name
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(folder, name, str(error)) from None
    missing = [key for key in needed if key not in found]
    if missing:
        raise _damaged(folder, name, f"it has no {', '.join(missing)}")
    return found


def _damaged(folder: pathlib.Path, name: str, said: str) -> ValueError:
    return ValueError(f"{folder}: its {name} is damaged: {said}")

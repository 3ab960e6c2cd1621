"""Reads all that the page shows from a run's folder alone: no model, no data.

An evaluation of before, or one that was stopped, has less; `RunFiles.lacks` says so in words.
"""

import os
import pathlib
import re
from typing import Any, NamedTuple

from jaxmoe.attacks import CASCADES
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, Check, Row
from jaxmoe.evaluation.transfer.transfer_result import TransferRow
from jaxmoe.files import read_json
from jaxmoe.reporting.details import DETAILS, FINISHED, row_keys
from jaxmoe.reporting.page.arrays import SHOWN, Examples, Shown, read_examples, read_shown
from jaxmoe.reporting.results import EXAMPLES, JSON, read_results
from jaxmoe.training.metrics_log import read_metrics

CONFIG, DESCRIPTION, TRANSFER = "config.json", "run.json", "transfer.json"
_PART = re.compile(r"expert\d+|mean|max")  # names of folders of parts, inside a run's


class RunFiles(NamedTuple):
    """The files of one evaluation and of its run.

    Attributes:
      folder: of the evaluation.
      name: of the run, short and different from others on the page.
      config: of `config.json`, by section; empty where there is none.
      description: of `run.json`.
      rows: of `results.json`, the clean one first.
      details: of `evaluation.json`.
      checks: of masked gradients and of the model.
      examples: of `examples.npz`.
      shown: of `shown.npz`.
      metrics: of `metrics.jsonl`.
      transfer: rows of a transfer matrix in this folder.
      trained: seconds and steps of training, where a checkpoint says them.
      lacks: sentences on what is not there, and why.
      part: of the mixture that was judged in its place, as `expert0`, `mean` or `max`.
    """

    folder: pathlib.Path
    name: str
    config: dict[str, Any]
    description: dict[str, Any]
    rows: tuple[Row, ...]
    details: dict[str, Any]
    checks: tuple[Check, ...]
    examples: Examples | None
    shown: Shown | None
    metrics: list[dict[str, Any]]
    transfer: tuple[TransferRow, ...]
    trained: dict[str, Any]
    lacks: tuple[str, ...]
    part: str | None = None

    @property
    def dense(self) -> bool:
        """Returns whether every pixel has a label."""
        return any(row.mean_iou is not None for row in self.rows)

    @property
    def finished(self) -> bool:
        """Returns whether all attacks ran."""
        return bool(self.details.get(FINISHED, True))

    @property
    def clean(self) -> Row:
        """The row without an attack."""
        return self.rows[0]

    @property
    def worst(self) -> tuple[Row, ...]:
        """The rows of the worst case, by ε."""
        return tuple(row for row in self.rows if row.attack == WORST_CASE)

    @property
    def attacks(self) -> tuple[Row, ...]:
        """The rows of single attacks and cascades."""
        return tuple(row for row in self.rows if row.attack not in (CLEAN, WORST_CASE))

    @property
    def experts(self) -> int:
        """How many experts the model has, as far as its folder says it; a part counts as one."""
        if self.part is not None:
            return 1
        if self.clean.load_clean is not None:
            return len(self.clean.load_clean)
        return int(self.config.get("mixture", {}).get("experts", 1))

    def made_of(self, attack: str) -> tuple[object, ...]:
        """Returns the attacks of a cascade that somebody made, its steps and its restarts.

        Nothing of every other attack, whose name says what it is, or where nobody kept them.
        """
        stages = [each for each in self.details.get("cascades") or () if each["cascade"] == attack]
        if attack in CASCADES or not stages:
            return ()
        settings = self.details.get("settings") or {}
        names = ", ".join(dict.fromkeys(each["attack"] for each in stages))
        return names, settings.get("steps"), settings.get("restarts")

    def is_same(self, other: "RunFiles", attack: str) -> bool:
        """Returns whether an attack of this name is the same in both, as far as both say it."""
        own, others = self.made_of(attack), other.made_of(attack)
        return own == others or not (own and others)

    def class_name(self, number: int) -> str:
        """Returns the name of a class."""
        names = self.description.get("classes") or ()
        return str(names[number]) if 0 <= number < len(names) else f"class {number}"


def gather(folder: str | os.PathLike, name: str | None = None) -> RunFiles:
    """Returns what is in the folder of an evaluation.

    A part's evaluation, and one with its own output, lies in a folder without a config:
    `evaluation.json` says where its run is. Of before it did not, and the run is in the folder
    above, or nowhere.

    Raises:
      FileNotFoundError: no run, or one without results; one line.
      ValueError: a file is damaged; one line.
    """
    folder = pathlib.Path(folder)
    if not (folder / JSON).is_file():
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"RUN: no {CONFIG} in {folder}; expected the folder of a run")
        raise FileNotFoundError(
            f"RUN: no {JSON} in {folder}; expected a run that was judged: jaxmoe evaluate {folder}"
        )
    rows = _rows(folder)
    details, lacks = _details(folder, rows)
    run, part = _run_of(folder, details)
    if not (run / CONFIG).is_file():
        here = f"in {details['run']}, seen from here," if details.get("run") else "here"
        lacks.append(f"There is no {CONFIG} {here}: nothing is known of the model.")
    elif part is not None:
        lacks.append("The config is that of the whole mixture, of which this is a part.")
    examples = read_examples(folder)
    if examples is not None and not _is_of(examples, rows):
        lacks.append(
            f"{EXAMPLES} is of another evaluation than {JSON}, so single examples are left out."
        )
        examples = None
    elif examples is None:
        lacks.append(f"There is no {EXAMPLES}: nothing is known of single examples.")
    shown = read_shown(folder, examples) if examples is not None else None
    lacks += _what_examples_lack(examples, shown)
    return RunFiles(
        folder=folder,
        name=name or folder.resolve().name,
        config=_dict(run / CONFIG),
        description=_description(run),
        rows=rows,
        details=details,
        checks=_checks(folder, details),
        examples=examples,
        shown=shown,
        # The training of the whole says nothing of a part.
        metrics=read_metrics(run) if part is None else [],
        transfer=read_transfer(folder),
        trained=_trained(run) if part is None else {},
        lacks=tuple(lacks),
        part=part,
    )


def read_transfer(folder: pathlib.Path) -> tuple[TransferRow, ...]:
    """Returns the rows of a transfer matrix in a folder, or in its own folder `transfer`.

    Raises:
      ValueError: the file is damaged, or of before with other fields; one line.
    """
    for file in (folder / TRANSFER, folder / "transfer" / TRANSFER):
        if file.is_file():
            try:
                return tuple(TransferRow(**row) for row in read_json(file, list))
            except TypeError as error:  # other fields, or no fields
                raise _damaged(file, error) from None
    return ()


def names_of(folders: list[pathlib.Path]) -> list[str]:
    """Returns a short name for each folder, as much of its path as tells it from the others.

    The name of a part's folder says too of which run it is.
    """
    parts = [folder.resolve().parts for folder in folders]
    first = 2 if any(_PART.fullmatch(part[-1]) for part in parts) else 1
    for depth in range(first, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({place})" for place, name in enumerate(names, 1)]


def _run_of(folder: pathlib.Path, details: dict[str, Any]) -> tuple[pathlib.Path, str | None]:
    """The folder of the run that was judged, and which part of it; None is the whole."""
    if isinstance(details.get("run"), str):
        return folder.resolve() / details["run"], details.get("part")
    here = folder.resolve()
    if not (folder / CONFIG).is_file() and (here.parent / CONFIG).is_file():
        return here.parent, here.name if _PART.fullmatch(here.name) else None
    return folder, None


def _dict(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _rows(folder: pathlib.Path) -> tuple[Row, ...]:
    try:
        rows = read_results(folder)
    except TypeError as error:  # no such field
        raise _damaged(folder / JSON, error) from None
    if not rows or rows[0].attack != CLEAN:
        raise _damaged(folder / JSON, "it does not begin with a clean row")
    return tuple(rows)


def _details(folder: pathlib.Path, rows: tuple[Row, ...]) -> tuple[dict[str, Any], list[str]]:
    """Returns `evaluation.json` where it is of these rows, and what is said of it."""
    details = _dict(folder / DETAILS)
    unknown = "checks, GFLOPs and the command are not known"
    if not details:
        return {}, [f"There is no {DETAILS}: {unknown}."]
    if details.get("rows", row_keys(rows)) != row_keys(rows):  # of before it has none
        return {}, [f"{DETAILS} is of another evaluation than {JSON}, so {unknown}."]
    if not details.get(FINISHED, True):
        stopped = (
            "This evaluation was stopped: some attacks did not run, and there is no worst case."
        )
        return details, [stopped]
    return details, []


def _checks(folder: pathlib.Path, details: dict[str, Any]) -> tuple[Check, ...]:
    try:
        return tuple(Check(**check) for check in details.get("checks") or ())
    except TypeError as error:  # other fields, or no fields
        raise _damaged(folder / DETAILS, error) from None


def _description(run: pathlib.Path) -> dict[str, Any]:
    """Returns `run.json`, whose parts that the page shows have to be what they are."""
    found = _dict(run / DESCRIPTION)
    for name, kind in (("processes", list), ("classes", list), ("clips", dict)):
        if not isinstance(found.get(name) or kind(), kind):
            raise _damaged(run / DESCRIPTION, f"{name} is no {kind.__name__}")
    if not all(isinstance(process, dict) for process in found.get("processes") or ()):
        raise _damaged(run / DESCRIPTION, "processes are not all of fields")
    return found


def _damaged(file: pathlib.Path, said: object) -> ValueError:
    return ValueError(f"{file.parent}: its {file.name} is damaged: {said}")


def _is_of(examples: Examples, rows: tuple[Row, ...]) -> bool:
    """Returns whether single examples add up to the figures of the table."""
    for row in rows:
        if row.attack == WORST_CASE:
            continue
        line = examples.line(row.attack, row.epsilon)
        if line is None or row.n != len(examples.index):
            return False
        if abs(float(examples.robust(line).mean()) - row.robust_accuracy) > 1e-3:
            return False
    return True


def _what_examples_lack(examples: Examples | None, shown: Shown | None) -> list[str]:
    if examples is None:
        return []
    said = []
    if not examples.dense and examples.prediction is None:
        said.append(
            "This evaluation is of before predictions and routes were kept: there is no confusion "
            "and no flow. Evaluate again to have them."
        )
    if shown is None:
        said.append(f"There is no {SHOWN}: no whole example can be played.")
    return said


def _trained(run: pathlib.Path) -> dict[str, Any]:
    """Seconds and steps of training, of the latest checkpoint."""
    if not (run / "checkpoints").is_dir():
        return {}
    from jaxmoe.training import Checkpoints, DamagedCheckpointError

    try:
        position = Checkpoints(run).position("latest") or {}
    except (DamagedCheckpointError, OSError):
        return {}
    return {name: position[name] for name in ("seconds", "global_step") if name in position}

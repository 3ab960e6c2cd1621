"""An evaluation's figures and example clips, for the loggers of its run."""

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxmoe.reporting.results import SHOWN, read_results
from jaxmoe.threat import format_epsilon
from jaxmoe.training import read_metrics
from jaxmoe.training.loggers import open_loggers

_FIGURES = ("robust_accuracy", "margins")


def log_evaluation(run: pathlib.Path, names: Sequence[str]) -> None:
    """Tells loggers what the evaluation of a run found, at its last step.

    They get accuracies, or mean IoU where every pixel has a label, figures, and clips of
    `shown.npz`, clean beside adversarial.

    Args:
      run: its folder, which has the evaluation too.
      names: of `training.loggers.LOGGERS`.

    Raises:
      ValueError: a logger's package is not installed.
      OSError: the disk is full or failed.
    """
    accuracies = {}
    for row in read_results(run):
        figure = row.robust_accuracy if row.mean_iou is None else row.mean_iou
        radius = format_epsilon(row.epsilon, row.norm).replace("/255", "")
        accuracies[f"evaluation/{row.attack}/{radius}"] = figure
    figures = {name: run / f"{name}.png" for name in _FIGURES}
    clips = _clips(run / SHOWN)
    step = max((entry["step"] for entry in read_metrics(run)), default=0)
    for logger in open_loggers(names, run):
        logger.scalars(step, accuracies)
        for name, file in figures.items():
            if file.is_file():
                logger.figure(step, f"evaluation/{name}", file.read_bytes())
        for name, frames in clips.items():
            logger.clip(step, f"evaluation/{name}", frames)
        logger.close()


def _clips(file: pathlib.Path) -> dict[str, np.ndarray]:
    """Clean beside adversarial frames by name, uint8 `[T, H, 2 W, 3]`."""
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as found:
        clean, adversarial, why = found["clean"], found["adversarial"], found["why"]
    if clean.shape[-1] not in (1, 3):
        return {}
    grey = np.rint(255 * adversarial.astype(np.float32)).astype(np.uint8)
    beside = np.concatenate([clean, grey], axis=-2)
    beside = np.broadcast_to(beside, (*beside.shape[:-1], 3))
    names = (reason.replace(" ", "_") for reason in why.tolist())
    return {f"{number}_{name}": beside[number] for number, name in enumerate(names)}

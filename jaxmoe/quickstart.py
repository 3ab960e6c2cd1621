"""`jaxmoe quickstart`: two defences on rendered data, attacked, in a few minutes on two cores."""

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    DataConfig,
    EvaluationConfig,
    Experiment,
    ExpertConfig,
    MixtureConfig,
    OptimizerConfig,
    RunConfig,
    ThreatConfig,
    TrainingConfig,
)

if TYPE_CHECKING:
    from jaxmoe.evaluation import SuiteResult
    from jaxmoe.reporting.progress import BarProgress, PlainProgress

_MIXTURE = MixtureConfig(experts=4, top_k=1, balance_weight=1.5)


class Task(NamedTuple):
    """A quickstart.

    Attributes:
      experiment: `(recipe, directory, initialize_from) -> Experiment`; of None it trains a standard
        run first, inside the run.
      defences: titles of the recipes beside the standard one, which they start from.
      examples: what the test examples are.
      next: attacks to try after it.
    """

    experiment: Callable[[str, str, str | None], Experiment]
    defences: dict[str, str]
    examples: str
    next: str


def video(recipe: str, directory: str, initialize_from: str | None = None) -> Experiment:
    """Rendered motions, 8 frames of 24 × 24, under TLGA; recipes "standard", "at_m", "j_tlat"."""
    clean = recipe == "standard"
    return Experiment(
        data=DataConfig(
            name="synthetic_actions",
            frames=8,
            size=24,
            train_clips=960,
            validation_clips=96,
            test_clips=192,
        ),
        expert=ExpertConfig(width=8, stage_sizes=(1, 1, 1), stem="small", stem_strides=(1, 2, 2)),
        # Below 1 a router that J-TLAT trains may rest on one expert: see `recipes.router_phase`.
        mixture=_MIXTURE,
        threat=ThreatConfig(epsilon=4 / 255),
        attack=AttackSettings(steps=3, alpha=0.5, temporal_alpha=1.0),
        optimizer=OptimizerConfig(learning_rate=5e-3 if clean else 2e-3),
        training=TrainingConfig(
            recipe=recipe,
            initialize_from=initialize_from,
            shared_epochs=12,
            shared_noise=0.05,
            dense_epochs=0,
            standard_epochs=0 if clean else 3,
            epochs=3 if clean else 2,
            batch_size=32,
        ),
        evaluation=EvaluationConfig(
            attacks=("pgd", "tlga-r", "j-tlga"),
            epsilons=(4 / 255,),
            batch_size=64,
            checkpoint="latest",
        ),
        # Judged on test clips at once: a look at the validation clips is twenty seconds to compile.
        run=RunConfig(directory=directory, checkpoint_every=1, evaluate_every=0, log_every=5),
    )


def image(recipe: str, directory: str, initialize_from: str | None = None) -> Experiment:
    """Rendered shapes, 24 × 24, under attacks by part; recipes "standard", "at_m", "rt_er"."""
    clean = recipe == "standard"
    return Experiment(
        data=DataConfig(
            name="synthetic_shapes",
            size=24,
            padding=2,
            flip=True,
            train_clips=1920,
            validation_clips=96,
            test_clips=384,
        ),
        expert=ExpertConfig(width=16, stage_sizes=(1, 1, 1), stem="small", stem_strides=(1, 2, 2)),
        mixture=_MIXTURE,
        threat=ThreatConfig(epsilon=8 / 255),
        attack=AttackSettings(steps=3, alpha=0.5),
        optimizer=OptimizerConfig(learning_rate=5e-3 if clean else 2e-3),
        training=TrainingConfig(
            recipe=recipe,
            initialize_from=initialize_from,
            shared_epochs=10,
            shared_noise=0.05,
            standard_epochs=0 if clean else 3,
            epochs=3 if clean else 6,
            batch_size=64,
            beta=2.0,
        ),
        evaluation=EvaluationConfig(
            attacks=("pgd", "pgd-r", "pgd-e"),
            epsilons=(8 / 255,),
            batch_size=128,
            checkpoint="latest",
        ),
        run=RunConfig(directory=directory, checkpoint_every=1, evaluate_every=0, log_every=5),
    )


TASKS: dict[str, Task] = {
    "video": Task(
        video,
        {"at_m": "AT-M", "j_tlat": "J-TLAT"},
        "rendered test clips",
        "apgd-t enumerated-route square",
    ),
    "image": Task(
        image,
        {"at_m": "PGD-AT", "rt_er": "RT-ER"},
        "rendered test images",
        "auto-attack enumerated-route",
    ),
}


def experiments(task: Task, directory: pathlib.Path) -> dict[str, Experiment]:
    """A quickstart's runs in their order: the first is where the others start."""
    standard = str(directory / "standard")
    runs = {"standard": task.experiment("standard", standard, None)}
    for recipe, title in task.defences.items():
        runs[title] = task.experiment(recipe, str(directory / recipe), standard)
    return runs


def run(task: Task, directory: str, progress: "PlainProgress | BarProgress") -> None:
    """Trains, attacks and prints one table; resumes where it was stopped.

    Args:
      task: of `TASKS`.
      directory: takes a run's folder for each of `experiments`, with its results.
      progress: is told what goes on.
    """
    from jaxmoe import run as runs
    from jaxmoe.reporting import plot_bars, write_results

    results: dict[str, SuiteResult] = {}
    programs = None
    trained = None
    for title, wanted in experiments(task, pathlib.Path(directory)).items():
        progress.say(f"{title}: training in {wanted.run.directory}")
        folder = runs.train(wanted, progress)
        trained = runs.load(folder)
        if programs is not None:
            # One mixture for all: what was compiled for the first run serves the others.
            trained = trained._replace(mixture=programs.model)
        results[title], programs = _evaluate(trained, programs, progress)
        write_results(results[title].rows, folder)
    accuracies = {title: _accuracies(result) for title, result in results.items()}
    setting = _setting(task, results)
    plot_bars(accuracies, pathlib.Path(directory) / "accuracy.png", setting)
    progress.say("\n".join(["", *_table(accuracies), "", setting]))
    progress.say(
        f"the same as a picture in {directory}/accuracy.png\n"
        f"runs and results.json, .csv, .md in {directory}/{{standard,{','.join(task.defences)}}}\n"
        f"next: jaxmoe evaluate {directory}/{list(task.defences)[-1]} --attacks {task.next}"
    )


def _evaluate(trained, programs, progress):
    """The quickstart's attacks, at full strength whatever training used, on the test clips."""
    from jaxmoe.evaluation import Programs, evaluate_suite
    from jaxmoe.evaluation.metrics import accuracy
    from jaxmoe.experiment import evaluation_loader, evaluation_settings

    config = trained.experiment
    programs = programs or Programs(trained.mixture, config.threat.norm, accuracy)
    loader = evaluation_loader(trained.dataset.test, config.data, config.evaluation.batch_size)
    result = evaluate_suite(
        trained.mixture,
        trained.params,
        lambda: loader,
        attacks=config.evaluation.attacks,
        epsilons=config.evaluation.epsilons,
        settings=evaluation_settings(config),
        norm=config.threat.norm,
        seed=config.evaluation.seed,
        progress=progress.evaluation,
        programs=programs,
        probe_batches=0,
    )
    return result, programs


def _accuracies(result: "SuiteResult") -> dict[str, float]:
    """Robust accuracy, 0–1, by attack and steps."""
    from jaxmoe.attacks import find_attack

    def name(row):
        return row.attack if row.steps is None else f"{find_attack(row.attack).title}-{row.steps}"

    return {name(row): row.robust_accuracy for row in result.rows}


def _table(accuracies: dict[str, dict[str, float]]) -> list[str]:
    """Accuracy in %, a line for each attack and a column for each run."""
    lines = [["accuracy %", *accuracies]]
    for name in next(iter(accuracies.values())):
        lines.append([name, *(f"{100 * found[name]:.1f}" for found in accuracies.values())])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _setting(task: Task, results: "dict[str, SuiteResult]") -> str:
    from jaxmoe.threat import format_epsilon

    row = next(iter(results.values())).rows[-1]
    epsilon = format_epsilon(row.epsilon, row.norm)
    return f"ℓ∞, ε = {epsilon}, {row.n} {task.examples}, one seed; worst-case: right under all"

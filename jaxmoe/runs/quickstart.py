"""`jaxmoe quickstart`: mixtures on rendered data, attacked, in a few minutes on two cores."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import (
    ATMConfig,
    DeepLabConfig,
    EvaluationConfig,
    Experiment,
    GateConfig,
    JTLATConfig,
    MixtureConfig,
    OptimizerConfig,
    PooledRouterConfig,
    ResNetConfig,
    RTERConfig,
    RunConfig,
    SimpleGateConfig,
    StandardConfig,
    SyntheticActionsConfig,
    SyntheticScenesConfig,
    SyntheticShapesConfig,
    ThreatConfig,
    TrainingConfig,
)

if TYPE_CHECKING:
    from jaxmoe.evaluation import Programs, SuiteResult
    from jaxmoe.reporting.progress import BarProgress, PlainProgress


def _mixture(experts: int) -> MixtureConfig:
    """Four experts, one of which sees an example; or the single network of their size."""
    # Below 1 a router that J-TLAT trains may rest on one expert: see `recipes.router_phase`.
    return MixtureConfig(experts=experts, top_k=1, balance_weight=1.5 if experts > 1 else 0.0)


class Task(NamedTuple):
    """A quickstart.

    Attributes:
      experiments: from the folder that takes a run's folder for each, its runs by title, each after
        those that it starts from.
      examples: what the test examples are.
      notes: what else a reader of its table should know, line by line.
      next: attacks to try after it.
    """

    experiments: Callable[[pathlib.Path], dict[str, Experiment]]
    examples: str
    notes: tuple[str, ...]
    next: str


_RECIPES = {
    "standard": StandardConfig(),
    "at_m": ATMConfig(),
    "j_tlat": JTLATConfig(),
    "rt_er": RTERConfig(beta=2.0),
}
_EPOCHS = {"standard": 10, "at_m": 3, "j_tlat": 1, "rt_er": 3}  # J-TLAT's take three times as many


def _stages(recipe: str, initialize_from: str | None, experts: int) -> TrainingConfig:
    """Specialists, or one network by itself; and a defence that starts from such a run."""
    clean, several = recipe == "standard", experts > 1
    before = 0 if initialize_from else _EPOCHS["standard"]
    return TrainingConfig(
        initialize_from=initialize_from,
        specialize="clusters",
        specialize_epochs=before if several else 0,
        standard_epochs=0 if several or clean else before,
        epochs=0 if several and clean else _EPOCHS[recipe],
        batch_size=16,
    )


def video(
    recipe: str, directory: str, initialize_from: str | None = None, *, experts: int = 4
) -> Experiment:
    """Four rendered motions in four domains, 8 frames of 24 × 24, under TLGA.

    Recipes "standard", "at_m" and "j_tlat"; with `experts=1` the single network of equal cost.
    """
    return Experiment(
        data=SyntheticActionsConfig(
            frames=8,
            height=24,
            classes=4,
            domains=4,
            train_clips=720,
            validation_clips=96,
            test_clips=160,
        ),
        expert=ResNetConfig(width=4, stage_sizes=(1, 1), stem="small", stem_strides=(1, 2, 2)),
        mixture=_mixture(experts),
        threat=ThreatConfig(epsilon=4 / 255),
        # README's table was made with best iterates.
        attack=AttackSettings(steps=3, alpha=0.5, temporal_alpha=1.0, iterate="best"),
        optimizer=OptimizerConfig(learning_rate=4e-3 if recipe == "standard" else 2e-3),
        recipe=_RECIPES[recipe],
        training=_stages(recipe, initialize_from, experts),
        evaluation=EvaluationConfig(
            # One network has no route to attack.
            attacks=("pgd", "tlga-r", "j-tlga") if experts > 1 else ("pgd",),
            epsilons=(4 / 255,),
            batch_size=80,
            checkpoint="latest",
        ),
        # Judged on test clips at once: a look at the validation clips is twenty seconds to compile.
        run=RunConfig(directory=directory, checkpoint_every=1, validate_every=0, log_every=5),
    )


def image(
    recipe: str, directory: str, initialize_from: str | None = None, *, experts: int = 4
) -> Experiment:
    """Five rendered shapes in four domains, 24 × 24, under attacks by part.

    Recipes "standard", "at_m" and "rt_er"; with `experts=1` the single network of equal cost.
    """
    return Experiment(
        data=SyntheticShapesConfig(
            height=24,
            padding=2,
            flip=True,
            classes=5,
            domains=4,
            train_clips=1920,
            validation_clips=96,
            test_clips=400,
        ),
        expert=ResNetConfig(width=8, stage_sizes=(1, 1), stem="small", stem_strides=(1, 2, 2)),
        mixture=_mixture(experts),
        threat=ThreatConfig(epsilon=8 / 255),
        attack=AttackSettings(steps=3, alpha=0.5, iterate="best"),
        optimizer=OptimizerConfig(learning_rate=1e-2 if recipe == "standard" else 2e-3),
        recipe=_RECIPES[recipe],
        training=_stages(recipe, initialize_from, experts),
        evaluation=EvaluationConfig(
            attacks=("pgd", "pgd-r", "pgd-e") if experts > 1 else ("pgd",),
            epsilons=(8 / 255,),
            batch_size=100,
            checkpoint="latest",
        ),
        run=RunConfig(directory=directory, checkpoint_every=1, validate_every=0, log_every=5),
    )


def segmentation(domains: str | None, directory: str, experts: tuple[str, ...] = ()) -> Experiment:
    """Scenes of two domains, 48 × 48: an expert of some, or of None a gate on `experts`' runs."""
    expert = Experiment(
        data=SyntheticScenesConfig(
            height=48,
            padding=4,
            flip=True,
            domains=2,
            subset=domains and f"domain={domains}",
            train_clips=2560,
            validation_clips=32,
            test_clips=128,
        ),
        expert=DeepLabConfig(
            width=8,
            stage_sizes=(1, 1, 1),
            features=16,
            low_level=8,
            rates=(1, 2),
        ),
        router=PooledRouterConfig(),
        mixture=MixtureConfig(experts=1, balance_weight=0.0),
        threat=ThreatConfig(epsilon=2 / 255),
        optimizer=OptimizerConfig(learning_rate=5e-3),
        training=TrainingConfig(epochs=16, batch_size=16),
        evaluation=EvaluationConfig(
            attacks=("pgd", "pgd-standing"),
            epsilons=(2 / 255,),
            batch_size=32,
            checkpoint="latest",
        ),
        run=RunConfig(directory=directory, checkpoint_every=5, validate_every=0, log_every=5),
    )
    if domains is not None:
        return expert
    return dataclasses.replace(
        expert,
        router=SimpleGateConfig(width=32),
        mixture=MixtureConfig(experts=len(experts), top_k=len(experts), balance_weight=0.0),
        optimizer=OptimizerConfig(learning_rate=2e-2),
        recipe=GateConfig(),
        training=TrainingConfig(epochs=6, batch_size=16, initialize_experts_from=experts),
    )


def _defended(
    experiment: Callable[..., Experiment], defences: Mapping[str, str]
) -> Callable[[pathlib.Path], dict[str, Experiment]]:
    """A clean run of one network and of the mixture, and adversarial ones that start from them.

    AT-S is `at_m` of one network; `defences` are those of the mixture, by recipe their titles.
    """

    def experiments(directory: pathlib.Path) -> dict[str, Experiment]:
        single, mixture = str(directory / "single"), str(directory / "standard")
        runs = {
            "single": experiment("standard", single, None, experts=1),
            "mixture": experiment("standard", mixture, None),
            "AT-S": experiment("at_m", str(directory / "at_s"), single, experts=1),
        }
        for recipe, title in defences.items():
            runs[title] = experiment(recipe, str(directory / recipe), mixture)
        return runs

    return experiments


def _gated(directory: pathlib.Path) -> dict[str, Experiment]:
    """An expert for each domain of the rendered scenes, and a mixture of them; one for both."""
    parts = {domain: str(directory / f"expert{domain}") for domain in ("0", "1")}
    runs = {f"expert {domain}": segmentation(domain, folder) for domain, folder in parts.items()}
    single = segmentation("0,1", str(directory / "single"))
    mixture = segmentation(None, str(directory / "mixture"), tuple(parts.values()))
    return {"single": single, **runs, "mixture": mixture}


TASKS: dict[str, Task] = {
    "video": Task(
        _defended(video, {"j_tlat": "J-TLAT"}),
        "rendered test clips",
        (
            "single and AT-S: one network of an expert's size at equal cost, 10 clean epochs and 3",
            "of PGD, as J-TLAT's one epoch has three phases. It has no router to attack.",
        ),
        "apgd-t enumerated-route square",
    ),
    "image": Task(
        _defended(image, {"at_m": "AT-M", "rt_er": "RT-ER"}),
        "rendered test images",
        (
            "single and AT-S: one network of an expert's size, trained for as many epochs. RT-ER",
            "attacks the mixture and an expert, so that its epochs cost about twice as much.",
        ),
        "auto-attack enumerated-route",
    ),
    "segmentation": Task(
        _gated,
        "rendered test scenes",
        (
            "single: one expert, trained on both domains with as many gradients as the two",
            "experts, both of which the mixture runs on every scene.",
        ),
        "fgsm pgd-r pgd-e",
    ),
}


def run(task: Task, directory: str, progress: "PlainProgress | BarProgress") -> list[pathlib.Path]:
    """Trains, attacks and prints one table; resumes where it was stopped.

    Args:
      task: of `TASKS`.
      directory: takes a run's folder for each of `task.experiments`, with its results.
      progress: is told what goes on.

    Returns:
      The folders of the runs.
    """
    from jaxmoe.reporting import plot_bars
    from jaxmoe.reporting.details import write_evaluation
    from jaxmoe.runs import run as runs
    from jaxmoe.runs.build import evaluation_settings

    results: dict[str, SuiteResult] = {}
    programs: dict[tuple, Programs] = {}
    experiments = task.experiments(pathlib.Path(directory))
    for title, wanted in experiments.items():
        progress.say(f"{title}: training in {wanted.run.directory}")
        folder = runs.train(wanted, progress)
        trained = runs.load(folder)
        results[title] = _evaluate(trained, programs, progress)
        settings = evaluation_settings(trained.experiment)
        write_evaluation(results[title], folder, trained, settings)
    figures = {title: _figures(result) for title, result in results.items()}
    figure_of, setting = _figure_of(results), _setting(task, results)
    plot_bars(figures, pathlib.Path(directory) / "accuracy.png", setting, figure_of)
    table = _table(figures, figure_of, _guesses(results))
    progress.say("\n".join(["", *table, "", setting, *task.notes, "", *_decisions(results)]))
    places = [pathlib.Path(e.run.directory) for e in experiments.values()]
    folders = [place.name for place in places]
    progress.say(
        f"\nthe same as a picture in {directory}/accuracy.png\n"
        f"runs and results.json, .csv, .md in {directory}/{{{','.join(folders)}}}\n"
        f"next: jaxmoe evaluate {directory}/{folders[-1]} --attacks {task.next}"
    )
    return places


def _evaluate(trained, programs, progress):
    """The quickstart's attacks, at full strength whatever training used, on the test clips.

    `programs`, by architecture, is what was compiled: runs of one architecture share it.
    """
    from jaxmoe.evaluation import Programs, evaluate_suite
    from jaxmoe.evaluation.measures.metrics import accuracy
    from jaxmoe.runs.build import evaluation_loader, evaluation_settings

    config = trained.experiment
    own = Programs(trained.mixture, config.threat.norm, accuracy)
    own = programs.setdefault((config.expert, config.router, config.mixture), own)
    loader = evaluation_loader(trained.dataset.test, config.data, config.evaluation.batch_size)
    return evaluate_suite(
        own.model,
        trained.params,
        lambda: loader,
        attacks=config.evaluation.attacks,
        epsilons=config.evaluation.epsilons,
        settings=evaluation_settings(config),
        norm=config.threat.norm,
        seed=config.evaluation.seed,
        progress=progress.evaluation,
        say=progress.say,
        programs=own,
        probe_batches=0,
        columns=trained.dataset.columns(trained.dataset.test),
    )


def _figure_of(results: "dict[str, SuiteResult]") -> str:
    """Names the measure: accuracy, or mean IoU where every pixel has a label."""
    dense = any(row.mean_iou is not None for result in results.values() for row in result.rows)
    return "mIoU" if dense else "accuracy"


def _figures(result: "SuiteResult") -> dict[str, float]:
    """Robust accuracy or mean IoU, 0–1, by attack and steps."""
    from jaxmoe.attacks import find_attack

    def name(row):
        return row.attack if row.steps is None else f"{find_attack(row.attack).title}-{row.steps}"

    return {
        name(row): row.robust_accuracy if row.mean_iou is None else row.mean_iou
        for row in result.rows
    }


def _guesses(results: "dict[str, SuiteResult]") -> dict[str, float]:
    """Returns the accuracy of guessing; nothing for dense labels."""
    import numpy as np

    result = next(iter(results.values()))
    if result.label.ndim > 1:
        return {}
    found = np.unique(result.label, return_counts=True)[1]
    return {"chance": 1 / len(found), "largest class": found.max() / found.sum()}


def _table(
    figures: dict[str, dict[str, float]], figure_of: str, guesses: dict[str, float]
) -> list[str]:
    """Figures in %, a line for each attack and a column for each run; guesses are the same in all.

    An attack that a run was not under is a dash.
    """
    lines = [[f"{figure_of} %", *figures]]
    for name in max(figures.values(), key=len):
        cells = (found.get(name) for found in figures.values())
        lines.append([name, *("–" if cell is None else f"{100 * cell:.1f}" for cell in cells)])
    lines += [[name, *[f"{100 * guess:.1f}"] * len(figures)] for name, guess in guesses.items()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _decisions(results: "dict[str, SuiteResult]") -> list[str]:
    """For each mixture a sentence on what its router decides, with what it rests on."""
    from jaxmoe.evaluation.measures.specialization import specialization_sentence

    measured = {title: result.specialization for title, result in results.items()}
    return [
        f"{title}: {specialization_sentence(found)}"
        for title, found in measured.items()
        if found is not None
    ]


def _setting(task: Task, results: "dict[str, SuiteResult]") -> str:
    from jaxmoe.threat import format_epsilon

    row = next(iter(results.values())).rows[-1]
    epsilon = format_epsilon(row.epsilon, row.norm)
    worst = "right under all" if row.mean_iou is None else "of each image what left it the least"
    return f"ℓ∞, ε = {epsilon}, {row.n} {task.examples}, one seed; worst-case: {worst}"

"""Trains and evaluates the small CIFAR-10 configs over several seeds; prints its README's table.

python launch/studies/cifar10/run.py --data FILE.npz --runs runs/cifar10 [--seeds 0 1 2]
    [--lines single at_s]

Each seed trains a standard mixture, starts PGD-AT and RT-ER (β = 2 and 6) from it and JTDMoE from
it and RT-ER, trains PGD-AT and RT-ER on for as long as JTDMoE takes, and RT-ER as its authors' code
does. Beside them stands one network of an expert's size, clean and under PGD-AT, at equal cost. All
are evaluated: clean (SA), PGD (RA), attacks on the experts (RA-E) and on the router (RA-R), end to
end and isolated, and some under AutoAttack; JTDMoE, and the dual model of the standard run and the
longer RT-ER's, over α. What a folder already holds is not done again.

JTDMoE is trained at α = 0.7 alone; the other dual model's two parts are trained without any.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
from typing import NamedTuple

from jaxmoe.evaluation import Programs, Row, evaluate_suite
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.mixture import dual_mixture, with_dual_weight
from jaxmoe.reporting import read_results, write_results
from jaxmoe.reporting.progress import make_progress
from jaxmoe.reporting.results import markdown_table
from jaxmoe.runs import run as runs
from jaxmoe.runs.build import evaluation_loader, evaluation_settings
from jaxmoe.runs.folder import read_experiment

CONFIGS = pathlib.Path(__file__).parents[3] / "configs" / "image"
ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COMPARED = 0.7  # the α at which dual models see AutoAttack too
ATTACKS = ("pgd", "pgd-e", "pgd-r")
STRONGEST = (*ATTACKS, "auto-attack")


class Line(NamedTuple):
    """A line of the table: how a run is trained."""

    title: str
    config: str
    start: str | None = None  # the run that it starts from
    standard: str | None = None  # of a dual model, the standard one's
    overrides: tuple[str, ...] = ()
    attacks: tuple[str, ...] = STRONGEST  # none where α is looked at one by one


_ONE = ("--mixture.experts", "1")
_CLEAN = ("--training.shared-epochs", "0", "--training.epochs", "30")
OF_ONE = ("pgd", "auto-attack")  # one network has no parts
LINES = {
    "single": Line("one network", "standard", None, None, _ONE + _CLEAN, OF_ONE),
    "at_s": Line("one network, PGD-AT", "at", "single", None, _ONE, OF_ONE),
    "standard": Line("standard", "standard"),
    "at": Line("PGD-AT", "at", "standard"),
    "rt_er_2": Line("RT-ER, β = 2", "rt_er", "standard", None, ("--recipe.beta", "2")),
    "rt_er_6": Line("RT-ER, β = 6", "rt_er", "standard"),
    "at_long": Line("PGD-AT, longer", "at", "at", None, ("--training.epochs", "22"), ATTACKS),
    "rt_er_long": Line(
        "RT-ER, β = 6, longer", "rt_er", "rt_er_6", None, ("--training.epochs", "10"), ATTACKS
    ),
    "jtdmoe": Line("JTDMoE", "jtdmoe", "rt_er_6", "standard", (), ()),
    # Experts that see their own share alone from the start, no copies of one.
    "apart": Line(
        "standard, experts apart",
        "standard",
        None,
        None,
        ("--training.shared-epochs", "0"),
        ATTACKS,
    ),
    "at_apart": Line("PGD-AT, experts apart", "at", "apart", None, (), ATTACKS),
    # What the authors' released code does where it differs from their text: the router learns
    # nothing (it stays standard's, but for weight decay), or normalisation does not.
    "dead_router": Line(
        "RT-ER, β = 6, dead router",
        "rt_er",
        "standard",
        None,
        ("--mixture.combine", "none", "--mixture.balance-weight", "0"),
        ATTACKS,
    ),
    "standard_frozen": Line(
        "standard, frozen normalisation",
        "standard",
        None,
        None,
        ("--expert.norm", "frozen_batch"),
        ATTACKS,
    ),
    "frozen_norm": Line(
        "RT-ER, β = 6, frozen normalisation",
        "rt_er",
        "standard_frozen",
        None,
        ("--expert.norm", "frozen_batch"),
        ATTACKS,
    ),
}
CURVES = {"dual": "longer RT-ER beside standard", "jtdmoe": "JTDMoE"}


def main() -> None:
    """Runs what is missing, then prints the table."""
    options = parse(sys.argv[1:])
    for seed in options.seeds:
        for name in options.lines:
            line, folder = LINES[name], options.runs / f"{name}_{seed}"
            train(line, seed, folder, options)
            if line.attacks and not evaluated(folder, line.attacks):
                jaxmoe("evaluate", str(folder), "--attacks", *line.attacks)
        for name in curves(options.lines):
            curve(name, seed, options.runs)
    print(table(options.runs, options.seeds, options.lines))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the .npz file")
    parser.add_argument("--runs", default="runs/cifar10", type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", default=[0, 1, 2], type=int)
    names = ", ".join(LINES)
    parser.add_argument("--lines", nargs="+", default=list(LINES), help=f"of {names} (all)")
    options = parser.parse_args(arguments)
    for name in options.lines:
        if name not in LINES:
            parser.error(f"--lines: {name}; expected some of {names}")
    options.lines = [name for name in LINES if name in options.lines]  # each after its start
    for name in options.lines:
        needed = {LINES[name].start, LINES[name].standard} - {None, *options.lines}
        if needed:
            parser.error(f"--lines: {name} starts from {needed.pop()}; name it too")
    if not pathlib.Path(options.data).is_file():
        parser.error(f"--data: {options.data} is no file")
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def train(line: Line, seed: int, folder: pathlib.Path, options: argparse.Namespace) -> None:
    """`jaxmoe train` of one run, which resumes it, or refuses a folder of another config."""
    arguments = [str(CONFIGS / f"cifar10_small_{line.config}.py"), "--data.directory", options.data]
    arguments += ["--run.directory", str(folder), "--run.seed", str(seed), *line.overrides]
    for field, source in (
        ("initialize-from", line.start),
        ("initialize-standard-from", line.standard),
    ):
        if source is not None:
            arguments += [f"--training.{field}", str(options.runs / f"{source}_{seed}")]
    jaxmoe("train", *arguments)


def evaluated(run: pathlib.Path, attacks: tuple[str, ...]) -> bool:
    """Was a run's evaluation under these attacks written to its end?"""
    if not (run / "evaluation.json").is_file() or (run / "evaluation.journal").is_file():
        return False  # one that was stopped leaves its journal
    return rows_of(run).keys() - {CLEAN, WORST_CASE} == set(attacks)


def curve(name: str, seed: int, folder: pathlib.Path) -> None:
    """Evaluates a dual model at each α, one compilation for all."""
    missing = [a for a in ALPHAS if not (point(name, a, seed, folder) / "results.md").is_file()]
    if not missing:
        return
    trained = runs.load(folder / f"{trained_as(name)}_{seed}")
    model, params = trained.mixture, trained.params
    if name == "dual":
        standard = runs.load(folder / f"standard_{seed}")
        model = dual_mixture(standard.mixture, model, ALPHAS[0])
        params = {**params, "standard": standard.params}
    config = trained.experiment
    loader = evaluation_loader(trained.dataset.test, config.data, config.evaluation.batch_size)
    programs = Programs(model, config.threat.norm, accuracy)
    with make_progress() as progress:
        for alpha in missing:
            output = point(name, alpha, seed, folder)
            output.mkdir(exist_ok=True)
            progress.say(f"{CURVES[name]}, seed {seed}, α = {alpha:g}")
            result = evaluate_suite(
                model,
                with_dual_weight(params, alpha),
                lambda: loader,
                attacks=STRONGEST if alpha == COMPARED else ATTACKS,
                epsilons=config.evaluation.epsilons,
                settings=evaluation_settings(config),
                norm=config.threat.norm,
                seed=config.evaluation.seed,
                progress=progress.evaluation,
                say=progress.say,
                programs=programs,
                journal=output / "evaluation.journal",
            )
            write_results(result.rows, output, checks=result.checks, notes=result.notes)
            (output / "evaluation.journal").unlink()


def curves(lines: list[str]) -> list[str]:
    """The curves whose runs are among these lines."""
    return [name for name in CURVES if {trained_as(name), "standard"} <= set(lines)]


def trained_as(name: str) -> str:
    """The run whose training a curve is of: its robust mixture's."""
    return "rt_er_long" if name == "dual" else name


def point(name: str, alpha: float, seed: int, folder: pathlib.Path) -> pathlib.Path:
    """Where the results of a dual model at an α are."""
    return folder / f"{name}_{alpha:g}_{seed}"


def table(folder: pathlib.Path, seeds: list[int], wanted: list[str]) -> str:
    """Markdown: means and standard deviations over the seeds, a line for each run and α."""
    titles = ["%", "SA", "RA", "RA-E", "RA-E isolated", "RA-R", "RA-R isolated", "AutoAttack"]
    lines = []
    for name in wanted:
        line = LINES[name]
        if line.attacks:
            lines.append([line.title, *cells([folder / f"{name}_{seed}" for seed in seeds])])
            lines[-1].append(str(gradients(folder / f"{name}_{seeds[0]}")))
    for name in curves(wanted):
        title = CURVES[name]
        for alpha in ALPHAS:
            found = cells([point(name, alpha, seed, folder) for seed in seeds])
            cost = gradients(folder / f"{trained_as(name)}_{seeds[0]}")
            lines.append([f"{title}, α = {alpha:g}", *found, str(cost)])
    attacked = next(name for name in wanted if LINES[name].attacks)
    first = rows_of(folder / f"{attacked}_{seeds[0]}")["pgd"]
    note = (
        f"n = {first.n}, seeds {', '.join(map(str, seeds))}: mean ± sample standard deviation. "
        f"ε = {first.epsilon * 255:g}/255, {first.norm}, {first.steps} steps of PGD. "
        "Gradients: what an image cost in training, behind the runs that it starts from."
    )
    return "\n".join([*markdown_table([*titles, "gradients"], lines), "", note])


def cells(found: list[pathlib.Path]) -> list[str]:
    """A line's accuracies over the seeds, in the order of the titles."""
    fields = [("clean", "robust_accuracy"), ("pgd", "robust_accuracy")]
    fields += [
        (attack, form)
        for attack in ("pgd-e", "pgd-r")
        for form in ("robust_accuracy", "isolated_accuracy")
    ]
    fields += [("auto-attack", "robust_accuracy")]
    rows = [rows_of(run) for run in found]
    return [
        spread([100 * getattr(row[attack], form) for row in rows])
        if all(attack in row for row in rows)
        else ""
        for attack, form in fields
    ]


def gradients(run: pathlib.Path) -> int:
    """What an image costs in training: gradients of one network, those of attacks included."""
    experiment = read_experiment(run)
    t, steps, experts = experiment.training, experiment.attack.steps, experiment.mixture.experts
    an_epoch = {
        "standard": 1,
        "at_m": steps + 1,
        "rt_er": 2 * steps + 3,  # of F and of f2; then F attacked, f2 clean and attacked
        "jtdmoe": steps + 1 + experts * (steps + 2) + 2,  # every expert as f2; then F_S and F_R
    }
    before = 0 if t.initialize_from else t.shared_epochs
    return before + an_epoch[experiment.recipe.name] * t.epochs


def rows_of(run: pathlib.Path) -> dict[str, Row]:
    """Rows of a run's only ε by attack, and the clean one."""
    return {row.attack: row for row in read_results(run)}


def spread(values: list[float]) -> str:
    """Mean ± sample standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def jaxmoe(*arguments: str) -> None:
    """One command; leaves with its exit code where it fails."""
    code = subprocess.run([sys.executable, "-m", "jaxmoe", *arguments], check=False).returncode
    if code:
        sys.exit(code)  # it has said why


if __name__ == "__main__":
    main()

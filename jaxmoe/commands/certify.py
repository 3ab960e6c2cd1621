"""`jaxmoe certify RUN`: certified accuracy against radius, beside what an attack leaves."""

import dataclasses
import itertools
import pathlib
from typing import TYPE_CHECKING, Any

from jaxmoe.commands.arguments import (
    Parser,
    RunFailedError,
    add_data_options,
    check_attack_options,
    data_fields,
    hold_output,
    note_on_state,
    number,
    split_part,
    take_dual_weight,
    take_part,
)

if TYPE_CHECKING:
    from jaxmoe.evaluation.certify.certification import CertifiedCurve
    from jaxmoe.reporting.certificate import UnderAttack
    from jaxmoe.runs.run import Trained

_DESCRIPTION = """Proves for test examples of a trained run how far their predictions hold: the
share that is predicted as labelled, and provably so in the whole ball, at each radius. Beside it
stands the accuracy that PGD leaves there.

lipschitz multiplies the layers' norms: sound for any network, exact for linear routers, and so
  pessimistic of deep experts that little is left of them. A top-1 mixture is certified as it is; a
  dense one and a dual model as mixtures of the experts' probabilities. The true robust accuracy
  lies between certified and PGD's.
smoothing certifies in ℓ2 what the mixture says most often under Gaussian noise (Cohen et al. 2019).
  PGD attacks the mixture without noise, another classifier: what is certified may be more than it
  leaves. Train with such noise, or little is certified.

writes certificate.json, .md, .png, and .csv (the radius of each example) into RUN, or into
--output. RUN@expert0 is one of its experts alone and writes into RUN/expert0."""

_EXAMPLE = """example:
  jaxmoe certify runs/cifar10_small_rt_er --radii 0 0.1 0.25 0.5 --samples 1000 --limit 100"""

METHODS = ("lipschitz", "smoothing")
_RADII = {
    "linf": (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255),
    "l2": (0.0, 0.05, 0.1, 0.25, 0.5, 1.0),
}


def run(arguments: list[str]) -> None:
    """Certifies the run that the arguments name.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
      RunFailedError: numbers that were not finite.
    """
    from jaxmoe.settings import Smoothing

    options = _make_parser(Smoothing()).parse(arguments)

    from jaxmoe.evaluation import NonFiniteError, ThreatViolation
    from jaxmoe.evaluation.certify.smoothing import check_smoothing
    from jaxmoe.evaluation.engine.part import describe_part
    from jaxmoe.files import check_writable
    from jaxmoe.reporting.certificate import print_curves, write_curves
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.build import cropped
    from jaxmoe.runs.run import load

    smoothing = check_smoothing(
        Smoothing(options.sigma, options.selection, options.samples, options.failure)
    )
    radii = sorted(set(options.radii or _RADII[options.norm]))
    counts = {name: getattr(options, name) for name in ("limit", "steps", "batch_size")}
    given = {name: count for name, count in counts.items() if count is not None}
    check_attack_options(radii, options.norm, options.seed, "--radii", **given)
    methods = options.method or (METHODS if options.norm == "l2" else ("lipschitz",))
    if "smoothing" in methods and options.norm != "l2":
        raise ValueError(
            f"--norm: smoothing certifies in l2, not in {options.norm}; --method lipschitz does"
        )
    folder, part = split_part(options.run)
    if part in ("mean", "max") and "lipschitz" in methods:
        raise ValueError(f"RUN: {options.run} has no constants; --method smoothing takes it")
    output = pathlib.Path(options.output or folder / (part or ""))
    check_writable(output)
    with make_progress() as progress:
        trained = load(
            folder, options.checkpoint, data_progress=progress.data, **data_fields(options)
        )
        if trained.dataset.test.dense:
            raise ValueError(f"RUN: {folder} labels pixels; certificates are of one label")
        trained = take_dual_weight(trained, options.dual_weight, part)
        take_part(trained, part)  # refuses one that is not there
        for line in trained.other.notes if trained.other else ():
            progress.say(line)
        if note := cropped(trained.dataset.test, trained.experiment.data):
            progress.say(note)
        checkpoint = options.checkpoint or trained.experiment.evaluation.checkpoint
        if state := note_on_state(folder, trained, checkpoint):
            progress.say(state)
        certification = _Certification(trained, part, options, radii, progress)
        curves, attacked = [], []
        # By constants first: what has none is refused before an hour of smoothing.
        try:
            for method in sorted(set(methods), key=METHODS.index):
                curve, model = certification.curve(method, smoothing)
                curves.append(curve)
                attacked.append(certification.under_attack(model))
        except (NonFiniteError, ThreatViolation) as error:
            raise RunFailedError(str(error)) from None
    looked_at = describe_part(len(certification.test), len(trained.dataset.test))
    details = {"examples": looked_at, "seed": options.seed, "checkpoint": checkpoint}
    details |= _describe(trained, part, note)
    with hold_output(output) as output:
        files = write_curves(curves, attacked, output, details)
    print(f"test examples: {looked_at}")
    print_curves(curves, attacked)
    print(f"written to {output}: {', '.join(file.name for file in files)}")


def _describe(trained: "Trained", part: str | None, crop: str | None) -> dict[str, Any]:
    """Returns what a reader of a certificate has to know of the run and its clips."""
    details: dict[str, Any] = {"training_finished": trained.finished}
    if part is not None:
        details["part"] = part
    elif trained.experiment.mixture.dual_weight is not None:
        details["alpha"] = trained.experiment.mixture.dual_weight
    if trained.other is not None:
        details["test set"] = "; ".join(trained.other.notes)
        details["test set digest"] = trained.other.digest
    if crop is not None:
        details["crop"] = crop.removeprefix("evaluated is ")
    return details


def _make_parser(smoothing) -> Parser:
    parser = Parser("certify", _DESCRIPTION, epilog=_EXAMPLE)
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of a trained run, or RUN@expert0")
    add("--method", nargs="+", choices=METHODS, help="one or both (both; in linf lipschitz)")
    add("--norm", choices=("linf", "l2"), default="l2", help="of the radius (l2)")
    add("--radii", nargs="+", type=number, metavar="R", help="in pixel units, 0.25 or 2/255")
    add("--limit", type=int, help="so many test examples, drawn by class, always the same (all)")
    add(
        "--sigma",
        type=number,
        default=smoothing.sigma,
        help=f"of smoothing's noise, in pixel units ({smoothing.sigma:g})",
    )
    add("--samples", type=int, default=1000, help="noise samples that bound a probability (1000)")
    add(
        "--selection",
        type=int,
        default=smoothing.selection,
        help=f"noise samples that choose a class ({smoothing.selection})",
    )
    add(
        "--failure",
        type=number,
        default=smoothing.failure,
        help=f"probability that a smoothed certificate does not hold ({smoothing.failure:g})",
    )
    add("--steps", type=int, default=20, help="of PGD (20)")
    add("--batch-size", type=int, help="examples at once")
    add("--seed", type=int, default=0, help="of the noise and of PGD's starts (0)")
    add(
        "--checkpoint",
        choices=("best", "latest", "average"),
        help="which params (as the run's config says)",
    )
    add("--dual-weight", type=number, metavar="α", help="of a dual model, for the run's own")
    add_data_options(parser)
    add("--output", metavar="DIR", help="where the files are written (RUN)")
    return parser


class _Certification:
    """Curves of one run, or of a part of it."""

    def __init__(self, trained: "Trained", part: str | None, options, radii, progress):
        from jaxmoe.evaluation.engine.part import take_part_of

        self.trained = trained
        self.part = part
        self.options = options
        self.radii = radii
        self.progress = progress
        self.test = trained.dataset.test
        if options.limit is not None:
            self.test = take_part_of(self.test, options.limit)
        self.attacked: list[tuple[Any, UnderAttack]] = []

    def curve(self, method: str, smoothing) -> "tuple[CertifiedCurve, object]":
        """Returns the proofs of a method, and the classifier for an attack to hold beside them."""
        from jaxmoe.evaluation.certify.certification import lipschitz_curve, smoothing_curve

        trained, options, done = self.trained, self.options, itertools.count(1)
        total = self.batches().batches_per_epoch

        def tell():
            self.progress.evaluation(next(done), total, f"certificates by {method}")

        if method == "smoothing":
            model = take_part(trained, self.part).mixture
            dual = trained.experiment.mixture.dual_weight is not None
            words = self.part or ("the dual model" if dual else "the mixture")
            curve = smoothing_curve(
                model,
                trained.params,
                self.batches(),
                self.radii,
                smoothing,
                options.seed,
                tell,
                words,
                checks=False,  # PGD beside it checks the same model on the same examples
            )
            return curve, model
        subject = self.subject()
        curve = lipschitz_curve(
            subject, trained.params, self.batches(), self.radii, options.norm, tell, checks=False
        )
        return curve, subject.model

    def subject(self):
        """The run's mixture, or its part, with constants."""
        import jax
        import numpy as np

        from jaxmoe.evaluation.certify.certification import certifiable, certifiable_expert
        from jaxmoe.evaluation.certify.lipschitz_bounds import logit_difference_bounds
        from jaxmoe.runs.build import build_mixture, build_modules

        experiment, params = self.trained.experiment, self.trained.params
        classes = len(self.trained.dataset.classes)
        if experiment.expert.dtype != "float32":
            raise ValueError(
                f"expert.dtype: {experiment.expert.dtype} rounds outputs, which no constant "
                "bounds; expected float32 (--method smoothing takes any)"
            )
        router, expert = build_modules(experiment, classes)
        shape, norm = experiment.data.shape, self.options.norm

        def bounds_of(i):
            own = jax.tree.map(lambda p: p[i], params["experts"])
            return logit_difference_bounds(expert, own, shape, norm)

        if self.part is not None:
            number = int(self.part.removeprefix("expert"))
            return certifiable_expert(self.trained.mixture, number, bounds_of(number))
        expert_bounds = [bounds_of(i) for i in range(experiment.mixture.experts)]
        router_bounds = logit_difference_bounds(router, params["router"], shape, norm)
        standard = None
        if experiment.mixture.dual_weight is not None:
            single = dataclasses.replace(experiment.mixture, dual_weight=None)
            standard = build_mixture(dataclasses.replace(experiment, mixture=single), classes)
        return certifiable(self.trained.mixture, router_bounds, np.stack(expert_bounds), standard)

    def under_attack(self, model) -> "UnderAttack":
        """Runs PGD at each radius, at 0 on clean examples; once for each model."""
        for known, found in self.attacked:
            if known is model:
                return found
        found = self._attack(model)
        self.attacked.append((model, found))
        return found

    def _attack(self, model) -> "UnderAttack":
        from jaxmoe.evaluation import evaluate_suite
        from jaxmoe.evaluation.engine.verdict import verdict_line
        from jaxmoe.reporting.certificate import UnderAttack
        from jaxmoe.runs.build import evaluation_settings

        settings, steps = evaluation_settings(self.trained.experiment), self.options.steps
        result = evaluate_suite(
            model,
            self.trained.params,
            self.batches,
            attacks=["pgd"],
            epsilons=[radius for radius in self.radii if radius] or [0.0],
            settings=dataclasses.replace(settings, steps=steps, restarts=1, alpha=2.5 / steps),
            norm=self.options.norm,
            seed=self.options.seed,
            progress=self.progress.evaluation,
            say=self.progress.say,
            probe_batches=0,
            shown=0,
        )
        left = tuple(
            result.row("pgd" if radius else "clean", radius).robust_accuracy
            for radius in self.radii
        )
        return UnderAttack(left, steps, verdict_line((*result.checks, *result.model_checks)))

    def batches(self):
        """One pass over the examples asked for."""
        from jaxmoe.runs.build import evaluation_loader

        experiment = self.trained.experiment
        size = self.options.batch_size or experiment.evaluation.batch_size
        return evaluation_loader(self.test, experiment.data, size)

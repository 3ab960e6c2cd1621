"""Signs of masked gradients: a model that looks robust because its gradient leads nowhere.

Each check has a value, a verdict ("pass", "flag", or "not run") and one sentence. A flag says that
the robust accuracy beside it may be an artefact of the attack, not a property of the model.
Source: Athalye et al. 2018, section 3.1 (https://arxiv.org/abs/1802.00420).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import ATTACKS, CASCADES, AttackSettings, Cascade, cross_entropy
from jaxmoe.attacks.attack import scored_apply
from jaxmoe.attacks.perturb import is_finite, is_zero, numbered_keys
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.evaluation.diagnostics.row_checks import (
    SLACK,
    Correct,
    epsilon_check,
    loss_check,
    sees_whole,
    square_check,
    verdict,
    zero_gradient_check,
)
from jaxmoe.evaluation.engine.part import describe_part
from jaxmoe.evaluation.engine.programs import Programs, attack_keys
from jaxmoe.evaluation.engine.rows import CLEAN, WORST_CASE, Check, Row, StageRow, robust
from jaxmoe.evaluation.engine.scoring import to_pixels
from jaxmoe.evaluation.engine.summary import mean
from jaxmoe.evaluation.measures.significance import exceeds
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel, format_epsilon

NOISE_TRIES = 20
CHECKS = "checks for masked gradients"
Tell = Callable[[], None]
"""Called before each batch of a check."""


def masking_checks(
    programs: Programs,
    params: Any,
    batches: Sequence[dict],
    rows: Sequence[Row],
    correct: Correct,
    settings: AttackSettings,
    seed: int,
    stages: Sequence[StageRow] = (),
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    places: np.ndarray | None = None,
    cascades: Mapping[str, Cascade] = CASCADES,
) -> tuple[Check, ...]:
    """All checks of a suite: those of its rows, and those that attack `batches` themselves.

    `batches` are clips of the suite, and `places` where each valid one is in it; None says that
    they are the first ones. Without batches only the rows are checked. `progress` is told (batches
    done, batches in all, what runs) before each of them.
    """
    idle = {name for name, attack in ATTACKS.items() if attack.idles(programs.model)}
    busy = [row for row in rows if row.attack not in idle]
    checks = [
        zero_gradient_check(busy),
        loss_check(busy),
        epsilon_check(rows, correct, cascades),
        square_check(correct, stages, programs.norm),
    ]
    epsilons = [row.epsilon for row in rows if row.attack == WORST_CASE]
    if not batches or not epsilons:
        return tuple(checks)
    if places is None:
        places = np.arange(sum(int(np.sum(batch["valid"])) for batch in batches))
    probes: dict[str, Callable[[Tell], Check]] = {}
    if isinstance(programs.model, Mixture) and programs.model.num_experts > 1:
        probes["the router's gradient"] = lambda tell: router_gradient_check(
            programs, params, batches, tell
        )
    # A model's own noise breaks clips too, the more often it is looked at.
    if not isinstance(programs.model, Randomized):
        probes["random noise"] = lambda tell: noise_check(
            programs, params, batches, correct, places, max(epsilons), seed, tell, cascades
        )
    probes["PGD at unbounded ε"] = lambda tell: unbounded_check(
        programs, params, batches, settings, seed, tell
    )
    done, total = itertools.count(), len(probes) * len(batches)
    whole = len(correct[CLEAN, 0.0])
    part = "" if len(places) == whole else f" Clips: {describe_part(len(places), whole)}."
    for what, probe in probes.items():
        check = probe(lambda what=what: progress(next(done), total, f"{CHECKS}: {what}"))
        checks.append(check._replace(sentence=check.sentence + part))
    return tuple(checks)


def router_gradient_check(
    programs: Programs, params: Any, batches: Sequence[dict], tell: Tell = lambda: None
) -> Check:
    """The share of clips on which CE(r(x), argmax r(x)) has no input gradient at all."""

    def program(params, clip):
        x = to_pixels(clip)
        chosen = jnp.argmax(programs.model.route(params, x), axis=-1)

        def loss(x):
            return jnp.sum(cross_entropy(programs.model.route(params, x), chosen))

        return is_zero(jax.grad(loss)(x))

    dead = _over(
        batches,
        lambda batch: programs.timed("router gradient", program, params, batch["clip"])[0],
        tell,
    )
    share = mean(dead)
    return Check(
        "router's gradient",
        share,
        verdict(not exceeds(int(np.sum(dead)), len(dead), SLACK)),
        f"The router's loss has no input gradient on {share:.1%} of {len(dead)} examples.",
    )


def noise_check(
    programs: Programs,
    params: Any,
    batches: Sequence[dict],
    correct: Correct,
    places: np.ndarray,
    epsilon: float,
    seed: int,
    tell: Tell = lambda: None,
    cascades: Mapping[str, Cascade] = CASCADES,
) -> Check:
    """Random noise, which needs no gradient, must not break more clips than the attacks do."""

    def program(params, clip, label, index, epsilon, seed):
        x = to_pixels(clip)
        threat = ThreatModel(programs.norm, epsilon)
        keys = attack_keys(seed, "noise", index)
        apply = scored_apply(programs.model)

        def attempt(right, number):
            x_noisy = threat.random_start(numbered_keys(keys, number), x)
            logits = apply(params, x_noisy)
            found = jnp.where(is_finite(logits), programs.metric(logits, label), 0.0)
            return jnp.minimum(right, found), None

        untried = jnp.ones(x.shape[0], jnp.float32)
        return jax.lax.scan(attempt, untried, jnp.arange(NOISE_TRIES))[0]

    numbers = jnp.float32(epsilon), jnp.uint32(seed)
    right = _over(
        batches,
        lambda batch: programs.timed(
            "noise", program, params, batch["clip"], batch["label"], batch["index"], *numbers
        )[0],
        tell,
    )
    attacks = {
        name: values[places]
        for (name, e), values in correct.items()
        if e == epsilon and sees_whole(name, cascades)
    }
    if not attacks:
        sentence = "No attack took a gradient of the whole model."
        return Check("white box beats black box", None, "not run", sentence)
    clean = correct[CLEAN, 0.0][places]
    black_box = mean(robust(right, clean))
    strongest, name = min((mean(robust(values, clean)), name) for name, values in attacks.items())
    left = np.minimum.reduce([clean, *attacks.values()])
    alone = int(np.sum(robust(right, clean) < left))
    return Check(
        "white box beats black box",
        black_box - strongest,
        verdict(black_box >= strongest or not exceeds(alone, len(right), SLACK)),
        f"At ε = {format_epsilon(epsilon, programs.norm)}, {black_box:.1%} of {_of(batches)}"
        f"{len(right)} examples survive {NOISE_TRIES} random noises and {strongest:.1%} the "
        f"strongest attack, {name}.",
    )


def unbounded_check(
    programs: Programs,
    params: Any,
    batches: Sequence[dict],
    settings: AttackSettings,
    seed: int,
    tell: Tell = lambda: None,
) -> Check:
    """In a ball that holds every clip PGD may turn one into any other: nothing can be robust."""

    # What is right by a lucky look of a randomized model is not so again and again.
    tries = 5 if isinstance(programs.model, Randomized) else 1
    settings = dataclasses.replace(settings, restarts=1)  # one start is enough there

    def under_attack(batch):
        # The diagonal of the box of pixels, or its side.
        everything = np.sqrt(batch["clip"][0].size) if programs.norm == "l2" else 1.0
        clean, _ = programs.clean(params, batch)
        right = np.asarray(clean.correct)
        for restart in range(tries):
            result, _ = programs.attack("pgd", params, batch, everything, settings, seed, restart)
            score, _ = programs.score(params, batch, result.x_adv, clean, everything)
            finite = np.asarray(score.finite & result.finite)
            right = np.where(finite, np.minimum(right, score.correct), np.nan)
        return right

    name, right = "nothing survives unbounded ε", _over(batches, under_attack, tell)
    # Of dense labels one class for all pixels is right somewhere, whatever is in the image.
    most = _share_of_the_most_frequent(batches) if _dense(batches) else 0.0
    if broken := np.isnan(right).sum():
        sentence = (
            f"PGD there finds numbers that are not finite on {broken} of {len(right)} examples."
        )
        return Check(name, None, "flag", sentence)
    share, n = mean(right), len(right)
    return Check(
        name,
        share,
        verdict(share <= most or not (_dense(batches) or exceeds(share * n, n, SLACK))),
        f"{share:.1%} of {_of(batches)}{len(right)} examples are right under PGD in a ball that "
        "holds every example.",
    )


def _of(batches: Sequence[dict]) -> str:
    """Names the unit of a share: pixels of dense labels, or clips."""
    return "the pixels of " if _dense(batches) else ""


def _dense(batches: Sequence[dict]) -> bool:
    """Whether every pixel has a label."""
    return np.ndim(batches[0]["label"]) > 1


def _share_of_the_most_frequent(batches: Sequence[dict]) -> float:
    """The largest share of labelled positions that a constant prediction can have right."""
    labels = np.concatenate([np.asarray(b["label"])[b["valid"]].ravel() for b in batches])
    counts = np.bincount(labels[labels >= 0])
    return float(counts.max() / counts.sum())


def _over(batches: Sequence[dict], run: Callable[[dict], Any], tell: Tell) -> np.ndarray:
    """`run` of every batch, the valid clips alone, [N]."""
    found = []
    for batch in batches:
        tell()
        found.append(np.asarray(run(batch))[batch["valid"]])
    return np.concatenate(found)

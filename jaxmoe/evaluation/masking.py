"""Signs of masked gradients: a model that looks robust because its gradient leads nowhere.

Each check has a value, a verdict ("pass", "flag", or "not run") and one sentence. A flag says that
the robust accuracy beside it may be an artefact of the attack, not a property of the model.
Source: Athalye et al. 2018, section 3.1 (https://arxiv.org/abs/1802.00420).
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import ATTACKS, AttackSettings, cross_entropy
from jaxmoe.attacks.attack import scored_apply
from jaxmoe.attacks.perturb import is_finite, is_zero, numbered_keys
from jaxmoe.attacks.randomized import Randomized
from jaxmoe.evaluation.cascade import CascadeResult
from jaxmoe.evaluation.programs import Programs, attack_keys
from jaxmoe.evaluation.rows import CLEAN, WORST_CASE, Check, Row, StageRow, robust
from jaxmoe.evaluation.scoring import to_pixels
from jaxmoe.evaluation.summary import mean
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel, format_epsilon

NOISE_TRIES = 20
CHECKS = "checks for masked gradients"
Tell = Callable[[], None]
"""Called before each batch of a check."""
# Shares up to here pass: a rare saturated clip, or one clip in a hundred at its decision boundary.
SLACK = 0.01


def masking_checks(
    programs: Programs,
    params: Any,
    batches: Sequence[dict],
    rows: Sequence[Row],
    correct: dict[tuple[str, float], np.ndarray],
    settings: AttackSettings,
    seed: int,
    stages: Sequence[StageRow] = (),
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[Check, ...]:
    """All checks of a suite: those of its rows, and those that attack `batches` themselves.

    `batches` are the first of the suite, in its order; without any, only the rows are checked.
    `progress` is told (batches done, batches in all, what runs) before each of them.
    """
    checks = [
        zero_gradient_check(rows),
        loss_check(rows),
        epsilon_check(rows),
        square_check(correct, stages, programs.norm),
    ]
    epsilons = [row.epsilon for row in rows if row.attack == WORST_CASE]
    if not batches or not epsilons:
        return tuple(checks)
    probes: dict[str, Callable[[Tell], Check]] = {}
    if isinstance(programs.model, Mixture) and programs.model.num_experts > 1:
        probes["the router's gradient"] = lambda tell: router_gradient_check(
            programs, params, batches, tell
        )
    # A model's own noise breaks clips too, the more often it is looked at.
    if not isinstance(programs.model, Randomized):
        probes["random noise"] = lambda tell: noise_check(
            programs, params, batches, correct, max(epsilons), seed, tell
        )
    probes["PGD at unbounded ε"] = lambda tell: unbounded_check(
        programs, params, batches, settings, seed, tell
    )
    done, total = itertools.count(), len(probes) * len(batches)
    for what, probe in probes.items():
        checks.append(probe(lambda what=what: progress(next(done), total, f"{CHECKS}: {what}")))
    return tuple(checks)


def cascade_checks(found: CascadeResult, clean: np.ndarray, norm: str) -> tuple[Check, ...]:
    """What a cascade by itself shows, of clips that are right when `clean` says so."""
    name = found.stages[0].cascade
    zero = [] if found.zero_gradient is None else [(found.zero_gradient, name)]
    return _zero_gradients(zero), square_check({(CLEAN, 0.0): clean}, found.stages, norm)


def zero_gradient_check(rows: Sequence[Row]) -> Check:
    """The largest share of an attack's gradients that were zero, on clips that it did not break."""
    return _zero_gradients(
        [(row.zero_gradient, row.attack) for row in rows if row.zero_gradient is not None]
    )


def _zero_gradients(shares: Sequence[tuple[float, str]]) -> Check:
    """The largest of shares and names of attacks."""
    if not shares:
        return Check("zero gradients", None, "not run", "No attack took a gradient.")
    share, attack = max(shares)
    return Check(
        "zero gradients",
        share,
        _verdict(share <= SLACK),
        f"{share:.1%} of the input gradients of {attack} were exactly zero, on clips that it did "
        "not break; such an attack stands still.",
    )


def loss_check(rows: Sequence[Row]) -> Check:
    """The share of attacks whose mean loss did not rise from their first look to their best."""
    attacked = [row for row in rows if row.loss_trace is not None and row.epsilon > 0]
    name = "loss rises with steps"
    if not attacked:
        return Check(name, None, "not run", "No attack with a loss of its own at an ε above 0.")
    flat = [row for row in attacked if not _loss_rose(row)]
    where = ", ".join(
        f"{row.attack} at ε = {format_epsilon(row.epsilon, row.norm)}" for row in flat
    )
    sentence = f"The mean loss did not rise under {where}." if flat else "It rose in every attack."
    return Check(name, len(flat) / len(attacked), _verdict(not flat), sentence)


def epsilon_check(rows: Sequence[Row]) -> Check:
    """The largest rise of an attack's robust accuracy from one ε to the next larger."""
    rises, name = [], "accuracy falls with ε"
    for attack in dict.fromkeys(row.attack for row in rows):
        ordered = sorted((row for row in rows if row.attack == attack), key=lambda row: row.epsilon)
        for less, more in itertools.pairwise(ordered):
            rise = more.robust_accuracy - less.robust_accuracy
            rises.append((rise, attack, less.epsilon, more.epsilon))
    if not rises:
        return Check(name, None, "not run", "It takes at least two ε.")
    rise, attack, less, more = max(rises)
    if rise <= 0:
        return Check(name, rise, "pass", "No attack grew weaker with a larger ε.")
    # One clip may sit on the boundary by chance; the more clips, the less one counts.
    verdict = _verdict(rise <= max(SLACK, 1.5 / rows[0].n))
    return Check(
        name,
        rise,
        verdict,
        f"Robust accuracy under {attack} rose by {rise:.1%} from ε = "
        f"{format_epsilon(less, rows[0].norm)} to {format_epsilon(more, rows[0].norm)}.",
    )


def square_check(
    correct: dict[tuple[str, float], np.ndarray], stages: Sequence[StageRow], norm: str
) -> Check:
    """The largest share of clips that a black-box attack breaks and no gradient at that ε does.

    With gradients that lead somewhere, an attack that sees none is of no use after the others, if
    one of them searches the whole ball for what the whole model gets wrong.
    """
    name, shares = "white box beats Square", []
    clean = correct[CLEAN, 0.0]
    for attack, epsilon in correct:
        if attack not in ATTACKS or not ATTACKS[attack].black_box:
            continue
        beside = {
            other: right
            for (other, radius), right in correct.items()
            if radius == epsilon and other in ATTACKS and not ATTACKS[other].black_box
        }
        sighted = any(ATTACKS[other].white_box for other in beside)
        if sighted:
            left = np.minimum.reduce([clean, *beside.values()])
            alone = (left > 0) & (correct[attack, epsilon] == 0)
            shares.append((mean(alone), attack, epsilon))
    for stage in stages:
        before = itertools.takewhile(lambda other, stage=stage: other is not stage, stages)
        sighted = any(
            ATTACKS[other.attack].white_box
            for other in before
            if (other.cascade, other.epsilon) == (stage.cascade, stage.epsilon)
        )
        if ATTACKS[stage.attack].black_box and sighted:
            share = (stage.attacked - stage.standing) / len(clean)
            shares.append((share, f"{stage.attack} of {stage.cascade}", stage.epsilon))
    if not shares:
        return Check(
            name, None, "not run", "No black-box attack beside one by gradients of the whole model."
        )
    share, attack, epsilon = max(shares)
    return Check(
        name,
        share,
        _verdict(share <= max(SLACK, 1.5 / len(clean))),
        f"{share:.1%} of {len(clean)} clips that attacks by gradients had left fell to {attack} "
        f"at ε = {format_epsilon(epsilon, norm)}, which sees none.",
    )


def verdict_line(checks: Sequence[Check]) -> str:
    """One sentence on all checks."""
    flags = [check.name for check in checks if check.verdict == "flag"]
    ran = sum(check.verdict != "not run" for check in checks)
    if not ran:
        return "No check for masked gradients ran: nothing says that the attacks could see."
    if flags:
        found = "A sign of masked gradients" if len(flags) == 1 else "Masked gradients are likely"
        return (
            f"{found} ({len(flags)} of {ran} checks: {', '.join(flags)}): the robust accuracies "
            "above may be artefacts of attacks that could not see."
        )
    checked = "1 check" if ran == 1 else f"{ran} checks"
    return f"No sign of masked gradients in {checked}. That is no proof of robustness."


def _loss_rose(row: Row) -> bool:
    first, *later = row.loss_trace[: row.steps + 1]  # of the first restart
    return max(later, default=first) > first


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
        _verdict(share <= SLACK),
        f"The router's loss has no input gradient on {share:.1%} of {len(dead)} clips.",
    )


def noise_check(
    programs: Programs,
    params: Any,
    batches: Sequence[dict],
    correct: dict[tuple[str, float], np.ndarray],
    epsilon: float,
    seed: int,
    tell: Tell = lambda: None,
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
    probed = slice(0, len(right))
    attacks = {
        name: values[probed]
        for (name, e), values in correct.items()
        if e == epsilon and not (name == CLEAN or (name in ATTACKS and ATTACKS[name].black_box))
    }
    if not attacks:
        return Check("white box beats black box", None, "not run", "No attack took a gradient.")
    clean = correct[CLEAN, 0.0][probed]
    black_box = mean(robust(right, clean))
    strongest, name = min((mean(robust(values, clean)), name) for name, values in attacks.items())
    return Check(
        "white box beats black box",
        black_box - strongest,
        _verdict(black_box >= strongest),
        f"At ε = {format_epsilon(epsilon, programs.norm)}, {black_box:.1%} of {_of(batches)}"
        f"{len(right)} clips survive {NOISE_TRIES} random noises and {strongest:.1%} the strongest "
        f"attack, {name}.",
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
        sentence = f"Numbers that are not finite on {broken} of {len(right)} clips under PGD there."
        return Check(name, None, "flag", sentence)
    share = mean(right)
    return Check(
        name,
        share,
        _verdict(share <= most),
        f"{share:.1%} of {_of(batches)}{len(right)} clips are right under PGD in a ball that holds "
        "every clip.",
    )


def _of(batches: Sequence[dict]) -> str:
    """What a share of dense labels is a share of."""
    return "the pixels of " if _dense(batches) else ""


def _dense(batches: Sequence[dict]) -> bool:
    """Whether every pixel has a label."""
    return np.ndim(batches[0]["label"]) > 1


def _share_of_the_most_frequent(batches: Sequence[dict]) -> float:
    """What a constant prediction may have right at most, of all labelled positions."""
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


def _verdict(fine: bool) -> str:
    return "pass" if fine else "flag"

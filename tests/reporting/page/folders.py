"""Folders of runs that look judged, made with NumPy alone: no model, no data.

Axes: N = test examples, R = lines, M = experts, K = classes, T = frames, E = whole examples.
"""

import json
import pathlib

import numpy as np

from jaxmoe.evaluation.engine.rows import Check, Row
from jaxmoe.reporting.results import write_results

RADII = (4 / 255, 8 / 255)
RADII_L2 = (0.5, 1.0)
CASCADE = "auto-attack"
ATTACKS = ("pgd", "tlga-r", "pgd-e", "j-tlga")
# The share that an attack breaks.
COST = {"pgd": 0.45, "tlga-r": 0.2, "pgd-e": 0.3, "j-tlga": 0.55, CASCADE: 0.5}
CHECKS = (
    Check("zero gradients", 0.0, "pass", "0.0% of the gradients were zero."),
    Check("loss rises with steps", 0.0, "pass", "It rose in every attack."),
    Check("better than a guess", 0.5, "pass", "Clean accuracy is far above chance.", "model"),
)


def make_run(
    folder: pathlib.Path,
    *,
    experts: int = 4,
    classes: int | tuple[str, ...] = ("hug", "kick", "point", "punch"),
    frames: int = 6,
    size: tuple[int, int] = (16, 20),
    n: int = 24,
    seed: int = 0,
    checks: tuple[Check, ...] = CHECKS,
    stopped: bool = False,
    old: bool = False,
    shown: int = 4,
    examples: bool = True,
    dense: bool = False,
    attacks: tuple[str, ...] = ATTACKS,
    norm: str = "linf",
    steps: int = 10,
    several_routes: bool = False,
    momentum: bool = False,
) -> pathlib.Path:
    """Writes the files of a run and its evaluation; returns the folder.

    `old` leaves out every array that evaluations did not keep before; `stopped` the last half of
    the attacks, the worst case and single examples. With `several_routes` no example has an expert
    of its own; with `momentum` whole examples have the
    step lengths of temporal momentum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else classes
    attacks = tuple(a for a in attacks if experts > 1 or not a.endswith("-r"))
    if stopped:
        attacks = attacks[: len(attacks) // 2]
    lines = [("clean", 0.0), *((a, e) for a in attacks for e in _radii(norm))]
    label = random.integers(0, len(names), n)
    if dense:
        label = random.integers(0, len(names), (n, *size))
        label[:, 1, ::3] = -1  # void
    arrays = _arrays(random, lines, label, experts, len(names), frames)
    _describe(folder, experts, names, frames, size, seed, norm)
    rows = _rows(lines, arrays, experts, () if stopped else _radii(norm), dense, norm, steps)
    write_results(rows, folder)
    details = {
        "command": ["/opt/bin/jaxmoe", "evaluate", str(folder), "--attacks", *attacks],
        "attacks_finished": not stopped,
        "settings": {"steps": steps, "restarts": 1, "alpha": 0.25},
        "test_set": "the run's own test split",
        "notes": ["a note of the suite"],
        "checkpoint": "latest",
        "checks": [check._asdict() for check in checks],
        "specialization": {"sentence": "The router decides: a random route costs 30.0 points."},
        "gflops": {"sparse": 0.08, "dense": 0.23},
    }
    if not old:
        (folder / "evaluation.json").write_text(json.dumps(details))
    own = {
        name: np.array([line[i] for line in lines]) for i, name in enumerate(("attack", "epsilon"))
    }
    if several_routes:
        arrays["expert"] = np.full_like(arrays["expert"], -1)
    if examples and not stopped:
        kept = ("index", "label", "correct") if old else tuple(arrays)
        if dense or experts == 1:
            kept = tuple(k for k in kept if k not in ("expert", "weights"))
        if dense:
            kept = tuple(k for k in kept if k not in ("prediction", "confidence"))
        np.savez_compressed(folder / "examples.npz", **own, **{k: arrays[k] for k in kept})
        if shown and not old and len(lines) > 1:
            parts = _shown(random, arrays, len(lines), shown, frames, size, label, len(names))
            if not momentum:
                del parts["step_sizes"]
            np.savez_compressed(folder / "shown.npz", **parts)
    return folder


def with_iou(row, value):
    return row._replace(mean_iou=value, mean_iou_interval=[0.9 * value, 1.1 * value])


def _radii(norm):
    return RADII if norm == "linf" else RADII_L2


def _arrays(random, lines, label, experts, classes, frames):
    n, difficulty = len(label), random.random(len(label))
    difficulty[:3] = 0  # these are wrong when clean
    first = label if label.ndim == 1 else label[:, 0, 0]
    correct, prediction = [], []
    for attack, epsilon in lines:
        broken = COST.get(attack, 0.0) * (1.6 if epsilon in (RADII[-1], RADII_L2[-1]) else 1) + 0.1
        right = difficulty > broken
        right[:2] |= attack != "clean"  # an attack may turn what is wrong to right
        correct.append(right)
        prediction.append(np.where(right, first, (first + 1 + random.integers(0, 2, n)) % classes))
    home = random.integers(0, experts, n)
    expert = [home]
    for attack, _ in lines[1:]:
        turns = random.random(n) < (0.9 if attack.endswith("-r") else 0.4)
        expert.append(np.where(turns, (home + 1) % experts, home))
    expert = np.array(expert)
    logits = random.normal(size=(len(lines), n, experts)) + 2.5 * np.eye(experts)[expert]
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    size = np.array([e for _, e in lines])[:, None, None] * random.uniform(0.3, 1, (n, frames))
    correct = np.array(correct, np.float32)
    if label.ndim > 1:
        correct = 0.2 + 0.6 * correct
    arrays = {
        "index": np.arange(n),
        "label": label,
        "correct": correct,
        "prediction": np.array(prediction, np.int16),
        "confidence": random.uniform(0.4, 1, (len(lines), n)).astype(np.float16),
        "expert": expert.astype(np.int16),
        "weights": weights.astype(np.float16),
        "size": size.astype(np.float16),
    }
    # A cascade does not attack what is wrong when clean: it keeps the facts of before.
    wrong = correct[0] <= 0
    for line, (attack, _) in enumerate(lines):
        for name in arrays if attack == CASCADE else ():
            if name not in ("index", "label"):
                arrays[name][line, wrong] = arrays[name][0, wrong]
    return arrays


def _rows(lines, arrays, experts, worst_at, dense, norm, steps):
    correct, n = arrays["correct"].astype(np.float64), len(arrays["index"])
    rows = []
    load = np.bincount(arrays["expert"][0], minlength=experts) / n
    for place, (attack, epsilon) in enumerate(lines):
        right = np.minimum(correct[place], correct[0]).mean()
        row = Row(
            attack, epsilon, norm, right, correct[place].mean(), n, 0, None, None, 0, 0.5, 2.0
        )
        if experts > 1 and not dense:
            row = row._replace(load_clean=load.tolist(), routing_entropy_clean=0.9)
        if attack == CASCADE:
            row = row._replace(load_clean=None, routing_entropy_clean=None, zero_gradient=0.0)
            row = row._replace(gradient_evaluations=400.0, seconds=9.0)
        elif place:
            trace = (1 + 3 * (1 - 0.7 ** np.arange(11)) * (1 + epsilon)).tolist()
            row = row._replace(
                steps=steps, restarts=1, gradient_evaluations=10.0 + place, seconds=1.5
            )
            row = row._replace(loss_trace=trace, zero_gradient=0.0)
            if experts > 1 and not dense:
                own = arrays["expert"][place]
                row = row._replace(
                    flip_rate=float((own != arrays["expert"][0]).mean()),
                    load_adversarial=(np.bincount(own, minlength=experts) / n).tolist(),
                    routing_entropy_adversarial=1.1,
                )
        rows.append(with_iou(row, 0.8 * right) if dense else row)
    for epsilon in worst_at:
        within = [place for place, (_, at) in enumerate(lines) if at <= epsilon]
        right = correct[within].min(axis=0).mean()
        under = correct[[place for place in within if place]].min(axis=0, initial=1.0).mean()
        spent = 10.0 * (len(lines) - 1) / len(worst_at)
        row = Row("worst-case", epsilon, norm, right, under, n, 0, None, None, spent, 6.0, 0.0)
        rows.append(with_iou(row, 0.8 * right) if dense else row)
    return rows


def _describe(folder, experts, names, frames, size, seed, norm):
    config = {
        "data": {"name": "video_folder", "frames": frames, "height": size[0]},
        "expert": {"name": "resnet", "width": 16},
        "router": {"name": "conv"},
        "mixture": {"experts": experts, "top_k": 1, "dual_weight": None},
        "threat": {"norm": norm, "epsilon": _radii(norm)[0]},
        "recipe": {"name": "at_m"},
        "run": {"seed": seed, "plugins": None},
    }
    process = {
        "command": ["/opt/bin/jaxmoe", "train", "a b.py", "--run.directory", str(folder)],
        "git_revision": "0123456789abcdef" * 2 + "01234567",
        "python": "3.11.7",
        "versions": {"jaxmoe": "0.1.0", "jax": "0.10.2"},
        "devices": ["cpu"],
    }
    description = {
        "seed": seed,
        "processes": [process],
        "classes": list(names),
        "clips": {"train": 90, "test": 24},
        "splits": {"test": "36fd6e4213c15280"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps(description))
    lines = []
    for step in range(10, 310, 10):
        loss = 2 * np.exp(-step / 120) + 0.1
        lines.append({"step": step, "at_m/loss": loss, "at_m/gradient_norm": 1.0})
        if step % 50 == 0:
            lines.append({"step": step, "validation/accuracy": min(0.9, step / 300)})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def _shown(random, arrays, lines, count, frames, size, label, classes):
    n, (height, width) = len(label), size
    down, across = np.mgrid[:height, :width] / max(size)
    clips = []
    for place in range(count):
        at = (np.arange(frames)[:, None, None] / max(frames, 2) + 0.1 * place) % 1
        blob = np.exp(-(((across - at) ** 2 + (down - 0.4) ** 2) / 0.02))
        colour = random.uniform(0.3, 1, 3)
        clips.append(np.clip(0.2 + 0.7 * blob[..., None] * colour, 0, 1))
    clean = np.round(255 * np.array(clips)).astype(np.uint8)
    delta = RADII[-1] * np.sign(random.normal(size=clean.shape))
    adversarial = np.clip(clean / 255 + delta, 0, 1).astype(np.float16)
    why = ("smallest epsilon", "confident failure", "survivor", "random")
    found = {
        "position": random.permutation(n)[:count],
        "line": random.integers(1, lines, count),
        "why": np.array([why[place % 4] for place in range(count)]),
        "clean": clean,
        "adversarial": adversarial,
        "step_sizes": random.uniform(0, 1, (count, 10, frames)).astype(np.float32),
    }
    if label.ndim > 1:
        own = label[found["position"]]
        found["label_map"] = own.astype(np.int16)
        noise = random.random(own.shape)
        said = np.maximum(own, 0)  # a model says no void
        found["clean_map"] = np.where(noise < 0.2, 0, said).astype(np.int16)
        found["adversarial_map"] = np.where(noise < 0.7, 0, said).astype(np.int16)
    return found

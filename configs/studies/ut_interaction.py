"""All defences of the video paper on UT-Interaction, at equal cost, over five folds of sequences.

jaxmoe study configs/studies/ut_interaction.py --data.directory DIR --jobs 2

Every clip is a test clip once. All mixtures start from one clean mixture of a block, and AT-S, one
network of an expert's size, from one network that was trained as long. Each defence may then take
the same number of gradients (`Study.gradients`); the ablations of J-TLAT too. Attacks are those
that defences train on, and others: AutoAttack, the enumerated route, sparse and flicker.
"""

import dataclasses
import pathlib
import sys

from jaxmoe.config import Arm, Study

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "video"))
from ut_interaction_standard import config

_ATTACK = {"attack.steps": 5, "attack.alpha": 0.4, "attack.temporal_alpha": 0.8}
_DEFENCE = {**_ATTACK, "optimizer.learning_rate": 1e-3}
_ONE = {"mixture.experts": 1}


def _arm(title: str, recipe: str, start: str = "standard", **fields) -> Arm:
    own = {name.replace("__", "."): value for name, value in fields.items()}
    return Arm(title, {"recipe": recipe, **_DEFENCE, **own}, start)


def _j_tlat(title: str, *repairs: str) -> Arm:
    return _arm(title, "j_tlat", mixture__balance_weight=1.5, recipe__repairs=repairs)


def study() -> Study:
    experiment = config()
    clean = dataclasses.asdict(experiment.training)
    epochs = clean["shared_epochs"] + 4 * clean["dense_epochs"] + clean["epochs"]
    alone = {"training.shared_epochs": 0, "training.dense_epochs": 0, "training.epochs": epochs}
    return Study(
        experiment=experiment,
        arms={
            "standard": Arm("standard", costs=False),
            "single": Arm("one network", {**_ONE, **alone}, costs=False),
            "restored": Arm("standard, restored", {"expert.restoration": True}, costs=False),
            "at_s": _arm("AT-S", "at_s", "single", **{"mixture__experts": 1}),
            "at_d": _arm("AT-D", "at_d", mixture__top_k=4),
            "at_m": _arm("AT-M", "at_m"),
            "oud_m": _arm("OUD-M", "oud_m", "restored", expert__restoration=True),
            "aat_m": _arm("AAT-M", "aat_m"),
            "adv_moe": _arm("AdvMoE", "adv_moe"),
            "trades": _arm("TRADES", "trades"),
            "balanced": _arm("AT-M, balanced", "at_m", mixture__balance_weight=1.5),
            "dropout": _arm("AT-M, expert dropout", "at_m", mixture__dropped_experts=1),
            "tlat": _arm("TLAT", "tlat"),
            "j_tlat": _j_tlat("J-TLAT", "router", "weak_experts", "global"),
            "no_router": _j_tlat("J-TLAT without router", "weak_experts", "global"),
            "no_weak": _j_tlat("J-TLAT without weak experts", "router", "global"),
            "no_global": _j_tlat("J-TLAT without global", "router", "weak_experts"),
        },
        folds={
            f"fold{fold}": {
                "data.folds": 5,
                "data.fold": fold,
                "data.group_pattern": r"seq\d+",
            }
            for fold in range(5)
        },
        gradients=120,
        attacks=(
            *("pgd", "tla-m", "tlga-r", "j-tlga", "pgd-e"),
            *("auto-attack", "enumerated-route", "sparse", "flicker"),
        ),
        epsilons=(4 / 255, 8 / 255),
        evaluation={"measures": "trust"},
        transfer=("pgd",),
        compared=("j_tlat",),
        simplest="at_s",
    )

"""Trains on several devices and on one, and prints how far the ends are apart; run by a test."""

import functools
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.attacks import AttackSettings
from jaxmoe.config import RECIPES
from jaxmoe.parallel import Parallel, make_parallel
from jaxmoe.threat import ThreatModel
from jaxmoe.training import (
    RecipeOptions,
    adamw,
    fill_up,
    init_state,
    make_train_step,
    make_validate,
    split_experts,
)
from jaxmoe.training.schedules import scheduled
from tests.training.conftest import tiny_batch, tiny_mixture

jax.config.update("jax_enable_x64", True)

MIXTURE = tiny_mixture()
# In double precision: Adam makes a whole step of the rounding of a gradient that is nearly zero.
PARAMS = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), MIXTURE.init(jax.random.key(0), None))
OPTIMIZER = adamw(1e-2, 1.0)
BEGIN = functools.partial(init_state, optimizer=OPTIMIZER, averaged=True, radii=3)
LIKE = jax.eval_shape(BEGIN, PARAMS)
PERTURBED = {"at_m": 0.05}  # γ of AWP, whose uphill gradient is reduced too
FEW = RecipeOptions(AttackSettings(steps=3), balance_weight=0.3)
OPTIONS = {
    "j_tlat": FEW,
    "at_m": FEW._replace(
        balance="v-moe", router_noise=0.25, route_weight=1.0, attacked_route="clean"
    ),
    "standard": FEW,
    "rt_er": FEW,
}


def main() -> None:
    """Reads cases from the command line, as JSON, and prints figures for each."""
    print(json.dumps([figures(**case) for case in json.loads(sys.argv[1])]))


def figures(
    devices, mapping="mesh", steps=5, batch=16, recipe="j_tlat", one_expert=False, parts=1, **how
):
    """Returns the figures of one case."""
    parallel = make_parallel(jax.devices()[:devices], mapping=mapping, **how)
    ends = [
        train(parallel, recipe, steps, batch, one_expert, parts),
        train_alone(recipe, steps, batch, one_expert),
    ]
    apart = max(
        float(np.max(np.abs(a - b)))
        for a, b in zip(*(jax.tree.leaves(end["params"]) for end in ends), strict=True)
    )
    mine = ends[0]
    return {
        "apart": apart,
        "metrics": [end["metrics"] for end in ends],
        "validation": [end["validation"] for end in ends],
        "loops": mine["loops"],
        "in loops": mine["in_loops"],
        "reductions": mine["reductions"],
        "local share": local_share(parallel),
    }


@functools.cache
def train_alone(recipe, steps, batch, one_expert) -> dict:
    """Returns what one device finds."""
    return train(make_parallel(jax.devices()[:1]), recipe, steps, batch, one_expert)


def train(parallel: Parallel, recipe, steps, batch, one_expert, parts=1) -> dict:
    """Returns the params and the last metrics after some steps, and facts of the program."""
    params = PARAMS
    if one_expert:  # the router sends every clip to the first expert
        router = {"w": 0 * PARAMS["router"]["w"] + np.array([9.0, 0, 0, 0])}
        params = {**PARAMS, "router": router}
    make_step = functools.partial(
        make_train_step,
        split_experts(MIXTURE, parallel),
        RECIPES.make(recipe).phases,
        OPTIONS[recipe],
        ThreatModel("linf", 0.1),
        OPTIMIZER,
        shards=parallel.shards(PARAMS),
        parts=parts,
        weight_perturbation=PERTURBED.get(recipe, 0.0),
        average_decay=0.5,
    )
    step = scheduled(make_step, lam_rises=recipe == "j_tlat")
    state = parallel.make(BEGIN, params, LIKE)
    key = jax.random.key(7)

    def place(number):
        drawn = tiny_batch(batch, number)
        drawn = drawn._replace(clip=drawn.clip / 255.0)
        return parallel.shard(fill_up(drawn._asdict(), parts * parallel.local_count))

    def given(number):
        return parallel.everywhere((key, np.float32([1e-2, 0.1, 1 - number / steps, 0.8])))

    mapped = parallel.map_step(step, LIKE).lower(state, place(0), given(0)).compile()
    with jax.transfer_guard("disallow"):
        for i in range(steps):
            state, metrics = mapped(state, place(i), given(i))
    return {
        "params": jax.device_get(
            [parallel.whole(each, LIKE.params) for each in (state.params, state.average)]
        ),
        "metrics": {name: float(value.addressable_data(0)) for name, value in metrics.items()},
        "validation": validate(parallel, params),
        **facts(mapped.as_text()),
    }


COLLECTIVES = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"


def facts(text: str) -> dict:
    """Returns how many loops a program has, and which collectives are where."""
    entry = text[text.index("\nENTRY ") :]
    found = re.findall(rf" (?:{COLLECTIVES})(?:-start)?\(", text)
    at_the_top = re.findall(rf" ({COLLECTIVES})(?:-start)?\(", entry)
    arrays = re.findall(rf" = (.*) (?:{COLLECTIVES})(?:-start)?\(", entry)
    return {
        "loops": len(re.findall(r" while\(", text)),
        "in_loops": len(found) - len(at_the_top),
        "reductions": sum(bool(re.search(r"\[\d", shapes)) for shapes in arrays),
    }


def validate(parallel: Parallel, params) -> list:
    """Returns what a validation says of the params."""
    judge = make_validate(
        split_experts(MIXTURE, parallel),
        ThreatModel("linf", 0.1),
        AttackSettings(steps=3),
        parallel,
        PARAMS,
        adversarial=True,
    )
    clips = tiny_batch(16, seed=9)._replace(valid=np.arange(16) < 13)
    return judge(parallel.place(params), [clips._asdict()])


def local_share(parallel: Parallel) -> float:
    """Returns the largest share of the state's numbers that one device holds."""
    state = parallel.make(BEGIN, PARAMS, LIKE)
    whole = sum(leaf.size for leaf in jax.tree.leaves(LIKE))
    held = {}
    for leaf in jax.tree.leaves(state):
        for shard in leaf.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.size
    return max(held.values()) / whole


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        main()

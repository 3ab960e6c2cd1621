"""Scores of one batch against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.evaluation.engine.scoring import run_model, score
from jaxmoe.mixture import from_functions
from jaxmoe.threat import ThreatModel

B, M, K = 5, 4, 3


@pytest.mark.parametrize("combine", ["softmax", "none"])
def test_isolated_forms_are_sums_over_the_experts_that_the_router_chose(combine):
    rng = np.random.default_rng(0)
    router, experts = 3 * rng.normal(size=(6, M)), rng.normal(size=(M, 6, K))
    x, x_adv = rng.uniform(size=(2, B, 6))
    mixture = from_functions(
        lambda params, x: x @ params,
        lambda params, x: jnp.tanh(x @ params),
        num_experts=M,
        top_k=2,
        combine=combine,
    )

    def isolated(routed, seen):
        logits = routed @ router
        weights = np.exp(logits)
        weights /= weights.sum(-1, keepdims=True)
        total = np.zeros((B, K))
        for b in range(B):
            for i in np.argsort(-logits[b])[:2]:
                weight = weights[b, i] if combine == "softmax" else 1
                total[b] += weight * np.tanh(seen[b] @ experts[i])
        return total[:, 1]

    def second_logit(logits, labels):
        del labels
        return logits[:, 1]

    @jax.jit
    def run(params, x, x_adv):
        y = jnp.zeros(B, jnp.int32)
        clean, outputs = (run_model(mixture, second_logit, params, z, y) for z in (x, x_adv))
        return score(mixture, second_logit, ThreatModel(), params, x_adv, x, y, outputs, clean)

    cast = lambda leaf: jnp.asarray(leaf, jnp.float32)  # noqa: E731
    scores = run({"router": cast(router), "experts": cast(experts)}, cast(x), cast(x_adv))
    np.testing.assert_allclose(scores.isolated_router, isolated(x_adv, x), atol=1e-5)
    np.testing.assert_allclose(scores.isolated_experts, isolated(x, x_adv), atol=1e-5)
    assert np.abs(isolated(x_adv, x) - isolated(x, x_adv)).min() > 1e-3

"""Operations of the sparse mixture against the dense one, from the compiled programs."""

import jax

from jaxmoe.benchmarks.row import Row, counted
from jaxmoe.benchmarks.subjects import clips, even_mixture
from jaxmoe.evaluation.measures.flops import mixture_flops

BAR = 0.40


def run() -> list[Row]:
    """One row: 4 experts, top-1, 32 clips."""
    mixture, _, _ = even_mixture(4)
    x, _ = clips(32, 8, 32)
    params = jax.eval_shape(mixture.init, jax.random.key(0), x[:1])
    flops = mixture_flops(mixture, params, x.shape[1:], batch_size=32)
    detail = (
        f"{flops.sparse:.4g} of {flops.dense:.4g} GFLOPs a clip, top-1 of 4, "
        f"{flops.blocks} blocks of {flops.block_size}; {flops.ideal_ratio:.3f} without padding"
    )
    return [counted("GFLOPs of the mixture / dense", flops.ratio, BAR, detail)]

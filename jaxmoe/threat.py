"""The threat model: a ball around the clean input, the pixels' box, and the frames that may change.

Axes: B = batch, T = frames, … = any further axes of an input. ε has the unit of pixels in [0, 1].
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxmoe.choices import NORMS, Norm
from jaxmoe.options import check_number

# ε within this of a whole number of grey levels is shown as one.
_GREY_LEVEL_TOLERANCE = 1e-3
_BRANCHES = 8  # of a node of the tree that adds up a norm; a power of 2


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("epsilon", "frames"),
    meta_fields=("norm", "bounds"),
)
@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """All inputs within `epsilon` of a clean one, inside `bounds`, changed in `frames` alone.

    `epsilon` and `frames` are arrays to the compiler, so a grid of ε is a `vmap` and compiles once.

    Attributes:
      norm: `"linf"` (largest change of a pixel) or `"l2"` (Euclidean length of the change of one
        whole example).
      epsilon: radius of the ball in pixel units, ≥ 0; shape [] or [B].
      bounds: least and greatest value of a pixel.
      frames: which frames may change, bool of shape [T] or [B, T]; None allows all.

    Raises:
      ValueError: unknown norm, empty bounds, or ε that is negative or not finite. ε is checked
        where it is a plain number, not an array.
    """

    norm: Norm = "linf"
    epsilon: Float[Array, "*batch"] | float = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    frames: Bool[Array, "*batch time"] | None = None

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"threat.norm: {self.norm!r} is not one of {', '.join(NORMS)}")
        object.__setattr__(self, "bounds", tuple(self.bounds))  # a part of what is compiled
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"threat.bounds: {self.bounds} is not (low, high) with low < high")
        check_number("threat.epsilon", self.epsilon)
        plain = isinstance(self.epsilon, int | float)
        if plain and not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"threat.epsilon: {self.epsilon} is not a finite number ≥ 0")
        if plain and self.norm == "linf" and self.epsilon > high - low:
            raise ValueError(
                f"threat.epsilon: {self.epsilon:g} is more than a pixel from {low:g} to {high:g} "
                "can change; expected ε in its unit, such as 8/255"
            )

    def project(
        self, x_adv: Float[Array, "batch ..."], x: Float[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        """Returns the allowed input next to `x_adv`: in `frames`, the ball and the box.

        It is in the ball for all rounding: `size` is at most ε, in whatever program it is computed.
        Half-precision inputs are projected in float32, then rounded toward `x`.
        """
        clean = x.astype(_work_dtype(x))
        delta = self.mask(x_adv.astype(clean.dtype) - clean)
        epsilon = _per_example(self.epsilon, clean)
        if self.norm == "linf":
            return self._add_in_box(x, jnp.clip(delta, -epsilon, epsilon), epsilon)
        # What is measured here may be measured a little longer by another program.
        epsilon = epsilon * (1 - 2 * _norm_error(clean))
        delta = delta * jnp.minimum(1.0, epsilon / jnp.maximum(example_norm(delta), 1e-12))
        # Rounding to the nearest sum evens out over an example, unless all pixels round alike.
        nearest = self._add_in_box(x, delta, jnp.inf)
        fits = example_norm(nearest.astype(clean.dtype) - clean) <= epsilon
        return jnp.where(fits, nearest, self._add_in_box(x, delta, jnp.abs(delta)))

    def _add_in_box(self, x: Array, delta: Array, limit: Array | float) -> Array:
        """`x + delta` in the box, rounded so that no pixel moves by more than `limit`."""
        clean = x.astype(delta.dtype)
        form = jnp.finfo(x.dtype)
        # The compiler may leave out a conversion to half precision and back, but not this.
        moved = jax.lax.reduce_precision(clean + delta, form.nexp, form.nmant)
        beyond = jnp.abs(moved - clean) > limit
        moved = moved.astype(x.dtype)
        moved = jnp.where(beyond, jnp.nextafter(moved, x), moved)
        if x.dtype != delta.dtype:  # `reduce_precision` makes float16's subnormal numbers 0
            moved = jnp.where(jnp.abs(moved.astype(delta.dtype) - clean) > limit, x, moved)
        # A pixel that was outside the box when clean stays as it is: the adversary did not do that.
        low, high = jnp.minimum(x, self.bounds[0]), jnp.maximum(x, self.bounds[1])
        return jnp.clip(moved, low, high)

    def random_start(
        self, key: Key[Array, "*batch"], x: Float[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        """A random allowed input: uniform in the ball (ℓ∞), uniform direction and radius (ℓ2).

        Args:
          key: one key, folded by position in the batch, or a key for each example, so that an
            example's start does not depend on its neighbours (`example_keys`).
          x: clean inputs.
        """
        keys = per_example_keys(key, x.shape[0])
        if self.norm == "linf":
            draw = jax.vmap(
                lambda k: jax.random.uniform(k, x.shape[1:], x.dtype, minval=-1.0, maxval=1.0)
            )
            delta = draw(keys) * _per_example(self.epsilon, x)
        else:
            direction_keys, radius_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
            direction = self.mask(
                jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(direction_keys)
            )
            radius = jax.vmap(lambda k: jax.random.uniform(k, (), x.dtype))(radius_keys)
            unit = direction / jnp.maximum(example_norm(direction), 1e-12)
            delta = unit * _per_example(radius, x) * _per_example(self.epsilon, x)
        return self.project(x + delta, x)

    def surface_start(
        self, key: Key[Array, "*batch"], x: Float[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        """A random allowed input ε away from `x`, but for the box: Auto-PGD's start.

        A uniform (ℓ∞) or normal (ℓ2) draw, scaled to the length ε. `key` as for `random_start`.
        """
        keys = per_example_keys(key, x.shape[0])
        draw = jax.random.normal
        if self.norm == "linf":
            draw = functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0)
        delta = self.mask(jax.vmap(lambda k: draw(k, x.shape[1:], x.dtype))(keys))
        if self.norm == "linf":
            length = jnp.max(jnp.abs(delta), axis=tuple(range(1, x.ndim)), keepdims=True)
        else:
            length = example_norm(delta)
        delta = delta / jnp.maximum(length, 1e-12)
        return self.project(x + delta * _per_example(self.epsilon, x), x)

    def size(
        self, x_adv: Float[Array, "batch ..."], x: Float[Array, "batch ..."]
    ) -> Float[Array, " batch"]:
        """`‖x_adv − x‖` of every example, in this threat model's norm, in float32 or wider."""
        work = _work_dtype(x)
        delta = x_adv.astype(work) - x.astype(work)
        if self.norm == "linf":
            return jnp.max(jnp.abs(delta), axis=tuple(range(1, delta.ndim)))
        return example_norm(delta).reshape(-1)

    def mask(self, delta: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """`delta`, a change or a gradient, with zeros in the frames that may not change."""
        if self.frames is None:
            return delta
        frames = jnp.atleast_2d(jnp.asarray(self.frames))
        if delta.ndim < 3 or frames.shape[1] != delta.shape[1]:
            raise ValueError(
                f"threat.frames: a mask of {frames.shape[1]} frames does not fit inputs of shape "
                f"{delta.shape}; expected [batch, {frames.shape[1]}, …]"
            )
        frames = frames.reshape(frames.shape + (1,) * (delta.ndim - 2))
        return jnp.where(frames, delta, jnp.zeros_like(delta))


def example_norm(x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Returns the Euclidean length of every example, kept broadcastable: [B, 1, …, 1].

    Squares are added up as a tree, so that rounding grows with the logarithm of an example's size
    alone, on every platform: a clip may have 10⁷ numbers.
    """
    squares = jnp.square(x.astype(_work_dtype(x))).reshape(x.shape[0], -1)
    while squares.shape[1] > 1:
        rows = -(-squares.shape[1] // _BRANCHES)
        padding = ((0, 0), (0, rows * _BRANCHES - squares.shape[1]))
        squares = jnp.pad(squares, padding).reshape(x.shape[0], _BRANCHES, rows)
        while squares.shape[1] > 1:
            half = squares.shape[1] // 2
            squares = squares[:, :half] + squares[:, half:]
        squares = squares[:, 0]
    return jnp.sqrt(squares).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def _norm_error(x: Float[Array, "batch ..."]) -> float:
    """The largest relative error of `example_norm`, with those of a difference and of a product."""
    levels = math.log2(max(math.prod(x.shape[1:]), 1)) + 3
    # The root halves the error of a sum, to which each level of the tree adds one rounding.
    return (levels / 2 + 4) * float(jnp.finfo(x.dtype).eps) / 2


def _work_dtype(x: Array) -> jnp.dtype:
    """float32 for the half precisions, else the dtype of `x`."""
    return jnp.dtype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x.dtype


def example_keys(key: Key[Array, ""], index: Array) -> Key[Array, " batch"]:
    """A key for each example, folded by the example's own `index`, int of shape [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def per_example_keys(key: Key[Array, "*batch"], batch: int) -> Key[Array, " batch"]:
    """`key` itself if it holds one per example, else one folded by each position in the batch."""
    if key.ndim == 1:
        if key.shape[0] != batch:
            raise ValueError(f"key: {key.shape[0]} keys for a batch of {batch}")
        return key
    return example_keys(key, jnp.arange(batch))


def _per_example(value: Array | float, x: Array) -> Array:
    """A scalar or [B] value in `x`'s dtype, broadcastable against `x`."""
    value = jnp.asarray(value, x.dtype)
    shape = (1,) * x.ndim if value.ndim == 0 else (-1,) + (1,) * (x.ndim - 1)
    return value.reshape(shape)


def format_epsilon(epsilon: float, norm: str = "linf") -> str:
    """ε in pixel units as `k/255` where it is a whole number of grey levels."""
    levels = epsilon * 255
    if epsilon == 0:
        return "0"
    if norm == "linf" and abs(levels - round(levels)) < _GREY_LEVEL_TOLERANCE and round(levels) > 0:
        return f"{round(levels)}/255"
    return f"{epsilon:.4g}"

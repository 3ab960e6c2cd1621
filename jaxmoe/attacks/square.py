"""Square: a black-box attack by random squares of colour. Part of AutoAttack.

Andriushchenko et al. 2020, algorithms 1 to 3 (https://arxiv.org/abs/1912.00049). It looks at logits
alone, so it also breaks models whose gradients are masked. In a clip, a square has one colour in
all frames or in a window of them. A vector is folded into a picture, row by row.
Axes: B = batch, T = frames (1 of an image), H W = height, width, C = channels.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmoe.attacks.attack import Attack, Model, as_apply
from jaxmoe.attacks.objectives import margin
from jaxmoe.attacks.perturb import (
    AttackResult,
    Objective,
    numbered_keys,
    spread,
    strongest_attempt,
    where_example,
)
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.threat import ThreatModel, per_example_keys

FIRST_SHARE = 0.8  # p: of the picture that the first squares cover; AutoAttack's
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the share halves

Clip = Float[Array, "time height width channels"]


def square(
    model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """Square: keeps random squares that raise the margin. AutoAttack takes 5000 queries."""

    def attack(key, params, x, y):
        # It sees no gradient, and what is to be broken is the hard mixture.
        apply = as_apply(model, dataclasses.replace(settings, gradient="hard"))
        keys = per_example_keys(key, x.shape[0])

        def attempt(number):
            own = numbered_keys(keys, number)
            result = search(own, x, lambda x_adv: margin(apply(params, x_adv), y), threat, settings)
            return result, result.loss > 0

        return strongest_attempt(attempt, settings.restarts)

    return attack


class _Search(NamedTuple):
    """State of `search`."""

    looks: Array  # shape=(), dtype=int32
    x_adv: Float[Array, "batch ..."]
    loss: Float[Array, " batch"]  # at x_adv, the greatest so far
    trace: Float[Array, "marks batch"]
    finite: Bool[Array, " batch"]


def search(
    keys: Key[Array, " batch"],
    x: Float[Array, "batch ..."],
    loss: Objective,
    threat: ThreatModel,
    settings: AttackSettings,
) -> AttackResult:
    """Random search by squares, `settings.queries` + 1 looks at most.

    An example is done where its loss is above 0, the search where all are. The trace has the
    greatest loss up to each of a few looks, `marks`: all of them would be 5001 for each example.

    Args:
      keys: one for each example.
      x: images `[B, H, W, C]` or `[B, H, W]`, clips `[B, T, H, W, C]`, or vectors `[B, N]`.
      loss: to be raised above 0.
      threat: what is allowed.
      settings: `queries`, and the `square_frames` that a square spans.
    """
    clips = as_clips(x)
    shape, window = clips.shape[1:], settings.square_frames or clips.shape[1]
    linf = threat.norm == "linf"
    squares = _Squares(settings.queries, shape, window, x.dtype, odd=not linf)
    epsilon = jnp.broadcast_to(jnp.asarray(threat.epsilon, x.dtype), (x.shape[0],))
    propose = squares.recolour if linf else squares.move

    def allowed(proposed):
        filled = proposed.reshape(x.shape[0], -1)[:, : math.prod(x.shape[1:])]
        return threat.project(filled.reshape(x.shape), x)

    def unfinished(state):
        return (state.looks <= settings.queries) & jnp.any(state.loss <= 0)

    def query(state):
        x_adv = as_clips(state.x_adv)
        proposed = jax.vmap(propose, in_axes=(0, None, 0, 0, 0))(
            numbered_keys(keys, state.looks), state.looks - 1, clips, x_adv, epsilon
        )
        proposed = allowed(proposed)
        losses = loss(proposed)
        better = (losses > state.loss) & (state.loss <= 0)
        best = jnp.where(better, losses, state.loss)
        return _Search(
            state.looks + 1,
            where_example(better, proposed, state.x_adv),
            best,
            state.trace.at[jnp.searchsorted(places, state.looks)].set(best),
            state.finite & jnp.isfinite(losses),
        )

    start = jax.vmap(squares.stripes if linf else squares.tiles)(numbered_keys(keys, 0))
    start = allowed(clips + start * spread(epsilon, clips))
    first = loss(start)
    places = jnp.asarray(marks(settings.queries), jnp.int32)
    trace = jnp.broadcast_to(first, (len(places), x.shape[0]))
    one = jnp.ones((), jnp.int32)
    begun = _Search(one, start, first, trace, jnp.isfinite(first))
    end = jax.lax.while_loop(unfinished, query, begun)
    looked = places < end.looks
    return AttackResult(
        end.x_adv,
        end.loss,
        jnp.where(looked[:, None], end.trace, end.loss[None]),
        jnp.zeros((), jnp.int32),
        jnp.zeros(x.shape[0], x.dtype),
        end.finite,
    )


def marks(queries: int) -> Int[np.ndarray, " marks"]:
    """Returns the looks that `search` keeps the greatest loss of, at most 11 of them.

    They are the first, 0, the last, and those after which the squares shrink.
    """
    return np.asarray([0, *(place for place in HALVINGS if place < queries), queries], np.int32)


def as_clips(x: Float[Array, "batch ..."]) -> Float[Array, "batch time height width channels"]:
    """Inputs of any rank as clips; the last row of a folded vector is filled up with zeros."""
    if x.ndim >= 4:
        return x.reshape(x.shape[0], -1, *x.shape[-3:])
    if x.ndim == 3:
        return x[:, None, :, :, None]
    count = math.prod(x.shape[1:])
    rows = math.isqrt(count)
    columns = -(-count // rows)
    folded = jnp.pad(x.reshape(x.shape[0], count), ((0, 0), (0, rows * columns - count)))
    return folded.reshape(x.shape[0], 1, rows, columns, 1)


class _Squares:
    """The draws for one clip `[T, H, W, C]`: starts, and changes of `x_adv`."""

    def __init__(self, queries: int, shape: tuple[int, ...], window: int, dtype, *, odd: bool):
        self.shape, self.window, self.dtype = shape, window, dtype
        self.sizes = _sizes(queries, *shape[1:3], odd=odd)
        distinct, self.place = np.unique(self.sizes, return_inverse=True)
        self.bumps = np.zeros((len(distinct), distinct[-1], distinct[-1]), np.float32)
        for place, size in enumerate(distinct):
            self.bumps[place, :size, :size] = _bumps(size)

    def stripes(self, key: Key[Array, ""]) -> Clip:
        """The ℓ∞ start: vertical stripes of ±1 of every window of frames."""
        windows = -(-self.shape[0] // self.window)
        signs = self._signs(key, (windows, 1, *self.shape[2:]))
        return jnp.broadcast_to(jnp.repeat(signs, self.window, 0)[: self.shape[0]], self.shape)

    def recolour(self, key, query, clip, x_adv, epsilon) -> Clip:
        """ℓ∞: one square that changes by ±2ε in each channel, before it is clipped to the ball."""
        del clip
        place_key, colour_key = jax.random.split(key)
        mask, _ = self._window(place_key, jnp.asarray(self.sizes)[query])
        return x_adv + mask * 2 * epsilon * self._colour(colour_key)

    def tiles(self, key: Key[Array, ""]) -> Clip:
        """The ℓ2 start: a grid of bumps with random signs, of length 1."""
        frames, height, width, channels = self.shape
        size = max(height // 5, 1)
        bump = jnp.asarray(_bumps(size), self.dtype)
        rows, columns = height // size, width // size
        sign_key, turn_key = jax.random.split(key)
        windows = -(-frames // self.window)
        signs = self._signs(sign_key, (windows, rows, 1, columns, 1, channels))
        turned = jax.random.bernoulli(turn_key, shape=(windows, rows, 1, columns, 1, 1))
        bump = bump[None, None, :, None, :, None]
        grid = jnp.where(turned, bump.swapaxes(2, 4), bump) * signs
        grid = grid.reshape(windows, rows * size, columns * size, channels)
        grid = jnp.repeat(grid, self.window, 0)[:frames]
        edges = ((0, height - rows * size), (0, width - columns * size))
        delta = jnp.pad(grid, ((0, 0), *edges, (0, 0)))
        return delta / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(delta))), 1e-12)

    def move(self, key, query, clip, x_adv, epsilon) -> Clip:
        """ℓ2: one square's share of the perturbation goes to another one, with a bump."""
        to_key, from_key, colour_key, turn_key = jax.random.split(key, 4)
        size = jnp.asarray(self.sizes)[query]
        to, (top, left) = self._window(to_key, size)
        source, _ = self._window(from_key, size)
        delta = x_adv - clip
        bump = jnp.asarray(self.bumps, self.dtype)[jnp.asarray(self.place)[query]]
        bump = jnp.where(jax.random.bernoulli(turn_key), bump, bump.T)
        rows = jnp.clip(jnp.arange(self.shape[1], dtype=jnp.int32) - top, 0, bump.shape[0] - 1)
        columns = jnp.clip(jnp.arange(self.shape[2], dtype=jnp.int32) - left, 0, bump.shape[1] - 1)
        bump = bump[rows][:, columns][None, :, :, None] * to
        added = bump / jnp.maximum(_length(bump), 1e-12)
        added = added * self._colour(colour_key)
        old = delta * to
        added = added + old / jnp.maximum(_length(old), 1e-12)
        spare = jnp.maximum(epsilon**2 - jnp.sum(jnp.square(delta)), 0) / self.shape[-1]
        either = delta * jnp.maximum(to, source)
        length = jnp.sqrt(spare + jnp.square(_length(either)))
        added = added / jnp.maximum(_length(added), 1e-12) * length
        delta = delta * (1 - jnp.maximum(to, source)) + added
        return clip + delta * (epsilon / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(delta))), 1e-12))

    def _window(self, key, size) -> tuple[Float[Array, "time height width 1"], tuple]:
        """A random square of a side of `size` in a random window of frames, as a mask."""
        time_key, top_key, left_key = jax.random.split(key, 3)
        frames, height, width, _ = self.shape
        start = jax.random.randint(time_key, (), 0, max(frames - self.window, 0) + 1, jnp.int32)
        top = jax.random.randint(top_key, (), 0, height - size + 1, jnp.int32)
        left = jax.random.randint(left_key, (), 0, width - size + 1, jnp.int32)

        def inside(count, first, length):
            place = jnp.arange(count, dtype=jnp.int32)
            return (place >= first) & (place < first + length)

        mask = (
            inside(frames, start, self.window)[:, None, None]
            & inside(height, top, size)[None, :, None]
            & inside(width, left, size)[None, None, :]
        )
        return mask[..., None].astype(self.dtype), (top, left)

    def _colour(self, key: Key[Array, ""]) -> Float[Array, "1 1 1 channels"]:
        return self._signs(key, (1, 1, 1, self.shape[-1]))

    def _signs(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
        return jax.random.rademacher(key, shape, self.dtype)


def _sizes(queries: int, height: int, width: int, *, odd: bool) -> np.ndarray:
    """The side of the square of each query, int [queries]; odd and at least 3 for ℓ2."""
    halved = np.searchsorted(HALVINGS, np.arange(queries))
    sizes = np.round(np.sqrt(FIRST_SHARE / 2.0**halved * height * width)).astype(np.int32)
    if odd:
        sizes = np.maximum(sizes, 3)
        sizes += sizes % 2 == 0
    return np.clip(sizes, 1, min(height, width))


def _bumps(size: int) -> np.ndarray:
    """Two bumps of opposite sign, one over the other, of length 1 (algorithm 3); [size, size]."""
    upper = size // 2
    bumps = np.concatenate([_bump(upper, size), -_bump(size - upper, size)])
    return (bumps / np.maximum(np.sqrt(np.sum(np.square(bumps))), 1e-12)).astype(np.float32)


def _bump(height: int, width: int) -> np.ndarray:
    """Rectangles around the middle, each larger than the last and added with less weight."""
    total = np.zeros((height, width))
    top, left = height // 2, width // 2
    for ring in range(max(top, left) + 1):
        total[max(top - ring, 0) : top + ring + 1, max(left - ring, 0) : left + ring + 1] += (
            1 / (ring + 1) ** 2
        )
    return total / np.maximum(np.sqrt(np.sum(np.square(total))), 1e-12)


def _length(delta: Clip) -> Float[Array, "1 1 1 channels"]:
    """Euclidean length of each channel."""
    return jnp.sqrt(jnp.sum(jnp.square(delta), axis=(0, 1, 2), keepdims=True))

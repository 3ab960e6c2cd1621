"""Runs an attack that a person calls: at the edge, and outside of `jit` as one program.

A program is traced and compiled at the first call and serves for every ε and every number of the
settings. It refers to its model weakly: without the model it goes when one is looked for next.
"""

import dataclasses
import functools
import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmoe.attacks.attack import Attack, Model, scored_apply
from jaxmoe.attacks.edge import (
    as_key,
    check_axes,
    check_epsilon,
    check_label_shape,
    check_labels,
    check_params,
    check_pixels,
    is_traced,
    is_visible,
    to_pixels,
    widest,
)
from jaxmoe.attacks.perturb import AttackResult
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.mixture import Mixture
from jaxmoe.threat import ThreatModel

MOST_PROGRAMS = 64  # that are kept, the ones used last

Build = Callable[[Model, ThreatModel, AttackSettings], Attack]


def at_edge(
    name: str,
    build: Build,
    model: Model,
    threat: ThreatModel,
    settings: AttackSettings,
    *,
    picture: bool,
    temporal: bool,
    run: Callable[..., AttackResult],
) -> Attack:
    """Returns the attack that `build` makes, with its inputs checked and brought into one form.

    Args:
      name: of the attack.
      build: its constructor.
      model: what is attacked.
      threat: what is allowed.
      settings: numbers of the attack.
      picture, temporal: how it reads the axes (`edge.check_axes`).
      run: `run_here` or `run_as_program`.
    """

    def attack(key, params, x, y) -> AttackResult:
        x, y = (v if hasattr(v, "dtype") else np.asarray(v) for v in (x, y))
        if x.ndim < 2:
            raise ValueError(f"clip: shape {list(x.shape)}; expected a batch, [B, …]")
        check_params(params)
        check_axes(name, x.shape, picture=picture, temporal=temporal)
        check_epsilon(threat, len(x))
        if is_visible(x):
            check_pixels(np.asarray(x), threat.bounds)
        pixels, key = to_pixels(x, threat.bounds), as_key(key)
        logits = logits_of(model, params, pixels)
        check_label_shape(y, logits.shape)
        if is_visible(y):
            check_labels(np.asarray(y), logits.shape[-1])
        inputs = key, params, pixels, jnp.asarray(y).astype(jnp.int32), logits.dtype
        return run(build, model, threat, settings, *inputs)

    return attack


def run_as_program(build, model, threat, settings, key, params, x, y, dtype) -> AttackResult:
    """Runs an attack outside of `jit` compiled, where the model's weights are its params.

    A model without params may change what it closes over, and is traced anew at each call.
    """
    inputs = key, params, x, y
    if is_traced(inputs, threat, settings) or not jax.tree.leaves(params):
        return run_here(build, model, threat, settings, *inputs, dtype)
    # All numbers alike: plain ones, NumPy's and JAX's have one program.
    numbers = threat.epsilon, settings
    epsilon, own = jax.tree.map(lambda v: jnp.asarray(v, x.dtype), numbers)
    run = program(run_here, build, model, static_argnums=(6,))
    return run(dataclasses.replace(threat, epsilon=epsilon), own, *inputs, dtype)


def logits_of(model: Model, params: Any, pixels: Array) -> jax.ShapeDtypeStruct:
    """Returns shape and dtype of the logits; `pixels` may be a shape and a dtype alone."""
    known = jax.tree.leaves(params) and not is_traced(params, pixels)
    apply = program(_score, model) if known else functools.partial(_score, model)
    return jax.eval_shape(apply, params, pixels)


def _score(model: Model, params: Any, x: Array) -> Array:
    return scored_apply(model)(params, x)


def run_here(build, model, threat, settings, key, params, x, y, dtype) -> AttackResult:
    """Attacks in the widest dtype of pixels and logits, so that no carry changes its own."""
    wide = widest(x.dtype, dtype)
    threat, settings = (
        jax.tree.map(lambda v: _number(v, wide), tree) for tree in (threat, settings)
    )
    model = _widened(model, wide) if isinstance(model, Mixture) else model
    result = build(model, threat, settings)(key, params, x.astype(wide), y)
    if wide == x.dtype:
        return result
    return result._replace(x_adv=threat.project(result.x_adv.astype(x.dtype), x))


def _number(value: Any, dtype: np.dtype) -> Any:
    """A number in the attack's dtype; masks and plain numbers as they are."""
    floats = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    return jnp.asarray(value, dtype) if floats else value


def _widened(mixture: Mixture, dtype: np.dtype) -> Mixture:
    """The mixture whose router and experts answer in `dtype`, if their own is narrower."""

    def wide(part):
        def answer(*args):
            output = part(*args)
            if not jnp.issubdtype(output.dtype, jnp.floating):
                return output
            return output.astype(widest(output.dtype, dtype))

        return answer

    parts = ("route", "expert", "experts", "select")
    return mixture._replace(**{part: wide(getattr(mixture, part)) for part in parts})


def program(function: Callable, *subjects: Any, static_argnums: tuple[int, ...] = ()) -> Callable:
    """Returns `function(*subjects, …)` under `jit`, the same one for the same subjects.

    Args:
      function: a pure function.
      *subjects: models and constructors: functions, or tuples of them, which are held weakly. One
        without an identity to be held by is held strongly, by the program that is returned alone.
      static_argnums: of the arguments behind the subjects.
    """
    try:
        key = _weakly((function, *subjects))
        hash(key)
    except TypeError:
        return jax.jit(functools.partial(function, *subjects), static_argnums=static_argnums)
    with _LOCK:
        for dead in [key for key in _PROGRAMS if not _lives(key)]:
            del _PROGRAMS[dead]
        if key not in _PROGRAMS:
            _PROGRAMS[key] = jax.jit(_of_weak(key), static_argnums=static_argnums)
            if len(_PROGRAMS) > MOST_PROGRAMS:
                _PROGRAMS.popitem(last=False)
        _PROGRAMS.move_to_end(key)
        return _PROGRAMS[key]


def _of_weak(key: tuple) -> Callable:
    """`function(*subjects, …)` that holds none of them."""

    def run(*args):
        function, *subjects = _revived(key)
        return function(*subjects, *args)

    return run


_PROGRAMS: OrderedDict[tuple, Callable] = OrderedDict()
_LOCK = threading.RLock()  # several threads may attack; what a thread lets go may come back here


class _Weak:
    """A weak reference to a function that equals another one to the same function alone."""

    def __init__(self, function: Callable):
        # A bound method is made anew whenever it is asked for.
        kind = weakref.WeakMethod if inspect.ismethod(function) else weakref.ref
        self.reference = kind(function)
        owner = function.__self__ if inspect.ismethod(function) else function
        self.identity = id(owner), id(getattr(function, "__func__", function))

    def __hash__(self) -> int:
        return hash(self.identity)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Weak) or self.identity != other.identity:
            return False
        # Another object may have the place of one that is gone.
        return self is other or None not in (self.reference(), other.reference())


def _weakly(subject: Any) -> Any:
    """A function, or a tuple of some, as a value that can be compared and holds no function."""
    if isinstance(subject, tuple):
        return (type(subject), *map(_weakly, subject))
    return _Weak(subject) if callable(subject) else subject


def _revived(weak: Any) -> Any:
    if isinstance(weak, tuple):
        kind, *fields = weak
        fields = map(_revived, fields)
        return kind(*fields) if hasattr(kind, "_fields") else kind(fields)
    return weak.reference() if isinstance(weak, _Weak) else weak


def _lives(weak: Any) -> bool:
    if isinstance(weak, tuple):
        return all(map(_lives, weak))
    return not isinstance(weak, _Weak) or weak.reference() is not None

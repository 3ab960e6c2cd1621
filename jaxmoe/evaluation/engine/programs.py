"""The compiled programs of a suite, and how often and how long each was compiled.

ε, α, β, λ, γ1 and γ2 are arguments of the programs: a sweep over them compiles an attack once.
"""

import functools
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmoe.attacks import AttackResult, AttackSettings
from jaxmoe.attacks.attack import Model
from jaxmoe.attacks.edge import check_params, to_pixels
from jaxmoe.attacks.perturb import numbered_keys
from jaxmoe.attacks.registry import build_traced as build_attack
from jaxmoe.choices import Norm
from jaxmoe.evaluation.engine.scoring import (
    Metric,
    Outputs,
    Scores,
    Verdict,
    run_model,
    score,
    verify,
)
from jaxmoe.evaluation.measures.measures import find_measures, measure
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.mixture import PartScores, score_parts
from jaxmoe.parallel import Spread
from jaxmoe.threat import ThreatModel, example_keys

OUTPUTS = "outputs"  # the program that runs the model, on clean and on adversarial clips


class Programs:
    """Compiles what a suite runs. Hand one to several suites of a model to compile once for all.

    Attributes:
      model: a mixture, or `(params, x) -> logits`.
      norm: of the threat model.
      metric: `(logits, labels) -> [B]`.
      measures: names of `MEASURES` that are computed too.
      traces: how often each program was traced, by its name; an attack's is the attack's.
      compilations: how often each was compiled.
      compile_seconds: how long tracing and compiling each took in all.
      batch_sizes: of each attack, the sizes of the batches that it was compiled for.
    """

    def __init__(
        self,
        model: Model,
        norm: Norm = "linf",
        metric: Metric = accuracy,
        measures: Sequence[str] = (),
    ):
        self.model = model
        self.norm = norm
        self.metric = metric
        self.measures = find_measures(measures)
        self.traces: dict[str, int] = {}
        self.compilations: dict[str, int] = {}
        self.compile_seconds: dict[str, float] = {}
        self.batch_sizes: dict[str, set[int]] = {}
        self._compiled: dict[Any, Callable] = {}
        self._spread = Spread()

    def check(self, model: Model, norm: Norm, metric: Metric) -> "Programs":
        """These programs, if they are of this model.

        Raises:
          ValueError: they are of another.
        """
        if (self.model, self.norm, self.metric) != (model, norm, metric):
            raise ValueError("programs: compiled for another model, norm or metric")
        return self

    def check_measures(self, measures: Sequence[str]) -> None:
        """Refuses programs that compute other measures than these.

        Raises:
          ValueError: the line has both lists.
        """
        if self.measures != find_measures(measures):
            raise ValueError(
                f"measures: {', '.join(measures) or 'none'}; programs compute "
                f"{', '.join(self.measures) or 'none'}: give both the same"
            )

    def clean(self, params: Any, batch: dict[str, Any]) -> tuple[Outputs, float]:
        """Outputs of a clean batch, and the seconds that the model took on its pixels."""
        x, y, _ = inputs_of(batch)
        return self._outputs(params, x, y)

    def attack(
        self,
        name: str,
        params: Any,
        batch: dict[str, Any],
        epsilon: float,
        settings: AttackSettings,
        seed: int,
        restart: int = 0,
    ) -> tuple[AttackResult, float]:
        """Runs the attack called `name` on a batch; its result and its seconds.

        Random starts depend on (seed, name, restart, the clip's own index) alone.
        """

        def program(params, x, y, index, epsilon, settings, seed, restart):
            keys = numbered_keys(attack_keys(seed, name, index), restart)
            attack = build_attack(name, self.model, ThreatModel(self.norm, epsilon), settings)
            return attack(keys, params, x, y)

        self.batch_sizes.setdefault(name, set()).add(len(batch["valid"]))
        return self.timed(
            name,
            program,
            params,
            *inputs_of(batch),
            *_numbers(epsilon, settings, seed),
            jnp.uint32(restart),
            examples=(1, 2, 3),
        )

    def score(
        self, params: Any, batch: dict[str, Any], x_adv: jax.Array, clean: Outputs, epsilon: float
    ) -> tuple[Scores, float]:
        """Scores of adversarial clips by the hard forward, and the seconds that they took."""
        x, y, _ = inputs_of(batch)
        outputs, seconds = self._outputs(params, x_adv, y)

        def program(params, x_adv, x, y, outputs, clean, epsilon):
            threat = ThreatModel(self.norm, epsilon)
            found = score(self.model, self.metric, threat, params, x_adv, x, y, outputs, clean)
            return found._replace(measures=measure(self.measures, outputs, clean, y))

        clean = clean._replace(kept=None)
        inputs = params, x_adv, x, y, outputs, clean, jnp.float32(epsilon)
        scores, more_seconds = self.timed("score", program, *inputs, examples=(1, 2, 3, 4, 5))
        return scores, seconds + more_seconds

    def measured(self, batch: dict[str, Any], clean: Outputs) -> dict[str, jax.Array] | None:
        """The measures of a clean batch, [B] each; None where none are asked for."""
        if not self.measures:
            return None

        def program(y, clean):
            return measure(self.measures, clean, clean, y)

        return self.timed("measures", program, inputs_of(batch)[1], clean, examples=(0, 1))[0]

    def parts(self, params: Any, batch: dict[str, Any], clean: Outputs) -> PartScores:
        """Scores each part of a mixture by itself, on a clean batch and its outputs."""

        def program(params, x, y, clean):
            outputs = clean.router, clean.experts
            return score_parts(self.model, self.metric, params, x, y, *outputs)

        x, y, _ = inputs_of(batch)
        return self.timed("parts", program, params, x, y, clean, examples=(1, 2, 3))[0]

    def verify(
        self, params: Any, batch: dict[str, Any], x_adv: jax.Array, epsilon: float
    ) -> tuple[Verdict, float]:
        """Who survives `x_adv`, and the seconds it took; without clean outputs, parts or figures.

        `x_adv` may come from an attack on another model.
        """

        def program(params, x_adv, x, y, epsilon):
            threat = ThreatModel(self.norm, epsilon)
            return verify(self.model, self.metric, threat, params, x_adv, x, y)

        x, y, _ = inputs_of(batch)
        inputs = params, x_adv, x, y, jnp.float32(epsilon)
        return self.timed("verify", program, *inputs, examples=(1, 2, 3))

    def _outputs(self, params: Any, x: jax.Array, label: Any) -> tuple[Outputs, float]:
        def program(params, x, label):
            return run_model(self.model, self.metric, params, x, label)

        return self.timed(OUTPUTS, program, params, x, label, examples=(1, 2))

    def timed(
        self, name: str, program: Callable, *args: Any, examples: Collection[int] = ()
    ) -> tuple[Any, float]:
        """Runs a program, compiled for these shapes; returns its result and its seconds.

        Args:
          name: what the program is, for the counts; it also stands for the program in the cache.
          program: a pure function of arrays.
          *args: its arguments.
          examples: numbers of the arguments that hold examples, where each example's results depend
            on that example alone: they are spread over all devices.
        """
        args = jax.tree.map(jnp.asarray, args)
        compiled = self._compile(name, program, args, examples)
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(*args))
        return result, time.perf_counter() - start

    def memory(
        self, name: str, program: Callable, *args: Any, examples: Collection[int] = ()
    ) -> int:
        """Bytes that a program takes on a device, arguments included, compiled as by `timed`."""
        args = jax.tree.map(jnp.asarray, args)
        analysis = self._compile(name, program, args, examples).memory_analysis()
        sizes = "temp_size_in_bytes", "output_size_in_bytes", "argument_size_in_bytes"
        return sum(getattr(analysis, size) for size in sizes)

    def _compile(
        self, name: str, program: Callable, args: tuple, examples: Collection[int]
    ) -> Callable:
        leaves, structure = jax.tree.flatten(args)
        # The structure holds the static settings: steps, restarts and the like.
        key = (name, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key in self._compiled:
            return self._compiled[key]

        @functools.wraps(program)
        def counted(*args):
            self.traces[name] = self.traces.get(name, 0) + 1
            return program(*args)

        start = time.perf_counter()
        if examples and self._spread.count > 1:
            axes = tuple(
                _axes_of_examples(arg) if i in examples else -1 for i, arg in enumerate(args)
            )
            self._compiled[key] = self._spread.compile(counted, args, axes)
        else:
            self._compiled[key] = jax.jit(counted).lower(*args).compile()
        seconds = time.perf_counter() - start
        self.compilations[name] = self.compilations.get(name, 0) + 1
        self.compile_seconds[name] = self.compile_seconds.get(name, 0.0) + seconds
        return self._compiled[key]


def on_device(*groups: Mapping[str, tuple[Model, Any]]) -> tuple[dict[str, tuple[Model, Any]], ...]:
    """Models by name, with params that go to the device once and not in every call.

    What several of them share stays shared.
    """
    once = {id(params): params for group in groups for _, params in group.values()}
    put = {place: put_params(params) for place, params in once.items()}
    return tuple(
        {name: (model, put[id(params)]) for name, (model, params) in group.items()}
        for group in groups
    )


def put_params(params: Any) -> Any:
    """Params on every device, once: NumPy arrays would go there in every call of every program.

    Raises:
      ValueError: they are no params.
    """
    return Spread().put(check_params(params))


def _axes_of_examples(arg: Any) -> Any:
    """The axis of examples of every leaf: the first, but for what all experts say."""
    if isinstance(arg, Outputs) and arg.experts is not None:
        return jax.tree.map(lambda _: 0, arg)._replace(experts=1)
    return 0


def attack_keys(seed: jax.Array | int, name: str, index: jax.Array) -> jax.Array:
    """A key for each clip, [B], from the seed, the attack's name and the clip's own `index`."""
    # crc32 and not hash(): the latter differs from one process to the next.
    key = jax.random.fold_in(jax.random.key(seed), jnp.uint32(zlib.crc32(name.encode())))
    return example_keys(key, index)


def inputs_of(batch: dict[str, Any]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pixels, labels and indices, each of one dtype: no batch of another is compiled for anew."""
    label, index = (jnp.asarray(batch[name]) for name in ("label", "index"))
    if jnp.issubdtype(label.dtype, jnp.integer):
        label = label.astype(jnp.int32)
    return to_pixels(batch["clip"]), label, index.astype(jnp.int32)


def as_numbers(settings: AttackSettings) -> AttackSettings:
    """The settings with their numbers as arrays, so that no value of theirs is compiled in."""
    return jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), settings)


def _numbers(epsilon: float, settings: AttackSettings, seed: int) -> tuple:
    return jnp.float32(epsilon), as_numbers(settings), jnp.uint32(seed)

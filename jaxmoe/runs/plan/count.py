"""What one device computes, sends and holds, counted in a program as JAX writes it down.

Nothing is compiled. A loop's body counts as often as it runs. Of branches directly in the body the
one counts that the number of the turn chooses, as in an attack's last look. Elsewhere, as where
data choose, it is the dearest: a mixture counts with every block of its dispatch full of examples.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from jax.interpreters import partial_eval

# Multiply-adds of an output's element are those of the window; `convolution` stands for
# convolutions that users wrote.
_CONVOLUTIONS = ("conv_general_dilated", "convolution")
# One name for each kind of collective, whatever JAX calls it.
COLLECTIVES = {
    "psum": "all-reduce",
    "psum_invariant": "all-reduce",
    "pmax": "all-reduce",
    "pmin": "all-reduce",
    "all_gather": "all-gather",
    "all_gather_invariant": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "all_to_all": "all-to-all",
    "ppermute": "collective-permute",
}

_ELEMENTWISE = {
    *("abs", "add", "add_any", "and", "clamp", "cos", "div", "eq", "erf", "exp", "exp2"),
    *("ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt"),
    *("max", "min", "mul", "ne", "neg", "not", "or", "pow", "rsqrt", "select_n", "sign"),
    *("sin", "sqrt", "square", "sub", "tanh", "xor", "broadcast_in_dim"),
    *("convert_element_type", "copy", "expand_dims", "iota", "name", "pad"),
    *("reduce_precision", "reshape", "slice", "squeeze", "stop_gradient"),
}
_SUMS = {
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_or", "reduce_and", "argmax", "argmin"),
}
# These operations are evaluated on numbers of turns, to know which branch a turn takes.
_FOLLOWED = {
    *("iota", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "add", "sub", "mod"),
    *("convert_element_type", "max", "min", "clamp"),
}
_MOST_FOLLOWED = 4096  # numbers
_CALLS = ("jit", "pjit", "custom_jvp_call", "closed_call")


@dataclasses.dataclass
class Counted:
    """Sums over a program; two of them can be added, and one repeated.

    Attributes:
      flops: of convolutions and matmuls by precision, `bfloat16`, `float32` and so on, and what was
        asked of it: `float32`, `float32 high` or `float32 highest`. A multiply-add is two.
      traffic: bytes that they read and write, each array once for each operation.
      collectives: bytes of the whole arrays, by (kind, whether in a loop).
      unknown_loops: loops whose trips are not known before they run, each counted once.
    """

    flops: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    traffic: int = 0
    collectives: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    unknown_loops: int = 0

    @property
    def total(self) -> int:
        """All FLOPs."""
        return sum(self.flops.values())

    def add(self, other: "Counted", times: int = 1, *, loop: bool = False) -> None:
        """Adds another count, so many times; `loop` says that it was counted within one."""
        for name, flops in other.flops.items():
            self.flops[name] += times * flops
        self.traffic += times * other.traffic
        for (kind, inside), size in other.collectives.items():
            self.collectives[kind, inside or loop] += times * size
        self.unknown_loops += other.unknown_loops


def count(program: ClosedJaxpr) -> Counted:
    """Returns what one run of a program computes and sends."""
    return _Walk().counted(without_dead(program.jaxpr))


def forward_flops(function: Callable, *shapes: Any) -> int:
    """Returns the FLOPs of convolutions and matmuls in `function` of arrays of these shapes."""
    return count(jax.make_jaxpr(function)(*shapes)).total


def peak_bytes(program: ClosedJaxpr) -> int:
    """Returns the most bytes that are held at once beside what goes in, results included.

    An operation's result counts from when it is made until it is read for the last time. One of an
    elementwise operation that elementwise operations and sums alone read is never held: it is
    computed where it is read. A compiler has more tricks, and rounds arrays up to tiles, so its
    figure is another one.
    """
    return _Walk().peak(without_dead(program.jaxpr))


def without_dead(jaxpr: Jaxpr) -> Jaxpr:
    """Returns the program without operations whose results nobody reads."""
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


class _Walk:
    """Counts each inner program once, however often it is called."""

    def __init__(self):
        self._counts: dict[int, tuple[Jaxpr, Counted]] = {}
        self._peaks: dict[int, tuple[Jaxpr, int]] = {}

    def counted(self, jaxpr: Jaxpr) -> Counted:
        if id(jaxpr) not in self._counts:  # keeps what it has seen: an id is not reused
            self._counts[id(jaxpr)] = jaxpr, self._counted(jaxpr, {})
        return self._counts[id(jaxpr)][1]

    def _counted(self, jaxpr: Jaxpr, known: dict[Var, np.ndarray]) -> Counted:
        """Counts a program whose inputs `known` have these values."""
        total, known = Counted(), dict(known)
        for equation in jaxpr.eqns:
            self._add(total, equation, known)
            _follow(equation, known)
        return total

    def _turns(self, equation: Any, known: dict[Var, np.ndarray]) -> Counted:
        """Counts all turns of a scan."""
        p, body = equation.params, equation.params["jaxpr"].jaxpr
        # A scanned input has one axis more outside of the body, in every version of JAX.
        numbers = {
            inner: known[outer]
            for inner, outer in zip(body.invars, equation.invars, strict=True)
            if isinstance(outer, Var)
            and outer in known
            and len(outer.aval.shape) > len(inner.aval.shape)
        }
        total = Counted()
        if not numbers or all(each.primitive.name != "cond" for each in body.eqns):
            total.add(self.counted(body), p["length"], loop=True)
            return total
        for turn in range(p["length"]):
            values = {variable: value[turn] for variable, value in numbers.items()}
            total.add(self._counted(body, values), loop=True)
        return total

    def _add(self, total: Counted, equation: Any, known: dict[Var, np.ndarray]) -> None:
        name, inner = equation.primitive.name, [self.counted(p) for p in _programs(equation)]
        if name in _CONVOLUTIONS or name == "dot_general":
            flops = _dot(equation) if name == "dot_general" else _convolution(equation)
            total.flops[_precision(equation)] += flops
            total.traffic += sum(map(_size, [*equation.invars, *equation.outvars]))
        elif name in COLLECTIVES:
            size = max(sum(map(_size, side)) for side in (equation.invars, equation.outvars))
            total.collectives[COLLECTIVES[name], False] += size
        elif name == "scan":
            total.add(self._turns(equation, known))
        elif name == "while":
            for part in inner:
                total.add(part, loop=True)
            total.unknown_loops += 1
        elif name == "cond":
            chosen = _value(equation.invars[0], known)
            dearest = max(inner, key=lambda branch: branch.total)
            total.add(dearest if chosen is None or len(inner) == 1 else inner[int(chosen)])
        else:
            for part in inner:
                total.add(part)

    def peak(self, jaxpr: Jaxpr) -> int:
        if id(jaxpr) not in self._peaks:
            self._peaks[id(jaxpr)] = jaxpr, self._peak(jaxpr)
        return self._peaks[id(jaxpr)][1]

    def _peak(self, jaxpr: Jaxpr) -> int:
        end = len(jaxpr.eqns)
        last, held_whole = {}, set()
        for place, equation in enumerate(jaxpr.eqns):
            read = [v for v in equation.invars if isinstance(v, Var)]
            last |= {v: place for v in read}
            if not (_is_elementwise(equation) or equation.primitive.name in _SUMS):
                held_whole |= set(read)
        results = {v for v in jaxpr.outvars if isinstance(v, Var)}
        last |= {v: end for v in results}
        held_whole |= results
        fused = set()
        for equation in reversed(jaxpr.eqns):
            made = [v for v in equation.outvars if v in last]
            if _is_elementwise(equation) and not held_whole & set(made):
                # What it reads is held until its own result would have been read.
                fused |= set(made)
                until = max((last[v] for v in made), default=0)
                last |= {v: max(last[v], until) for v in equation.invars if isinstance(v, Var)}
        ends = collections.defaultdict(list)
        for variable, place in last.items():
            ends[place].append(variable)
        held, most, own = 0, 0, set()
        for place, equation in enumerate(jaxpr.eqns):
            made = [v for v in equation.outvars if v in last and v not in fused]
            size = sum(map(_size, made))
            inside = max((self.peak(p) for p in _programs(equation)), default=0)
            most = max(most, held + max(size, inside))
            own |= set(made)
            held += size - sum(_size(v) for v in ends[place] if v in own)
        return most


def _follow(equation: Any, known: dict[Var, np.ndarray]) -> None:
    """Adds an operation's result to what is known, if that is a few numbers made of such."""
    if equation.primitive.name not in _FOLLOWED or equation.outvars[0].aval.size > _MOST_FOLLOWED:
        return
    values = [_value(variable, known) for variable in equation.invars]
    if all(value is not None for value in values):
        result = equation.primitive.bind(*values, **equation.params)
        known[equation.outvars[0]] = np.asarray(result)


def _value(variable: Var | Literal, known: dict[Var, np.ndarray]) -> Any:
    return variable.val if isinstance(variable, Literal) else known.get(variable)


def _is_elementwise(equation: Any) -> bool:
    """Returns whether a compiler computes an operation's result where it is read."""
    if equation.primitive.name in _CALLS:
        return all(_is_elementwise(inner) for p in _programs(equation) for inner in p.eqns)
    return equation.primitive.name in _ELEMENTWISE


def _programs(equation: Any) -> Iterator[Jaxpr]:
    """Yields the programs that an operation runs: of those for several platforms not the CPU's."""
    platforms = equation.params.get("branches_platforms")
    for name, value in equation.params.items():
        values = value if isinstance(value, tuple) else (value,)
        if name == "branches" and platforms is not None:
            values = [v for v, of in zip(values, platforms, strict=True) if of != ("cpu",)]
        for each in values:
            if isinstance(each, Jaxpr | ClosedJaxpr):
                yield getattr(each, "jaxpr", each)


def _size(variable: Var | Literal) -> int:
    aval = variable.aval
    return (
        math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 4) if hasattr(aval, "shape") else 0
    )


def _dot(equation: Any) -> int:
    """2 · (elements of the result) · (elements that are summed for each)."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    """2 · multiply-adds, none of them of a zero that padding or dilation of the input puts in."""
    p, (lhs, rhs) = equation.params, (v.aval.shape for v in equation.invars)
    numbers = p["dimension_numbers"]
    batch, out_channels = lhs[numbers.lhs_spec[0]], rhs[numbers.rhs_spec[0]]
    in_channels = rhs[numbers.rhs_spec[1]]  # of one group
    out = equation.outvars[0].aval.shape
    taps = 1
    for axis, (low, _) in enumerate(p["padding"]):
        taps *= _taps(
            lhs[numbers.lhs_spec[2 + axis]],
            rhs[numbers.rhs_spec[2 + axis]],
            out[numbers.out_spec[2 + axis]],
            p["window_strides"][axis],
            low,
            p["lhs_dilation"][axis],
            p["rhs_dilation"][axis],
        )
    # A batch in groups has the same elements, split over them.
    return 2 * batch // p["batch_group_count"] * out_channels * in_channels * taps


@functools.cache
def _taps(size: int, window: int, out: int, stride: int, low: int, spread: int, apart: int) -> int:
    """Pairs along one axis of a place of the output and a place of the input that it reads."""
    found = 0
    for tap in range(window):
        # Place o reads the input's place (o · stride − low + tap · apart) / spread, if it is one.
        places = (o * stride - low + tap * apart for o in range(out))
        found += sum(1 for at in places if at % spread == 0 and 0 <= at // spread < size)
    return found


def _precision(equation: Any) -> str:
    """The dtype of the operands, and for float32 how exactly products were asked for."""
    dtype = equation.invars[0].aval.dtype.name
    asked = equation.params["precision"]
    asked = asked[0] if isinstance(asked, tuple) else asked
    exact = {jax.lax.Precision.HIGH: " high", jax.lax.Precision.HIGHEST: " highest"}
    return dtype + (exact.get(asked, "") if dtype == "float32" else "")

"""Programs as JAX writes them down (jaxprs), with one primitive in the place of another."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.linear_util as lu
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive, jaxpr_as_fun
from jax.extend.core.primitives import custom_jvp_call_p, custom_vjp_call_p

_RULES = {custom_jvp_call_p: ("jvp_jaxpr_fun",), custom_vjp_call_p: ("fwd_jaxpr_thunk", "bwd")}


def with_primitive(jaxpr: Any, old: Primitive, new: Primitive, keep: str) -> Any:
    """The same program with `new`, which takes the same operands and params, in place of `old`.

    Also within loops, branches, calls, and the rules of functions with derivatives of their own,
    but for the function called `keep`. A program without `old` is returned as it is.
    """
    return _Replacement(old, new, keep).program(jaxpr)


class _Replacement:
    """One primitive for another, each inner program done once so that it is compiled once."""

    def __init__(self, old: Primitive, new: Primitive, keep: str):
        self.old, self.new, self.keep = old, new, keep
        self.done: dict[int, tuple[Any, Any]] = {}  # keeps what it has seen: an id is not reused

    def program(self, jaxpr: Any) -> Any:
        if id(jaxpr) not in self.done:
            self.done[id(jaxpr)] = (jaxpr, self._replaced(jaxpr))
        return self.done[id(jaxpr)][1]

    def _replaced(self, jaxpr: Any) -> Any:
        if not isinstance(jaxpr, Jaxpr):  # closed over its constants; later JAX has one type
            inner = self.program(jaxpr.jaxpr)
            return jaxpr if inner is jaxpr.jaxpr else jaxpr.replace(jaxpr=inner)
        equations = [self._equation(equation) for equation in jaxpr.eqns]
        same = all(a is b for a, b in zip(equations, jaxpr.eqns, strict=True))
        return jaxpr if same else jaxpr.replace(eqns=equations)

    def _equation(self, equation: Any) -> Any:
        if equation.primitive is self.old:
            return equation.replace(primitive=self.new)
        if equation.primitive is custom_vjp_call_p and self._is_kept(equation):
            return equation
        params = {name: self._value(value) for name, value in equation.params.items()}
        for name in _RULES.get(equation.primitive, ()):
            params[name] = self._rule(params[name])
        same = all(params[name] is value for name, value in equation.params.items())
        return equation if same else equation.replace(params=params)

    def _is_kept(self, equation: Any) -> bool:
        return equation.params["call_jaxpr"].jaxpr.debug_info.func_name == self.keep

    def _value(self, value: Any) -> Any:
        if isinstance(value, Jaxpr | ClosedJaxpr):
            return self.program(value)
        if isinstance(value, tuple) and any(isinstance(v, Jaxpr | ClosedJaxpr) for v in value):
            values = tuple(map(self._value, value))
            return value if all(a is b for a, b in zip(values, value, strict=True)) else values
        return value

    def _rule(self, rule: Any) -> Any:
        """A derivative's rule: a function of arrays, or one that returns a program of its own."""

        def changed(*args):
            results = rule.call_wrapped(*args)
            if isinstance(results, tuple) and isinstance(results[0], Jaxpr | ClosedJaxpr):
                return tuple(map(self._value, results))
            return results

        return lu.wrap_init(rewritten(changed, self.program), debug_info=rule.debug_info)


def rewritten(function: Callable, change: Callable[[Any], Any]) -> Callable:
    """The function as its program says after `change`, a function of jaxprs.

    The function sees its own arguments, concrete ones too, so that whatever it does with them in
    Python it does as before. Outputs that are no arrays are returned as they are.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        results = []

        def arrays():
            leaves, tree = jax.tree.flatten(function(*args, **kwargs))
            results.append((leaves, tree))
            return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

        program = change(jax.make_jaxpr(arrays)())
        (leaves, tree) = results.pop()
        outputs = iter(jaxpr_as_fun(program)())
        leaves = [next(outputs) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        return jax.tree.unflatten(tree, leaves)

    return call

"""Reads pickles without running them: numbers, text, containers, and tensors by allowed names.

A pickle is a program that may call any function. Here its operations are followed by hand: those
that state dicts need, and no other. A name that is not allowed is refused when it is read, before
anything is made of it, and nothing is ever imported, called or built but what `allowed` holds.
The operations are those of https://docs.python.org/3/library/pickletools.html.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

_VALUES = {
    *("BINFLOAT", "BININT", "BININT1", "BININT2", "FLOAT", "INT", "LONG", "LONG1", "LONG4"),
    *("BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE"),
    *("BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING", "STRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bytes, type(None))  # a tuple can be made that takes years to hash
_MARK = object()


class Allowed(NamedTuple):
    """The meaning of an allowed name.

    Attributes:
      name: with its module's.
      make: called with the pickle's arguments; None where the name is a value, never called.
    """

    name: str
    make: Callable[..., Any] | None


class RefusedPickle(ValueError):  # noqa: N818
    """A pickle that holds something else; the message says what, without its file."""


class Inert:
    """Stands for a value that nobody reads."""


def read_pickle(
    file: IO[bytes], allowed: Mapping[str, Callable[..., Any] | None], persistent: Callable
) -> Any:
    """Returns what the pickle at a file's position holds, and leaves the position behind it.

    Args:
      file: with `read` and `readline`.
      allowed: what names stand for, with their modules': functions of the pickle's arguments, or
        None for names that are values, which come back as `Allowed`.
      persistent: is given what stands for a thing that lies elsewhere in the file.

    Raises:
      RefusedPickle: another name or operation, or no whole pickle.
    """
    machine = _Machine(allowed, persistent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in damaged text
            for operation, argument, _ in pickletools.genops(file):
                machine.follow(operation.name, argument)
        return machine.result()
    except RefusedPickle:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        why = " ".join(str(error).split())[:80]
        raise RefusedPickle(f"its pickle is damaged ({why})") from None
    except (AssertionError, RecursionError, MemoryError) as error:
        raise RefusedPickle(f"its pickle is damaged ({type(error).__name__})") from None


class _Machine:
    """A stack and a memo, as every reader of pickles has them."""

    def __init__(self, allowed: Mapping[str, Callable[..., Any] | None], persistent: Callable):
        self._allowed, self._persistent = allowed, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """Returns what is left when the program ends."""
        (found,) = self._stack
        return found

    def follow(self, name: str, argument: Any) -> None:
        """Follows one operation."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            self._stack.append(_CONTAINERS[name]())
        elif name in _TUPLES:
            self._stack.append(tuple(self._pop(_TUPLES[name])))
        elif name not in ("PROTO", "FRAME", "STOP"):
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise RefusedPickle(f"its pickle has the operation {name}, which no tensor needs")
            step(argument)

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise ValueError("it takes more than it has")
        found = self._stack[-count:]
        del self._stack[-count:]
        if any(item is _MARK for item in found):
            raise ValueError("a mark is out of place")
        return found

    def _since_mark(self) -> list[Any]:
        found: list[Any] = []
        while (item := self._stack.pop()) is not _MARK:
            found.append(item)
        return found[::-1]

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        self._extend(self._pop(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        self._stack[-1].extend(items)

    def _setitem(self, _: Any) -> None:
        self._set(self._pop(2))

    def _setitems(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or not all(isinstance(key, _KEYS) for key in items[::2]):
            raise ValueError("it has entries of what is no dict, or keys that are no text")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _additems(self, _: Any) -> None:
        items = self._since_mark()
        if type(self._stack[-1]) is not set or not all(isinstance(item, _KEYS) for item in items):
            raise ValueError("it adds to what is no set")
        self._stack[-1].update(items)

    def _binput(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    _put = _long_binput = _binput

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _binget(self, place: int) -> None:
        self._stack.append(self._memo[place])

    _get = _long_binget = _binget

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        self._name(*self._pop(2))

    def _name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise RefusedPickle(
                f"its pickle names {full}, which no plain tensor needs; nothing was run"
            )
        self._stack.append(Allowed(full, self._allowed[full]))

    def _binpersid(self, _: Any) -> None:
        self._stack.append(self._persistent(*self._pop(1)))

    def _reduce(self, _: Any) -> None:
        function, arguments = self._pop(2)
        if type(function) is not Allowed or function.make is None or type(arguments) is not tuple:
            raise RefusedPickle("its pickle calls what is no function of tensors; nothing was run")
        self._stack.append(function.make(*arguments))

    def _build(self, _: Any) -> None:
        target, _state = self._pop(2)
        if not isinstance(target, dict | Inert):  # attributes of dicts: versions of modules
            raise RefusedPickle("its pickle sets the state of what is no dict; nothing was run")
        self._stack.append(target)

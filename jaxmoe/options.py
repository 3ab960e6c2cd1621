"""Fields of configurations: a default, a line of help and the values that are accepted.

This module and those that only use it import no JAX, so that help answers at once.
"""

import dataclasses
from typing import Any


def option(default: Any, help: str, *, least: float | None = None, most: float | None = None):
    """Returns a dataclass field with a line of help.

    Args:
      default: its value where nobody gives one.
      help: what it is, with its unit; one line.
      least: the smallest number that is accepted, if any is too small.
      most: the largest.
    """
    metadata = {"help": help, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


def check_ranges(section: str, config: Any) -> None:
    """Refuses numbers of a configuration that are outside the range of their field.

    Raises:
      ValueError: one line with the field, its value and what is accepted.
    """
    for field in dataclasses.fields(config):
        least, most = field.metadata.get("least"), field.metadata.get("most")
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, int | float) or (least is None and most is None):
                continue
            low = float("-inf") if least is None else least
            high = float("inf") if most is None else most
            if not (low <= number <= high and abs(number) < float("inf")):
                raise ValueError(
                    f"{section}.{field.name}: {number} is not accepted; expected "
                    f"{_range(value, least, most)}"
                )


def _range(value: Any, least: float | None, most: float | None) -> str:
    if most is not None:
        return f"at most {most:g}" if least is None else f"from {least:g} to {most:g}"
    return "a finite number ≥ 0" if least == 0 else f"at least {least:g}"


def check_number(name: str, value: object) -> None:
    """Refuses text and collections where a number, or an array of them, is expected.

    Raises:
      ValueError: one line with the name and the value.
    """
    if isinstance(value, str | bytes):
        raise ValueError(f"{name}: {value!r} is text; expected a number, such as the float 8 / 255")
    if isinstance(value, list | tuple | set | dict):
        raise ValueError(f"{name}: {value!r} is not a number, such as 8/255, nor an array of them")

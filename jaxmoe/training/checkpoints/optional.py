"""States some of whose fields may be None: what is not kept is not written either.

Orbax would write None as a leaf of its own, which a state without the field does not have.
"""

import collections
from typing import Any


def without_none(state: Any) -> Any:
    """Returns a NamedTuple without the fields that are None; anything else as it is."""
    if not _has_none(state):
        return state
    kept = {name: value for name, value in state._asdict().items() if value is not None}
    return collections.namedtuple(type(state).__name__, kept)(**kept)


def with_none(like: Any, found: Any) -> Any:
    """Returns what was read as the type of `like`, with None where `like` has None."""
    return like._replace(**found._asdict()) if _has_none(like) else found


def _has_none(state: Any) -> bool:
    return hasattr(state, "_asdict") and any(value is None for value in state)

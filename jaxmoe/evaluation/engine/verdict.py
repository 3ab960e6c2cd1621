"""The verdict of all checks together, and how a caller in Python hears of it."""

import warnings
from collections.abc import Callable, Sequence

from jaxmoe.evaluation.engine.rows import Check


class EvaluationWarning(UserWarning):
    """Figures may not mean what they say; the message says why."""


def verdict_line(checks: Sequence[Check]) -> str:
    """Returns one sentence on masked gradients, and one for each flag of the model itself."""
    masking = [check for check in checks if check.kind == "masking"]
    flags = [check.name for check in masking if check.verdict == "flag"]
    ran = sum(check.verdict != "not run" for check in masking)
    checked = "1 check" if ran == 1 else f"{ran} checks"
    if not ran:
        line = "No check for masked gradients ran: nothing says that the attacks could see."
    elif flags:
        found = "A sign of masked gradients" if len(flags) == 1 else "Masked gradients are likely"
        line = (
            f"{found} ({len(flags)} of {ran} checks: {', '.join(flags)}): the robust accuracies "
            "above may be artefacts of attacks that could not see."
        )
    else:
        line = f"No sign of masked gradients in {checked}. That is no proof of robustness."
    return " ".join([line, *sentences_of_flags(checks, "model")])


def flags_in_short(checks: Sequence[Check]) -> str:
    """Returns the names of the flags, for a `repr`; how many checks ran where there are none."""
    flags = [check.name for check in checks if check.verdict == "flag"]
    if flags:
        return f"flagged: {', '.join(flags)}"
    ran = sum(check.verdict != "not run" for check in checks)
    return f"no flag in {'1 check' if ran == 1 else f'{ran} checks'}"


def sentences_of_flags(checks: Sequence[Check], kind: str) -> list[str]:
    """Returns what the flagged checks of a kind say."""
    return [check.sentence for check in checks if (check.kind, check.verdict) == (kind, "flag")]


def tell(lines: Sequence[str], say: Callable[[str], None] | None, depth: int = 3) -> None:
    """Gives each line to `say`, or warns with it where there is none.

    Args:
      lines: what to tell.
      say: takes a line.
      depth: of the call to name in a warning: 3 is the caller of the function that tells.
    """
    for line in lines:
        if say is None:
            warnings.warn(line, EvaluationWarning, stacklevel=depth)
        else:
            say(line)


def tell_of_model(checks: Sequence[Check], say: Callable[[str], None] | None) -> None:
    """Tells what is wrong with the model itself, as soon as it is known."""
    tell(sentences_of_flags(checks, "model"), say, depth=4)


def tell_of_masking(checks: Sequence[Check], say: Callable[[str], None] | None) -> None:
    """Tells of signs of masked gradients, if there are any."""
    masking = [check for check in checks if check.kind == "masking"]
    if sentences_of_flags(masking, "masking"):
        tell([verdict_line(masking)], say, depth=4)

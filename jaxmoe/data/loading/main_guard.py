"""Worker processes import the script that started them: what it runs has to stand under a guard."""

import ast
import pathlib
import sys
from types import FrameType


def check_main_guard(workers: int) -> None:
    """Refuses to start worker processes where each would run the user's script from its top.

    Args:
      workers: how many are to be started, for the error.

    Raises:
      ValueError: the script that runs now came here from outside `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if file is None or (spec is not None and spec.name.endswith("__main__")):
        return  # a prompt, a notebook or `python -m PACKAGE`: workers import no script
    line = _line_of(main.__dict__)
    if line is None or not pathlib.Path(file).is_file():
        return
    if not _is_guarded(pathlib.Path(file).read_bytes(), line):
        raise ValueError(
            f"data.workers: {workers} would each run {file} from its top; put what it runs under "
            'if __name__ == "__main__":, or take 0 workers'
        )


def _line_of(namespace: dict) -> int | None:
    """The line at which a module's own code stands now."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals is namespace and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return None


def _is_guarded(source: bytes, line: int) -> bool:
    """Returns whether a line of a module is in the body of a comparison of `__name__`."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):  # a script of another kind, such as a zipped one
        return True
    return any(
        isinstance(statement, ast.If)
        and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(statement.test))
        and statement.lineno <= line <= (statement.end_lineno or line)
        for statement in statements
    )

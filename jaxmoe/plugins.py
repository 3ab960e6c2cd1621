"""Files of one's own that add data sets, experts, routers, recipes, attacks or measures.

Such a file is Python that adds to registries, `EXPERTS.add` or `ATTACKS["name"] = …`. Commands take
it as `--plugin FILE.py`; a run records those that it was trained with and reads them again.
"""

import importlib.util
import pathlib
import sys
from collections.abc import Iterable

_PREFIX = "jaxmoe_plugin_"
_loaded: dict[str, str] = {}  # from the absolute path to the module's name


def load_plugins(files: Iterable[str]) -> None:
    """Runs python files, each once in a process.

    Raises:
      FileNotFoundError: a file that is not there.
      ValueError: one that raises, or is no python file.
    """
    for file in files:
        path = pathlib.Path(file).expanduser().resolve()
        if str(path) not in _loaded:
            _load(file, path)


def loaded() -> tuple[str, ...]:
    """Returns the absolute paths of the files that were run, in order."""
    return tuple(_loaded)


def load_recorded(files: Iterable[str]) -> None:
    """Runs the plugins that a run was trained with, but for those that are loaded from elsewhere.

    Raises:
      FileNotFoundError, ValueError: as `load_plugins`; the line says how to name where it is now.
    """
    for file in files:
        name = pathlib.Path(file).name
        if name in {pathlib.Path(path).name for path in _loaded}:
            continue
        if not pathlib.Path(file).is_file():
            raise FileNotFoundError(
                f"run.plugins: {file} is not there, and the run needs it; --plugin {name} says "
                "where it is now"
            )
        load_plugins([file])


def _load(file: str, path: pathlib.Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"--plugin: no such file: {file}; expected a python file that adds to registries"
        )
    if path.suffix != ".py":
        raise ValueError(f"--plugin: {file} is no python file; expected FILE.py")
    name = f"{_PREFIX}{len(_loaded)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"--plugin: {file} raised {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = keep
    _loaded[str(path)] = name

"""Files of one's own that add data sets, experts, routers, recipes, attacks or measures.

Such a file is Python that adds to registries, `EXPERTS.add` or `ATTACKS["name"] = …`. Commands take
it as `--plugin FILE.py`; a run records those that it was trained with and reads them again.
"""

import hashlib
import importlib.util
import pathlib
import sys
from collections.abc import Iterable

PREFIX = "jaxmoe_plugin_"  # of the names of their modules
_loaded: dict[str, str] = {}  # from the absolute path to the digest of what was read


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


def digests() -> tuple[str, ...]:
    """Returns the digests of what was read of these files, in order."""
    return tuple(_loaded.values())


def load_recorded(files: Iterable[str]) -> None:
    """Runs the plugins that a run was trained with.

    A file of the same name that is loaded already stands for one that is not where it was, or that
    has the same content.

    Raises:
      FileNotFoundError, ValueError: as `load_plugins`; the line says how to name where it is now.
      ValueError: another file of that name is loaded.
    """
    for file in files:
        path = pathlib.Path(file)
        same = [known for known in _loaded if pathlib.Path(known).name == path.name]
        if str(path) in _loaded or (same and not path.is_file()):
            continue
        if not path.is_file():
            raise FileNotFoundError(
                f"run.plugins: {file} is not there, and the run needs it; --plugin {path.name} "
                "says where it is now"
            )
        if not same:
            load_plugins([file])
        elif _digest(path) != _loaded[same[0]]:
            raise ValueError(
                f"run.plugins: {file} is another file than {same[0]}, which is loaded; expected "
                "one plugin of that name"
            )


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load(file: str, path: pathlib.Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"--plugin: no such file: {file}; expected a python file that adds to registries"
        )
    if path.suffix != ".py":
        raise ValueError(f"--plugin: {file} is no python file; expected FILE.py")
    digest = _digest(path)
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"--plugin: {file} raised {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = keep
    _loaded[str(path)] = digest

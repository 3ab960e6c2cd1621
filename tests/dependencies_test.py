"""What the package imports is declared: nothing that happens to be installed is relied on."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

import jaxmoe

_PACKAGE = pathlib.Path(jaxmoe.__file__).parent
# Compared with where someone has it; asked for by name, and refused in a line without it.
_OPTIONAL = {"torch", "wandb"}


def imported() -> set[str]:
    modules: set[str] = set()
    for file in _PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module)
    return {module.partition(".")[0] for module in modules}


def test_every_import_is_of_a_declared_dependency():
    project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())[
        "project"
    ]
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}
    distributions = importlib.metadata.packages_distributions()
    foreign = imported() - set(sys.stdlib_module_names) - _OPTIONAL - {"jaxmoe"}
    missing = {
        module
        for module in foreign
        if not declared & {name.lower() for name in distributions.get(module, [])}
    }
    assert foreign >= {"PIL", "jax", "tensorflow_datasets"}
    assert missing == set()

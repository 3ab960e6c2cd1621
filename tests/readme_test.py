"""The guides: their Python examples run as a reader would paste them, and their links lead on."""

import itertools
import pathlib
import re
import shlex

import jax
import pytest

from jaxmoe.attacks import canonical_name
from jaxmoe.cli import _take_plugins, module_of
from jaxmoe.commands.arguments import Parser, load_config
from jaxmoe.config import validate
from jaxmoe.overrides import apply_overrides
from jaxmoe.threat import ThreatModel
from jaxmoe.training import RecipeOptions
from tests.registries import restored
from tests.training.conftest import tiny_mixture

ROOT = pathlib.Path(__file__).parent.parent
ROOMS = ("configs", "jaxmoe", "launch")
GUIDES = [
    ROOT / "README.md",
    *(g for room in ROOMS for g in sorted((ROOT / room).rglob("README.md"))),
]
WITH_EXAMPLES = [guide for guide in GUIDES if "```python" in guide.read_text("utf-8")]

LONG = (".", "jaxmoe/attacks")  # by day the first of their examples, at night all


def name_of(guide: pathlib.Path) -> str:
    return str(guide.parent.relative_to(ROOT))


def run_examples(guide: pathlib.Path, most: int | None = None) -> dict:
    """Returns the names that a guide's examples leave, run in order; `most` are run."""
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    names: dict = {}
    # Examples add their own attack and recipe; Optax's Adam promotes an integer count.
    with restored(), jax.numpy_dtype_promotion("standard"):
        for block in blocks[:most]:
            exec(compile(block, str(guide), "exec"), names)
    return names


# Their params are drawn at random: they guess, and are told so.
@pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")
@pytest.mark.parametrize("guide", WITH_EXAMPLES, ids=name_of)
def test_the_examples_run(guide):
    check(run_examples(guide, 1 if name_of(guide) in LONG else None))


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")
@pytest.mark.parametrize("name", LONG)
def test_all_examples_of_a_long_guide_run(name):
    check(run_examples(ROOT / name / "README.md"))


def check(names: dict) -> None:
    if "accuracy" in names:
        assert 0 <= float(names["accuracy"]) <= 1
        threat = ThreatModel("linf", 8 / 255)
        clips = names["clips"] if "clips" in names else names["x"]
        assert float(threat.size(names["result"].x_adv, clips).max()) <= 8 / 255 + 1e-6


def test_the_new_recipe_moves_experts_alone():
    names = run_examples(ROOT / "jaxmoe" / "training" / "README.md")
    (phase,) = names["experts_only"](tiny_mixture(), ThreatModel("linf", 8 / 255), RecipeOptions())
    assert phase.moves == {"experts"}


def commands_of(guide: pathlib.Path) -> list[list[str]]:
    """Returns the commands of a guide's shell blocks, as lists of words."""
    blocks = re.findall(r"```sh\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def attacks_in(arguments: list[str]) -> list[str]:
    """Returns the names behind `--attacks`."""
    if "--attacks" not in arguments:
        return []
    behind = arguments[arguments.index("--attacks") + 1 :]
    return list(itertools.takewhile(lambda word: not word.startswith("--"), behind))


class ParsedError(Exception):
    """A command read its arguments: it would now begin."""


@pytest.mark.parametrize("guide", GUIDES, ids=name_of)
def test_commands_are_ones_that_are_accepted(guide, monkeypatch):
    parse = Parser.parse

    def parse_and_stop(parser, arguments):
        parse(parser, arguments)
        raise ParsedError

    monkeypatch.setattr(Parser, "parse", parse_and_stop)
    monkeypatch.chdir(ROOT)
    with restored():
        if "--plugin mine.py" in guide.read_text("utf-8"):
            exec(plugin_of(guide), {})
        check_commands(guide)


def plugin_of(guide: pathlib.Path) -> str:
    """Returns the plugin that a guide shows."""
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    (plugin,) = [block for block in blocks if block.startswith('"""mine.py"""')]
    return plugin


def check_commands(guide: pathlib.Path) -> None:
    for words in commands_of(guide):
        if (command := passed_on(words)) is not None:
            check_command(command)


def passed_on(words: list[str]) -> list[str] | None:
    """Returns the jaxmoe command that a shell command runs; None of one that runs none."""
    match words:
        case ["jaxmoe", *_]:
            return words
        case ["python", "launch/local.py", *rest]:
            return ["jaxmoe", *rest[rest.index("--") + 1 :]]
        case ["python", first, *_]:
            assert first == "-m" or (ROOT / first).is_file(), words
        case ["sbatch", *rest]:
            return ["jaxmoe", *rest[rest.index("launch/slurm.sbatch") + 1 :]]
        case ["bash", "launch/tpu_pod.sh", *rest]:
            _, _, *command = [word for word in rest if word != "--dry-run"]
            return None if command == ["--stop"] else ["jaxmoe", *command]
        case ["docker", "build", "-f", file, *_] | ["kubectl", "apply", "-f", file]:
            assert (ROOT / file).is_file(), words
        case _:
            assert words[0] in ("gcloud", "kubectl", "scancel"), words
    return None


def check_command(words: list[str]) -> None:
    """Checks that a jaxmoe command would begin; its config is looked for from here."""
    command, name, *arguments = words
    assert command == "jaxmoe"
    arguments, _ = _take_plugins(arguments)
    if name in ("train", "data"):
        validate(apply_overrides(load_config(arguments[0]), arguments[1:]))
        return
    with pytest.raises(ParsedError):
        module_of(name).run(arguments)
    for attack in attacks_in(arguments):
        assert attack in ("universal", "universal-class") or canonical_name(attack)


@pytest.mark.parametrize("guide", GUIDES, ids=name_of)
def test_links_lead_to_files_that_are_there(guide):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", guide.read_text("utf-8"))
    for link in links:
        assert (guide.parent / link).exists(), link


def test_the_readme_can_be_read_at_once_and_leads_to_every_guide():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 250
    for guide in GUIDES[1:]:
        room = guide.parent.relative_to(ROOT)
        if room.parts[0] == "launch" and len(room.parts) > 1:
            text_of_launch = (ROOT / "launch" / "README.md").read_text("utf-8") + (
                ROOT / "launch" / "studies" / "README.md"
            ).read_text("utf-8")
            assert f"({'/'.join(room.parts[-1:])}/README.md)" in text_of_launch, room
        else:
            assert f"({room}/README.md)" in text, room

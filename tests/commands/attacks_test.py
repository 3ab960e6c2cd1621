"""`jaxmoe attacks`: the list is whole, and its filters leave what fits."""

import pytest

from jaxmoe.attacks import ATTACKS, CASCADES
from jaxmoe.cli import main
from jaxmoe.commands.attacks import listed


def names(lines: list[str]) -> set[str]:
    return {line.split()[0] for line in lines if line.startswith("  ")}


def test_every_attack_is_listed_once_with_what_it_maximises():
    lines = [line for line in listed() if line.startswith("  ")]
    assert len(lines) == len(ATTACKS) + len(CASCADES)
    assert names(lines) == {*ATTACKS, *CASCADES}
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    assert max(map(len, lines)) <= 80


def test_filters_leave_what_fits():
    assert names(listed("router")) == {"pgd-r", "tla-r", "tlga-r", "pgd-r-t"}
    assert names(listed("router", "image")) == {"pgd-r", "pgd-r-t"}
    dense = names(listed(None, "segmentation"))
    assert "pgd" in dense
    assert not dense & {"fab", "square", "tla-m", "auto-attack"}


def test_the_command_prints_it(capsys):
    assert main(["attacks", "--part", "experts"]) == 0
    assert "on the experts\n  pgd-e " in capsys.readouterr().out
    assert main(["attacks", "--part", "gate"]) == 2
    assert "gate" in capsys.readouterr().err
    assert main(["help"]) == 0
    assert "attacks" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*ATTACKS, *CASCADES])
def test_the_guide_has_it(name):
    import pathlib

    import jaxmoe.attacks

    guide = pathlib.Path(jaxmoe.attacks.__file__).with_name("README.md").read_text("utf-8")
    assert f"`{name}`" in guide

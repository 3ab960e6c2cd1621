"""`jaxmoe import FILE … [CONFIG.py]`: a run whose experts have weights of PyTorch."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from jaxmoe.commands.arguments import Parser, load_config, number, split_overrides

if TYPE_CHECKING:
    from jaxmoe.config import Experiment, ExpertConfig
    from jaxmoe.runs.imported import Imported

_DESCRIPTION = """Reads weights of PyTorch and makes a run of a mixture whose experts have them. It
can be evaluated, and training can start from it. FILE is a state dict, of torch.save or
.safetensors. torch is not needed, and nothing in FILE is run. The expert is the network that FILE
has, so that its fields need not be given. The router is drawn anew, and so is a head of other
classes than the data's.

One FILE fills all experts, each times noise of its own (--noise). Several are one for each expert.
CONFIG.py says what the data and the mixture are. Every field of it can be replaced, as with jaxmoe
train:

  jaxmoe import r3d_18.pth configs/video/ut_interaction_j_tlat.py --data.directory DIR \\
      --run.directory runs/r3d
  jaxmoe import resnet18.safetensors --data image_folder --data.directory DIR --mixture.experts 1 \\
      --run.directory runs/resnet18"""


def run(arguments: list[str]) -> None:
    """Imports the weights.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
    """
    parser = _parser()
    own, overrides = split_overrides(parser, arguments)
    options = parser.parse(own)
    files, config = _apart(options.given)

    from jaxmoe.config import Experiment
    from jaxmoe.plugins import load_plugins

    base = load_config(config) if config else Experiment()
    load_plugins(base.run.plugins or ())
    if not any(
        argument.startswith(("--run.directory", "--run-directory")) for argument in overrides
    ):
        raise ValueError(
            "--run.directory: missing; expected the folder that the run is written into"
        )

    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.imported import import_weights

    with make_progress() as progress:
        imported = import_weights(
            files,
            lambda expert: _configured(base, expert, overrides),
            layout=options.layout,
            noise=options.noise,
            new_head=options.new_head,
            data_progress=progress.data,
        )
    _print(imported, files)


def _parser() -> Parser:
    parser = Parser("import", _DESCRIPTION, usage="jaxmoe import FILE … [CONFIG.py] …")
    add = parser.add_argument
    add("given", nargs="*", metavar="FILE", help="state dicts, and a CONFIG.py")
    add("--layout", metavar="NAME", help="whose names FILE has, where that cannot be told from it")
    add(
        "--noise",
        type=number,
        metavar="X",
        help="relative size of the noise of experts from one FILE, drawn from run.seed (0.01)",
    )
    add("--new-head", action="store_true", help="draw the head anew, whatever its classes are")
    return parser


def _apart(given: list[str]) -> tuple[list[pathlib.Path], str | None]:
    """Returns the weights, and the config if there is one."""
    configs = [name for name in given if name.endswith(".py")]
    files = [pathlib.Path(name) for name in given if name not in configs]
    if not files:
        raise ValueError("import: FILE is missing; see jaxmoe import --help")
    if len(configs) > 1:
        raise ValueError(f"CONFIG: {' '.join(configs)} is not accepted; expected one")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"FILE: no such file: {file}; expected a state dict of PyTorch")
    return files, configs[0] if configs else None


def _configured(base: "Experiment", expert: "ExpertConfig", overrides: list[str]) -> Any:
    """The experiment with the expert of the files, and the fields that were given."""
    from jaxmoe.overrides import apply_overrides

    kept = {name: getattr(base.expert, name, None) for name in ("dtype", "remat")}
    kept = {name: value for name, value in kept.items() if value is not None}
    return apply_overrides(
        dataclasses.replace(base, expert=dataclasses.replace(expert, **kept)), overrides
    )


def _print(imported: "Imported", files: list[pathlib.Path]) -> None:
    e = imported.experiment
    experts = e.mixture.experts
    source = "each with a file of its own" if len(files) > 1 else "with the same weights"
    if imported.noise:
        source = (
            f"each with the file's weights × (1 + {imported.noise:g} · 𝒩(0, 1)), seed {e.run.seed}"
        )
    head = f"head of {imported.classes} classes, as in the file; their order is not checked"
    anew = ["router"] if experts > 1 else []  # one expert has every example
    if imported.anew:
        anew += [f"head of {imported.classes} classes, {imported.of_files} in the file"]
    lines = {
        "read": ", ".join(map(str, files)),
        "layout": f"{imported.layout.name}, {imported.layout.title}",
        "expert": f"{e.expert.name}, {imported.params:,} params",
        "mixture": f"{experts} experts, {source}" if experts > 1 else "one expert",
        **({"drawn anew": "; ".join(anew)} if anew else {}),
        **({} if imported.anew else {"head": head}),
        **({"left out": _left_out(imported.left_out)} if imported.left_out else {}),
        "normalized": f"pixels by mean {_shown(e.expert.mean)}, std {_shown(e.expert.std)}; "
        "--expert.mean and --expert.std replace them",
        "written": str(imported.run),
    }
    width = max(map(len, lines))
    print("\n".join(f"{name:<{width}}  {text}" for name, text in lines.items()))
    options = f"--training.initialize-from {imported.run} {' '.join(expert_options(e.expert))}"
    print(f"\nnext: jaxmoe evaluate {imported.run}, or train from it on the same data:")
    print(f"  jaxmoe train CONFIG.py {options}")


def expert_options(expert: "ExpertConfig") -> list[str]:
    """Returns the options that make a configuration's expert this one."""
    found = [f"--expert {expert.name}"]
    for field in dataclasses.fields(expert):
        value = getattr(expert, field.name)
        if value != field.default:
            shown = _shown(value) if isinstance(value, tuple) else str(value).lower()
            found.append(f"--expert.{field.name.replace('_', '-')} {shown}")
    return found


def _shown(values: tuple) -> str:
    return " ".join(repr(value) for value in values)


def _left_out(names: tuple[str, ...]) -> str:
    heads = sorted({name.partition(".")[0] for name in names})
    return f"{len(names)} tensors of {', '.join(heads)}"

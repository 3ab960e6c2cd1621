"""`jaxmoe plan`: what a config takes on devices that are not here: memory, collectives, time."""

import argparse
import os
import pathlib

from jaxmoe.commands.arguments import Parser, load_config, split_overrides

_DESCRIPTION = """Says what a config takes on accelerators that are not here: params, memory of a
device, the largest batch that fits, FLOPs, collectives, time of a step, epochs in an hour. No data
is read and nothing is run. With libtpu (python -m pip install 'jaxmoe[plan]') the program is
compiled for the TPU slice on this machine, whatever it is; a large one takes minutes.

  jaxmoe plan configs/video/ucf101_j_tlat.py --devices v5e-16
  jaxmoe plan configs/video/ucf101_j_tlat.py --devices h100-8 --training.batch-size 64

Every field of the config can be replaced, as with jaxmoe train."""


def run(arguments: list[str]) -> None:
    """Prints the plan.

    Raises:
      ValueError, FileNotFoundError: bad input, one line.
    """
    parser = _parser()
    own, overrides = split_overrides(parser, arguments)
    options = parser.parse(own)
    for name, value in {"CONFIG.py": options.config, "--devices": options.devices}.items():
        if value is None:
            raise ValueError(f"plan: {name} is missing; see jaxmoe plan --help")
    # Nothing here runs on an accelerator, and a TPU that is not there would be waited for.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from jaxmoe.commands.without_data import classes_of, with_directory
    from jaxmoe.config import validate
    from jaxmoe.overrides import apply_overrides
    from jaxmoe.parallel.hardware import find_hardware
    from jaxmoe.plugins import load_plugins

    hardware = find_hardware(options.devices)
    experiment = apply_overrides(load_config(options.config), overrides)
    load_plugins(experiment.run.plugins or ())
    experiment = validate(with_directory(experiment))
    _check(options)
    classes = classes_of(options.classes, experiment)

    from jaxmoe.commands.plan_report import print_plan
    from jaxmoe.files import write_json
    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs.plan.cost import Assumptions
    from jaxmoe.runs.plan.plan import make_plan

    compiles = 0 if options.no_compile or hardware.topology is None else options.compiles
    with make_progress() as progress:
        plan = make_plan(
            experiment,
            hardware,
            classes,
            kind=options.program,
            examples=options.examples or experiment.data.expected_train,
            compiles=compiles,
            level=options.optimization_level,
            assumptions=Assumptions(options.utilization, options.link_share),
            say=progress.say,
        )
    if options.output is not None:
        write_json(options.output, plan.to_json())
    print_plan(plan)


def _parser() -> Parser:
    parser = Parser("plan", _DESCRIPTION, usage="jaxmoe plan CONFIG.py --devices NAME …")
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG.py", help="a python file with config()")
    add(
        "--devices",
        metavar="NAME",
        help="kind and number: v5e-16, v6e-8, v5p-128 (TensorCores: 64 chips), h100-8, h200-8, "
        "a100-8",
    )
    add("--program", choices=("step", "attack"), default="step", help="a training step, or PGD")
    add("--no-compile", action="store_true", help="predict alone, which takes seconds")
    add(
        "--compiles",
        type=int,
        default=1,
        choices=(1, 2),
        help="2 also compiles half the batch, for the largest one that fits",
    )
    add(
        "--optimization-level",
        choices=("default", "O0", "O1", "O2", "O3"),
        default="O0",
        help="XLA's effort: O0, which compiles quickest, or training's default, and so on (O0)",
    )
    add("--classes", type=int, metavar="K", help="of data whose classes only its files tell")
    add("--examples", type=int, metavar="N", help="how many there are to train on")
    add("--utilization", type=float, default=0.3, help="assumed share of the peak FLOP/s")
    add("--link-share", type=float, default=0.5, help="assumed share of the links' bandwidth")
    add("--output", metavar="FILE.json", help="where the plan is written, as JSON")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name in ("classes", "examples"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name}: {value} is not accepted; expected at least 1")
    for name in ("utilization", "link_share"):
        value = getattr(options, name)
        if not 0 < value <= 1:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option}: {value:g} is not accepted; expected above 0, at most 1")
    if options.output is not None and not pathlib.Path(options.output).parent.is_dir():
        raise FileNotFoundError(
            f"--output: no such folder: {pathlib.Path(options.output).parent}; make it first"
        )

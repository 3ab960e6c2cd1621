"""`make_plan`: what a configuration takes on devices that are not here."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxmoe.config import Experiment
from jaxmoe.parallel.hardware import Hardware
from jaxmoe.runs.plan.compiled import QUICKEST, Compiled, Memory, compile_program
from jaxmoe.runs.plan.cost import Assumptions, Time, efficiencies, time_of
from jaxmoe.runs.plan.count import Counted, count, forward_flops, peak_bytes
from jaxmoe.runs.plan.program import Kind, Placing, Program, bytes_of, optimizer_of

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Numbers of params, whole, and bytes of the state.

    Attributes:
      router, expert, experts, whole: params of the router, one expert, all of them, everything.
      params_bytes, optimizer_bytes: of the whole state.
      device_params_bytes, device_optimizer_bytes: of one device's part of it.
    """

    router: int
    expert: int
    experts: int
    whole: int
    params_bytes: int
    optimizer_bytes: int
    device_params_bytes: int
    device_optimizer_bytes: int


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of convolutions and matmuls; a multiply-add is two.

    Attributes:
      router, expert: of one forward pass on one example.
      device: of one run of the program on one device.
      by_precision: the same by what they are computed in.
    """

    router: int
    expert: int
    device: int
    by_precision: dict[str, int]


@dataclasses.dataclass(frozen=True)
class LargestBatch:
    """The most examples of one device that fit into its memory, and what says so."""

    examples: int
    by: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration takes on given devices.

    Attributes:
      program: `step` or `attack`.
      phases: of the step, or the attack.
      attack_steps: of an attack in it.
      hardware: the devices.
      devices: how many of them, as JAX counts them.
      expert, fsdp: how the state is split over them.
      batch: examples of one device.
      sizes, flops: what they say.
      predicted_memory: by the cost model.
      compiled: what was compiled; None where nothing was.
      hbm: bytes of a device's memory.
      fits: whether one device holds it, by the compiled program, or else by the model.
      largest: the largest batch of a device; None where not even the state fits.
      collectives: bytes of whole arrays by the model, by (kind, whether in a loop).
      time: of one run, predicted.
      efficiency: share of one device's speed, by number of devices.
      examples: training examples; None where nobody knows.
      epochs_per_hour: predicted; None for an attack, and without `examples`.
      assumptions: of the prediction.
      notes: what to know beside it.
    """

    program: Kind
    phases: tuple[str, ...]
    attack_steps: int
    hardware: Hardware
    devices: int
    expert: int
    fsdp: bool
    batch: int
    sizes: Sizes
    flops: Flops
    predicted_memory: Memory
    compiled: Compiled | None
    hbm: float
    fits: bool
    largest: LargestBatch | None
    collectives: dict[tuple[str, bool], int]
    time: Time
    efficiency: dict[int, float]
    examples: int | None
    epochs_per_hour: float | None
    assumptions: Assumptions
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON holds it; bytes and seconds throughout."""
        record = dataclasses.asdict(self)
        record["hardware"] = {**self.hardware._asdict(), "chip": self.hardware.chip._asdict()}
        record["collectives"] = [
            {"kind": kind, "in_loops": inside, "bytes": size}
            for (kind, inside), size in self.collectives.items()
        ]
        return record


def make_plan(
    experiment: Experiment,
    hardware: Hardware,
    classes: int,
    *,
    kind: Kind = "step",
    examples: int | None = None,
    compiles: int = 1,
    level: str = QUICKEST,
    assumptions: Assumptions = Assumptions(),  # noqa: B008  # frozen
    say: Say = lambda line: None,
) -> Plan:
    """Returns the plan of an experiment on some hardware; no data is read and nothing is run.

    Args:
      experiment: a valid one.
      hardware: the devices.
      classes: K.
      kind: a step of the recipe, or PGD as an evaluation runs it.
      examples: how many there are to train on.
      compiles: 0 predicts alone; 1 compiles the program, 2 also for half the batch.
      level: XLA's effort, of `compiled.LEVELS`.
      assumptions: of the predicted time.
      say: is told what goes on.

    Raises:
      ValueError: a batch or experts that do not split over the devices; one line.
    """
    placing = Placing(hardware.devices, experiment.parallel.expert, experiment.parallel.fsdp)
    program = Program(kind, experiment, classes, placing)
    batch = _batch_of(program)
    say("tracing")
    traced = program.trace(batch)
    counted, shapes = count(traced), (program.params, _example(program))
    flops = Flops(
        forward_flops(program.mixture.route, *shapes),
        forward_flops(lambda params, x: program.mixture.expert(params, x, 0), *shapes),
        counted.total,
        dict(counted.flops),
    )
    predicted = _predicted_memory(program, batch, peak_bytes(traced))
    found = []
    for size in (batch, batch // 2)[:compiles]:
        if size:
            say(f"compiling, {size} examples on each device")
            found.append(compile_program(program, hardware, size, level))
    largest = _largest(program, hardware.chip.memory, batch, predicted, found)
    time = time_of(counted, hardware.chip, placing.devices, placing.expert, assumptions)
    memory = found[0].memory if found else predicted
    per_hour = None
    if kind == "step" and examples:
        per_hour = 3600 / (time.step * examples / (batch * placing.devices))
    return Plan(
        kind,
        program.phases,
        program.steps,
        hardware,
        placing.devices,
        placing.expert,
        placing.fsdp,
        batch,
        _sizes(program),
        flops,
        predicted,
        found[0] if found else None,
        hardware.chip.memory,
        memory is not None and memory.total <= hardware.chip.memory,
        largest,
        dict(counted.collectives),
        time,
        efficiencies(counted, hardware.chip, placing.expert, assumptions),
        examples,
        per_hour,
        assumptions,
        tuple(_notes(program, counted)),
    )


def _batch_of(program: Program) -> int:
    """Returns B; the configuration's batch has to split over the devices, as training asks."""
    placing, training = program.placing, program.experiment.training
    if placing.devices % placing.expert:
        raise ValueError(
            f"parallel.expert: {placing.expert} does not divide the {placing.devices} devices of "
            "--devices"
        )
    if program.kind == "step" and training.batch_size % placing.devices:
        raise ValueError(
            f"training.batch_size: {training.batch_size} does not split over {placing.devices} "
            f"devices; expected a multiple, such as --training.batch-size {8 * placing.devices}"
        )
    return max(program.default_batch, 1)  # an evaluation fills its batch up


def _example(program: Program) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *program.experiment.data.shape), "float32")


def _sizes(program: Program) -> Sizes:
    def number(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    params, state = program.params, program.state
    share = program.placing.share
    experts = number(params["experts"])
    return Sizes(
        number(params["router"]),
        experts // program.experiment.mixture.experts,
        experts,
        number(params),
        bytes_of(params),
        bytes_of(optimizer_of(state)),
        bytes_of(share(params)),
        bytes_of(share(optimizer_of(state))),
    )


def _predicted_memory(program: Program, batch: int, peak: int) -> Memory:
    """Returns the model's estimate; a training state takes the place of the old one."""
    state, examples = bytes_of(program.placing.share(program.state)), program.batch(batch)
    arguments = state + bytes_of(examples)
    pixels = 4 * examples.clip.size  # of the attack's result
    output = state if program.kind == "step" else pixels
    alone = 0 if program.kind == "step" else output
    return Memory(arguments, peak, output, arguments + peak + alone)


def _largest(
    program: Program, hbm: float, batch: int, predicted: Memory, found: list[Compiled]
) -> LargestBatch | None:
    """Returns the largest batch by a straight line through what is held at two batches."""
    state = bytes_of(program.placing.share(program.state))
    measured = [(c.batch, c.memory.total) for c in found if c.memory is not None]
    if len(measured) == 2:
        (high, most), (low, least) = measured
        slope = (most - least) / (high - low)
        fixed, by = most - slope * high, f"a line through {low} and {high} examples, both compiled"
    elif measured:
        # Some of what is held does not grow: the true batch is this or larger.
        slope, fixed = (measured[0][1] - state) / batch, state
        by = f"{batch} examples, compiled; all beside the state taken to grow with the batch"
    else:
        slope, fixed = (predicted.total - state) / batch, state
        by = "the model; all beside the state taken to grow with the batch"
    most = int((hbm - fixed) // slope) if slope > 0 else batch
    return LargestBatch(most, by) if most > 0 else None


def _notes(program: Program, counted: Counted) -> list[str]:
    notes = []
    if program.kind == "step" and program.experiment.recipe.in_turn:
        notes.append(
            "recipe.order = epoch: training compiles one program for each phase; this is one of "
            "all phases together, which holds no less and takes as long"
        )
    if program.experiment.parallel.mapping == "pmap":
        notes.append("parallel.mapping = pmap: planned as mesh, whose results are the same")
    if counted.unknown_loops:
        notes.append(
            f"{counted.unknown_loops} loops run until something holds: counted once each, so FLOPs "
            "and times are too low"
        )
    return notes

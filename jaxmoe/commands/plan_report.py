"""A plan as tables in a terminal."""

from collections.abc import Iterable

from jaxmoe.commands.network_report import show_size
from jaxmoe.reporting.tables import print_table
from jaxmoe.runs.plan.compiled import Memory
from jaxmoe.runs.plan.plan import Plan

_SHOWN = (1, 8, 64, 256, 1024)  # of the numbers of devices


def print_plan(plan: Plan) -> None:
    """Prints a plan: what it is of, its tables, and every assumption."""
    what = ", ".join(plan.phases)
    program = f"a training step, phases {what}" if plan.program == "step" else "PGD, and a look"
    print(f"{plan.hardware.name}: {plan.hardware.sentence}")
    print(
        f"program: {program}; gradient steps of an attack: {plan.attack_steps}; {plan.batch} "
        f"examples on each device, {plan.batch * plan.devices} in all\n"
    )
    _print_sizes(plan)
    _print_memory(plan)
    _print_flops(plan)
    _print_collectives(plan)
    _print_time(plan)
    for line in (*_provenance(plan), *plan.notes):
        print(line)


def _print_sizes(plan: Plan) -> None:
    s = plan.sizes
    rows = [
        ["router", f"{s.router:,}"],
        ["one expert", f"{s.expert:,}"],
        ["all experts", f"{s.experts:,}"],
        ["whole", f"{s.whole:,}"],
    ]
    print_table("Params", ["of", "number"], rows)
    state = [
        ["params", show_size(s.params_bytes), show_size(s.device_params_bytes)],
        ["optimizer state", show_size(s.optimizer_bytes), show_size(s.device_optimizer_bytes)],
    ]
    print_table("State", ["of", "whole", "on a device"], state)


def _print_memory(plan: Plan) -> None:
    rows, found = [["cost model", *_memory(plan.predicted_memory)]], plan.compiled
    if found is not None and found.memory is not None:
        rows.insert(0, ["compiled", *_memory(found.memory)])
    titles = ["by", "arguments", "temporaries", "output", "total"]
    print_table("Memory of a device", titles, rows)
    if found is not None and found.refusal is not None:
        print(f"the compiler found no room: {found.refusal}")
    by = "compiled" if found is not None else "cost model"
    verdict = "fits" if plan.fits else "does not fit"
    print(f"{verdict} into {show_size(plan.hbm)} of a device ({by})")
    if plan.largest is None:
        print("largest batch of a device: none, the state alone is too large\n")
    else:
        print(f"largest batch of a device: about {plan.largest.examples} (by {plan.largest.by})\n")


def _print_flops(plan: Plan) -> None:
    f = plan.flops
    precisions = ", ".join(f"{n / f.device:.0%} {name}" for name, n in f.by_precision.items())
    rows = [
        ["router, forward, one example", f"{f.router / 1e9:.4g}"],
        ["one expert, forward, one example", f"{f.expert / 1e9:.4g}"],
        ["the program, one device", f"{f.device / 1e9:.5g}"],
        ["the program, all devices", f"{f.device * plan.devices / 1e9:.5g}"],
    ]
    print_table("GFLOPs of convolutions and matmuls", ["of", "GFLOPs"], rows)
    passes = f.device / (f.expert * plan.batch) if f.expert else 0.0
    print(f"an example costs {passes:.1f} forward passes of an expert; computed in: {precisions}\n")


def _print_collectives(plan: Plan) -> None:
    rows = [
        ["cost model", kind, _where(inside), "-", show_size(size)]
        for (kind, inside), size in plan.collectives.items()
    ]
    if plan.compiled is not None:
        rows += [
            ["compiled", c.kind, _where(c.in_loops), str(len(c.bytes)), show_size(sum(c.bytes))]
            for c in plan.compiled.collectives
        ]
    if not rows:
        print("collectives: none\n")
        return
    print_table("Collectives", ["by", "kind", "where", "count", "bytes"], rows)


def _print_time(plan: Plan) -> None:
    t = plan.time
    rows = [
        ["compute", f"{t.compute:.4g}"],
        ["memory of products", f"{t.memory:.4g}"],
        ["collectives", f"{t.communication:.4g}"],
        ["one run", f"{t.step:.4g}"],
    ]
    print_table("Predicted seconds, never measured", ["of", "seconds"], rows)
    shown = [n for n in plan.efficiency if n in _SHOWN or n == plan.devices]
    titles = ["devices", *map(str, shown)]
    shares = ["efficiency", *(f"{100 * plan.efficiency[n]:.1f} %" for n in shown)]
    print_table("Predicted scaling, the batch of a device the same", titles, [shares])
    if plan.epochs_per_hour is not None:
        print(f"predicted: {plan.epochs_per_hour:.3g} epochs an hour of {plan.examples:,} examples")
    elif plan.program == "step":
        print("epochs an hour: --examples N says how many there are to train on")


def _provenance(plan: Plan) -> Iterable[str]:
    found, chip, a = plan.compiled, plan.hardware.chip, plan.assumptions
    if found is None:
        yield (
            "nothing was compiled: every figure is the cost model's; its memory is an estimate "
            "from above, as a compiler keeps less at once"
        )
    else:
        yield (
            f"compiled for {found.target}: {found.seconds:.0f} s, {found.hlo_lines:,} lines of "
            f"HLO, {found.loops} loops, by XLA's optimization level {found.level} (training takes "
            "the default); times, FLOPs and scaling are predicted"
        )
        if "CPU" in found.target:
            yield (
                "libtpu is not installed: memory and collectives of `compiled` are of a CPU's "
                "program, the batch of a device the same; python -m pip install 'jaxmoe[plan]'"
            )
    used = {name: chip.flops[name] for name in plan.flops.by_precision}
    peaks = ", ".join(f"{flops / 1e12:.4g} in {name}" for name, flops in used.items())
    yield (
        f"assumed: {a.utilization:.0%} of a peak of TFLOP/s of {peaks}; HBM "
        f"{chip.bandwidth / 1e9:.4g} GB/s; links {chip.link / 1e9:.4g} GB/s a device, among "
        f"{chip.together} devices, beyond them {chip.network / 1e9:.4g} GB/s, {a.link_share:.0%} "
        "of both reached"
    )
    yield (
        "assumed: step = max(compute, memory) + collectives; products alone are counted, every "
        "block of dispatch is full, nothing overlaps, no latency, data arrives in time"
    )


def _memory(memory: Memory) -> list[str]:
    return [
        show_size(n) for n in (memory.arguments, memory.temporaries, memory.output, memory.total)
    ]


def _where(inside: bool) -> str:
    return "in loops" if inside else "outside"

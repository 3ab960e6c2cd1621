"""Collectives in the text of a compiled program, and TPU programs where libtpu is installed."""

import dataclasses

import jax
import pytest

from jaxmoe.config import JTLATConfig, ParallelConfig, ResNetConfig, StandardConfig, TrainingConfig
from jaxmoe.parallel.hardware import SLICES, find_hardware
from jaxmoe.runs.plan import compiled
from jaxmoe.runs.plan.compiled import (
    Collective,
    collectives_in,
    compile_program,
    has_libtpu,
    slice_devices,
)
from jaxmoe.runs.plan.program import Placing, Program
from tests.commands.tiny import TINY

_TEXT = """HloModule step, num_partitions=4

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: f32[8]) -> f32[8] {
  ROOT %sent = f32[8]{0:T(128)} all-to-all(%p), replica_groups={{0,1},{2,3}}
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %call = (s32[], f32[8]) call(%p), to_apply=%inner
}

%test (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8], y: bf16[4,2]) -> f32[8] {
  %reduced = (f32[8]{0:T(128)}, bf16[4,2]{1,0}) all-reduce(%x, %y), replica_groups=[1,4]<=[4]
  %flag = pred[] all-reduce(%f), to_apply=%add
  %loop = (s32[], f32[8]) while(%start), condition=%test, body=%body
  %part = f32[2]{0} reduce-scatter(%x), replica_groups=[1,4]<=[4], dimensions={0}, to_apply=%add
  %begun = (f32[2]{0}, f32[8]{0}) all-gather-start(%part), replica_groups=[1,4]<=[4]
  ROOT %whole = f32[8]{0} all-gather-done(%begun)
}
"""


def test_collectives_are_found_with_their_bytes_and_whether_a_loop_has_them():
    assert collectives_in(_TEXT) == (
        Collective("all-gather", False, (32,)),
        Collective("all-reduce", False, (48, 1)),
        Collective("all-to-all", True, (32,)),
        Collective("reduce-scatter", False, (32,)),
    )


def test_a_program_without_room_is_no_error(monkeypatch):
    class Lowered:
        def compile(self, options):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 18G of 15.75G hbm.")

    monkeypatch.setattr(compiled, "has_libtpu", lambda: False)
    monkeypatch.setattr(Program, "lower", lambda *_: Lowered())
    found = compile_program(Program("step", TINY, 10, Placing(8)), find_hardware("v5e-8"), 1)
    assert found.memory is None
    assert found.refusal == "RESOURCE_EXHAUSTED: Used 18G of 15.75G hbm."


needs_libtpu = pytest.mark.skipif(
    not has_libtpu(), reason="no libtpu, which compiles for TPUs: pip install 'jaxmoe[plan]'"
)


@needs_libtpu
@pytest.mark.parametrize("kind", SLICES)
def test_libtpu_knows_every_slice(kind):
    for number in SLICES[kind]:
        hardware = find_hardware(f"{kind}-{number}")
        if hardware.devices <= 256:
            assert len(slice_devices(hardware)) == hardware.devices


@needs_libtpu
@pytest.mark.nightly
def test_attack_loops_of_j_tlat_on_a_slice_are_free_of_collectives():
    experiment = dataclasses.replace(TINY, recipe=JTLATConfig(), training=TrainingConfig())
    hardware = find_hardware("v5e-8")
    found = compile_program(Program("step", experiment, 10, Placing(8)), hardware, 1)
    assert found.loops >= 3
    assert not [c for c in found.collectives if c.in_loops]
    (reduced,) = found.collectives
    assert reduced.kind == "all-reduce"
    # Router's gradient, experts', and both; beside them flags of idle experts and metrics.
    assert len([size for size in reduced.bytes if size > 500]) == 3


@needs_libtpu
@pytest.mark.nightly
def test_with_fsdp_a_device_of_a_slice_holds_its_share_of_the_state():
    experiment = dataclasses.replace(
        TINY,
        # Wide enough that shares are no smaller than what a TPU rounds arrays up to.
        expert=ResNetConfig(width=128, stage_sizes=(1,)),
        recipe=StandardConfig(),
        parallel=ParallelConfig(fsdp=True),
        training=TrainingConfig(),
    )

    def arguments(devices):
        program = Program("step", experiment, 10, Placing(devices, fsdp=True))
        return compile_program(program, find_hardware(f"v5e-{devices}"), 1).memory.arguments

    assert arguments(4) / arguments(16) == pytest.approx(4, rel=0.15)

"""Processes that do not come, do not agree, or were told half: one line each."""

import socket
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import (
    DeepLabConfig,
    Experiment,
    MixtureConfig,
    ParallelConfig,
    SimpleGateConfig,
    SyntheticScenesConfig,
    validate,
)
from jaxmoe.parallel import hosts, make_parallel
from jaxmoe.parallel.axes import mean_over
from jaxmoe.parallel.rendezvous import meet


def free_address():
    with socket.create_server(("localhost", 0)) as server:
        return f"localhost:{server.getsockname()[1]}"


def together(count, numbers, seconds):
    """What each of the processes that come is told."""
    address, said = free_address(), {}

    def come(number):
        try:
            meet(address, count, number, seconds)
            said[number] = ""
        except (OSError, ValueError) as error:
            said[number] = str(error)

    threads = [threading.Thread(target=come, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_all_meet_and_the_port_is_free_again():
    assert together(4, range(4), 20.0) == dict.fromkeys(range(4), "")
    assert together(1, [0], 0.1) == {0: ""}


def test_who_does_not_come_is_named_by_all_who_did():
    said = together(4, [0, 2], 0.5)
    assert set(said) == {0, 2}
    for line in said.values():
        assert line.startswith("processes 1, 3 of 4 did not come within 0.5 s")


def test_without_process_0_its_address_is_named():
    said = together(2, [1], 0.5)
    assert "process 1 cannot reach process 0 at localhost:" in said[1]


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, False),  # salloc, without srun
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a"}, False),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "0",
            },
            True,
        ),
    ],
)
def test_the_environment_says_whether_there_are_others(variables, several):
    assert hosts.expected(variables) == several


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "expected JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID too"),
        ({"SLURM_STEP_NUM_TASKS": "two"}, "SLURM_STEP_NUM_TASKS: 'two'; expected a number"),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "2",
            },
            "JAX_PROCESS_ID: 2; expected 0 to 1, of 2",
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "nowhere",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "1",
            },
            "JAX_COORDINATOR_ADDRESS: 'nowhere'; expected HOST:PORT",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(variables, line):
    with pytest.raises(ValueError, match=line):
        hosts.join(variables)


def test_alone_everything_is_the_plain_thing():
    assert hosts.is_first()
    assert hosts.gather("é") == ["é"]
    assert hosts.broadcast(b"x") == b"x"
    assert hosts.first(lambda: 3) == 3
    hosts.agree("the configuration", {"run.seed": 1})


def test_a_process_with_another_configuration_is_named(monkeypatch):
    monkeypatch.setattr(hosts, "gather", lambda text: [text, text.replace("4", "5")])
    line = "the configuration differs: run.seed is 4 on process 0 and 5 on process 1"
    with pytest.raises(ValueError, match=line):
        hosts.agree("the configuration", {"run.seed": 4, "training.epochs": 1})


def test_devices_and_experts_that_do_not_divide_are_one_line():
    device = jax.devices()[0]
    with pytest.raises(ValueError, match=r"parallel\.expert: 2 does not divide the 3 devices"):
        make_parallel([device] * 3, expert=2)
    with pytest.raises(ValueError, match=r"parallel\.expert: 2; with parallel\.mapping pmap"):
        make_parallel([device] * 4, expert=2, mapping="pmap")
    six = Experiment(mixture=MixtureConfig(experts=6), parallel=ParallelConfig(expert=4))
    with pytest.raises(ValueError, match=r"parallel\.expert: 4 .* 1, 2, 3, 6"):
        validate(six)
    gate = Experiment(
        data=SyntheticScenesConfig(),
        expert=DeepLabConfig(),
        router=SimpleGateConfig(),
        mixture=MixtureConfig(experts=2, top_k=2),
        parallel=ParallelConfig(expert=2),
    )
    with pytest.raises(ValueError, match=r"parallel\.expert: 2 .* 1 for a gate"):
        validate(gate)


def test_no_process_runs_a_program_before_all_have_compiled_it(monkeypatch):
    said = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "wait_for_all", lambda: said.append("waits"))

    def program(x):
        jax.debug.callback(lambda: said.append("runs"))
        return 2 * x

    together = hosts.compile_together(jax.jit(program))
    for size in (3, 3, 4):
        np.testing.assert_array_equal(together(jnp.ones(size)), 2 * np.ones(size))
        jax.effects_barrier()
    assert said == ["waits", "runs", "runs", "waits", "runs"]


def test_the_mean_of_leaves_is_theirs_whether_they_travel_alone_or_together():
    draw = np.random.default_rng(0)
    tree = {
        "large": draw.normal(size=(3, 300, 300)).astype(np.float32),
        "small": draw.normal(size=(3, 4, 2)).astype(np.float32),
        "half": jnp.asarray(draw.normal(size=(3, 5)), jnp.bfloat16),
        "number": draw.normal(size=3).astype(np.float32),
    }
    found = jax.vmap(lambda leaves: mean_over(("device",), leaves), axis_name="device")(tree)
    for name, values in tree.items():
        assert found[name].dtype == values.dtype
        expected = np.mean(np.asarray(values, np.float32), axis=0)
        precision = 2e-2 if name == "half" else 1e-5
        for own in np.asarray(found[name], np.float32):
            np.testing.assert_allclose(own, expected, rtol=precision, atol=precision)

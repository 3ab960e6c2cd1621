"""Training on several devices equals training on one, however it is spread over them."""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest

from tests.parallel.evaluation_on_devices import evaluate

DEVICES = 8
# By day a plain mesh, pmap in shards, and experts apart in shards and parts, short of a batch.
BY_DAY = (
    {"devices": 2, "recipe": "standard"},
    {"devices": 4, "mapping": "pmap", "fsdp": True, "recipe": "standard"},
    {"devices": 8, "expert": 2, "fsdp": True, "batch": 13, "recipe": "at_m", "parts": 2},
)
# At night, since AT-M has options of its own.
MORE = (
    {"devices": 4, "recipe": "at_m"},
    {"devices": 4, "mapping": "pmap", "fsdp": True, "recipe": "at_m"},
    {"devices": 4, "mapping": "pmap", "expert": 4, "recipe": "standard", "one_expert": True},
)
AT_NIGHT = tuple(
    {"devices": devices, "mapping": mapping, "recipe": recipe, **how, **what}
    for devices, mapping, (recipe, what), how in itertools.product(
        (1, 2, 4, 8),
        ("mesh", "pmap"),
        (("j_tlat", {}), ("j_tlat", {"one_expert": True, "batch": 3}), ("rt_er", {})),
        ({}, {"fsdp": True, "parts": 2}, {"expert": 2}, {"expert": 4}, {"expert": 2, "fsdp": True}),
    )
    if devices % how.get("expert", 1) == 0
    and (mapping == "mesh" or how.get("expert", 1) in (1, devices))
)


def run(module, argument, devices, processes=1):
    flag = f" --xla_force_host_platform_device_count={devices // processes}"
    shared = {"XLA_FLAGS": os.environ["XLA_FLAGS"] + flag, "JAX_PLATFORMS": "cpu"}
    places = [{}]
    if processes > 1:
        places = [{"JAX_PROCESS_ID": str(number)} for number in range(processes)]
        with socket.create_server(("localhost", 0)) as free:
            address = f"localhost:{free.getsockname()[1]}"
        shared |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    with contextlib.ExitStack() as files:
        # Files and not pipes: while one process is read, another could not write on.
        told = [[files.enter_context(tempfile.TemporaryFile("w+")) for _ in "oe"] for _ in places]
        started = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", f"tests.parallel.{module}", argument],
                env=os.environ | shared | own,
                stdout=output,
                stderr=errors,
            )
            for own, (output, errors) in zip(places, told, strict=True)
        ]
        try:
            codes = [process.wait(timeout=1200) for process in started]
        finally:
            for process in started:
                process.kill()
        texts = [[file.seek(0) or file.read() for file in pair] for pair in told]
    for code, (_, errors) in zip(codes, texts, strict=True):
        assert code == 0, errors[-2000:]
    return json.loads(texts[0][0].splitlines()[-1])


def figures_of(cases):
    return run("training_on_devices", json.dumps(cases), DEVICES)


def check(case, found):
    assert found["apart"] <= 1e-7, case  # schedules and noise are of single precision
    mine, alone = found["metrics"]
    assert mine == pytest.approx(alone, rel=1e-6, abs=1e-7), case
    mine, alone = found["validation"]
    known = [place for place, figure in enumerate(alone) if figure is not None]
    mine, alone = ([each[place] for place in known] for each in (mine, alone))
    np.testing.assert_allclose(mine, alone, rtol=1e-6, err_msg=str(case))
    assert 0 < mine[0] < 1 or case.get("one_expert"), "a figure that padding could change"


@pytest.fixture(scope="module")
def by_day():
    return figures_of(BY_DAY)


@pytest.mark.parametrize("number", range(len(BY_DAY)))
def test_devices_equal_one_on_the_same_global_batch(by_day, number):
    check(BY_DAY[number], by_day[number])


def check_loops(case, found):
    assert found["loops"] >= (0 if case["recipe"] == "standard" else 1)
    assert (found["in loops"] > 0) == (case.get("expert", 1) > 1), case


def test_attack_loops_hold_no_collective_but_for_the_exchange_of_examples(by_day):
    for case, found in zip(BY_DAY, by_day, strict=True):
        check_loops(case, found)


def test_a_device_holds_its_share_of_params_and_optimizer(by_day):
    shares = [found["local share"] for found in by_day]
    assert shares[0] == 1
    # 36 features split over 4; the biases and the counts of steps are whole.
    assert shares[1] == pytest.approx(1 / 4, abs=0.02)
    assert shares[2] < 1 / 3


@pytest.mark.nightly
def test_more_devices_equal_one_and_hold_their_shares():
    found = figures_of(MORE)
    for case, figures in zip(MORE, found, strict=True):
        check(case, figures)
        check_loops(case, figures)
    experts = 4 * (36 * 3 + 3) / (4 * (36 * 3 + 3) + 36 * 4)
    shares = [figures["local share"] for figures in found]
    assert shares == pytest.approx([1, 1 / 4, 1 - experts * 3 / 4], abs=0.02)


@pytest.mark.nightly
@pytest.mark.parametrize("recipe", ["j_tlat", "rt_er"])
def test_every_way_to_spread_equals_one_device(recipe):
    cases = [case for case in AT_NIGHT if case["recipe"] == recipe]
    for case, found in zip(cases, figures_of(cases), strict=True):
        check(case, found)
        if case["devices"] > 1:
            check_loops(case, found)
    print(f"{len(cases)} ways to spread {recipe}: all equal to one device")


def check_evaluation(extent, devices, processes=1):
    found = run("evaluation_on_devices", extent, devices, processes)
    with jax.numpy_dtype_promotion("standard"):
        alone = evaluate(whole=extent == "whole")
    assert (found["devices"], alone["devices"]) == (devices, 1)
    for mine, own in zip(found["rows"], alone["rows"], strict=True):
        assert mine["robust_accuracy"] == own["robust_accuracy"], own
        assert mine.get("accuracy_under_attack") == own.get("accuracy_under_attack"), own
        assert mine.get("gradient_evaluations") == own.get("gradient_evaluations"), own
        assert mine.get("radii", []) == pytest.approx(own.get("radii", []), rel=1e-5)
    assert 0 < alone["rows"][1]["robust_accuracy"] < alone["rows"][0]["robust_accuracy"] < 1


def test_an_evaluation_says_the_same_on_several_devices():
    check_evaluation("short", 4)


@pytest.mark.nightly
@pytest.mark.parametrize("devices", [2, 8])
def test_everything_that_judges_a_model_says_the_same_on_several_devices(devices):
    check_evaluation("whole", devices)


@pytest.mark.nightly
def test_two_processes_of_two_devices_judge_a_model_as_one_device_does():
    check_evaluation("whole", 4, processes=2)

"""`jaxmoe plan`: what it prints and writes, without data and without the devices."""

import json

import pytest

from jaxmoe.runs.plan.compiled import has_libtpu
from tests.commands.tiny import refused, run

pytestmark = pytest.mark.usefixtures("standard_promotion")

PLAN = "plan config.py --no-compile --devices"


def test_a_plan_says_what_it_is_of_and_that_it_is_predicted(folder, capsys):
    assert run(f"{PLAN} v5p-16 --training.batch-size 16 --output plan.json") == 0
    said = capsys.readouterr().out
    for part in (
        "v5p-16: TPU v5p slice v5p:2x2x2: 8 chips, 16 TensorCores",
        "2 examples on each device, 16 in all",
        "fits into 95 GiB of a device (cost model)",
        "nothing was compiled: every figure is the cost model's",
        "assumed: 30% of a peak of TFLOP/s of 459 in float32",
        "epochs an hour of 20 examples",
    ):
        assert part in said
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["sizes"]["whole"] == plan["sizes"]["router"] + 2 * plan["sizes"]["expert"]
    assert plan["sizes"]["optimizer_bytes"] >= 2 * plan["sizes"]["params_bytes"]
    assert [c["kind"] for c in plan["collectives"]] == ["all-reduce"]
    assert plan["compiled"] is None
    assert plan["efficiency"]["1"] == 1
    assert plan["time"]["step"] > 0
    assert plan["epochs_per_hour"] == pytest.approx(3600 / (plan["time"]["step"] * 20 / 16))


def test_with_fsdp_a_device_holds_its_share(folder):
    # Widths that eight devices divide.
    assert run(f"{PLAN} v5e-8 --training.batch-size 8 --expert.width 16 --output whole.json") == 0
    shards = "--expert.width 16 --parallel.fsdp true --output shards.json"
    assert run(f"{PLAN} v5e-8 --training.batch-size 8 {shards}") == 0
    whole, shards = (
        json.loads((folder / name).read_text())["sizes"] for name in ("whole.json", "shards.json")
    )
    assert shards["params_bytes"] == whole["params_bytes"] == whole["device_params_bytes"]
    assert shards["device_params_bytes"] < 0.2 * whole["device_params_bytes"]
    assert shards["device_optimizer_bytes"] < 0.2 * whole["device_optimizer_bytes"]


@pytest.mark.skipif(has_libtpu(), reason="libtpu compiles for the slice: a nightly test does it")
def test_without_libtpu_it_compiles_for_the_cpu_and_says_so(folder, capsys):
    assert run("plan config.py --devices v5e-4 --program attack --evaluation.steps 1") == 0
    said = capsys.readouterr().out
    assert "program: PGD, and a look; gradient steps of an attack: 1; " in said
    assert "CPU device" in said
    assert "libtpu is not installed" in said
    assert "compiled  " in said


def test_gpus_and_data_that_is_not_there_are_predicted(folder, capsys):
    assert run("plan config.py --devices h100-8 --data ucf101 --training.batch-size 8") == 0
    said = capsys.readouterr().out
    assert "8 × H100 SXM in 1 node" in said
    assert "epochs an hour of 8,345 examples" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("plan", ["CONFIG.py", "--help"]),
        ("plan config.py", ["--devices", "--help"]),
        (f"{PLAN} v5e-17", ["v5e-17", "16, 32"]),
        (f"{PLAN} tpu-8", ["tpu-8", "v5e-16"]),
        (f"{PLAN} v5e-16", ["training.batch_size: 10", "16 devices"]),
        (f"{PLAN} v5e-1 --parallel.expert 2", ["parallel.expert: 2", "1 devices"]),
        (f"{PLAN} v5e-1 --data video_folder", ["--classes", "video_folder"]),
        (f"{PLAN} v5e-1 --classes 0", ["--classes: 0", "at least 1"]),
        (f"{PLAN} v5e-1 --utilization 2", ["--utilization: 2", "at most 1"]),
        (f"{PLAN} v5e-1 --output gone/plan.json", ["--output", "gone"]),
        (f"{PLAN} v5e-1 --exampels 3", ["--exampels", "--examples"]),
        (f"{PLAN} v5e-1 --data.hieght 3", ["data.hieght", "data.height"]),
        ("plan gone.py --devices v5e-1", ["CONFIG", "gone.py"]),
    ],
)
def test_bad_input_is_one_line(arguments, said, folder, capsys):
    line = refused(arguments, folder, capsys)
    for part in said:
        assert part in line

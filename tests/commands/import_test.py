"""`jaxmoe import`: from a file of PyTorch to a run that is judged, and that training takes."""

import json
import pathlib

import jax
import numpy as np
import pytest

from jaxmoe.cli import main
from jaxmoe.runs.folder import read_experiment
from jaxmoe.runs.run import load
from tests.commands.tiny import refused, run
from tests.models.weights import published
from tests.models.weights.written import write_zip

pytestmark = pytest.mark.usefixtures("standard_promotion")


def write(path: pathlib.Path, classes: int = 10, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Writes a 3D ResNet of Hara's of 2018, of width 4, and returns its tensors."""
    net = published.Net()
    published.resnet(net, np.zeros((1, 3, 4, 16, 16)), 4, classes, (1,), shortcut="behind")
    net.tensors["fc.bias"] = scale * net.tensors["fc.bias"]
    counters = [name for name in net.tensors if name.endswith("num_batches_tracked")]
    for name in counters:
        del net.tensors[name]
    write_zip(path, net.tensors)
    return net.tensors


def experts_of(directory: str):
    return load(pathlib.Path(directory)).params["experts"]["params"]


@pytest.mark.nightly
def test_a_single_classifier_is_imported_and_evaluated(folder, capsys):
    tensors = write(folder / "net.pt")
    assert run("import net.pt config.py --mixture.experts 1 --run.directory one") == 0
    told = capsys.readouterr().out
    assert "hara_resnet, 3D ResNet of kenshohara" in told
    assert "head of 10 classes, as in the file" in told
    assert "drawn anew" not in told  # one expert has no router
    assert json.loads((folder / "one/imported.json").read_text())["noise"] == 0
    trained = load(pathlib.Path("one"))
    assert trained.finished
    x = np.random.default_rng(0).random((2, 4, 16, 16, 3), np.float32)
    net = published.Net()
    net.tensors = tensors
    normal = 255 * x - np.array([114.7748, 107.7354, 99.4750])
    expected = published.resnet(net, np.moveaxis(normal, -1, 1), 4, 10, (1,), shortcut="behind")
    logits = jax.jit(trained.mixture.apply)(trained.params, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert run("evaluate one --attacks fgsm --no-checks") == 0
    assert "written to one" in capsys.readouterr().out
    assert run("show one") == 0
    assert "weights  net.pt (hara_resnet)" in capsys.readouterr().out


def test_one_file_fills_all_experts_which_a_seed_tells_apart(folder, capsys):
    kernel = np.moveaxis(write(folder / "net.pt")["conv1.weight"], (1, 0), (-2, -1))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        command = f"import net.pt config.py --noise 0.1 --run.seed {seed} --run.directory {name}"
        assert run(command) == 0
    assert "(1 + 0.1 · 𝒩(0, 1)), seed 1" in capsys.readouterr().out
    a, b, c = (np.asarray(experts_of(name)["stem"]["kernel"]) for name in "abc")
    assert a.shape == (2, *kernel.shape)
    np.testing.assert_array_equal(a, b)
    ratios = a / kernel - 1
    assert 0.09 < ratios.std() < 0.11
    assert abs(np.corrcoef(ratios[0].ravel(), ratios[1].ravel())[0, 1]) < 0.1
    assert not np.array_equal(a, c)
    statistics = load(pathlib.Path("a")).params["experts"]["batch_stats"]["norm_stem"]["mean"]
    np.testing.assert_array_equal(statistics[0], statistics[1])


def test_several_files_are_one_for_each_expert(folder):
    biases = [write(folder / f"{n}.pt", scale=n)["fc.bias"] for n in (1, 2)]
    assert run("import 1.pt 2.pt config.py --run.directory two") == 0
    np.testing.assert_array_equal(experts_of("two")["head"]["bias"], np.stack(biases))


def test_a_head_of_other_classes_is_drawn_anew_and_training_starts_there(folder, capsys):
    write(folder / "net.pt", classes=7)
    assert run("import net.pt config.py --run.directory start") == 0
    told = capsys.readouterr().out
    assert "head of 10 classes, 7 in the file" in told
    recorded = json.loads((folder / "start/imported.json").read_text())
    assert recorded["drawn_anew"] == ["params/head/kernel", "params/head/bias"]
    assert recorded["noise"] == 0.01
    (advice,) = [line for line in told.splitlines() if "--training.initialize-from" in line]
    command = advice.strip().removeprefix("jaxmoe ").replace("CONFIG.py", "config.py")
    assert run(f"{command} --run.directory on") == 0
    assert read_experiment(folder / "on").expert == read_experiment(folder / "start").expert
    before, after = (load(folder / name).params["experts"] for name in ("start", "on"))
    jax.tree.map(np.testing.assert_array_equal, before["batch_stats"], after["batch_stats"])
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before["params"], after["params"])
    assert moved["norm_stem"]["scale"]
    assert moved["stem"]["kernel"]


def test_a_head_of_the_same_classes_can_be_drawn_anew(folder, capsys):
    write(folder / "net.pt")
    assert run("import net.pt config.py --new-head --run.directory start") == 0
    assert "head of 10 classes, 10 in the file" in capsys.readouterr().out
    assert not np.any(experts_of("start")["head"]["bias"])


def test_nothing_is_trained_where_weights_were_imported(folder, capsys):
    write(folder / "net.pt")
    assert run("import net.pt config.py --run.directory start") == 0
    assert main(["train", "config.py", "--run.directory", "start"]) == 2
    assert "start holds imported weights; expected another" in capsys.readouterr().err


def test_positions_of_another_size_say_which_size_they_are_of(folder, capsys):
    net = published.Net()
    published.vit(net, np.zeros((1, 3, 16, 16)), 8, 10)
    write_zip(folder / "vit.pt", net.tensors)
    command = "import vit.pt --data synthetic_shapes --run.directory a"
    line = refused(command, folder, capsys)
    assert "data.height: 32 (width 32) is not accepted; expected 16 (width 16)" in line


def test_images_are_no_clips_before_any_are_prepared(folder, capsys, monkeypatch):
    monkeypatch.setattr("jaxmoe.data.load_dataset", lambda *_, **__: pytest.fail("prepared"))
    net = published.Net()
    published.vit(net, np.zeros((1, 3, 16, 16)), 8, 10)
    write_zip(folder / "vit.pt", net.tensors)
    line = refused("import vit.pt --data synthetic_actions --run.directory a", folder, capsys)
    assert "data: synthetic_actions holds clips, and FILE is a network of images" in line
    assert "such as --data image_folder" in line
    write(folder / "net.pt")
    line = refused("import net.pt --data synthetic_shapes --run.directory a", folder, capsys)
    assert "data: synthetic_shapes holds images, and FILE is a network of clips" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("config.py --run.directory a", "FILE is missing"),
        ("nothing.pt config.py --run.directory a", "FILE: no such file: nothing.pt"),
        ("net.pt config.py", "--run.directory: missing"),
        ("net.pt net.pt net.pt config.py --run.directory a", "3 files for mixture.experts = 2"),
        ("net.pt config.py --noise -1 --run.directory a", "--noise: -1 is not accepted"),
        ("net.pt net.pt config.py --noise 0.1 --run.directory a", "each expert has a file"),
        ("net.pt config.py --layout tsn --run.directory a", "layout: 'tsn' is not accepted"),
        ("net.pt config.py --expert.width 8 --run.directory a", "other shapes: conv1.weight"),
        ("net.pt config.py --expert vit --run.directory a", "expert.name: vit is not accepted"),
        ("config.py.pt config.py --run.directory a", "config.py.pt: it is neither a file of torch"),
        ("net.pt config.py --run.directory full", "full holds a run"),
        ("net.pt config.py --mixture.dual-weight 0.5 --run.directory a", "mixture.dual_weight"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, said, folder, capsys):
    write(folder / "net.pt")
    (folder / "config.py.pt").write_text("no state dict")
    (folder / "full").mkdir()
    (folder / "full/config.json").write_text("{}")
    (folder / "cache").mkdir()
    run("data config.py")
    capsys.readouterr()
    assert said in refused(f"import {arguments}", folder, capsys)

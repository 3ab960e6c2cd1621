"""Command lines, tables and small networks of the comparisons with other libraries."""

import importlib
import json
import pathlib
import types

import jax
import numpy as np
import optax
import pytest

LAUNCH = pathlib.Path(__file__).parent.parent.parent / "launch" / "versus"


@pytest.fixture(scope="module", autouse=True)
def launch_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(LAUNCH))
        yield


@pytest.fixture(scope="module")
def subjects(launch_on_path):
    return importlib.import_module("cifar_subject")


@pytest.fixture(scope="module")
def versus(launch_on_path):
    return importlib.import_module("auto_attack")


@pytest.fixture(scope="module")
def libraries(launch_on_path):
    return importlib.import_module("libraries")


@pytest.fixture
def arguments(tmp_path):
    official = tmp_path / "official" / "autoattack"
    official.mkdir(parents=True)
    (official / "autoattack.py").touch()
    (tmp_path / "images.npz").touch()
    return {
        "--data": str(tmp_path / "images.npz"),
        "--official": str(official.parent),
        "--output": str(tmp_path),
    }


def flat(arguments):
    return [word for pair in arguments.items() for word in pair]


def coloured(subjects, count):
    """Images that a class gives a brightness of its own."""
    rng = np.random.default_rng(0)
    y = (np.arange(count) % subjects.CLASSES).astype(np.int32)
    x = rng.uniform(0, 0.3, (count, 32, 32, 3)) + y[:, None, None, None] * 0.07
    return x.astype(np.float32), y


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--official": "/nowhere"}, "expected a copy of github.com/fra31/auto-attack"),
        ({"--data": "/nowhere.npz"}, "expected cifar10_lossless_partial.npz"),
        ({"--images": "0"}, "--images: 0 is not at least 1"),
        ({"--only": "nothing"}, "no cell has nothing in its name"),
    ],
)
def test_wrong_arguments_are_one_line(versus, arguments, capsys, changed, message):
    with pytest.raises(SystemExit):
        versus.parse(flat(arguments | changed))
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_cells_are_chosen_by_words(versus):
    chosen = [cell.name for cell in versus.chosen_cells(["curve-pgd_at", "rand"])]
    assert chosen == [
        "rand-pgd_at_dropout-linf",
        "rand-pgd_at_dropout-l2",
        "curve-pgd_at-linf",
        "curve-pgd_at-l2",
    ]


def test_a_cell_is_kept_only_with_the_same_settings(versus, tmp_path):
    path = tmp_path / "cell.json"
    assert versus.kept(path, {"n": 1}) is None
    path.write_text(json.dumps({"settings": {"n": 1}, "ratio": 2}))
    assert versus.kept(path, {"n": 1})["ratio"] == 2
    assert versus.kept(path, {"n": 2}) is None


def test_sides_are_compared_image_by_image(versus, launch_on_path):
    sides = importlib.import_module("sides")
    x = np.zeros((4, 2, 2, 3), np.float32)
    ours = sides.Side(np.array([True, True, False, False]), x + 0.01, 3.0, [])
    theirs = sides.Side(np.array([True, False, True, False]), x, 2.0, [])
    assert sides.agreement(ours, theirs) == 0.5
    summary = sides.summary(ours, x, "linf")
    assert summary["robust_accuracy"] == 0.5
    assert summary["largest_change"] == pytest.approx(0.01)


def test_the_tables_have_every_kind(versus):
    settings = {"n": 8, "seed": 0, "batch_size": 4, "steps": 100, "targets": 9, "queries": 5000}
    settings |= {"threads": 2, "versions": {"jax": "1", "torch": "2"}}
    side = {"robust_accuracy": 0.25, "seconds": 2.0}
    compared = {"ours": side, "official": side, "agreement": 0.5, "ratio": 1.0}
    compared |= {"compiled_seconds": 1.0, "compiled_ratio": 0.5}
    compared |= {"only_ours_breaks": 3, "only_official_breaks": 1}
    small = {"mean": 1e-5, "image": 2e-4, "median": 1e-7, "within": 1.0, "image_all_steps": 3e-2}

    def record(kind, **figures):
        cell = {"kind": kind, "model": "pgd_at", "norm": "linf"}
        return {"cell": cell, "settings": settings, **figures}

    records = [
        record("standard", **compared),
        record("rand", **compared, agreement_official=0.75, official_again=side),
        record("square", **compared),
        record("curve", float32=small, float64=small),
    ]
    lines = versus.tables(records).splitlines()
    both = "| 25.0 | 25.0 | 50.0 | 3 | 1 | 2.0 | 1.0 | 2.0 | 1.00 | 0.50 |"
    assert f"| standard | pgd_at | linf | 8 {both} – | – | – |" in lines
    assert f"| rand | pgd_at | linf | 8 {both} 25.0 | 75.0 | – |" in lines
    assert f"| square | pgd_at | linf | 8 {both}" in lines
    assert any(line.startswith("| curve | pgd_at | linf | 8 | 1.0e-05 | 2.0e-04") for line in lines)
    assert "seed 0 (official again: 1)" in lines[-1]


def test_deviations_are_relative_and_early(launch_on_path):
    curves = importlib.import_module("curves")
    theirs = np.full((30, 2), 2.0)
    ours = theirs.copy()
    ours[5, 0] += 0.02  # an early look of one image
    ours[29, 1] += 2.0  # a late one of the other
    found = curves.deviations(ours, theirs)
    assert found["image"] == pytest.approx(0.01)
    assert found["mean"] == pytest.approx(0.005)
    assert found["within"] == 0.5
    assert found["image_all_steps"] == pytest.approx(1.0)


def test_a_step_of_training_lowers_the_loss(subjects):
    x, y = coloured(subjects, 20)
    optimizer = optax.sgd(0.02, momentum=0.9)
    params = subjects.init(0)
    state, step, losses = optimizer.init(params), subjects.train_step("standard", optimizer), []
    for _ in range(30):
        params, state, loss = step(params, state, jax.random.key(0), x, y)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_weights_are_trained_once(subjects, tmp_path, monkeypatch):
    monkeypatch.setattr(subjects, "train", lambda name, images, seed, say: subjects.init(3))
    first = subjects.trained("standard", None, tmp_path, 0, print)
    monkeypatch.delattr(subjects, "train")
    second = subjects.trained("standard", None, tmp_path, 0, print)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, first, subjects.init(3))


def test_images_without_labels_are_one_line(subjects, tmp_path):
    np.savez(tmp_path / "x.npz", x_train=np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="lacks y_train, x_test, y_test"):
        subjects.load_images(tmp_path / "x.npz")


def test_dropout_depends_on_the_key(subjects):
    apply, params = jax.jit(subjects.noisy_apply("pgd_at_dropout")), subjects.init(0)
    x, _ = coloured(subjects, 2)
    one, same, other = (apply(params, x, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_the_twin_has_the_same_logits(subjects):
    pytest.importorskip("torch", reason="torch is not installed: no twin to compare with")
    params = subjects.init(0)
    twin = subjects.torch_twin("pgd_at_dropout", params)
    assert subjects.twin_difference(params, twin, coloured(subjects, 8)[0]) < 1e-4


def test_a_missing_library_is_one_line(libraries, monkeypatch):
    monkeypatch.setattr(libraries, "LIBRARIES", ("no_such_library",))
    with pytest.raises(SystemExit, match="python -m pip install no_such_library"):
        libraries.check_installed()


def test_output_without_a_folder_is_one_line(libraries, capsys):
    with pytest.raises(SystemExit):
        libraries.parse(["--output", "/nowhere/file.json"])
    assert "--output: no such folder: /nowhere; make it first" in capsys.readouterr().err


def test_agreement_leaves_out_images_whose_best_iterate_is_not_the_last(libraries):
    x = np.zeros((3, 1, 1, 2), np.float32)
    ours, theirs = x + np.float32(0.1), x + np.float32(0.1)
    theirs[1, 0, 0, 0] = 0.2  # one pixel of four that count
    theirs[2] = 0.3
    trace = np.array([[1.0, 1, 3], [2, 2, 1]])
    result = types.SimpleNamespace(x_adv=ours, loss_trace=trace)
    row = libraries.agree("fgsm", "foolbox on JAX", result, theirs, x)
    assert row.share == 0.75
    assert row.largest == pytest.approx(0.1)
    assert "last for 2 of 3 images" in row.note
    assert "| ✗ | fgsm | foolbox on JAX | 75.000 | ≥ 99 |" in libraries.agreement_table([row])


def test_the_smooth_network_is_the_same_in_pytorch(launch_on_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: no network to compare")
    attacks = importlib.import_module("library_attacks")
    weights = attacks.smooth_weights()
    x = np.random.default_rng(0).random((3, attacks.SIZE, attacks.SIZE, 3), np.float32)
    with torch.no_grad():
        theirs = attacks.torch_network(weights)(attacks.to_torch(x)).numpy()
    np.testing.assert_allclose(attacks.smooth_network(weights, x), theirs, atol=1e-4)


@pytest.fixture(scope="module")
def networks(launch_on_path):
    return importlib.import_module("user_networks")


def test_users_libraries_have_the_same_logits(networks, subjects):
    x, params = coloured(subjects, 2)[0], networks.init("resnet2b", 0)
    logits = [networks.apply("resnet2b", library, params, x) for library in networks.LIBRARIES]
    assert np.ptp(logits[0]) > 0.1
    for others in logits[1:]:
        np.testing.assert_allclose(others, logits[0], atol=1e-5)


@pytest.mark.parametrize("name", ["resnet20", "resnet2b"])
def test_users_networks_are_the_same_in_pytorch(networks, subjects, name):
    torch = pytest.importorskip("torch", reason="torch is not installed: no twin to compare with")
    x, params = coloured(subjects, 2)[0], networks.init(name, 0)
    with torch.no_grad():
        theirs = networks.torch_twin(name, params)(subjects.to_torch(x)).numpy()
    ours = jax.jit(networks.apply, static_argnums=(0, 1))(name, "lax", params, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_users_convolutions_are_a_row_of_two_sides(launch_on_path):
    command = importlib.import_module("user_convolutions")
    own = {"robust": np.array([True, False]), "seconds": 3.0, "again": 1.0}
    theirs = {"robust": np.array([True, True]), "seconds": 4.0}
    row = command.row("resnet20", "linen", 8 / 255, own, theirs)
    assert row[2:] == ["8", "2", "50.0", "100.0", "50.0", "3.0", "1.0", "4.0", "0.75", "0.25"]
    assert command.table([row]).count("\n") == 2


@pytest.fixture(scope="module")
def imported(launch_on_path):
    return importlib.import_module("imported_weights")


def test_imported_logits_agree_up_to_the_bar(imported):
    row = imported.Compared("r3d_18", "torchvision_video", 33_371_472, (8, 112, 112, 3), 2e-5, 3, 1)
    far = row._replace(difference=float("nan"))
    lines = imported.table([row, far], titled=True).splitlines()
    assert lines[2].startswith(
        "| ✓ | r3d_18 | torchvision_video | 33.37 M | 8 × 112 × 112 | 2.0e-05"
    )
    assert lines[3].startswith("| ✗ |")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--output", "nowhere/a.json"], "no such folder"), (["--output", "a", "--only", "b"], "'b'")],
)
def test_comparing_weights_needs_a_folder_and_known_networks(
    imported, arguments, said, monkeypatch, capsys
):
    monkeypatch.setattr(imported, "LIBRARIES", ("json", "json", "json"))
    with pytest.raises(SystemExit):
        imported.parse(arguments)
    assert said in capsys.readouterr().err


def test_a_library_that_is_missing_is_named(imported, monkeypatch, tmp_path):
    monkeypatch.setattr(imported, "LIBRARIES", ("json", "json", "no_such_library"))
    output = ["--output", str(tmp_path / "a.json")]
    with pytest.raises(SystemExit, match="not installed: no_such_library; python -m pip install"):
        imported.parse(output)
    assert imported.parse([*output, "--only", "r3d_18"]).only == ["r3d_18"]


def test_a_network_of_pytorch_has_the_same_logits(imported, tmp_path):
    pytest.importorskip("torchvision", reason="torchvision is not installed: nothing to compare")
    assert set(imported.cases()) == set(imported.NAMES)
    name = "cifar_resnet20"
    row = imported.compare(name, imported.cases()[name], tmp_path / "weights.pt")
    assert row.agrees
    assert row.between > 0.1

"""`jaxmoe data`: classes, counts and skipped files."""

import dataclasses

import numpy as np
from PIL import Image

from jaxmoe.cli import main
from tests.commands.tiny import run


def test_data_shows_classes_and_names_skipped_files(folder, capsys):
    videos = folder / "videos"
    videos.mkdir()
    (videos / "manifest.csv").write_text("path,label,split\na [b].mp4,wave,train\n")
    (videos / "a [b].mp4").write_bytes(b"no video")
    assert run("data --name video_folder --directory videos") == 2
    output = capsys.readouterr()
    assert "data.directory" in output.err or "data.manifest" in output.err

    assert main(["data", "config.py"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    for part in ("10 classes", "moves_left", "train", "20"):
        assert part in output.out


def test_skipped_clips_are_named_up_to_ten(folder, capsys):
    from jaxmoe.commands.arguments import notes_on_examples

    @dataclasses.dataclass
    class Found:
        skipped: tuple = tuple((f"video {i}.mp4", "no frames") for i in range(12))
        padded: tuple = (("short.mp4", "3 frames"),)
        notes: tuple = ("1 film has clips in train and in test",)

    text = "\n".join(notes_on_examples(Found(), "run/run.json"))
    assert text.startswith("1 film has clips in train and in test")
    assert "12 examples were skipped" in text
    assert "video 9.mp4: no frames" in text
    assert "video 10.mp4" not in text
    assert "2 more, all in run/run.json" in text
    assert "short.mp4" in text
    assert "video 11.mp4" in "\n".join(notes_on_examples(Found(), None))


def test_data_shows_the_share_of_pixels_whatever_expert_would_see_them(folder, capsys):
    counts = "--train-clips 8 --validation-clips 2 --test-clips 2 --height 16"
    assert run(f"data --name synthetic_scenes {counts}") == 0
    output = capsys.readouterr().out
    assert "11 classes, labelled pixels by split" in output
    shares = [line.split()[1] for line in output.splitlines() if line.strip().startswith("ground")]
    assert len(shares) == 1
    assert 10 < float(shares[0].rstrip("%")) < 90
    assert "void, of all pixels" in output


def test_masks_of_0_and_255_lack_a_class_and_that_is_said(folder, capsys):
    for split in ("train", "test"):
        for number in range(3):
            masks = np.zeros((8, 12), np.uint8)
            masks[: 2 + number] = 255
            for part, pixels in (("images", masks), ("masks", masks)):
                (folder / "things" / split / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / "things" / split / part / f"{number}.png")
    (folder / "things" / "classes.txt").write_text("background\nthing\n")
    assert run("data --name segmentation_folder --directory things --resolution 8") == 0
    output = " ".join(capsys.readouterr().out.split())
    for split in ("train", "validation", "test"):
        assert f"{split} has none of: thing" in output
    assert output.count("numbers of label maps other than 0 to 1 are void") == 1


def test_void_and_classes_that_nothing_has_are_said(folder, capsys):
    for split, place in (("train", 0), ("test", 1)):
        for part in (split, f"{split}annot"):
            (folder / "streets" / part).mkdir(parents=True)
        labels = np.full((8, 12), 11, np.uint8)
        labels[:4] = place  # all of train is sky, all of test building; the lower half is void
        for name in ("0001TP_1", "0001TP_2"):
            Image.fromarray(labels).save(folder / "streets" / f"{split}annot" / f"{name}.png")
            image = Image.fromarray(np.zeros((8, 12, 3), np.uint8))
            image.save(folder / "streets" / split / f"{name}.png")
    assert run("data --name camvid --directory streets --resolution 8") == 0
    output = capsys.readouterr().out
    (void,) = [line for line in output.splitlines() if line.strip().startswith("void")]
    assert void.split()[-1] == "50.0%"
    (absent,) = [line for line in output.splitlines() if line.startswith("test has none of")]
    assert "building" not in absent
    assert "sky" in absent
    (folder / "streets.py").write_text(
        "from jaxmoe.config import *\ndef config():\n"
        "    data = CamVidConfig(resolution=8, height=4, width=6, directory='streets')\n"
        "    return Experiment(data=data, expert=DeepLabConfig())\n"
    )
    assert run("data streets.py") == 0
    assert "evaluated is the middle 6 × 4 of 12 × 8 (width × height)" in capsys.readouterr().out

"""Films by the names of clips: what goes together, and what is said of a film in two splits."""

import numpy as np
import pytest
from PIL import Image

from jaxmoe.data import load_dataset
from jaxmoe.data.listing.films import film_of


@pytest.mark.parametrize(
    ("path", "film"),
    [
        ("Archery/v_Archery_g08_c01.avi", "v_Archery_g08"),
        ("train/JumpingJack/v_JumpingJack_g08_c12.mp4", "v_JumpingJack_g08"),
        ("v_YoYo_g25_c03/frame_0001.jpg", "v_YoYo_g25"),
        ("YoYo/v_YoYo_g25_c03_0001.jpg", "v_YoYo_g25"),
        ("biking/v_biking_08/v_biking_08_01.avi", "v_biking_08"),
        ("b/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "April_09_brush_hair"),
        ("b/Golf_Tips_!!!_golf_f_nm_np1_fr_med_10.avi", "Golf_Tips_!!!_golf"),
        ("walk/v_walk_dog_03_12.mpg", "v_walk_dog_03"),
        ("hug/v_2021_05_03.mp4", None),
        ("hug/v_cam_2021_05_03.mp4", None),
        ("hug/seq01_02.avi", None),
        ("v/a_01_02.avi", None),
        ("kick/1.avi", None),
    ],
)
def test_names_tell_the_film(path, film):
    assert film_of(path) == film


def test_a_film_is_held_out_whole_in_class_folders_and_a_leak_is_said(tmp_path):
    def touch(root, groups):
        for label in ("Archery", "YoYo"):
            (root / label).mkdir(parents=True, exist_ok=True)
            for group in groups:
                for clip in range(1, 5):
                    pixels = np.full((4, 4, 3), 10 * group + clip, np.uint8)
                    file = root / label / f"v_{label}_g{group:02}_c{clip:02}.png"
                    Image.fromarray(pixels).save(file)

    touch(tmp_path / "folders", range(1, 8))
    dataset = load_dataset("image_folder", directory=tmp_path / "folders", resolution=4)
    films = [{film_of(r.path) for r in source.records} for source in dataset.splits.values()]
    assert sum(map(len, films)) == len(set.union(*films)) == 14
    assert dataset.notes == ()
    touch(tmp_path / "splits" / "train", (1, 2, 3, 4))
    touch(tmp_path / "splits" / "test", (4, 5))
    for file in (tmp_path / "splits" / "test").rglob("*_g04_*"):
        file.rename(file.with_name(file.name.replace("_c0", "_c1")))
    dataset = load_dataset("image_folder", directory=tmp_path / "splits", resolution=4)
    (note,) = dataset.notes
    assert note.startswith("2 films have clips in train or validation and in test")
    assert "such as v_Archery_g04" in note

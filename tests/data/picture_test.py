"""Stored pictures: the shorter side is kept to, hidden colour does not show."""

import numpy as np
import pytest
from PIL import Image

from jaxmoe.data.decoding.picture import on_black, stored_size


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(64, 32, (32, 16)), (32, 64, (16, 32)), (40, 40, (16, 16)), (1000, 1, (16000, 16))],
)
def test_the_shorter_side_is_kept_to(width, height, expected):
    assert stored_size(width, height, 16) == expected


def test_on_black_is_what_pillow_composes():
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    picture[0, :, 3], picture[1, :, 3] = 0, 255
    black = Image.new("RGBA", (7, 9), (0, 0, 0, 255))
    expected = np.asarray(Image.alpha_composite(black, Image.fromarray(picture)))[..., :3]
    difference = on_black(picture).astype(int) - expected
    assert abs(difference).max() <= 1
    assert not on_black(picture)[0].any()
    np.testing.assert_array_equal(on_black(picture)[1], picture[1, :, :3])

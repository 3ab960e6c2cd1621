"""Figures of the page: where lines, ribbons and pixels are, and what they weigh."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from jaxmoe.reporting.page.figures import bars, flow, heat, lines, sprites
from jaxmoe.reporting.page.figures.svg import element


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def parts(svg: str, kind: str) -> list[ElementTree.Element]:
    """The elements of a class."""
    root = ElementTree.fromstring(svg)
    return [e for e in root.iter() if kind in (e.get("class") or "").split()]


def test_words_and_attributes_are_escaped():
    made = element("text", "<b>&", class_="\"'", x=1.0, y=None)
    assert str(made) == '<text class="&#34;&#39;" x="1">&lt;b&gt;&amp;</text>'


def test_small_clips_are_shown_as_they_are():
    clip = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    (strip,) = sprites.strips_of([clip], 10_000)
    assert strip.exact
    assert (strip.frames, strip.height, strip.width) == (5, 6, 7)
    np.testing.assert_array_equal(pixels(strip.uri), np.concatenate(list(clip), axis=1))
    (grey,) = sprites.strips_of([clip[..., :1]], 10_000)
    np.testing.assert_array_equal(pixels(grey.uri)[..., 2], np.concatenate(list(clip[..., 0]), 1))


@pytest.mark.parametrize("budget", [200_000, 60_000, 8_000])
def test_large_clips_fit_their_budget(budget):
    clip = np.random.default_rng(0).integers(0, 256, (40, 70, 60, 3), dtype=np.uint8)
    (strip,) = sprites.strips_of([clip], budget)
    assert len(base64.b64decode(strip.uri.partition(",")[2])) <= budget
    assert not strip.exact
    assert len(strip.places) == strip.frames
    assert Image.open(io.BytesIO(base64.b64decode(strip.uri.partition(",")[2]))).size == (
        strip.frames * strip.width,
        strip.height,
    )


@pytest.mark.parametrize("budget", [600_000, 100_000, 15_000])
def test_clips_together_have_the_same_frames_and_size(budget):
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 60, 3), dtype=np.uint8)
    flat = np.zeros_like(noise)  # which alone would fit as it is
    strips = sprites.strips_of([noise, flat], budget)
    assert strips[0]._replace(uri="") == strips[1]._replace(uri="")
    assert sum(len(base64.b64decode(strip.uri.partition(",")[2])) for strip in strips) <= budget


def test_a_smaller_map_has_no_colours_of_its_own():
    labels = np.random.default_rng(0).integers(0, 11, (1, 60, 90))
    coloured = sprites.label_colours(labels, 11)
    (strip,) = sprites.strips_of([coloured], 1_500, maps=True)
    assert strip.width < 90
    known = {tuple(colour) for colour in sprites.palette(11).tolist()}
    assert {tuple(colour) for colour in pixels(strip.uri).reshape(-1, 3).tolist()} <= known


def test_a_difference_is_amplified_as_far_as_it_fits():
    clean = np.full((1, 2, 2, 1), 100, np.uint8)
    adversarial = clean / 255 + 4 / 255 * np.array([1, -1, 0, 0.5]).reshape(1, 2, 2, 1)
    shown, scale = sprites.amplified(adversarial, clean)
    assert scale == 30
    np.testing.assert_allclose(shown.ravel() / 255 - 0.5, [0.4706, -0.4706, 0, 0.2353], atol=3e-3)
    assert sprites.amplified(clean / 255, clean)[1] == 1


def test_void_is_black_and_classes_differ():
    colours = sprites.palette(24)
    assert len({tuple(colour) for colour in colours.tolist()}) == 24
    shown = sprites.label_colours(np.array([[[-1, 0, 3]]]), 4)
    assert shown[0, 0].tolist() == [[0, 0, 0], colours[0].tolist(), colours[3].tolist()]


def test_ribbons_are_as_thick_as_their_examples_and_fill_both_columns():
    counts = np.array([[3, 1, 0], [0, 0, 4], [2, 0, 0]])
    drawn = str(flow.ribbons(counts, "flow"))
    assert len(parts(drawn, "stays")) == 1
    assert len(parts(drawn, "turns")) == 3
    heights = [float(node.get("height")) for node in parts(drawn, "node")]
    unit = heights[0] / 4
    np.testing.assert_allclose(
        heights, np.maximum(np.array([4, 4, 2, 5, 1, 4]) * unit, 1), atol=0.1
    )
    titles = re.findall(r"<title>(.*?)</title>", drawn)
    assert titles == [
        "3 stay at expert 0",
        "1 turn from expert 0 to 1",
        "4 turn from expert 1 to 2",
        "2 turn from expert 2 to 0",
    ]


def test_a_line_is_where_its_axes_say():
    across = lines.Axis("x", 0.0, 10.0, [(0.0, "0"), (10.0, "10")])
    line = lines.Line(
        "a", [(0.0, 0.0), (10.0, 100.0)], "model", [(0.0, 0.0, 50.0), (10.0, 50, 100)]
    )
    drawn = str(lines.chart("chart", [line], across, lines.percent_axis("%")))
    (low, high) = ((float(m.get("cx")), float(m.get("cy"))) for m in parts(drawn, "mark"))
    assert low[0] < high[0]
    assert low[1] > high[1]
    assert parts(drawn, "band")[0].get("d").count("L") == 3


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0.0, 10.0], [0, 2.5, 5, 7.5, 10]), ([-0.4, 1.0], [-0.5, 0, 0.5, 1]), ([3.0, 3.0], None)],
)
def test_ticks_are_round_and_hold_all_values(values, ticks):
    axis = lines.axis_of("x", values)
    found = [tick for tick, _ in axis.ticks]
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert ticks is None or found == pytest.approx(ticks)


def test_bars_skip_what_is_not_known():
    drawn = str(bars.pairs([0.2, 0.8], [float("nan"), 0.4], "bars"))
    high = [float(bar.get("height")) for bar in parts(drawn, "bar")]
    assert high[1] == pytest.approx(2 * high[2], rel=0.01)
    assert len(high) == 3


def test_a_heat_map_is_opaque_where_it_is_largest():
    shown = pixels(heat.opacity_png(np.array([[0.0, 4.0], [np.nan, 1.0]])))
    assert shown[..., 3].tolist()[0] == [0, 255]
    assert shown[1, 0, 3] == 0
    assert 0 < shown[1, 1, 3] < 255
    opacity = [
        float(c.get("fill-opacity")) for c in parts(str(heat.strip([1, 2], "s", "ab")), "heat")
    ]
    assert opacity == [0.5, 1.0]

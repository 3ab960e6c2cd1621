"""Frame sampling: in range, in order, the right spread, the last frame as padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmoe.data import temporal_sampling as ts

LENGTH = st.integers(1, 300)
FRAMES = st.integers(1, 64)
STRIDE = st.integers(1, 9)
SEED = st.integers(0, 2**32 - 1)


@given(LENGTH, FRAMES, STRIDE, SEED)
def test_every_sampler_stays_in_the_video_and_in_order(length, frames, stride, seed):
    rng = np.random.default_rng(seed)
    for chosen in (
        ts.uniform_frames(length, frames),
        ts.random_uniform_frames(length, frames, rng),
        ts.window_frames(length, frames, stride),
        ts.random_window_frames(length, frames, stride, rng),
    ):
        assert chosen.shape == (frames,)
        assert chosen.min() >= 0
        assert chosen.max() < length
        assert (np.diff(chosen) >= 0).all()


@given(LENGTH, FRAMES, SEED)
def test_uniform_takes_one_frame_of_each_segment(length, frames, seed):
    if length < frames:
        return
    for chosen in (
        ts.uniform_frames(length, frames),
        ts.random_uniform_frames(length, frames, np.random.default_rng(seed)),
    ):
        assert (np.diff(chosen) > 0).all()
        middles = (np.arange(frames) + 0.5) * length / frames
        assert (abs(chosen + 0.5 - middles) <= length / frames / 2 + 1).all()


@given(LENGTH, FRAMES)
def test_uniform_is_the_same_seen_backwards_up_to_rounding(length, frames):
    if length >= frames:
        chosen = ts.uniform_frames(length, frames)
        assert (abs(chosen + chosen[::-1] - (length - 1)) <= 1).all()


@given(st.integers(2, 64), st.data())
def test_a_short_video_is_padded_by_its_last_frame(frames, data):
    length = data.draw(st.integers(1, frames - 1))
    expected = [*range(length), *[length - 1] * (frames - length)]
    rng = np.random.default_rng(0)
    assert ts.uniform_frames(length, frames).tolist() == expected
    assert ts.random_uniform_frames(length, frames, rng).tolist() == expected
    assert ts.window_frames(length, frames, 1).tolist() == expected
    assert ts.random_window_frames(length, frames, 1, rng).tolist() == expected


@given(FRAMES, STRIDE, st.integers(0, 50), SEED)
def test_a_window_that_fits_has_the_stride(frames, stride, slack, seed):
    length = (frames - 1) * stride + 1 + slack
    rng = np.random.default_rng(seed)
    for chosen in (
        ts.window_frames(length, frames, stride),
        ts.random_window_frames(length, frames, stride, rng),
    ):
        assert (np.diff(chosen) == stride).all()
    assert abs(ts.window_frames(length, frames, stride)[0] - slack / 2) < 1


@pytest.mark.parametrize("length", [40, 41])
def test_random_samplers_reach_the_first_and_the_last_frame(length):
    rng = np.random.default_rng(0)
    windows = np.stack([ts.random_window_frames(length, 8, 4, rng) for _ in range(400)])
    spread = np.stack([ts.random_uniform_frames(length, 8, rng) for _ in range(400)])
    for chosen in (windows, spread):
        assert set(chosen.ravel().tolist()) == set(range(length))

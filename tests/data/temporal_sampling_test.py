"""Frame sampling: in range, in order, the right spread, the last frame as padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmoe.data.loading import temporal_sampling as ts

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


@given(LENGTH, FRAMES, STRIDE, st.integers(1, 50_000))
def test_even_times_change_nothing(length, frames, stride, wait):
    times = np.arange(length + 1) * wait
    for evenly, timed in (
        (ts.uniform_frames(length, frames), ts.uniform_frames(length, frames, times)),
        (ts.window_frames(length, frames, stride), ts.window_frames(length, frames, stride, times)),
    ):
        assert evenly.tolist() == timed.tolist()


WAITS = st.lists(st.integers(0, 20), min_size=2, max_size=60).filter(lambda waits: sum(waits) > 0)


def shown(waits):
    """The number of the frame on show in each millisecond."""
    return np.repeat(np.arange(len(waits)), waits)


@given(WAITS, st.integers(1, 60), SEED)
def test_frames_are_spread_evenly_in_time(waits, frames, seed):
    length, film = len(waits), shown(waits)
    if length < frames:
        return
    times = np.concatenate([[0], np.cumsum(waits)])
    centres = [int((2 * k + 1) * len(film) / (2 * frames)) for k in range(frames)]
    assert ts.uniform_frames(length, frames, times).tolist() == film[centres].tolist()
    drawn = ts.random_uniform_frames(length, frames, np.random.default_rng(seed), times)
    assert drawn.min() >= 0
    assert drawn.max() < length
    assert (np.diff(drawn) >= 0).all()
    assert set(drawn) <= set(film)  # no frame without time


def test_a_window_has_equal_steps_of_time():
    waits = [1] * 30 + [9] * 30  # a frame is 5 on the average
    times = np.concatenate([[0], np.cumsum(waits)])
    chosen = ts.window_frames(60, 8, 4, times)
    np.testing.assert_array_equal(np.diff(shown(waits)[times[chosen]]), np.diff(chosen))
    begins = times[chosen]
    assert abs(np.diff(begins) - 20).max() <= 9
    rng = np.random.default_rng(0)
    for _ in range(20):
        begins = times[ts.random_window_frames(60, 8, 4, rng, times)]
        assert abs(np.diff(begins) - 20).max() <= 9


def test_random_frames_of_an_uneven_film_reach_all_that_have_time():
    waits = [1] * 20 + [40] * 4
    times = np.concatenate([[0], np.cumsum(waits)])
    rng = np.random.default_rng(0)
    drawn = [ts.random_uniform_frames(24, 6, rng, times) for _ in range(1500)]
    assert set(np.ravel(drawn).tolist()) == set(range(24))


@pytest.mark.parametrize("length", [40, 41])
def test_random_samplers_reach_the_first_and_the_last_frame(length):
    rng = np.random.default_rng(0)
    windows = np.stack([ts.random_window_frames(length, 8, 4, rng) for _ in range(400)])
    spread = np.stack([ts.random_uniform_frames(length, 8, rng) for _ in range(400)])
    for chosen in (windows, spread):
        assert set(chosen.ravel().tolist()) == set(range(length))


@given(LENGTH, FRAMES, STRIDE, SEED, st.floats(0.01, 0.9))
def test_a_window_of_another_speed_stays_in_the_video(length, frames, stride, seed, jitter):
    rng = np.random.default_rng(seed)
    chosen = ts.random_window_frames(length, frames, stride, rng, speed_jitter=jitter)
    assert chosen.shape == (frames,)
    assert chosen.min() >= 0
    assert chosen.max() < length
    gaps = np.diff(chosen)
    assert (gaps >= 0).all()
    assert (gaps <= np.ceil(stride * (1 + jitter))).all()
    if (frames - 1) * stride < length:  # it fits at its own speed, so that nothing is repeated
        assert (gaps >= np.floor(stride * (1 - jitter))).all()


def test_speeds_are_spread_around_the_stride_and_0_draws_none():
    rng = np.random.default_rng(0)
    windows = [ts.random_window_frames(500, 21, 10, rng, speed_jitter=0.4) for _ in range(2000)]
    speeds = [(window[-1] - window[0]) / 200 for window in windows]
    np.testing.assert_allclose(
        np.quantile(speeds, [0.01, 0.25, 0.5, 0.75, 0.99]), [0.608, 0.8, 1, 1.2, 1.392], atol=0.03
    )
    plain, still = (np.random.default_rng(1) for _ in range(2))
    first = ts.random_window_frames(500, 21, 10, plain)
    np.testing.assert_array_equal(first, ts.random_window_frames(500, 21, 10, still, None, 0.0))
    assert plain.random() == still.random()

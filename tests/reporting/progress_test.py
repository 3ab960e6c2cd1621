"""Progress on a terminal and in a pipe."""

import io

import pytest

from jaxmoe.training.validation import Validation


def test_piped_progress_is_one_line_an_epoch():
    from jaxmoe.reporting.progress import PlainProgress

    stream, now = io.StringIO(), [0.0]
    progress = PlainProgress(stream, clock=lambda: now[0])
    progress.stage("at_m", 200, 0)
    for step in range(100):
        now[0] += 0.5
        progress.step({"adversarial/loss": 1.5, "adversarial/gradient_norm": 1} if step else None)
    progress.epoch(1, Validation(0.5, 0.25, 1.0, 0.4))
    first, second = stream.getvalue().splitlines()
    assert "compiling" in first
    for part in ("0:50", "epoch 1", "loss 1.5", "50.0%", "25.0%", "40%"):
        assert part in second
    for _ in range(130):
        now[0] += 0.5
        progress.step(None)
    assert len(stream.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("load", "gains", "said"),
    [
        (
            0.4,
            (0.25, 0.1),
            "examples, +25.0 points on a random route, +10.0 on the best expert alone",
        ),
        (0.4, (0.01, -0.02), "-2.0 on the best expert alone: the router decides nothing"),
        (0.97, (0.5, 0.0), "collapsed onto one expert"),
        (1.0, (None, None), "100% of the examples"),
    ],
)
def test_an_epoch_says_what_the_router_decides(load, gains, said):
    from jaxmoe.reporting.progress import show_epoch

    line = show_epoch({}, Validation(0.5, None, 1.0, load, *gains))
    assert said in line
    assert ("points" in line) == (gains[0] is not None)


def test_one_bar_is_shown_and_what_is_done_becomes_a_line():
    from jaxmoe.reporting.progress import BarProgress

    stream = io.StringIO()
    with BarProgress(stream) as progress:
        progress.data(2, 2)
        progress.stage("standard", 1, 0)
        progress.step({"clean/loss": 0.5})
        progress.stage("at_m", 4, 2)
        progress.step(None)
        for done in range(3):  # of the clean pass nobody knows the end
            progress.evaluation(done, 0, "clean")
        progress.evaluation(4, 20, "pgd")
        assert len(progress._progress.tasks) == 1
        assert progress._progress.tasks[0].completed == 4
    lines = stream.getvalue().splitlines()
    for name in ("preparing examples: 2 done in 0:00", "standard: 1 done in 0:00"):
        assert name in lines
    assert not any(line.startswith(("at_m:", "evaluating:")) for line in lines)


def test_bars_survive_names_with_brackets():
    from jaxmoe.reporting.progress import BarProgress

    stream = io.StringIO()
    with BarProgress(stream) as progress:
        progress.data(1, 2)
        progress.data(2, 2)
        progress.say("skipped [/red].mp4")
        progress.stage("j_tlat", 2, 0)
        progress.step({"router/loss": 0.5, "global/loss": 1.0})
        progress.epoch(1, Validation(0.5, None, 1.0, 0.4))
        progress.evaluation(1, 3, "pgd ε = 0.03")
    assert "skipped [/red].mp4" in stream.getvalue()
    assert "j_tlat" in stream.getvalue()
    assert "robust" not in stream.getvalue()  # clean training knows nothing of it

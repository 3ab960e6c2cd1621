"""Progress for a person who waits: one bar on a terminal, plain lines where output is piped.

`make_progress()` is a context manager. It implements `training.Progress` for training, and is told
of data preparation by `data(done, total)` and of evaluation by `evaluation(done, total, what)`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from jaxmoe.training import Validation

# Piped output says that a long wait still goes on; more often would fill a log file.
_HEARTBEAT_SECONDS = 60.0


def make_progress(stream: TextIO | None = None) -> "PlainProgress | BarProgress":
    """A bar if `stream` (standard output by default) is a terminal, else plain lines."""
    stream = stream or sys.stdout
    return BarProgress(stream) if stream.isatty() else PlainProgress(stream)


class PlainProgress:
    """One line when a stage begins, when an epoch was validated, and once a minute between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._stream = stream
        self._clock = clock
        self._began = self._last_line = clock()
        self._stage, self._steps, self._done = "", 0, 0
        self._losses: dict[str, float] = {}
        self._attack = ""

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Lets others print."""
        yield

    def say(self, line: str) -> None:
        """Prints a line."""
        print(line, file=self._stream, flush=True)
        self._last_line = self._clock()

    def stage(self, name: str, steps: int, done: int) -> None:
        """A stage of training begins."""
        self._stage, self._steps, self._done, self._losses = name, steps, done, {}
        resumed = f", resumed after {done}" if done else ""
        self._tell(f"{name}: {steps} steps{resumed}; compiling…")

    def step(self, metrics: Mapping[str, float] | None) -> None:
        """A step is done."""
        self._done += 1
        self._losses |= read_losses(metrics)
        self._heartbeat(self._stage, self._done, self._steps, " steps" + show_losses(self._losses))

    def epoch(self, epoch: int, validation: "Validation") -> None:
        """An epoch was validated."""
        self._tell(f"{self._stage}: epoch {epoch}, {show_epoch(self._losses, validation)}")

    def data(self, done: int, total: int) -> None:
        """Videos were decoded."""
        if done == total:
            self._tell(f"prepared {total} examples")
        else:
            self._heartbeat("preparing examples", done, total, "")

    def evaluation(self, done: int, total: int, what: str) -> None:
        """A batch was evaluated."""
        if what != self._attack:
            self._attack = what
            self._tell(f"evaluating: {what}")
        else:
            self._heartbeat(f"evaluating: {what}", done, total, " batches")

    def _heartbeat(self, what: str, done: int, total: int, more: str) -> None:
        if self._clock() - self._last_line >= _HEARTBEAT_SECONDS:
            known = f" of {total}" if total else ""
            self._tell(f"{what}: {done}{known}{more}")

    def _tell(self, text: str) -> None:
        self.say(f"[{show_seconds(self._clock() - self._began)}] {text}")


class BarProgress:
    """One bar, of what runs now, with rich; what is done becomes a line above it."""

    def __init__(self, stream: TextIO):
        from rich import console, progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=16),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[more]}"),
            console=console.Console(file=stream, highlight=False),
        )
        self._task: Any = None
        self._name = ""
        self._losses: dict[str, float] = {}

    def __enter__(self) -> "BarProgress":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Lets others print: the bar begins anew below."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        # Not as markup: a file's name may have brackets.
        self._progress.console.print(line, markup=False, soft_wrap=True)

    def stage(self, name: str, steps: int, done: int) -> None:
        """A stage of training begins."""
        self._losses = {}
        self._begin(name, steps, done, "compiling…")

    def step(self, metrics: Mapping[str, float] | None) -> None:
        """A step is done."""
        self._losses |= read_losses(metrics)
        # Phases have their names in the lines of epochs; here they would not fit 80 columns.
        more = "/".join(f"{value:.2f}" for value in self._losses.values())
        more = f"loss {more}" if more else "first steps"
        self._progress.update(self._task, advance=1, more=f"{more}{self._speed('steps')}")

    def epoch(self, epoch: int, validation: "Validation") -> None:
        """An epoch was validated."""
        self.say(f"{self._name}: epoch {epoch}, {show_epoch(self._losses, validation)}")

    def data(self, done: int, total: int) -> None:
        """Videos were decoded."""
        self._update("preparing examples", done, total, "")

    def evaluation(self, done: int, total: int, what: str) -> None:
        """A batch was evaluated."""
        self._update("evaluating", done, total, what)

    def _begin(self, name: str, total: int, done: int, more: str) -> None:
        """The bar is another's from here on."""
        if self._task is not None:
            ended = self._progress.tasks[0]
            if ended.finished:
                self.say(f"{self._name}: {ended.total:.0f} done in {show_seconds(ended.elapsed)}")
            self._progress.remove_task(self._task)
        self._name = name
        self._task = self._progress.add_task(name, total=total or None, completed=done, more=more)

    def _update(self, name: str, done: int, total: int, more: str) -> None:
        if self._task is None or name != self._name or self._progress.tasks[0].finished:
            self._begin(name, total, done, more)
        more = f"{more}{self._speed('batches')}" if name == "evaluating" else more
        # Before the clean pass ends nobody knows how much there is: a bar that moves to and fro.
        self._progress.update(self._task, completed=done, total=total or None, more=more)

    def _speed(self, of: str) -> str:
        speed = self._progress.tasks[0].speed
        return f", {speed:.2g} {of}/s" if speed else ""


def read_losses(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """The losses among a step's metrics, by phase."""
    found = (metrics or {}).items()
    return {name.removesuffix("/loss"): value for name, value in found if name.endswith("/loss")}


def show_losses(losses: Mapping[str, float]) -> str:
    """`, loss 1.234`, or one for each phase; nothing before the first."""
    if len(losses) == 1:
        return f", loss {next(iter(losses.values())):.4f}"
    return "".join(f", {phase} loss {value:.4f}" for phase, value in losses.items())


def show_epoch(losses: Mapping[str, float], validation: "Validation") -> str:
    """Losses of training and figures of the validation split."""
    robust = validation.robust_accuracy
    return (
        f"{show_losses(losses).removeprefix(', ')}{', ' if losses else ''}"
        f"validation: accuracy {validation.accuracy:.1%}, "
        f"{'' if robust is None else f'robust {robust:.1%}, '}"
        f"{_show_average(validation)}"
        f"busiest expert {validation.largest_load:.0%} of the examples"
        f"{_show_gains(validation)}"
    )


def _show_average(validation: "Validation") -> str:
    """Says how good the moving average of the params is, where one is kept."""
    accuracy, robust = validation.average_accuracy, validation.average_robust_accuracy
    if accuracy is None:
        return ""
    return f"average {accuracy:.1%}{'' if robust is None else f', robust {robust:.1%}'}, "


def _show_gains(validation: "Validation") -> str:
    """Says how much the router gains and whether there is a mixture; empty for one expert."""
    if validation.routing_gain is None:
        return ""
    routing, mixture = 100 * validation.routing_gain, 100 * validation.mixture_gain
    gains = f", {routing:+.1f} points on a random route, {mixture:+.1f} on the best expert alone"
    fault = fault_of_routes(validation.routing_gain, validation.largest_load)
    return gains if fault is None else f"{gains}: {fault}"


def fault_of_routes(routing_gain: float, largest_load: float) -> str | None:
    """Returns what is wrong with a mixture's routes on the validation clips; None where nothing is.

    Args:
      routing_gain: accuracy less that of a random route, a share.
      largest_load: share of the clips at the busiest expert.
    """
    from jaxmoe.mixture.parts import COLLAPSED, NOTHING  # takes a while, and help does not need it

    if largest_load >= COLLAPSED:
        return "collapsed onto one expert"
    return "the router decides nothing" if routing_gain < NOTHING else None


def show_seconds(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

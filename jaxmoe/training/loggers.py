"""Where a run's numbers, figures and clips are shown: TensorBoard, and Weights & Biases.

Both are told the same. Nothing leaves the machine: Weights & Biases writes into the run's folder,
`wandb sync` sends it, and WANDB_MODE=online sends it at once.
"""

import importlib.util
import io
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxmoe.files import read_json, write_json

_SHOWN_AFTER_SECONDS = 60.0  # TensorBoard reads what was flushed; each flush waits for the disk
_FRAME_MILLISECONDS = 125


class Logger(Protocol):
    """One place that is told what a run does."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by name."""
        ...

    def figure(self, step: int, name: str, png: bytes) -> None:
        """A picture."""
        ...

    def clip(self, step: int, name: str, frames: np.ndarray) -> None:
        """Frames, uint8 `[T, H, W, 3]`."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class TensorBoard:
    """Event files in `RUN/tensorboard`; a resumed run drops what came after its checkpoint."""

    def __init__(self, run: pathlib.Path, resume_step: int = 0):
        """Opens a new file.

        Args:
          run: its folder.
          resume_step: the step that the run goes on from.
        """
        # Not SummaryWriter: where its thread dies of a full disk, the next metrics wait forever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        board = run / "tensorboard"
        board.mkdir(parents=True, exist_ok=True)
        self._board = EventsWriter(str(board / "events"))
        if resume_step:
            start = SessionLog(status=SessionLog.START)
            self._board.write_event(Event(step=resume_step + 1, session_log=start))
        self._board.flush()
        self._flushed = time.monotonic()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As `Logger`."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step, scalar(name, value))

    def figure(self, step: int, name: str, png: bytes) -> None:
        """As `Logger`."""
        from PIL import Image

        width, height = Image.open(io.BytesIO(png)).size
        self._picture(step, name, width, height, png)

    def clip(self, step: int, name: str, frames: np.ndarray) -> None:
        """As `Logger`; a GIF, which TensorBoard plays."""
        self._picture(step, name, frames.shape[2], frames.shape[1], as_gif(frames))

    def close(self) -> None:
        """As `Logger`."""
        self._board.close()

    def _picture(self, step: int, name: str, width: int, height: int, data: bytes) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._write(step, Summary(value=[Summary.Value(tag=name, image=image)]))

    def _write(self, step: int, summary: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._board.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > _SHOWN_AFTER_SECONDS:
            self._board.flush()
            self._flushed = time.monotonic()


class WeightsAndBiases:
    """A run of Weights & Biases in `RUN/wandb`.

    Online a resumed run goes on with it. Offline each process leaves a folder of its own, all of
    one id: `wandb sync --append` puts them together.
    """

    def __init__(self, run: pathlib.Path, resume_step: int = 0):
        """Begins it, or goes on.

        Args:
          run: its folder.
          resume_step: the step that the run goes on from; later ones are told again.
        """
        import wandb

        del resume_step  # a step is a number of ours: what comes again stands beside the first
        config, known = run / "config.json", run / "wandb.json"
        ident = read_json(known)["id"] if known.is_file() else secrets.token_hex(4)
        write_json(known, {"id": ident})
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project="jaxmoe",
            name=run.name,
            id=ident,
            resume="allow" if mode == "online" else None,
            dir=str(run),
            config=read_json(config) if config.is_file() else None,
            mode=mode,
        )
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As `Logger`."""
        self._run.log({"step": step, **values})

    def figure(self, step: int, name: str, png: bytes) -> None:
        """As `Logger`."""
        import wandb
        from PIL import Image

        self._run.log({"step": step, name: wandb.Image(Image.open(io.BytesIO(png)))})

    def clip(self, step: int, name: str, frames: np.ndarray) -> None:
        """As `Logger`."""
        import wandb

        self._run.log({"step": step, name: wandb.Video(io.BytesIO(as_gif(frames)), format="gif")})

    def close(self) -> None:
        """As `Logger`."""
        self._run.finish()


LOGGERS: Mapping[str, Callable[[pathlib.Path, int], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def check_loggers(names: Sequence[str]) -> None:
    """Refuses a logger whose package is not there.

    Raises:
      ValueError: one line with the name.
    """
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise ValueError("run.logger: wandb is not installed; expected it after: pip install wandb")


def open_loggers(names: Sequence[str], run: pathlib.Path, resume_step: int = 0) -> list[Logger]:
    """Returns the loggers of these names, which write into a run's folder.

    Args:
      names: of `LOGGERS`.
      run: its folder.
      resume_step: the step that the run goes on from.

    Raises:
      ValueError: as `check_loggers`.
      OSError: the disk is full or failed.
    """
    check_loggers(names)
    return [LOGGERS[name](run, resume_step) for name in names]


def as_gif(frames: np.ndarray) -> bytes:
    """Returns frames, uint8 `[T, H, W, 3]`, as a GIF that plays without end."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    data = io.BytesIO()
    first.save(
        data,
        "GIF",
        save_all=True,
        append_images=others,
        duration=_FRAME_MILLISECONDS,
        loop=0,
    )
    return data.getvalue()

"""Checkpoints of a run: the latest, from which it resumes, and the best by validation."""

import contextlib
import errno
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxmoe.files import disk_error

_UNFINISHED = "*.orbax-checkpoint-tmp*"
_LONGEST_REASON = 120  # characters of another library's error
# What Orbax writes beside an array's numbers: its name, shape, type and place.
_BYTES_PER_ARRAY = 1024


class _OtherModelError(Exception):
    """A checkpoint that does not fit, in words."""


class DamagedCheckpointError(ValueError):
    """A checkpoint that is there and cannot be read: it was copied in part, or its disk failed."""


class Checkpoints:
    """Two Orbax folders under a run, `checkpoints/latest` and `checkpoints/best`.

    A checkpoint is one Composite of `state` (arrays) and `position` (JSON: where the run and its
    loader stand). Orbax renames a finished folder into place, so a killed save leaves the last one.
    """

    def __init__(self, run: pathlib.Path):
        self.run = run.resolve()
        self._named = run
        self._folder = self.run / "checkpoints"

    def has(self, which: str) -> bool:
        """Returns whether a checkpoint of `which`, "latest" or "best", was finished."""
        return self._step(which) is not None

    def save(self, which: str, step: int, state: Any, position: dict[str, Any]) -> None:
        """Saves as `which`, "latest" or "best", in place of the one before.

        Raises:
          OSError: the disk is full or cannot be written; the checkpoint before it is kept.
        """
        folder = self._folder / which
        _hush_closed_loops()
        try:
            _remove_unfinished(folder)
            _check_room(self.run, state)
            with self._manager(which) as manager:
                if step in manager.all_steps():
                    return  # a killed run comes by again, with the same bits
                manager.save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
                    ),
                    force=True,
                )
        except Exception as error:
            found = disk_error(error, folder)
            if found is None:
                raise
            with contextlib.suppress(OSError):
                _remove_unfinished(folder)  # what it took is room again
            kept = self._step("latest")
            saved = "there is none yet" if kept is None else f"the latest of step {kept} is kept"
            words = (
                f"{found.strerror}; the {which} checkpoint of step {step} was not saved, {saved}"
            )
            raise OSError(found.errno, words, str(self._named)) from error

    def restore(self, which: str, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The state and position of `which`, or None where there is none.

        Args:
          which: "latest" or "best".
          like: a tree of arrays or `ShapeDtypeStruct`s of the state's structure.

        Raises:
          ValueError: the checkpoint holds another structure or other shapes.
          DamagedCheckpointError: it cannot be read.
        """

        def read(manager, step):
            self._check_fits(manager, step, like)
            args = ocp.args.Composite(
                state=ocp.args.StandardRestore(like), position=ocp.args.JsonRestore()
            )
            found = manager.restore(step, args=args)
            return found["state"], found["position"]

        return self._read(which, read)

    def position(self, which: str) -> dict[str, Any] | None:
        """The position alone, or None where there is no such checkpoint.

        Raises:
          DamagedCheckpointError: it cannot be read.
        """
        args = ocp.args.Composite(position=ocp.args.JsonRestore())
        return self._read(which, lambda manager, step: manager.restore(step, args=args)["position"])

    def _read(self, which: str, read: Callable[[ocp.CheckpointManager, int], Any]) -> Any:
        _hush_closed_loops()
        while (step := self._step(which)) is not None:
            try:
                with self._manager(which) as manager:
                    return read(manager, step)
            except _OtherModelError as error:
                raise ValueError(str(error)) from None
            except Exception as error:
                if self._step(which) != step:
                    continue  # the run is still training: a later one has taken its place
                raise self._damaged(which, step, error) from error
        return None

    def _damaged(self, which: str, step: int, error: Exception) -> DamagedCheckpointError:
        """Returns what is wrong, and what is left to the user."""
        why = " ".join(str(error).split())
        why = why if len(why) <= _LONGEST_REASON else f"{why[:_LONGEST_REASON]}…"
        other = "best" if which == "latest" else "latest"
        ways = "copy the run anew"
        if self.has(other):
            ways += f", judge its {other} one (--checkpoint {other})"
        if which == "latest":
            ways += f", or remove {self._named}/checkpoints/latest to train from the start"
        return DamagedCheckpointError(
            f"{self._named}: its checkpoint is damaged: {which}, of step {step}, cannot be read "
            f"({why}); {ways}"
        )

    def _step(self, which: str) -> int | None:
        """The step of the finished checkpoint, by the names of folders alone."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(self._folder / which)
            return max((int(name) for name in names if name.isdecimal()), default=None)
        return None

    def _manager(self, which: str) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, create=True, enable_async_checkpointing=False
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "position": ocp.JsonCheckpointHandler(),
        }
        return ocp.CheckpointManager(self._folder / which, options=options, item_handlers=handlers)

    def _check_fits(self, manager: ocp.CheckpointManager, step: int, like: Any) -> None:
        # The optimizer's state follows from the params.
        saved = _shapes(manager.item_metadata(step)["state"]["params"])
        wanted = _shapes(like.params)
        if saved != wanted:
            differing = sorted(
                name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name)
            )
            name = differing[0]
            raise _OtherModelError(
                f"checkpoint {self._folder.parent}: holds another model; {name} is "
                f"{saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} here"
            )


def _hush_closed_loops() -> None:
    """Keeps off the terminal what every array says after one could not be read or written.

    The first error ends Orbax's event loop; TensorStore's threads, which know nothing of it, then
    each print that it is closed, with a traceback.
    """
    say = sys.unraisablehook
    if getattr(say, "knows_closed_loops", False):
        return

    def say_others(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            say(unraisable)

    say_others.knows_closed_loops = True
    sys.unraisablehook = say_others


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Removes what killed and failed saves left; only whoever trains a run saves into it."""
    if jax.process_index() == 0:
        for left_over in folder.glob(_UNFINISHED):
            shutil.rmtree(left_over)


def _check_room(run: pathlib.Path, state: Any) -> None:
    """Refuses a save that cannot end, before Orbax's threads each say so in their own way."""
    leaves = jax.tree.leaves(state)
    needed = sum(np.asarray(leaf).nbytes + _BYTES_PER_ARRAY for leaf in leaves)
    if run.is_dir() and shutil.disk_usage(run).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(_name(entry) for entry in path): tuple(leaf.shape) for path, leaf in leaves}


def _name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)

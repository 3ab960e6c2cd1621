"""Checkpoints of a run: the latest, from which it resumes, and the best by validation.

A save copies the state to the host and returns; the disk is written meanwhile (`wait`). Each has
digests of its numbers, so that damage is found when it is read, and the one before it is used.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxmoe.files import disk_error
from jaxmoe.training.checkpoints.digests import digests, text_digest
from jaxmoe.training.checkpoints.optional import with_none, without_none

_DIGESTS, _OWN_DIGEST = "digests", "digest"  # in the position: of the state's leaves, of itself
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

    A checkpoint is one Composite of `state` (arrays, each device's part by the process that has it)
    and `position` (JSON: where the run and its loader stand). Orbax renames a finished folder into
    place, so a killed save leaves the last one.
    """

    def __init__(self, run: pathlib.Path, *, keep: int = 1, keep_every: int | None = None):
        """Opens a run's checkpoints, which may not be there yet.

        Args:
          run: its folder.
          keep: how many of the latest stay.
          keep_every: steps; a latest one whose step this divides stays for good.
        """
        self.run = run.resolve()
        self._named = run
        self._folder = self.run / "checkpoints"
        self._keep, self._keep_every = keep, keep_every
        self._open: dict[str, ocp.CheckpointManager] = {}
        self._saving: tuple[str, int] | None = None

    def has(self, which: str) -> bool:
        """Returns whether a checkpoint of `which`, "latest" or "best", was finished."""
        return bool(self._steps(which))

    def save(self, which: str, step: int, state: Any, position: dict[str, Any]) -> None:
        """Saves as `which`, "latest" or "best", and waits until it is on the disk.

        Raises:
          OSError: the disk is full or cannot be written; the checkpoint before it is kept.
        """
        try:
            self.begin(which, step, state, position)
            self.wait()
        finally:
            self.close()

    def begin(self, which: str, step: int, state: Any, position: dict[str, Any]) -> None:
        """Begins to save; the state may change as soon as this returns.

        It waits for the save before it. Every process of a run has to call it.

        Raises:
          OSError: as `save`; that of the save before, too.
        """
        self.wait()
        state = without_none(state)
        with self._telling(which, step):
            _hush_closed_loops()
            if which not in self._open:
                _remove_unfinished(self._folder / which)
            _check_room(self.run, state)
            manager = self._open.setdefault(which, self._manager(which, saves=True))
            if step in manager.all_steps():
                return  # a killed run comes by again, with the same bits
            position = {**position, _DIGESTS: digests(state)}
            position[_OWN_DIGEST] = text_digest(position)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
            )
            self._saving = which, step
            manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Waits for the save that was begun last.

        Raises:
          OSError: as `save`.
        """
        if self._saving is None:
            return
        (which, step), self._saving = self._saving, None
        with self._telling(which, step):
            self._open[which].wait_until_finished()

    def close(self) -> None:
        """Ends what saves in the background; a later save begins it anew."""
        managers, self._open, self._saving = list(self._open.values()), {}, None
        for manager in managers:
            with contextlib.suppress(Exception):  # of a save that has failed, which was said
                manager.close()

    @contextlib.contextmanager
    def _telling(self, which: str, step: int) -> Iterator[None]:
        """Makes one line of an error of the disk, and removes what it left."""
        folder = self._folder / which
        try:
            yield
        except Exception as error:
            found = disk_error(error, folder)
            self.close()
            if found is None:
                raise
            with contextlib.suppress(OSError):
                _remove_unfinished(folder)  # what it took is room again
            kept = max(self._steps("latest"), default=None)
            saved = "there is none yet" if kept is None else f"the latest of step {kept} is kept"
            words = (
                f"{found.strerror}; the {which} checkpoint of step {step} was not saved, {saved}"
            )
            raise OSError(found.errno, words, str(self._named)) from error

    def restore(
        self, which: str, like: Any, *, set_aside: bool = False
    ) -> tuple[Any, dict[str, Any]] | None:
        """Returns the state and position of `which`, or None where there is none.

        A damaged one is passed over, with a warning on stderr, where there is one before it.

        Args:
          which: "latest" or "best".
          like: a tree of arrays or `ShapeDtypeStruct`s of the state's structure; each leaf comes
            back with its sharding, and without one on this process's first device.
          set_aside: move damaged ones to `checkpoints/damaged`, for whoever goes on to save.

        Raises:
          ValueError: the checkpoint holds another structure or other shapes.
          DamagedCheckpointError: none can be read.
        """
        whole, like = like, jax.tree.map(_placed, without_none(like))

        def read(manager, step):
            self._check_fits(manager, step, like)
            args = ocp.args.Composite(
                state=ocp.args.StandardRestore(like), position=ocp.args.JsonRestore()
            )
            found = manager.restore(step, args=args)
            position, written = _whole(found["position"])
            if written is not None and written != digests(found["state"]):
                raise ValueError("its numbers are not those that were saved")
            return with_none(whole, found["state"]), position

        return self._read(which, read, set_aside=set_aside)

    def position(self, which: str) -> dict[str, Any] | None:
        """The position alone, or None where there is no such checkpoint.

        Raises:
          DamagedCheckpointError: it cannot be read.
        """
        args = ocp.args.Composite(position=ocp.args.JsonRestore())

        def read(manager, step):
            return _whole(manager.restore(step, args=args)["position"])[0]

        return self._read(which, read)

    def _read(
        self,
        which: str,
        read: Callable[[ocp.CheckpointManager, int], Any],
        *,
        set_aside: bool = False,
    ) -> Any:
        _hush_closed_loops()
        first, damaged = None, []
        while steps := [step for step in self._steps(which) if step not in damaged]:
            step = max(steps)
            try:
                with self._manager(which) as manager:
                    found = read(manager, step)
            except _OtherModelError as error:
                raise ValueError(str(error)) from None
            except Exception as error:
                if step not in self._steps(which):
                    continue  # the run is still training: a later one has taken its place
                first = first or self._damaged(which, step, error)
                first.__cause__ = first.__cause__ or error
                damaged.append(step)
            else:
                self._pass_over(which, damaged, step, set_aside=set_aside)
                return found
        if first is not None:
            raise first
        return None

    def _pass_over(self, which: str, damaged: list[int], used: int, *, set_aside: bool) -> None:
        """Says which checkpoints are damaged, and moves them out of the way."""
        if jax.process_index() > 0:
            return  # all processes read the same ones: the first alone speaks and moves
        for step in damaged:
            where = ""
            if set_aside:
                place = self._folder / "damaged" / f"{which}-{step}"
                shutil.rmtree(place, ignore_errors=True)
                place.parent.mkdir(exist_ok=True)
                (self._folder / which / str(step)).rename(place)
                where = f", and is in {self._named}/checkpoints/damaged now"
            print(
                f"jaxmoe: {self._named}: its {which} checkpoint of step {step} is damaged{where}; "
                f"the one before it, of step {used}, is used",
                file=sys.stderr,
            )

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

    def _steps(self, which: str) -> list[int]:
        """The steps of finished checkpoints, by the names of folders alone."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return [int(name) for name in os.listdir(self._folder / which) if name.isdecimal()]
        return []

    def _manager(self, which: str, *, saves: bool = False) -> ocp.CheckpointManager:
        latest = which == "latest"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=(self._keep if latest else 1) if saves else None,
            keep_period=self._keep_every if latest and saves else None,
            create=saves,
            enable_async_checkpointing=saves,
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


def _whole(saved: dict[str, Any]) -> tuple[dict[str, Any], list[int] | None]:
    """Returns a position as it was given, and the digests of its state.

    Raises:
      ValueError: it is not what was saved.
    """
    position = dict(saved)
    written = position.pop(_OWN_DIGEST, None)  # older checkpoints have neither kind
    if written is not None and written != text_digest(position):
        raise ValueError("its position is not what was saved")
    return position, position.pop(_DIGESTS, None)


def _hush_closed_loops() -> None:
    """Keeps off the terminal what every array says after one could not be read or written.

    The first error ends Orbax's event loop; TensorStore's threads, which know nothing of it, then
    each print that it is closed, with a traceback. So does each array that was still being read.
    """
    say = sys.unraisablehook
    if getattr(say, "knows_closed_loops", False):
        return

    def say_others(unraisable):
        error = unraisable.exc_value
        given_up = isinstance(getattr(error, "__cause__", None), GeneratorExit)
        if str(error) != "Event loop is closed" and not given_up:
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
    needed = sum(leaf.nbytes + _BYTES_PER_ARRAY for leaf in map(_array, leaves))
    if run.is_dir() and shutil.disk_usage(run).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run))


def _array(leaf: Any) -> jax.Array | np.ndarray:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """The leaf's shape with a sharding: those that were saved with may have other devices."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(_name(entry) for entry in path): tuple(leaf.shape) for path, leaf in leaves}


def _name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)

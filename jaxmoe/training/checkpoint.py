"""Checkpoints of a run: the latest, from which it resumes, and the best by validation."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """Two Orbax folders under a run, `checkpoints/latest` and `checkpoints/best`.

    A checkpoint is one Composite of `state` (arrays) and `position` (JSON: where the run and its
    loader stand). Orbax renames a finished folder into place, so a killed save leaves the last one.
    """

    def __init__(self, run: pathlib.Path):
        self.run = run.resolve()
        self._folder = self.run / "checkpoints"

    def save(self, which: str, step: int, state: Any, position: dict[str, Any]) -> None:
        """Saves as `which`, "latest" or "best", in place of the one before."""
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

    def restore(self, which: str, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The state and position of `which`, or None where there is none.

        Args:
          which: "latest" or "best".
          like: a tree of arrays or `ShapeDtypeStruct`s of the state's structure.

        Raises:
          ValueError: the checkpoint holds another structure or other shapes.
        """
        if not (self._folder / which).is_dir():
            return None
        with self._manager(which) as manager:
            step = manager.latest_step()
            if step is None:
                return None
            self._check_fits(manager, step, like)
            found = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like), position=ocp.args.JsonRestore()
                ),
            )
        return found["state"], found["position"]

    def position(self, which: str) -> dict[str, Any] | None:
        """The position alone."""
        if not (self._folder / which).is_dir():
            return None
        with self._manager(which) as manager:
            step = manager.latest_step()
            if step is None:
                return None
            args = ocp.args.Composite(position=ocp.args.JsonRestore())
            return manager.restore(step, args=args)["position"]

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
            raise ValueError(
                f"checkpoint {self._folder.parent}: holds another model; {name} is "
                f"{saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} here"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(_name(entry) for entry in path): tuple(leaf.shape) for path, leaf in leaves}


def _name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)

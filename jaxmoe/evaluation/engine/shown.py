"""A few whole examples of an evaluation, for a person to look at.

Axes: E = examples shown, T = frames, B = batch, N = valid clips.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxmoe.evaluation.engine.candidates import Chosen
from jaxmoe.evaluation.engine.programs import Programs


class Shown(NamedTuple):
    """Whole examples, clean and adversarial, and why each was chosen."""

    position: Int[np.ndarray, " examples"]  # in 0..N−1
    line: Int[np.ndarray, " examples"]  # of the attack and ε; 0 is the clean line
    why: np.ndarray  # shape=(E,), str
    clean: UInt8[np.ndarray, "examples time height width channels"]
    adversarial: Float[np.ndarray, "examples time height width channels"]  # float16, 0–1
    # Classes of pixels, where they have labels: the label, void ones −1, and what the model says.
    label_map: Int[np.ndarray, "examples ..."] | None = None
    clean_map: Int[np.ndarray, "examples ..."] | None = None
    adversarial_map: Int[np.ndarray, "examples ..."] | None = None
    # In pixel units, of temporal momentum; NaN of an attack without it, None where none has it.
    step_sizes: Float[np.ndarray, "examples steps time"] | None = None


def show(
    chosen: Sequence[Chosen],
    programs: Programs,
    params: Any,
    label: np.ndarray,
    shape: tuple[int, ...],
) -> Shown | None:
    """Returns the chosen examples whole; None where there is none.

    Maps are what the model says of the very clips that are shown, in half precision.

    Args:
      chosen: of all candidates.
      programs: of the model.
      params: its params.
      label: of the valid clips, [N, …].
      shape: of a batch of clips, as the model takes it.
    """
    if not chosen:
        return None
    position = np.array([one.place for one in chosen], np.int32)
    pairs = [one.pair() for one in chosen]
    clean = np.stack([pair.clean for pair in pairs])
    adversarial = np.stack([pair.adversarial for pair in pairs])
    line, why = np.array([one.line for one in chosen], np.int32), [one.why for one in chosen]
    sizes = join_step_sizes([pair.step_sizes for pair in pairs])
    found = Shown(position, line, np.array(why), clean, adversarial, step_sizes=sizes)
    labels = label[position]
    if labels.ndim < 2 or not np.issubdtype(labels.dtype, np.integer):
        return found

    def maps(clips):
        return _maps(programs, params, clips.astype(np.float32), labels, shape)

    before, after = maps(clean.astype(np.float32) / 255), maps(adversarial)
    if before.shape != labels.shape:  # labels of a metric of one's own
        return found
    return found._replace(
        label_map=labels.astype(np.int16), clean_map=before, adversarial_map=after
    )


def join_step_sizes(
    found: Sequence[Float[np.ndarray, "steps time"] | None],
) -> Float[np.ndarray, "examples steps time"] | None:
    """The step sizes of all examples, NaN where an attack has none or fewer steps."""
    known = [sizes for sizes in found if sizes is not None]
    if not known:
        return None
    shape = tuple(np.max([sizes.shape for sizes in known], axis=0))
    joined = np.full((len(found), *shape), np.nan, np.float32)
    for place, sizes in enumerate(found):
        if sizes is not None:
            joined[(place, *map(slice, sizes.shape))] = sizes
    return joined


def _maps(
    programs: Programs, params: Any, clips: np.ndarray, labels: np.ndarray, shape: tuple[int, ...]
) -> Int[np.ndarray, "examples ..."]:
    """The classes that the model says of each position, in batches of the size that it knows."""
    found = []
    for start in range(0, len(clips), shape[0]):
        rows = np.minimum(np.arange(start, start + shape[0]), len(clips) - 1)
        batch = {"clip": clips[rows].reshape(shape), "label": labels[rows], "index": rows}
        outputs, _ = programs.clean(params, batch)
        found.append(np.asarray(jnp.argmax(outputs.logits, axis=-1)).astype(np.int16))
    return np.concatenate(found)[: len(clips)]

"""Adversarial clips as files, for those who ask for them."""

import os
import pathlib

import numpy as np

from jaxmoe.threat import Norm


class Examples:
    """Writes what an attack returned, `FOLDER/ATTACK-EPSILON/NUMBER.npz` for each batch.

    A file holds the valid clips: `x_adv` (pixels, float32), `label`, `index` and `correct` (1 where
    the model is right on `x_adv`). A cascade has a file for each batch of each attempt.
    """

    def __init__(self, folder: str | os.PathLike, attack: str, epsilon: float, norm: Norm):
        self.folder = pathlib.Path(folder) / f"{attack}-{norm}-{epsilon:.6g}"

    def clear(self) -> None:
        """Removes the files of an evaluation before."""
        for file in self.folder.glob("*.npz"):
            file.unlink()

    def __call__(
        self, name: str, batch: dict[str, np.ndarray], x_adv: np.ndarray, correct: np.ndarray
    ) -> None:
        """Writes the valid clips of one batch into `name.npz`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        valid = np.asarray(batch["valid"])
        arrays = {"x_adv": np.asarray(x_adv, np.float32), "correct": np.asarray(correct)}
        arrays |= {field: np.asarray(batch[field]) for field in ("label", "index")}
        # Under another name first: a kill leaves no file that is torn.
        unfinished = self.folder / f"{name}.part"
        with open(unfinished, "wb") as stream:
            np.savez(stream, **{field: values[valid] for field, values in arrays.items()})
        unfinished.replace(self.folder / f"{name}.npz")

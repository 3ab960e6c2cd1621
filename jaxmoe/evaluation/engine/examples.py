"""Adversarial clips as files, for those who ask for them."""

import hashlib
import os
import pathlib
import uuid
from collections.abc import Sequence

import numpy as np

from jaxmoe.choices import Norm


class Examples:
    """Writes what an attack returned, `FOLDER/ATTACK-EPSILON/NUMBER.npz` for each batch.

    A file holds the valid clips: `x_adv` (pixels, float32), `label`, `index` and `correct` (1 where
    the model is right on `x_adv`). A cascade has a file for each batch of each attempt. The folder
    has a mark of the evaluation that made its files: only its results need not be made again.
    """

    def __init__(self, folder: str | os.PathLike, attack: str, epsilon: float, norm: Norm):
        self.folder = pathlib.Path(folder) / f"{attack}-{norm}-{epsilon:.6g}"

    @property
    def mark(self) -> str:
        """Returns what marks the evaluation that made the files; empty where there was none."""
        return self._mark.read_text(encoding="utf-8") if self._mark.is_file() else ""

    def begin(self, plan: Sequence[str], *, goes_on: bool) -> None:
        """Removes the files of other evaluations, and marks the folder as this one's.

        Args:
          plan: names of all results of this evaluation.
          goes_on: whether there are results under this mark.
        """
        own = hashlib.sha256(repr(plan).encode()).hexdigest()[:16]
        files = list(self.folder.glob("*.npz"))
        if goes_on and files and self.mark.startswith(own):
            return
        for file in files:
            file.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mark.write_text(f"{own} {uuid.uuid4().hex}", encoding="utf-8")

    @property
    def _mark(self) -> pathlib.Path:
        return self.folder / ".made-by"

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

"""Batches of one's own as the loop takes them: without an end, with a place that can be saved.

Axes: B = batch.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import jax
import numpy as np

from jaxmoe.attacks.edge import check_label_shape, check_labels, check_pixels, to_pixels
from jaxmoe.mixture import Mixture

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
"""Pairs `(x [B, …], y [B, …])`; a list, or a loader that starts anew for every pass."""


class Passes:
    """Batches without an end, pass after pass, whose place can be saved.

    What does not fit the model is refused when it is first seen, in one line.
    """

    def __init__(self, field: str, batches: Batches, mixture: Mixture, params: Any):
        iterator = iter(batches)
        if iterator is batches:
            raise ValueError(
                f"{field}: {type(batches).__name__}; expected a list or a loader: each pass begins "
                "it anew"
            )
        first = next(iterator, None)
        if first is None:
            raise ValueError(f"{field}: none; expected at least one (x, y)")
        self.shape = np.shape(first[0])  # of the first inputs
        self.length = len(batches) if isinstance(batches, Sized) else 1 + sum(1 for _ in iterator)
        self._field, self._batches = field, batches
        self._apply = lambda x: mixture.apply(params, x)
        self._batch, self._example, self._checked = 0, 0, 0
        self._iterator: Iterator | None = None

    def __next__(self) -> Mapping[str, np.ndarray]:
        if self._iterator is None or self._batch == self.length:
            self._begin()
        try:
            x, y = map(np.asarray, next(self._iterator))
        except StopIteration:
            raise ValueError(
                f"{self._field}: {self._batch} in this pass, and {self.length} in the first"
            ) from None
        if self._checked < self.length:
            self._check(x, y)
            self._checked += 1
        index = np.arange(self._example, self._example + len(x))
        self._batch, self._example = self._batch + 1, self._example + len(x)
        return {"clip": x, "label": y, "index": index}

    def _begin(self) -> None:
        self._iterator = iter(self._batches)
        self._batch, self._example = 0, 0

    def _check(self, x: np.ndarray, y: np.ndarray) -> None:
        try:
            if not (x.shape and y.shape and 0 < len(x) == len(y)):
                raise ValueError(
                    f"shapes {x.shape} and {y.shape}; expected as many examples as labels, and some"
                )
            check_pixels(x)
            logits = jax.eval_shape(self._apply, jax.eval_shape(to_pixels, x)).shape
            check_label_shape(y, logits)
            check_labels(y, logits[-1])
        except ValueError as error:
            raise ValueError(f"{self._field}: {error}") from None

    def get_state(self) -> int:
        """Batches of this pass that were taken."""
        return self._batch

    def set_state(self, state: int) -> None:
        """Goes on behind so many batches of a new pass."""
        self._iterator = None
        for _ in range(state % self.length):
            next(self)

    def digest(self) -> int:
        """Returns a number that the numbers of all batches decide."""
        found = 0
        for batch in self._batches:
            for leaf in batch:
                found = zlib.crc32(np.ascontiguousarray(leaf), found)
        return found

    def whole(self, devices: int) -> Iterator[Mapping[str, np.ndarray]]:
        """One pass, each batch filled up for the devices with examples that do not count."""
        self._iterator = None
        for _ in range(self.length):
            batch = next(self)
            count = len(batch["label"])
            place = np.minimum(np.arange(-(-count // devices) * devices), count - 1)
            valid = np.arange(len(place)) < count
            yield {name: values[place] for name, values in batch.items()} | {"valid": valid}

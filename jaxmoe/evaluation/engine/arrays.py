"""Arrays of examples as the batches that evaluations read.

Axes: N = examples.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np


def cut(
    x: np.ndarray, y: np.ndarray, batch_size: int
) -> Callable[[], Iterator[Mapping[str, np.ndarray]]]:
    """Returns a function that makes one pass over N examples in batches of one size.

    The last batch is filled up with the last example, which is not `valid` there.

    Raises:
      ValueError: numbers of examples and labels that differ, none, or a size below 1.
    """
    if not (x.shape and y.shape and 0 < len(x) == len(y)):
        raise ValueError(
            f"x, y: shapes {x.shape} and {y.shape}; expected as many examples as labels, and some"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} is not at least 1")

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(0, len(x), batch_size):
            index = np.arange(start, start + batch_size)
            place = np.minimum(index, len(x) - 1)
            yield {"clip": x[place], "label": y[place], "index": place, "valid": index < len(x)}

    return batches

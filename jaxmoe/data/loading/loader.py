"""`make_loader`: batches of clips from a `ClipSource`, by Grain, with a position that can be saved.

B = clips of this process per batch, T = frames, H = height, W = width
"""

import atexit
import contextlib
import dataclasses
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import grain
import numpy as np

from jaxmoe.data.loading.augmentation import Augmentation
from jaxmoe.data.loading.main_guard import check_main_guard
from jaxmoe.data.loading.source import ClipSource
from jaxmoe.data.loading.views import CentreImage, CentreView, RandomImage, RandomView
from jaxmoe.data.loading.worker_batches import WorkerBatches

# Below this the decoded frames of a split stay in memory unless the caller decides.
_KEEP_DECODED_BELOW = 1 << 30
# Batches made ahead of the one in use: enough to hide a slow one, few enough to keep memory small.
_BATCHES_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Loader:
    """Batches of one split: dicts of NumPy arrays.

    `clip` `uint8[B, T, H, W, 3]` in 0–255, of images `uint8[B, H, W, 3]`, `label` `int32[B]`, or
    `int32[B, H, W]` with −1 for void where every pixel has one, `index` `int32[B]` (the example's
    own number in the dataset), `valid` `bool[B]` (False where a last batch was filled up).

    `iter(loader)` starts at the beginning; the iterator has `get_state()` and `set_state(state)`,
    where `state` is a dict that JSON can hold, and goes on with exactly the next batch. It is a
    `grain.DatasetIterator`, so Orbax can save it by `grain.checkpoint`. `close()` ends its threads.

    Attributes:
      batch_size: B, clips of this process per batch.
      batches_per_epoch: batches until every clip was seen once, the same on every process.
      dataset: the Grain dataset underneath.
      batches: its batches by position.
    """

    batch_size: int
    batches_per_epoch: int
    dataset: grain.IterDataset
    batches: grain.MapDataset

    def at(self, positions: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """The batches at these positions of a pass; the others are not read."""
        chosen = grain.MapDataset.source(list(positions)).map(self.batches.__getitem__)
        return _opened(_prefetched(chosen, workers=0))

    def __iter__(self) -> grain.DatasetIterator:
        return _opened(self.dataset)


# What is open when Python ends is closed before its modules are taken apart: later, worker
# processes would leave shared memory behind, and threads tracebacks.
_OPEN: weakref.WeakSet[grain.DatasetIterator] = weakref.WeakSet()


def _opened(dataset: grain.IterDataset) -> grain.DatasetIterator:
    iterator = iter(dataset)
    _OPEN.add(iterator)
    return iterator


@atexit.register
def _close_open() -> None:
    for iterator in list(_OPEN):
        with contextlib.suppress(Exception):  # at the end nobody is left to tell
            iterator.close()


def make_loader(
    source: ClipSource,
    *,
    batch_size: int,
    frames: int,
    height: int,
    augmentation: Augmentation | None,
    shuffle: bool,
    repeat: bool,
    seed: int,
    width: int | None = None,
    stride: int | Literal["uniform"] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    cache_decoded: bool | None = None,
) -> Loader:
    """Makes a loader; the same arguments give the same batches, whatever `workers` is.

    With `repeat` (training) it never ends: each epoch is shuffled and augmented anew, and the rest
    that does not fill a batch on every process is left out of that epoch. Without (evaluation) it
    is one pass over every clip; the last batches are filled up by the last clip with
    `valid=False`, and every process gets the same number of batches. Processes share no clip.

    Args:
      source: a split of a dataset.
      batch_size: B, clips of this process per batch.
      frames: T; images have no such axis.
      height: H, at most that of the stored frames.
      augmentation: random frames, a random crop and what else it says; None is evenly spread
        frames and the middle.
      shuffle: a new order by `seed`, else the order of the source.
      repeat: start again after an epoch, for ever.
      seed: of the order and the augmentation, 0 to 2**32 - 1.
      width: W, at most that of the stored frames; None is `height`.
      stride: step between the frames of a contiguous window; `"uniform"` or None spreads the
        frames over the whole video.
      process_index: which of the processes this is.
      process_count: how many share the source.
      workers: processes that make batches; 0 makes them in threads of this process.
      cache_decoded: keep decoded frames in memory; None does so for splits below 1 GiB.

    Returns:
      A `Loader`.

    Raises:
      ValueError: naming the field, for a crop beyond the stored frames, a batch larger than what
        a process gets of an epoch, a number out of range, or workers of a script without a guard.
    """
    step = None if stride == "uniform" else stride
    shape = height, height if width is None else width
    _check(source, batch_size, frames, shape, step, seed, process_index, process_count, workers)
    if cache_decoded is None:
        cache_decoded = source.decoded_bytes < _KEEP_DECODED_BELOW
    if cache_decoded:
        source.keep_decoded()
    order = grain.MapDataset.range(len(source))
    if shuffle:
        order = order.shuffle(seed)
    share = _repeated if repeat else _one_pass
    examples = share(order, batch_size, process_index, process_count).map(_Fetch(source))
    if augmentation is None:
        view = CentreImage(shape) if source.still else CentreView(frames, shape, step)
        examples = examples.map(_CentreClip(view))
    else:
        steps = augmentation.steps(shape)
        view = RandomView(frames, step, augmentation.speed_jitter, steps)
        random_clip = _RandomClip(RandomImage(steps) if source.still else view)
        examples = examples.random_map(random_clip, seed=seed)
    batches = examples.batch(batch_size, drop_remainder=True, batch_fn=_stack)
    read = _prefetched(batches.repeat() if repeat else batches, workers)
    return Loader(batch_size, len(batches), read, batches)


def _repeated(
    order: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
    whole = len(order) // (batch_size * process_count) * batch_size * process_count
    if not whole:
        shared = f" for {process_count} processes" if process_count > 1 else ""
        raise ValueError(
            f"data.batch_size: {batch_size}{shared} is more than the {len(order)} examples of the "
            f"split; at most {len(order) // process_count} would do"
        )
    return order[:whole][process_index::process_count].map(_Place)


def _one_pass(
    order: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
    batches = -(-len(order) // (batch_size * process_count))
    stop = batches * batch_size * process_count
    return grain.MapDataset.range(process_index, stop, process_count).map(_Padded(order))


@dataclasses.dataclass(frozen=True)
class _Place:
    """An example's place in the source, and whether it counts."""

    place: int
    valid: bool = True


@dataclasses.dataclass(frozen=True)
class _Padded:
    """Beyond the end of an order, its last element again, not valid."""

    order: grain.MapDataset

    def __call__(self, position: int) -> _Place:
        last = len(self.order) - 1
        return _Place(self.order[min(position, last)], position <= last)


@dataclasses.dataclass(frozen=True)
class _Fetch:
    source: ClipSource

    def __call__(self, place: _Place) -> dict[str, Any]:
        return {**self.source[place.place], "valid": place.valid}


@dataclasses.dataclass(frozen=True)
class _CentreClip:
    view: CentreView | CentreImage

    def __call__(self, example: dict[str, Any]) -> dict[str, np.ndarray]:
        return {**self.view(example), "valid": np.bool_(example["valid"])}


@dataclasses.dataclass(frozen=True)
class _RandomClip:
    view: RandomView | RandomImage

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {**self.view(example, rng), "valid": np.bool_(example["valid"])}


def _stack(examples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _prefetched(batches: grain.MapDataset, workers: int) -> grain.IterDataset:
    threads = min(_BATCHES_AHEAD, os.cpu_count() or 1)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_BATCHES_AHEAD)
    dataset = batches.to_iter_dataset(ahead)
    if not workers:
        return dataset
    check_main_guard(workers)
    from absl import flags

    # Grain's workers read absl's flags, which only an absl program parses.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return WorkerBatches(dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)))


def _check(
    source: ClipSource,
    batch_size: int,
    frames: int,
    shape: tuple[int, int],
    stride: int | None,
    seed: int,
    process_index: int,
    process_count: int,
    workers: int,
) -> None:
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("frames", frames, 1),
        ("height", shape[0], 1),
        ("width", shape[1], 1),
        ("stride", 1 if stride is None else stride, 1),
        ("seed", seed, 0),
        ("workers", workers, 0),
    ):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"data.{name}: {value!r}; accepted is an integer of at least {least}")
    if seed >= 2**32:
        raise ValueError(f"data.seed: {seed}; a seed is below 2**32")
    if not len(source):
        raise ValueError("data: the split has no example")
    for name, pixels, most in zip(("height", "width"), shape, source.smallest, strict=True):
        if pixels > most:
            # The height is named where both are too large, as in a square crop.
            stored = "the images" if source.own_size else "the stored frames (data.resolution)"
            raise ValueError(f"data.{name}: {pixels} is more than the {most} pixels of {stored}")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index: {process_index} is not in 0..{process_count - 1}")

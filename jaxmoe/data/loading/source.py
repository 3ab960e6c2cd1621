"""`ClipSource`: one split of a prepared dataset, with random access and frames decoded on demand.

N = clips, T = frames asked for, H = height, W = width
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxmoe.data.decoding.frame_codec import decode_frame, decode_map, decode_times


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """A clip, as far as it is known without reading it.

    Attributes:
      position: number of its record in the prepared split.
      split: the prepared split that holds it.
      index: the example's own number in the whole dataset, over all splits.
      label: number of its class; −1 where every pixel has its own.
      num_frames: stored frames, at least 1.
      height: of a frame, in pixels.
      width: of a frame, in pixels.
      path: names the clip in reports.
      pixels: of each class, where every pixel has a label; else none.
      uneven: whether frames do not follow one another evenly: their times are stored then.
    """

    position: int
    split: str
    index: int
    label: int
    num_frames: int
    height: int
    width: int
    path: str
    pixels: Sequence[int] = ()
    uneven: bool = False


class ClipSource:
    """A sequence of examples `{"frames", "label", "path", "index"}`.

    `frames` is a `ClipFrames`, which decodes only what is asked of it; `label` and `index` are
    ints, `path` is a str. `still` says that these are images: clips of one frame that models see
    without an axis of time. `dense` says that every pixel has a label: `label` is then a map
    `int16[H, W]` of class numbers, −1 where they are void. `own_size` says that the data decides
    the size of its frames, and no resolution. It pickles as a folder and a list of records, so that
    worker processes open the files themselves.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        codec: str,
        records: Sequence[ClipRecord],
        still: bool = False,
        dense: bool = False,
        own_size: bool = False,
    ):
        self.folder = folder
        self.records = tuple(records)
        self.still = still
        self.dense = dense
        self.own_size = own_size
        self._codec = codec
        self._decoded: dict[int, np.ndarray] | None = None
        self._maps: dict[int, np.ndarray] = {}
        self._times: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.records[i]
        return {
            "frames": ClipFrames(self, i % len(self)),
            "label": self._label_map(i % len(self)) if self.dense else record.label,
            "path": record.path,
            "index": record.index,
        }

    def __repr__(self) -> str:
        return f"ClipSource({len(self)} clips in {self.folder})"

    def __getstate__(self) -> dict[str, Any]:
        kept = ("folder", "records", "still", "dense", "own_size", "_codec")
        fresh = {"_decoded": None, "_maps": {}, "_times": {}}
        return {**{name: self.__dict__[name] for name in kept}, **fresh}

    @property
    def labels(self) -> Int[np.ndarray, " N"]:
        """Class numbers, `int32[N]`; −1 where every pixel has its own."""
        return np.array([record.label for record in self.records], np.int32)

    @property
    def num_frames(self) -> Int[np.ndarray, " N"]:
        """Stored frames per clip, `int64[N]`."""
        return np.array([record.num_frames for record in self.records], np.int64)

    @property
    def smallest(self) -> tuple[int, int]:
        """The smallest height and the smallest width of any clip: what a crop may take."""
        return min(r.height for r in self.records), min(r.width for r in self.records)

    @property
    def decoded_bytes(self) -> int:
        """Memory that all decoded frames and label maps take."""
        maps = 2 if self.dense else 0
        return sum((3 * r.num_frames + maps) * r.height * r.width for r in self.records)

    def digests(self, places: Sequence[int] | None = None) -> list[str]:
        """A digest of the frames of each clip, or of those at `places`, as they are stored.

        Frames that were stored without loss are the same where their pixels are.
        """
        found = []
        for place in range(len(self)) if places is None else places:
            record = self.records[place]
            shape = record.height, record.width
            digest = hashlib.sha256(f"{record.num_frames} {shape}".encode())
            for frame in self._readers[record.split][record.position]["frames"]:
                lossy = self._codec == "jpeg"
                pixels = frame if lossy else decode_frame(frame, self._codec, *shape).tobytes()
                digest.update(hashlib.sha256(pixels).digest())
            found.append(digest.hexdigest()[:16])
        return found

    def take(self, records: Sequence[ClipRecord]) -> "ClipSource":
        """The source of some of these records."""
        kinds = self.still, self.dense, self.own_size
        return ClipSource(self.folder, self._codec, records, *kinds)

    def keep_decoded(self) -> None:
        """Keeps each clip's decoded frames in memory from the first time it is read."""
        if self._decoded is None:
            self._decoded = {}

    @functools.cached_property
    def _readers(self) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self.folder)
        splits = {record.split for record in self.records}
        return {split: builder.as_data_source(split=split) for split in splits}

    def _read(self, i: int, frames: np.ndarray) -> UInt8[np.ndarray, "T H W 3"]:
        if self._decoded is None:
            return self._decode(i, frames)
        clip = self._decoded.get(i)
        if clip is None:
            clip = self._decode(i, np.arange(self.records[i].num_frames))
            self._decoded[i] = clip
        return clip[frames]

    def _label_map(self, i: int) -> Int[np.ndarray, "H W"]:
        if i in self._maps:
            return self._maps[i]
        record = self.records[i]
        label_map = decode_map(self._readers[record.split][record.position]["label_map"])
        if self._decoded is not None:
            self._maps[i] = label_map
        return label_map

    def _frame_times(self, i: int) -> Int[np.ndarray, " T+1"] | None:
        record = self.records[i]
        if record.uneven and i not in self._times:
            stored = self._readers[record.split][record.position]["times"]
            self._times[i] = decode_times(stored)
        return self._times.get(i)

    def _decode(self, i: int, frames: np.ndarray) -> UInt8[np.ndarray, "T H W 3"]:
        record = self.records[i]
        stored = self._readers[record.split][record.position]["frames"]
        shape = (record.height, record.width)
        return np.stack([decode_frame(stored[frame], self._codec, *shape) for frame in frames])


class ClipFrames:
    """The frames of one clip; indexing decodes them."""

    def __init__(self, source: ClipSource, i: int):
        self._source = source
        self._i = i
        record = source.records[i]
        self.height = record.height
        self.width = record.width

    def __len__(self) -> int:
        return self._source.records[self._i].num_frames

    @property
    def times(self) -> Int[np.ndarray, " T+1"] | None:
        """When each frame begins and the last ends, in microseconds; None if evenly."""
        return self._source._frame_times(self._i)

    def __getitem__(self, frames: Int[np.ndarray, " T"]) -> UInt8[np.ndarray, "T H W 3"]:
        """Returns the frames of these numbers, `uint8[T, H, W, 3]`; a number may come twice."""
        return self._source._read(self._i, np.asarray(frames))

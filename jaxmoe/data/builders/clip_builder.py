"""`ClipBuilder`: what the TFDS builders here share: features, and a record of what was left out.

TFDS without TensorFlow: `array_record` files, read through `as_data_source`; a frame is an opaque
byte string, so that a reader decodes only the frames it samples.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxmoe.data.builders.prepared_files import remove_damaged
from jaxmoe.data.decoding.frame_codec import encode_frame, encode_map, encode_times
from jaxmoe.data.decoding.unusable import UnusableClipError

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class PlannedClip:
    """One clip that a builder intends to store.

    Attributes:
      index: the example's number in the whole dataset, over all splits.
      path: names the clip in reports.
      label: number of its class; −1 where every pixel has its own.
      source: what `ClipBuilder.render` makes the frames from.
    """

    index: int
    path: str
    label: int
    source: Any


class Dense(NamedTuple):
    """Frames whose pixels have a label each.

    Attributes:
      frames: `uint8[1, H, W, 3]`.
      label_map: `uint8[H, W]`, class numbers and `frame_codec.VOID`.
    """

    frames: np.ndarray
    label_map: np.ndarray


class EncodedClip(NamedTuple):
    """Frames that are encoded already, so that a long film is never whole in memory.

    Attributes:
      frames: T frames as `frame_codec.encode_frame` returns them.
      height: of a frame, in pixels.
      width: of a frame, in pixels.
      times: `int64[T+1]`, when each frame begins and the last ends, in microseconds; None where
        they follow one another evenly.
    """

    frames: list[bytes]
    height: int
    width: int
    times: np.ndarray | None = None


class ClipBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stores clips frame by frame, each with label, path and index.

    A subclass gives the plan (which clips, in which split) and renders clips. Its TFDS
    configuration is named after `fingerprint`, so other input makes another folder.
    `info.metadata` keeps `classes`, `codec`, `clips` (per split, in record order:
    `[index, label, frames, height, width, path]`, then `pixels` of each class where labels are
    dense, or `[]` and `true` where frames do not follow evenly), `skipped` (`[path, reason]`) and
    `notes`, lines for a reader of results.

    Attributes:
      columns: by a clip's path what else is known of it, to take subsets by.
    """

    DENSE = False  # whether every pixel has a label
    TIMED = False  # whether frames may follow one another unevenly

    VERSION = tfds.core.Version("1.0.0")
    # TFDS looks for checksums and citations beside the code, by a package of its own extras.
    code_path = None

    def __init__(
        self,
        *,
        plan: Mapping[str, list[PlannedClip]],
        classes: tuple[str, ...],
        codec: str,
        fingerprint: str,
        data_dir: str | os.PathLike,
        progress: Progress | None = None,
        columns: Mapping[str, Mapping[str, str]] | None = None,
    ):
        self.columns = columns or {}
        self._plan = dict(plan)
        self._classes = classes
        self._codec = codec
        self._progress = progress
        self._done = 0
        # Before TFDS reads what is there.
        remove_damaged(pathlib.Path(data_dir, self.name, fingerprint, str(self.VERSION)))
        super().__init__(
            data_dir=os.fspath(data_dir),
            config=tfds.core.BuilderConfig(name=fingerprint, version=self.VERSION),
            file_format="array_record",
        )

    def render(
        self, clips: list[PlannedClip]
    ) -> Iterable[np.ndarray | EncodedClip | Dense | UnusableClipError]:
        """Yields for each clip, in order, its frames `uint8[T, H, W, 3]` or why there are none."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        blob = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            # Record order is plan order, so that the metadata can speak of the n-th record.
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "frames": tfds.features.Sequence(blob),
                    "label": tfds.features.ClassLabel(names=list(self._classes)),
                    "path": blob,
                    "index": np.int64,
                    **({"label_map": blob} if self.DENSE else {}),
                    **({"times": blob} if self.TIMED else {}),
                }
            ),
            metadata=tfds.core.MetadataDict(
                classes=list(self._classes),
                codec=self._codec,
                clips={},
                skipped=[],
                notes=[],
                dense=self.DENSE,
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in self._plan}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        clips = self._plan[split]
        total = sum(map(len, self._plan.values()))
        metadata = self.info.metadata
        rows = metadata["clips"][split] = []
        for clip, found in zip(clips, self.render(clips), strict=True):
            if isinstance(found, UnusableClipError):
                metadata["skipped"].append([clip.path, str(found)])
            else:
                row, example = self._stored(clip, found)
                rows.append(row)
                yield clip.index, example
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, total)
        if not rows:
            path, reason = metadata["skipped"][-1]
            raise ValueError(
                f"data.directory: none of the {len(clips)} clips of split {split!r} is usable; "
                f"the last is {path}: {reason}"
            )

    def _stored(
        self, clip: PlannedClip, found: np.ndarray | EncodedClip | Dense
    ) -> tuple[list[Any], dict[str, Any]]:
        """The clip's row of the metadata, and its record."""
        frames, label_map = found if self.DENSE else (found, None)
        encoded = frames if isinstance(frames, EncodedClip) else self._encoded(frames)
        size = encoded.height, encoded.width
        row = [clip.index, clip.label, len(encoded.frames), *size, clip.path]
        example = {
            "frames": encoded.frames,
            "label": clip.label,
            # A file name on Linux need not be valid UTF-8.
            "path": os.fsencode(clip.path),
            "index": clip.index,
        }
        if self.DENSE:
            counts = np.bincount(label_map.ravel(), minlength=len(self._classes))
            row.append(counts[: len(self._classes)].tolist())
            example["label_map"] = encode_map(label_map)
        if self.TIMED:
            example["times"] = b"" if encoded.times is None else encode_times(encoded.times)
            row += [] if encoded.times is None else [[], True]
        return row, example

    def _encoded(self, frames: np.ndarray) -> EncodedClip:
        stored = [encode_frame(frame, self._codec) for frame in frames]
        return EncodedClip(stored, *frames.shape[1:3])

    # TFDS warns of a configuration that its class does not list; ours are made of the input.
    def _create_builder_config(
        self, builder_config: tfds.core.BuilderConfig, version: Any
    ) -> tfds.core.BuilderConfig:
        del version  # the configuration has it
        return builder_config

    # TFDS announces a download on stdout, which a command may be piping elsewhere.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def prepared_folder(builder: ClipBuilder) -> pathlib.Path:
    """Returns the folder that holds, or will hold, the builder's prepared records."""
    return pathlib.Path(os.fspath(builder.data_path))

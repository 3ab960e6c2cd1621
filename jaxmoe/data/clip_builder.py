"""`ClipBuilder`: what the TFDS builders here share: features, and a record of what was left out.

TFDS without TensorFlow: `array_record` files, read through `as_data_source`; a frame is an opaque
byte string, so that a reader decodes only the frames it samples.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxmoe.data.frame_codec import encode_frame

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class PlannedClip:
    """One clip that a builder intends to store.

    Attributes:
      index: the example's number in the whole dataset, over all splits.
      path: names the clip in reports.
      label: number of its class.
      source: what `ClipBuilder.render` makes the frames from.
    """

    index: int
    path: str
    label: int
    source: Any


class UnusableClipError(Exception):
    """A clip that cannot be stored, with the reason in one line."""


class ClipBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stores clips frame by frame, each with label, path and index.

    A subclass gives the plan (which clips, in which split) and renders clips. Its TFDS
    configuration is named after `fingerprint`, so other input makes another folder.
    `info.metadata` keeps `classes`, `codec`, `clips` (per split, in record order:
    `[index, label, frames, height, width, path]`) and `skipped` (`[path, reason]`).
    """

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
    ):
        self._plan = dict(plan)
        self._classes = classes
        self._codec = codec
        self._progress = progress
        self._done = 0
        super().__init__(
            data_dir=os.fspath(data_dir),
            config=tfds.core.BuilderConfig(name=fingerprint, version=self.VERSION),
            file_format="array_record",
        )

    def render(self, clips: list[PlannedClip]) -> Iterable[np.ndarray | UnusableClipError]:
        """Yields for each clip, in order, its frames `uint8[T, H, W, 3]` or why there are none."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            # Record order is plan order, so that the metadata can speak of the n-th record.
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "frames": tfds.features.Sequence(
                        tfds.features.Tensor(shape=(), dtype=np.object_)
                    ),
                    "label": tfds.features.ClassLabel(names=list(self._classes)),
                    "path": tfds.features.Tensor(shape=(), dtype=np.object_),
                    "index": np.int64,
                }
            ),
            metadata=tfds.core.MetadataDict(
                classes=list(self._classes), codec=self._codec, clips={}, skipped=[]
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
        for clip, frames in zip(clips, self.render(clips), strict=True):
            if isinstance(frames, UnusableClipError):
                metadata["skipped"].append([clip.path, str(frames)])
            else:
                _, height, width, _ = frames.shape
                rows.append([clip.index, clip.label, len(frames), height, width, clip.path])
                yield (
                    clip.index,
                    {
                        "frames": [encode_frame(frame, self._codec) for frame in frames],
                        "label": clip.label,
                        # A file name on Linux need not be valid UTF-8.
                        "path": os.fsencode(clip.path),
                        "index": clip.index,
                    },
                )
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, total)
        if not rows:
            path, reason = metadata["skipped"][-1]
            raise ValueError(
                f"data.directory: none of the {len(clips)} clips of split {split!r} is usable; "
                f"the last is {path}: {reason}"
            )

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

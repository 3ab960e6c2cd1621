"""Small videos that tests write, and a cache folder of their own."""

import pathlib
from collections.abc import Callable

import av
import numpy as np
import pytest

WriteVideo = Callable[..., pathlib.Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("JAXMOE_CACHE", str(tmp_path / "cache-of-this-test"))


@pytest.fixture(scope="session")
def write_video() -> WriteVideo:
    """Writes a video whose frame t is a grey of brightness `10 * t + 20`, nearly losslessly."""

    def write(file, frames=6, width=48, height=32, codec="mpeg4") -> pathlib.Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(file), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.bit_rate = 4_000_000
            if codec == "gif":
                stream.pix_fmt = "rgb8"
            for t in range(frames):
                image = np.full((height, width, 3), min(255, 10 * t + 20), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return file

    return write


@pytest.fixture
def folder(tmp_path, write_video):
    """Two classes, three splits, file names that people really have."""
    root = tmp_path / "my videos!"
    for label in ("hug [a]", "kick+"):
        for name in ("a b.avi", "(c)!.mp4", "é 日本.mkv", "d#%.webm"):
            codec = "libvpx" if name.endswith("webm") else "mpeg4"
            write_video(root / "train" / label / name, frames=6, codec=codec)
        write_video(root / "validation" / label / "v.avi", frames=7)
        write_video(root / "test" / label / "t.avi", frames=8)
    return root

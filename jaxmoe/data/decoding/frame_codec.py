"""How one frame is stored: JPEG for films, PNG for images, raw bytes for what was rendered.

Frames are stored one by one, so reading 16 of 200 decodes 16.
A label map is stored without loss, and has void where no class is labelled; so are the times at
which frames begin.
T = frames, H = height, W = width
"""

import io

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

# At 95 the error is below the noise of the video codecs the frames come from.
_JPEG_QUALITY = 95

CODECS = ("jpeg", "png", "raw")

VOID = 255  # of a stored label map


def encode_frame(frame: UInt8[np.ndarray, "H W 3"], codec: str) -> bytes:
    """Encodes one RGB frame `uint8[H, W, 3]`; `jpeg` loses a little, the others nothing."""
    if codec == "raw":
        return np.ascontiguousarray(frame).tobytes()
    stream = io.BytesIO()
    if codec == "png":
        Image.fromarray(frame).save(stream, "PNG")
        return stream.getvalue()
    # 4:4:4 (subsampling=0): at these sizes halved colour would show.
    Image.fromarray(frame).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def decode_frame(data: bytes, codec: str, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes what `encode_frame` returned to RGB `uint8[height, width, 3]`."""
    if codec == "raw":
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)
    return np.asarray(Image.open(io.BytesIO(data)))


def encode_map(label_map: UInt8[np.ndarray, "H W"]) -> bytes:
    """Encodes a label map `uint8[H, W]`, nothing lost."""
    stream = io.BytesIO()
    Image.fromarray(label_map).save(stream, "PNG")
    return stream.getvalue()


def decode_map(data: bytes) -> Int[np.ndarray, "H W"]:
    """Decodes what `encode_map` returned to class numbers `int16[H, W]`, −1 where they are void."""
    stored = np.asarray(Image.open(io.BytesIO(data)))
    return np.where(stored == VOID, np.int16(-1), stored.astype(np.int16))


def encode_times(times: Int[np.ndarray, " T+1"]) -> bytes:
    """Encodes when frames begin, and the last one ends, in microseconds."""
    return np.asarray(times, "<i8").tobytes()


def decode_times(data: bytes) -> Int[np.ndarray, " T+1"]:
    """Decodes what `encode_times` returned."""
    return np.frombuffer(data, "<i8").astype(np.int64)

"""How one frame is stored: JPEG for films, PNG for images, raw bytes for what was rendered.

Frames are stored one by one, so reading 16 of 200 decodes 16.
H = height, W = width
"""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# At 95 the error is below the noise of the video codecs the frames come from.
_JPEG_QUALITY = 95

CODECS = ("jpeg", "png", "raw")


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

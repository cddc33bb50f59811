"""Encode pictures as the bytes that tables, exports and pages hold."""

import io

from PIL import Image


def encode_png(picture: Image.Image, *, optimize: bool = False) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=optimize)
    return buffer.getvalue()


def encode_jpeg(picture: Image.Image, quality: int = 95, subsampling: int = 0) -> bytes:
    """Encode a picture as JPEG; `subsampling` of its chroma is 0 for 4:4:4, 1 for 4:2:2 or 2 for 4:2:0."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()

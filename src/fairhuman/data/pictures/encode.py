"""Encode pictures as the bytes that tables and exports store."""

import io

from PIL import Image


def encode_png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def encode_jpeg(picture: Image.Image) -> bytes:
    """Encode a picture as JPEG with quality 95 and 4:4:4 chroma."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()

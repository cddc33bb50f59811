"""The regions of a picture, drawn on its thumbnail."""

from collections.abc import Mapping
from contextlib import suppress

from PIL import Image, ImageDraw

from fairhuman.data.look.layers import FAINT, STRONG, WIDE, box_shapes
from fairhuman.data.pictures.decode import PictureLimits, decode_mask
from fairhuman.data.pictures.stored import PictureError
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord

WIDTH = 2  # pixels of a box's line


def draw_regions(picture: Image.Image, record: HumanRecord, colours: Mapping[str, str], limits: PictureLimits) -> None:
    """Draw a record's masks, and the boxes of regions without one, on a picture of it of any size.

    A mask that can't be read is left out; the picture itself, shown large, says why.
    """
    for name, mask in record.masks.items():
        with suppress(PictureError, DataError):
            alpha = FAINT if name in WIDE else STRONG
            shape = decode_mask(mask, limits).resize(picture.size, Image.Resampling.BOX)
            picture.paste(colours[name], mask=shape.point(lambda grey, alpha=alpha: alpha if grey > 127 else 0))
    draw = ImageDraw.Draw(picture)
    across, down = picture.width / record.width, picture.height / record.height
    for box in box_shapes(record):
        if box.region not in record.masks:
            corners = (box.x * across, box.y * down, (box.x + box.width) * across, (box.y + box.height) * down)
            draw.rectangle(corners, outline=colours[box.region], width=WIDTH)

"""Draw the lead picture of the README from the folder of a demo: masks, and faces and hands before and after.

fairhuman demo runs/demo
.venv/bin/python docs/make_lead.py runs/demo
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fairhuman.data.pictures.decode import DEFAULT_LIMITS
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.regions.masks import to_latent_grid
from fairhuman.regions.settings import RegionSettings
from fairhuman.report.colours import REGION_COLOURS
from fairhuman.train.data import fixed_dataset

TARGET = Path(__file__).parent / "images" / "lead.jpg"
REGIONS = ("face", "hand")
SIDE, GAP, BETWEEN, HEAD = 232, 6, 26, 30  # pixels: a panel, panels of a pair, pairs, the line of titles
FACTOR = 4  # pixels of a latent cell of the small SDXL's VAE
AROUND = 1.5  # a zoom's side, as a multiple of the box's longer side
GROUPS = (("what the model sees", "masks on the latent grid"), ("face: base", "after"), ("hand: base", "after"))


def lead_picture(demo: Path, rows: Sequence[int]) -> Image.Image:
    """A line of panels for each of these preview rows of the demo's run by MPD."""
    run = demo / "mpd"
    entries = json.loads((run / "previews" / "index.json").read_text(encoding="utf-8"))["rows"]
    records = read_source(demo / "data" / "held-out", REGIONS, SourceSettings(), LoadReport())
    by_caption = {record.caption: record for record in records}
    width = 6 * SIDE + 3 * GAP + 2 * BETWEEN
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (SIDE + GAP) - GAP), "white")
    _titles(sheet)
    for line, number in enumerate(rows):
        entry = entries[number]
        regions = RegionSettings(names=REGIONS)
        sample = fixed_dataset([by_caption[entry["caption"]]], (128, 128), regions, 0, DEFAULT_LIMITS)[0]
        first, last = (entry["steps"][step]["photo"] for step in sorted(entry["steps"], key=int))
        panels = [_seen(sample.picture_chw, sample.masks_rhw), _latent(sample.masks_rhw)]
        for region in REGIONS:
            box = max(entry["boxes"][region], key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
            panels += [_zoom(Image.open(run / name).convert("RGB"), box) for name in (first, last)]
        for place, panel in zip(_places(), panels, strict=True):
            sheet.paste(panel, (place, HEAD + line * (SIDE + GAP)))
    return sheet


def _places() -> list[int]:
    """Left edges of the six panels."""
    return [group * (2 * SIDE + GAP + BETWEEN) + panel * (SIDE + GAP) for group in range(3) for panel in range(2)]


def _titles(sheet: Image.Image) -> None:
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 16)
    draw = ImageDraw.Draw(sheet)
    for place, title in zip(_places(), [title for group in GROUPS for title in group], strict=True):
        draw.text((place, 4), title, font=font, fill="#333333")


def _seen(picture_chw: Tensor | None, masks_rhw: Tensor) -> Image.Image:
    """The picture, each region tinted and outlined."""
    assert picture_chw is not None
    shown = Image.fromarray(((picture_chw.permute(1, 2, 0).numpy() / 2 + 0.5) * 255).round().astype(np.uint8))
    shown_hwc = np.asarray(shown.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float32)
    for mask_hw, region in zip(masks_rhw.numpy(), REGIONS, strict=True):
        large = Image.fromarray(mask_hw).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        large_hw = np.asarray(large, np.float32)
        edge_hw = (large_hw > 0.3) & (large_hw < 0.7)
        share_hw1 = np.where(edge_hw, 1.0, 0.3 * large_hw.clip(0, 1))[..., None]
        shown_hwc = shown_hwc * (1 - share_hw1) + _colour(region) * share_hw1
    return Image.fromarray(shown_hwc.round().astype(np.uint8))


def _latent(masks_rhw: Tensor) -> Image.Image:
    cells_rhw = to_latent_grid(masks_rhw[None], FACTOR)[0].numpy()
    shown_hwc = np.full((*cells_rhw.shape[1:], 3), 24.0, np.float32)
    for mask_hw, region in zip(cells_rhw, REGIONS, strict=True):
        shown_hwc = shown_hwc * (1 - mask_hw[..., None]) + _colour(region) * mask_hw[..., None]
    return Image.fromarray(shown_hwc.round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _colour(region: str) -> np.ndarray:
    colour = REGION_COLOURS[region]
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def _zoom(picture: Image.Image, box: Sequence[float]) -> Image.Image:
    """A square around the box, moved inside where it would leave the picture."""
    side = min(AROUND * max(box[2] - box[0], box[3] - box[1]), *picture.size)
    left = min(max((box[0] + box[2] - side) / 2, 0.0), picture.width - side)
    top = min(max((box[1] + box[3] - side) / 2, 0.0), picture.height - side)
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def main() -> None:
    """Write docs/images/lead.jpg."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("demo", type=Path, help="folder of `fairhuman demo`")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 4], help="preview rows, counted from 0")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    lead_picture(options.demo, options.rows).save(options.out, quality=86, optimize=True)


if __name__ == "__main__":
    main()

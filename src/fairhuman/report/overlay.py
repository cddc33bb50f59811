"""The overlay sheet: training samples with their region masks, on the picture and on the latent grid.

Left: the picture after resize, crop and flip, with every region tinted and outlined. To its right: the masks that
weight the losses (one square per latent cell), then the conditions. A mask or pose that is misaligned with the picture
shows here.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fairhuman.record import IGNORE
from fairhuman.report.colours import REGION_COLOURS, colours
from fairhuman.report.text import fine_percent, plural

Pixels = NDArray[np.float32]
Stack = torch.Tensor | Sequence[torch.Tensor]
MAX_SAMPLES = 16  # samples on a sheet
SIDE, GAP = 260, 6  # pixels: longer side of a panel, gap between panels
MARGIN, LINE = 16, 18  # pixels: outer margin, height of a text line
SAMPLES_A_ROW = 2
HATCH, IGNORED_GREY = 8, REGION_COLOURS[IGNORE]  # pixels from one stripe to the next, and their colour
LONGEST = 300  # characters of a line that are measured; even the narrowest letters fill all panels with fewer


def overlay_sheet(
    pictures_bchw: Stack,
    masks_brhw: Stack,
    latent_masks_brhw: Stack,
    names: Sequence[str],
    captions: Sequence[str],
    known_br: torch.Tensor,
    conditions: Mapping[str, Stack] | None = None,
    ignored_bhw: Stack | None = None,
    notes: Mapping[str, str] | None = None,
) -> Image.Image:
    """Draw a contact sheet of up to 16 samples, whose sizes may differ: a stack is a tensor or a list of tensors.

    Args:
        pictures_bchw: pictures in [-1, 1], three channels.
        masks_brhw: masks in [0, 1] at picture resolution, one per region.
        latent_masks_brhw: the same masks in [0, 1] on the latent grid.
        names: the R regions.
        captions: what to write below the B samples, such as the captions that the text encoders receive.
        known_br: whether the region is annotated in the sample.
        ignored_bhw: what counts for no objective, in [0, 1] at picture resolution; drawn hatched.
        conditions: by name, [B, C, H, W] in [0, 1] at picture resolution with 1 or 3 channels; zeros for a missing one.
        notes: by region, a text for its line in the legend.

    Raises:
        ValueError: the shapes don't match.
    """
    b, r = len(captions), len(names)
    conditions = conditions or {}
    _check_shapes(b, r, pictures_bchw, masks_brhw, latent_masks_brhw, known_br)
    shown = min(b, MAX_SAMPLES)
    pictures = [(_numpy(chw).transpose(1, 2, 0) / 2 + 0.5).clip(0, 1) for chw in pictures_bchw[:shown]]
    masks, latent_masks = [_numpy(one) for one in masks_brhw], [_numpy(one) for one in latent_masks_brhw]
    known = known_br.cpu().numpy()
    palette = _palette(names)

    panels = [_panel_size(*picture.shape[:2]) for picture in pictures]
    ignored = None if ignored_bhw is None else [_numpy(one) for one in ignored_bhw]
    legend = _legend_lines(masks, latent_masks, known, names, notes or {})
    legend += [] if ignored is None else [_ignored_line(ignored)]
    beside, widest, highest = 2 + len(conditions), max(w for w, _ in panels), max(h for _, h in panels)
    block = (beside * widest + (beside - 1) * GAP, highest + (1 + r) * LINE + GAP)
    top = MARGIN + LINE * (len(legend) + 2)
    sheet = _blank_sheet(shown, block, top)
    draw = ImageDraw.Draw(sheet)
    _draw_head(draw, legend, palette, shown, b, list(conditions))
    for i, panel in enumerate(panels):
        x = MARGIN + (i % SAMPLES_A_ROW) * (block[0] + MARGIN)
        y = top + (i // SAMPLES_A_ROW) * (block[1] + MARGIN)
        drawn = [_picture_panel(pictures[i], masks[i], palette, panel)]
        drawn.append(_latent_panel(latent_masks[i], palette, panel))
        if ignored is not None:
            _hatch_both(drawn[0], drawn[1], ignored[i], latent_masks[i].shape[1:])
        drawn += [_condition_panel(name, _numpy(each[i]), panel) for name, each in conditions.items()]
        for number, picture in enumerate(drawn):
            sheet.paste(picture, (x + number * (panel[0] + GAP), y))
        lines = [_sample_line(name, masks[i][j], latent_masks[i][j], bool(known[i, j])) for j, name in enumerate(names)]
        _draw_text(draw, (x, y + panel[1] + 4), block[0], captions[i], lines, palette)
    return sheet


def sample_panels(
    picture_chw: torch.Tensor,
    masks_rhw: torch.Tensor,
    latent_masks_rhw: torch.Tensor,
    names: Sequence[str],
    ignored_hw: torch.Tensor | None = None,
    side: int = SIDE,
) -> tuple[Image.Image, Image.Image]:
    """One sample as on the sheet, without text: the picture with its regions, and the masks on the latent grid.

    Args:
        picture_chw, masks_rhw, latent_masks_rhw, names, ignored_hw: as for `overlay_sheet`, of one sample.
        side: pixels of the longer side.
    """
    picture, masks, latent = _numpy(picture_chw), _numpy(masks_rhw), _numpy(latent_masks_rhw)
    palette = _palette(names)
    panel = _panel_size(picture.shape[1], picture.shape[2], side)
    drawn = _picture_panel((picture.transpose(1, 2, 0) / 2 + 0.5).clip(0, 1), masks, palette, panel)
    grid = _latent_panel(latent, palette, panel)
    if ignored_hw is not None:
        _hatch_both(drawn, grid, _numpy(ignored_hw), latent.shape[1:])
    return drawn, grid


def sample_lines(
    names: Sequence[str], masks_rhw: torch.Tensor, latent_masks_rhw: torch.Tensor, known_r: torch.Tensor
) -> list[str]:
    """A line per region of one sample, such as `face: 4.1 %, 10.5 latent cells`."""
    masks, latent = _numpy(masks_rhw), _numpy(latent_masks_rhw)
    return [_sample_line(name, masks[j], latent[j], bool(known_r[j])) for j, name in enumerate(names)]


def _palette(names: Sequence[str]) -> Pixels:
    return np.array([to_rgb(colour) for colour in colours(names).values()], dtype=np.float32).reshape(len(names), 3)


def _panel_size(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Width and height of a panel for a picture."""
    return round(side * width / max(height, width)), round(side * height / max(height, width))


def _blank_sheet(samples: int, block: tuple[int, int], top: int) -> Image.Image:
    """A white sheet for blocks of (width, height) pixels below a head of `top` pixels, wide enough for the title."""
    rows = -(-samples // SAMPLES_A_ROW)
    columns = min(samples, SAMPLES_A_ROW)
    width = max(MARGIN + columns * (block[0] + MARGIN), 640)
    return Image.new("RGB", (width, top + rows * (block[1] + MARGIN)), "white")


def _check_shapes(b: int, r: int, pictures: Stack, masks: Stack, latent_masks: Stack, known_br: torch.Tensor) -> None:
    fits = b == len(pictures) == len(masks) == len(latent_masks) and known_br.shape == (b, r)
    for picture, mask, latent in zip(pictures, masks, latent_masks, strict=False):
        fits &= len(picture) == 3 and mask.shape == (r, *picture.shape[1:]) and len(latent) == r
    if not fits:
        stacks = (pictures, masks, latent_masks, known_br)
        shapes = [tuple(one.shape) if isinstance(one, torch.Tensor) else [*map(np.shape, one)] for one in stacks]
        raise ValueError(f"pictures, masks, latent masks and known don't fit {b} captions, {r} names: {shapes}")


def _largest_first(masks_rhw: Pixels) -> list[int]:
    """Places of the regions by area, so that small ones lie on those around them."""
    return np.argsort(-masks_rhw.sum(axis=(1, 2)), kind="stable").tolist()  # type: ignore[no-any-return]


def _picture_panel(picture_hwc: Pixels, masks_rhw: Pixels, palette_r3: Pixels, size: tuple[int, int]) -> Image.Image:
    """The picture with each region tinted by its mask and outlined where the mask crosses 0.5."""
    image_hwc = np.asarray(_resized(picture_hwc, size, Image.Resampling.LANCZOS), dtype=np.float32) / 255
    for j in _largest_first(masks_rhw):
        mask_hw, colour = masks_rhw[j], palette_r3[j]
        small_hw = _shrunk(mask_hw, size)
        tint_hw1 = 0.28 * small_hw[..., None]
        image_hwc = image_hwc * (1 - tint_hw1) + colour * tint_hw1
        inside_hw = np.pad(small_hw > 0.5, 2)
        core_hw = inside_hw.copy()
        for axis in (0, 1):
            for shift in (-2, -1, 1, 2):
                core_hw &= np.roll(inside_hw, shift, axis)
        image_hwc[(inside_hw & ~core_hw)[2:-2, 2:-2]] = colour
    return Image.fromarray((image_hwc * 255).round().astype(np.uint8))


def _latent_panel(masks_rhw: Pixels, palette_r3: Pixels, size: tuple[int, int]) -> Image.Image:
    """The masks on the latent grid over near-black, with hairlines between cells if they are large enough."""
    image_hwc = np.full((*masks_rhw.shape[1:], 3), 0.09, dtype=np.float32)
    for j in _largest_first(masks_rhw):
        mask_hw, colour = masks_rhw[j], palette_r3[j]
        # Covered cells start at a quarter of the colour, so that a cell with 2 % coverage is still visible.
        strength_hw1 = np.where(mask_hw > 0, 0.25 + 0.75 * mask_hw, 0)[..., None]
        image_hwc = image_hwc * (1 - strength_hw1) + colour * strength_hw1
    panel = _resized(image_hwc, size, Image.Resampling.NEAREST)
    cells = masks_rhw.shape[1:]
    if size[1] / cells[0] >= 5:
        draw = ImageDraw.Draw(panel)
        for row in range(1, cells[0]):
            draw.line((0, row * size[1] / cells[0], size[0], row * size[1] / cells[0]), fill="#3A3A3A")
        for column in range(1, cells[1]):
            draw.line((column * size[0] / cells[1], 0, column * size[0] / cells[1], size[1]), fill="#3A3A3A")
    return panel


def _shrunk(mask_hw: Pixels, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BOX) -> Pixels:
    return np.asarray(Image.fromarray(mask_hw).resize(size, how), dtype=np.float32)


def _hatch_both(picture: Image.Image, grid: Image.Image, ignored_hw: Pixels, cells: tuple[int, ...]) -> None:
    rows, columns = cells
    _hatch(picture, _shrunk(ignored_hw, picture.size))
    _hatch(grid, _shrunk(_shrunk(ignored_hw, (columns, rows)), grid.size, Image.Resampling.NEAREST))


def _hatch(panel: Image.Image, ignored_hw: Pixels) -> None:
    """Grey out what is ignored, the more the more it is, with diagonal stripes."""
    rows, columns = np.indices(ignored_hw.shape)
    striped_hw = (rows + columns) % HATCH < HATCH // 2
    grey_hw = np.where(striped_hw, 0.85, 0.55) * 255 * ignored_hw
    panel.paste(IGNORED_GREY, mask=Image.fromarray(grey_hw.astype(np.uint8)))


def _ignored_line(ignored: Sequence[Pixels]) -> str:
    areas = [float(one.mean()) for one in ignored if one.any()]
    found = f"in {len(areas)} of these {len(ignored)} samples{_mean_area(areas)}"
    return f"ignored (hatched), counts for no objective: {found}"


def _mean_area(areas: Sequence[float]) -> str:
    return f", mean area {fine_percent(float(np.mean(areas)))} of the picture" if areas else ""


def _condition_panel(name: str, condition_chw: Pixels, size: tuple[int, int]) -> Image.Image:
    """The condition image that a ControlNet or T2I-adapter receives."""
    condition_hwc = condition_chw.transpose(1, 2, 0).repeat(3 // len(condition_chw), axis=2)
    panel = _resized(condition_hwc, size, Image.Resampling.BILINEAR)
    if not condition_chw.any():
        draw = ImageDraw.Draw(panel)
        draw.text((8, 6), _fitting(f"no {name}: missing or dropped out", size[0] - 16), font=_font(), fill="#B0B0B0")
    return panel


def _legend_lines(
    masks: Sequence[Pixels],
    latent_masks: Sequence[Pixels],
    known: NDArray[np.bool_],
    names: Sequence[str],
    notes: Mapping[str, str],
) -> list[str]:
    """Per region: number of samples in which it is annotated and present, its mean area in those, and its note."""
    lines = []
    for j, name in enumerate(names):
        areas = [float(mask[j].mean()) for mask, latent in zip(masks, latent_masks, strict=True) if latent[j].sum() > 0]
        area = _mean_area(areas)
        note = f"; {notes[name]}" if notes.get(name) else ""
        lines.append(
            f"{name}: in {len(areas)} of these {len(known)} samples (annotated in {known[:, j].sum()}){area}{note}"
        )
    return lines


def _sample_line(name: str, mask_hw: Pixels, latent_mask_hw: Pixels, known: bool) -> str:
    if not known:
        return f"{name}: not annotated"
    cells = float(latent_mask_hw.sum())
    return f"{name}: {fine_percent(mask_hw.mean())}, {cells:.1f} latent cells" if cells else f"{name}: none in view"


def _draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    width: int,
    caption: str,
    lines: Sequence[str],
    palette_r3: Pixels,
) -> None:
    """The caption at `place`, then a line per region with a square of its colour, all within `width` pixels."""
    x, y = place
    draw.text((x, y), _fitting(caption or "(no caption)", width), font=_font(), fill="#222222")
    for line, colour in zip(lines, palette_r3, strict=True):
        y += LINE
        draw.rectangle((x, y + 4, x + 9, y + 13), fill=to_hex(colour))
        draw.text((x + 15, y), _fitting(line, width - 15), font=_font(), fill="#222222")


def _draw_head(
    draw: ImageDraw.ImageDraw, legend: list[str], palette_r3: Pixels, shown: int, b: int, conditions: list[str]
) -> None:
    beside = f", then {' and '.join(conditions)}" if conditions else ""
    samples = plural(shown, "training sample") + (f" of {b}" if b > shown else "")
    title = f"What the model sees: {samples}. Left: picture; right: masks on the latent grid{beside}"
    draw.text((MARGIN, MARGIN - 4), title, font=_font(14), fill="#222222")
    for j, line in enumerate(legend):
        y = MARGIN + (j + 1) * LINE + 4
        colour = to_hex(palette_r3[j]) if j < len(palette_r3) else IGNORED_GREY
        draw.rectangle((MARGIN, y + 3, MARGIN + 11, y + 14), fill=colour)
        draw.text((MARGIN + 18, y), line, font=_font(), fill="#222222")


@cache
def _font(size: int = 12) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as shipped with matplotlib, so that every machine draws the same glyphs."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fitting(text: str, width: int) -> str:
    """The text on one line, truncated to `width` pixels. Measuring is slow, so only few, short strings are measured."""
    text, font = " ".join(text.split()), _font()
    if len(text) <= LONGEST and font.getlength(text) <= width:
        return text
    text = text[:LONGEST]
    longest = bisect_right(range(len(text) + 1), width, key=lambda n: ceil(font.getlength(text[:n] + "…"))) - 1
    return text[: max(longest, 0)] + "…"


def _resized(image_hwc: Pixels, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return Image.fromarray((image_hwc * 255).round().astype(np.uint8)).resize(size, how)


def _numpy(tensor: torch.Tensor) -> Pixels:
    return tensor.detach().float().cpu().numpy().astype(np.float32)

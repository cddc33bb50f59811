"""The overlay sheet shows masks where they are, at both resolutions, and says what isn't annotated."""

import time

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from fairhuman.report.colours import REGION_COLOURS
from fairhuman.report.overlay import GAP, MARGIN, SIDE, _fitting, _font, overlay_sheet

NAMES = ["face", "hand"]


def batch(b: int, side: int = 128, box: tuple[int, int, int, int] = (32, 64, 64, 96)) -> dict[str, object]:
    """Grey pictures; the face is `box` (x0, y0, x1, y1) in every one, the hand is not annotated."""
    masks = torch.zeros(b, 2, side, side)
    masks[:, 0, box[1] : box[3], box[0] : box[2]] = 1
    return {
        "pictures_bchw": torch.zeros(b, 3, side, side),
        "masks_brhw": masks,
        "latent_masks_brhw": torch.nn.functional.avg_pool2d(masks, 4),
        "names": NAMES,
        "captions": ["a person"] * b,
        "known_br": torch.tensor([[True, False]] * b),
    }


def differing(sheet: Image.Image, empty: Image.Image) -> np.ndarray:
    """Where two sheets differ; without captions and legends these are the pictures' panels."""
    return np.abs(np.asarray(sheet, dtype=float) - np.asarray(empty, dtype=float)).max(axis=2) > 2


def panels(changed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two panels of the first sample; their top is where the last blank line above the picture ends."""
    top = MARGIN + 18 * 4
    left, right = MARGIN, MARGIN + SIDE + GAP
    return changed[top : top + SIDE, left : left + SIDE], changed[top : top + SIDE, right : right + SIDE]


@pytest.mark.parametrize("panel", [0, 1], ids=["picture", "latent grid"])
def test_mask_is_drawn_where_it_is(panel: int) -> None:
    full, empty = batch(1), batch(1, box=(0, 0, 0, 0))
    changed = panels(differing(overlay_sheet(**full), overlay_sheet(**empty)))[panel]
    rows, columns = np.nonzero(changed)
    scale = SIDE / 128
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / scale
    np.testing.assert_allclose(found, [32, 64, 64, 96], atol=2)


def test_a_region_below_one_latent_cell_is_still_seen() -> None:
    changed = panels(
        differing(overlay_sheet(**batch(1, box=(64, 64, 65, 65))), overlay_sheet(**batch(1, box=(0, 0, 0, 0))))
    )
    assert changed[1].sum() > 20


@pytest.mark.parametrize("names", [["face", "subject"], ["subject", "face"]])
def test_a_region_around_another_covers_it_in_neither_panel(names: list[str]) -> None:
    """The colour of a face inside a subject is that of a face, in whatever order they are named."""
    whole = batch(1)
    inner = whole["masks_brhw"][:, :1]
    masks = {"face": inner, "subject": torch.ones_like(inner)}
    whole["masks_brhw"] = torch.cat([masks[name] for name in names], dim=1)
    whole["latent_masks_brhw"] = torch.nn.functional.avg_pool2d(whole["masks_brhw"], 4)
    sheet = overlay_sheet(**whole | {"names": names, "known_br": torch.ones(1, 2, dtype=torch.bool)})
    x, y = (round(place * SIDE / 128) for place in (50, 82))
    face = np.array(to_rgb(REGION_COLOURS["face"]))
    latent = np.array(sheet.getpixel((MARGIN + SIDE + GAP + x, MARGIN + 18 * 4 + y))) / 255
    np.testing.assert_allclose(latent, face, atol=0.02)
    red, _, blue = sheet.getpixel((MARGIN + x, MARGIN + 18 * 4 + y))
    assert red > blue + 20, "tinted by the face last"


def test_at_most_sixteen_samples_and_wide_pictures_fit() -> None:
    sixteen = overlay_sheet(**batch(16))
    assert overlay_sheet(**batch(20)).size == sixteen.size
    wide = batch(1)
    wide |= {
        "pictures_bchw": torch.zeros(1, 3, 64, 128),
        "masks_brhw": torch.rand(1, 2, 64, 128, generator=torch.Generator().manual_seed(0)),
        "latent_masks_brhw": torch.rand(1, 2, 16, 32, generator=torch.Generator().manual_seed(0)),
        "captions": [""],
    }
    assert overlay_sheet(**wide).height < sixteen.height


def test_samples_of_different_sizes_share_a_sheet() -> None:
    tall, wide = torch.full((3, 128, 64), 1.0), torch.full((3, 64, 128), -1.0)
    masks = [torch.zeros(2, *picture.shape[1:]) for picture in (tall, wide)]
    latent_masks = [torch.nn.functional.avg_pool2d(mask, 4) for mask in masks]
    known = torch.ones(2, 2, dtype=torch.bool)
    drawn = ([tall, wide], masks, latent_masks, NAMES, ["tall", "wide"], known)
    sheet = overlay_sheet(*drawn, notes={"face": "whole faces in view: 97 %"})
    pixels = np.asarray(sheet).astype(int)
    dark = np.argwhere(pixels.max(axis=2) == 0)
    height, width = np.ptp(dark, axis=0) + 1
    assert (width, height) == (SIDE, SIDE // 2), "the wide picture keeps its shape"
    said = pixels[MARGIN + 18 : MARGIN + 36]
    without = np.asarray(overlay_sheet(*drawn)).astype(int)[MARGIN + 18 : MARGIN + 36]
    assert np.argwhere(said.min(axis=2) < 128)[:, 1].max() > np.argwhere(without.min(axis=2) < 128)[:, 1].max()
    with pytest.raises(ValueError, match="don't fit 2 captions"):
        overlay_sheet([tall, wide], masks[::-1], masks, NAMES, ["tall", "wide"], torch.ones(2, 2, dtype=torch.bool))


def test_no_region_at_all_gives_a_sheet() -> None:
    none = batch(2)
    none |= {"masks_brhw": torch.zeros(2, 0, 128, 128), "latent_masks_brhw": torch.zeros(2, 0, 32, 32)}
    none |= {"names": [], "known_br": torch.zeros(2, 0, dtype=torch.bool)}
    assert overlay_sheet(**none).width > SIDE


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"don't fit 1 captions, 2 names: .*\(2, 3, 128, 128\)"):
        overlay_sheet(**(batch(2) | {"captions": ["one"]}))


@pytest.mark.parametrize("text", ["a person " * 12, "W" * 90, "i" * 200, "写真 " * 40, "ab", ""])
@pytest.mark.parametrize("width", [0, 60, 526])
def test_a_line_is_the_longest_start_that_fits(text: str, width: int) -> None:
    line, font = " ".join(text.split()), _font()
    starts = [line[:n] + "…" for n in range(len(line) + 1) if font.getlength(line[:n] + "…") <= width]
    expected = line if font.getlength(line) <= width else max(starts, key=len, default="…")
    assert _fitting(text, width) == expected


@pytest.mark.parametrize("letter", ["a person ", "i", "W", "\u200b"])
def test_a_caption_of_30000_characters_takes_no_time(letter: str) -> None:
    caption = (letter * 30_000)[:30_000]
    overlay_sheet(**batch(1))  # the fonts are loaded
    start = time.perf_counter()
    sheet = overlay_sheet(**(batch(1) | {"captions": [caption]}))
    assert time.perf_counter() - start < 2  # one measurement a character takes minutes
    assert sheet.size == overlay_sheet(**batch(1)).size
    assert _fitting(caption, 526).endswith("…")


def test_conditions_stand_beside_the_masks_and_missing_ones_are_said() -> None:
    pose = torch.zeros(2, 3, 128, 128)
    pose[0, 0, 32:96, 32:64] = 1.0  # red; the second sample has none
    depth = torch.linspace(0, 1, 128).expand(2, 1, 128, 128)
    plain = overlay_sheet(**batch(2))
    sheet = overlay_sheet(**batch(2), conditions={"pose": pose, "depth": depth})
    assert sheet.height == plain.height
    pixels = np.asarray(sheet).astype(int)[MARGIN + 18 * 4 :]
    wide = 4 * SIDE + 3 * GAP
    first, second = (pixels[:SIDE, MARGIN + n * (wide + MARGIN) + 2 * (SIDE + GAP) :] for n in (0, 1))
    red = np.argwhere(first[:, :SIDE, 0] - first[:, :SIDE, 1] > 200) * 128 / SIDE
    np.testing.assert_allclose([red.min(axis=0), red.max(axis=0) + 1], [[32, 32], [96, 64]], atol=2)
    assert second[: SIDE // 4, :SIDE].max() > 100, "says that there is none"
    assert second[SIDE // 4 :, :SIDE].max() == 0
    grey = first[SIDE // 2, SIDE + GAP : 2 * SIDE + GAP]
    assert np.ptp(grey, axis=1).max() == 0
    assert (np.diff(grey[:, 0]) >= 0).all()
    assert np.ptp(grey[:, 0]) > 240

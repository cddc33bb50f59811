"""Evaluate a pipeline on unseen synthetic people, and write `measured.json` and `samples.png`.

    python training/common/measure.py --model PIPELINE --out FOLDER

VAE, on 256 pictures: PSNR; detection rates of faces and hands (MediaPipe, enlarged 4x) in the pictures and in their
    reconstructions; whether the top keeps its colour.
Samples, 200 with captions of people and fixed seeds: detection rates of faces, hands and a pose; whether the top has
    the caption's colour.

The colour of a top is the median over the trunk between the detected shoulders and hips; its name is the majority of
the five nearest of 600 rendered tops in CIELAB. The accuracy of these names on rendered tops is measured too, as the
upper bound of the other two shares. Striped tops are left out.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from fairhuman.bases.latents import decode_latents, encode_pictures
from fairhuman.detect.detection import Detection
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.rates import find_parts, part_rates
from fairhuman.generate.sample import sample
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.sdxl import load_pipeline
from fairhuman.synth.body import Body
from fairhuman.synth.person import CLOTHES
from fairhuman.synth.render import Rendering, render
from fairhuman.utils.files import write_json

Found = list[dict[str, list[Detection]]]
SIZE, ENLARGED = 128, 4
REFERENCE_SEED, VAE_SEED, PROMPT_SEED = 101, 102, 103
NEIGHBOURS = 5
_SHOULDERS_AND_HIPS = (11, 12, 24, 23)  # of BlazePose's 33 points


def renderings(body: Body, seed: int, count: int) -> list[Rendering]:
    """Render the first `count` people of a seed with tops without stripes."""
    found: list[Rendering] = []
    number = 0
    while len(found) < count:
        rendering = render(body, seed, number, SIZE)
        number += 1
        if rendering.person.stripes is None:
            found.append(rendering)
    return found


def top_colour(image: np.ndarray, pose: Detection) -> np.ndarray | None:
    """Return the median CIELAB colour of the trunk's centre; None if too little of it is visible."""
    corners = pose.landmarks_n3[list(_SHOULDERS_AND_HIPS), :2].astype(float)
    corners = corners.mean(0) + 0.6 * (corners - corners.mean(0))
    mask = Image.new("1", image.shape[1::-1])
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners], fill=1)
    pixels = image[np.asarray(mask)]
    if len(pixels) < 20:
        return None
    return np.median(lab(pixels), axis=0)


def lab(pixels: np.ndarray) -> np.ndarray:
    """Convert sRGB values [N, 3] (uint8) to CIELAB under D65."""
    linear = np.where(pixels / 255 <= 0.04045, pixels / 255 / 12.92, ((pixels / 255 + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def look(images: list[np.ndarray]) -> Found:
    """Detect faces, hands and a pose in each picture."""
    return find_parts(images, upscale=ENLARGED, workers=2)


def colours(images: list[np.ndarray], found: Found) -> list[np.ndarray | None]:
    """Return the colour of the top in each picture; None where no pose was detected."""
    return [
        top_colour(image, parts["pose"][0]) if parts["pose"] else None
        for image, parts in zip(images, found, strict=True)
    ]


def name_colours(measured: list[np.ndarray | None], reference: list[tuple[np.ndarray, str]]) -> list[str | None]:
    """Name each colour by majority of its nearest references."""
    points, names = np.stack([colour for colour, _ in reference]), [name for _, name in reference]
    named: list[str | None] = []
    for colour in measured:
        if colour is None:
            named.append(None)
            continue
        nearest = np.linalg.norm(points - colour, axis=1).argsort()[:NEIGHBOURS]
        votes = [names[index] for index in nearest]
        named.append(max(CLOTHES, key=lambda name: (votes.count(name), -votes.index(name) if name in votes else -99)))
    return named


def share_right(named: list[str | None], people: list[Rendering]) -> dict[str, float]:
    """Return the share of pictures with the right top colour; a picture without a pose counts as wrong."""
    right = [name == person.person.top_colour for name, person in zip(named, people, strict=True)]
    return {"share": float(np.mean(right)), "n": len(right), "without_pose": named.count(None)}


def rates(parts_found: Found, people: list[Rendering] | None = None) -> dict[str, object]:
    """Return detection rates as plain values; with `people`, compared with their true boxes."""
    expected = None
    if people is not None:
        expected = {
            "face": [[p.boxes["face"]] if "face" in p.boxes else [] for p in people],
            "hand": [[p.boxes[k] for k in ("left_hand", "right_hand") if k in p.boxes] for p in people],
        }
    found = part_rates(parts_found, expected)
    return {
        part: {
            "found": value.found.value,
            "low": value.found.low,
            "high": value.found.high,
            "n": value.found.n,
            "mean_score_where_found": None if math.isnan(value.score_where_found) else value.score_where_found,
            "on_target": None if value.on_target is None else value.on_target.value,
        }
        for part, value in found.items()
    }


def write_samples(path: Path, images: list[np.ndarray], columns: int = 12, rows: int = 5) -> None:
    """Write the first samples as a sheet, without selection."""
    sheet = Image.new("RGB", (columns * SIZE, rows * SIZE), "white")
    for number, image in enumerate(images[: columns * rows]):
        sheet.paste(Image.fromarray(image), (number % columns * SIZE, number // columns * SIZE))
    sheet.save(path, optimize=True)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", help="'small' or a pipeline's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for measured.json and samples.png")
    parser.add_argument("--count", type=int, default=200, help="samples; 0 measures the VAE alone")
    parser.add_argument("--vae-count", type=int, default=256, help="pictures for the VAE; 0 measures samples alone")
    parser.add_argument("--reference-count", type=int, default=600)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    body = Body(print)
    people = renderings(body, REFERENCE_SEED, args.reference_count)
    images = [person.image for person in people]
    measured = colours(images, find_parts(images, upscale=ENLARGED, detectors={"pose": PoseDetector}, workers=2))
    reference = [(c, p.person.top_colour) for c, p in zip(measured, people, strict=True) if c is not None]
    pipeline = load_pipeline(args.model)
    target = args.out / "measured.json"
    report: dict[str, object] = json.loads(target.read_text()) if target.is_file() else {}
    if args.vae_count:
        people = renderings(body, VAE_SEED, args.vae_count)
        images = [person.image for person in people]
        decoded = []
        for start in range(0, len(images), 16):
            batch = torch.from_numpy(np.stack(images[start : start + 16])).permute(0, 3, 1, 2) / 127.5 - 1
            pixels = decode_latents(pipeline.vae, encode_pictures(pipeline.vae, batch))
            decoded += list(((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
        errors = [np.square(a.astype(float) - b).mean() / 255**2 for a, b in zip(images, decoded, strict=True)]
        seen, seen_again = look(images), look(decoded)
        report["vae"] = {
            "psnr_db": float(np.mean([-10 * np.log10(error) for error in errors])),
            "pictures": rates(seen, people),
            "reconstructions": rates(seen_again, people),
            "colour_of_pictures": share_right(name_colours(colours(images, seen), reference), people),
            "colour_of_reconstructions": share_right(name_colours(colours(decoded, seen_again), reference), people),
        }
    if args.count:
        people = renderings(body, PROMPT_SEED, args.count)
        settings = SampleSettings(steps=30, guidance=args.guidance, batch_size=20, seed=0)
        prompts = [person.caption for person in people]
        drawn = [np.asarray(picture.image.convert("RGB")) for picture in sample(pipeline, prompts, settings)]
        seen = look(drawn)
        report["samples"] = {
            "guidance": args.guidance,
            "steps": settings.steps,
            "count": args.count,
            "rates": rates(seen),
            "rates_of_renderings_with_these_captions": rates(look([person.image for person in people])),
            "colour": share_right(name_colours(colours(drawn, seen), reference), people),
        }
        write_samples(args.out / "samples.png", drawn)
        (args.out / "samples.txt").write_text("".join(f"{prompt}\n" for prompt in prompts[:60]), encoding="utf-8")
    write_json(target, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

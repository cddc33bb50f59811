"""How image metrics respond to faces and hands damaged by a given strength.

    .venv/bin/python benchmarks/sensitivity.py --photos FOLDER [--quick] [--parts people photos]

Synthetic people of 512 px, and photos of any data set with face boxes (without --photos that part is skipped),
pixelated or blurred inside the boxes. Measured are strict and official confidences, and the Fréchet distance on
EfficientNet-Lite0 features: to the same pictures undamaged, and to as many other ones. The results are in
docs/evaluation.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import arguments, one_thread, save
from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import read_bytes
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.detect.detection import Picture
from fairhuman.evaluate.metrics.distances import measure_frechet
from fairhuman.evaluate.networks.efficientnet import EfficientNetLite0
from fairhuman.evaluate.networks.extractor import Features
from fairhuman.evaluate.people.degrade import blur, pixelate
from fairhuman.evaluate.people.detections import ImageDetections, face_detector, hand_detector
from fairhuman.evaluate.people.official import official_scorer
from fairhuman.evaluate.people.strict import StrictScores, strict_scores
from fairhuman.record import Box
from fairhuman.stats.bootstrap import pooled_ratio
from fairhuman.stats.estimate import Estimate
from fairhuman.synth.body import Body
from fairhuman.synth.render import render

Boxes = Sequence[Box]
Degrade = Callable[[Picture, Any, Boxes], Picture]
SEED = 404
SIZE = 512
BATCH = 16
CELLS = (64, 32, 16, 8)  # along the longer side of a box
BLURS = (0.01, 0.02, 0.04, 0.08)  # sides of a box
DAMAGES: Mapping[str, tuple[Degrade, float]] = {
    "clean": (blur, 0),
    **{f"{cells} cells": (pixelate, cells) for cells in CELLS},
    **{f"blur {sigma}": (blur, sigma) for sigma in BLURS},
}


@dataclass(frozen=True)
class Shown:
    """Pictures with their boxes (hands: None where unknown), and as many undamaged others for comparison."""

    images: Sequence[Picture]
    faces: Sequence[Boxes]
    hands: Sequence[Boxes] | None
    others: Sequence[Picture]

    def damaged(self, degrade: Degrade, strength: float) -> list[Picture]:
        """Return the pictures, damaged inside all boxes."""
        hands = self.hands or [()] * len(self.images)
        rows = zip(self.images, self.faces, hands, strict=True)
        return [degrade(image, strength, [*faces, *hands]) for image, faces, hands in rows]


def people(count: int) -> Shown:
    """Render synthetic people, one person per picture."""
    body = Body()
    drawn = [render(body, SEED, number, SIZE) for number in range(2 * count)]
    boxes = [one.boxes for one in drawn[:count]]
    return Shown(
        [one.image for one in drawn[:count]],
        [[box for name, box in found.items() if name == "face"] for found in boxes],
        [[box for name, box in found.items() if name != "face"] for found in boxes],
        [one.image for one in drawn[count:]],
    )


def photos(folder: Path, count: int) -> Shown:
    """Take photos with faces spread over a data set; every other one is for comparison."""
    records = read_source(folder, ("face",), SourceSettings(), LoadReport())
    records = [record for record in records if record.boxes.get("face")]
    records = records[:: max(1, len(records) // (2 * count))][: 2 * count]
    images = [np.asarray(decode(read_bytes(record.image)).picture) for record in records]
    return Shown(images[::2], [record.boxes["face"] or () for record in records[::2]], None, images[1::2])


def measured(shown: Shown) -> dict[str, Any]:
    """Return all metrics by damage."""
    network = EfficientNetLite0(batch_size=BATCH)
    clean, others = _features(network, shown.images), _features(network, shown.others)
    results = {}
    for name, (degrade, strength) in DAMAGES.items():
        images = shown.damaged(degrade, strength)
        features = _features(network, images)
        results[name] = {
            **_confidences(images, shown),
            "distance to the same, clean": measure_frechet(clean, features).value,
            "distance to others": measure_frechet(others, features).value,
        }
        print(name, _line(results[name]), flush=True)
    return results


def _confidences(images: Sequence[Picture], shown: Shown) -> dict[str, Any]:
    findings, official = [], []
    with face_detector() as faces, hand_detector() as hands, official_scorer() as score:
        for image in images:
            findings.append(ImageDetections(faces(image), hands(image) if shown.hands is not None else ()))
            official.append(score(image))
    found = {"face": [one.faces for one in official], "hand": [one.hands for one in official]}
    results = {"face, strict": _strict_confidence(strict_scores("face", findings, shown.faces)).plain()}
    if shown.hands is None:
        del found["hand"]
    else:
        results["hand, strict"] = _strict_confidence(strict_scores("hand", findings, shown.hands)).plain()
    for part, scores in found.items():
        results[f"{part}, official"] = {**_official_confidence(scores).plain(), "found": sum(map(len, scores))}
    return results


def _strict_confidence(scores: StrictScores) -> Estimate:
    """Σ quality / Σ expected over the pictures of which it is known what to expect."""
    known_n = ~np.isnan(scores.expected_n)
    return pooled_ratio(scores.quality_n[known_n], scores.expected_n[known_n])


def _official_confidence(scores: Sequence[Sequence[float]]) -> Estimate:
    """Mean over all detections of all pictures, misses skipped, with its interval over pictures."""
    return pooled_ratio([sum(picture) for picture in scores], [float(len(picture)) for picture in scores])


def _features(network: EfficientNetLite0, images: Sequence[Picture]) -> Features:
    prepared = [network.prepare(Image.fromarray(image)) for image in images]
    batches = [prepared[start : start + BATCH] for start in range(0, len(prepared), BATCH)]
    return np.concatenate([network.extract(torch.stack(batch)) for batch in batches])


def _line(result: Mapping[str, Any]) -> str:
    values = {name: one["value"] if isinstance(one, dict) else one for name, one in result.items()}
    return ", ".join(f"{name} {'none' if value is None else format(value, '.3f')}" for name, value in values.items())


def main() -> None:
    """Measure each part and save it."""
    options = arguments(__doc__, ("people", "photos"), photos="data set with boxes of faces, for the part of photos")
    one_thread()
    counts = {"people": 2, "photos": 2} if options.quick else {"people": 40, "photos": 100}
    for part in options.parts:
        if part == "photos" and options.photos is None:
            print("no photos: give --photos FOLDER")
            continue
        shown = people(counts[part]) if part == "people" else photos(options.photos, counts[part])
        sizes = {
            "pictures": len(shown.images),
            "faces": sum(map(len, shown.faces)),
            "hands": None if shown.hands is None else sum(map(len, shown.hands)),
            "others": len(shown.others),
        }
        print(f"{part}: {sizes}")
        settings = {"seed": SEED, "size": SIZE, **counts}
        save("sensitivity", settings, {part: {**sizes, "damages": measured(shown)}}, options)


if __name__ == "__main__":
    main()

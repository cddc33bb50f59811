"""Previews of a training run, with the same captions, seeds and held-out photos at every step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from fairhuman.generate.guide import ActiveControl
from fairhuman.generate.sample import draw, picture_generator, save_png, to_image
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.sdxl import encode_pictures
from fairhuman.utils.files import write_json
from fairhuman.utils.randomness import Stream, seeded_generator

INDEX = Path("previews") / "index.json"


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A held-out photo [3, H, W] in [-1, 1], boxes (x0, y0, x1, y1) in its pixels by region, conditions of its size."""

    caption: str
    seed: int
    picture_chw: Tensor
    boxes: Mapping[str, Sequence[tuple[float, ...]]]
    conditions: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreviewSet:
    """Fixed rows, sampled in two ways: from the caption alone, and from the noised photo.

    The second way keeps the composition, so faces and hands stay in place and can be compared between steps: the latent
    is noised to `strength` of the schedule with the row's own noise, and denoised by the model.
    """

    rows: Sequence[PreviewRow]
    steps: int = 20
    guidance: float = 3.0
    strength: float = 0.55
    batch_size: int = 4
    guides: Sequence[ActiveControl] = ()

    def render(self, pipeline: StableDiffusionXLPipeline, step: int, folder: Path) -> None:
        """Write `previews/step-<step>/row-<row>-{caption,photo}.png` in `folder` and add them to the index.

        The model's modes, precision and device and all global generators are left unchanged.
        """
        entries = self._read_index(folder)
        place = INDEX.parent / f"step-{step:06d}"
        for start in range(0, len(self.rows), self.batch_size):
            numbers = range(start, min(start + self.batch_size, len(self.rows)))
            drawn = {"caption": self._from_captions(pipeline, numbers), "photo": self._from_photos(pipeline, numbers)}
            for i, number in enumerate(numbers):
                names = {way: place / f"row-{number:02d}-{way}.png" for way in drawn}
                for way, name in names.items():
                    metadata = {"caption": self.rows[number].caption, "step": str(step), "from": way}
                    save_png(to_image(drawn[way][i]), folder / name, metadata)
                entries[number]["steps"][str(step)] = {way: name.as_posix() for way, name in names.items()}
        write_json(folder / INDEX, {"rows": entries})

    def _settings(self, row: PreviewRow) -> SampleSettings:
        height, width = row.picture_chw.shape[1:]
        return SampleSettings(steps=self.steps, guidance=self.guidance, height=height, width=width)

    def _from_captions(self, pipeline: StableDiffusionXLPipeline, numbers: range) -> Tensor:
        rows = [self.rows[number] for number in numbers]
        generators = [picture_generator(row.seed, 0, 0) for row in rows]
        captions, conditions = [row.caption for row in rows], _conditions(rows)
        return draw(pipeline, captions, generators, self._settings(rows[0]), guides=self.guides, conditions=conditions)

    def _from_photos(self, pipeline: StableDiffusionXLPipeline, numbers: range) -> Tensor:
        rows = [self.rows[number] for number in numbers]
        pictures_bchw = torch.stack([row.picture_chw for row in rows]).to(pipeline.unet.device)
        return draw(
            pipeline,
            [row.caption for row in rows],
            [seeded_generator(row.seed, Stream.PHOTO) for row in rows],
            self._settings(rows[0]),
            start_latents_bchw=encode_pictures(pipeline.vae, pictures_bchw),
            strength=self.strength,
            guides=self.guides,
            conditions=_conditions(rows),
        )

    def _read_index(self, folder: Path) -> list[dict[str, Any]]:
        """Write photos and conditions; return the index's rows, including the steps written before a resume."""
        entries: list[dict[str, Any]] = []
        for number, row in enumerate(self.rows):
            photo = INDEX.parent / f"photo-{number:02d}.png"
            save_png(to_image(row.picture_chw), folder / photo, {"caption": row.caption})
            shown = {name: INDEX.parent / f"{name}-{number:02d}.png" for name in row.conditions}
            for name, path in shown.items():
                condition_3hw = row.conditions[name].expand(3, -1, -1)
                save_png(to_image(2 * condition_3hw - 1), folder / path, {"caption": row.caption})
            entries.append(
                {
                    "caption": row.caption,
                    "seed": row.seed,
                    "photo": photo.as_posix(),
                    "conditions": {name: path.as_posix() for name, path in shown.items()},
                    "boxes": {name: [list(box) for box in boxes] for name, boxes in row.boxes.items()},
                    "steps": {},
                }
            )
        if (folder / INDEX).is_file():
            before = json.loads((folder / INDEX).read_text(encoding="utf-8"))["rows"]
            for entry, old in zip(entries, before, strict=False):
                if {**old, "steps": {}} == entry:
                    entry["steps"] = old["steps"]
        return entries


def _conditions(rows: Sequence[PreviewRow]) -> dict[str, Tensor]:
    return {name: torch.stack([row.conditions[name] for row in rows]) for name in rows[0].conditions}

"""Previews of a training run, with the same captions, prompts, seeds and held-out photos at every step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from fairhuman.bases.base import base_of
from fairhuman.generate.guide import ActiveControl
from fairhuman.generate.sample import draw, picture_generator, read_prompts, save_png, to_image
from fairhuman.generate.settings import SampleSettings
from fairhuman.utils.files import reading_own, write_json
from fairhuman.utils.parse import parse_json
from fairhuman.utils.randomness import Stream, seeded_generator

INDEX = Path("previews") / "index.json"


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A held-out photo [3, H, W] in [-1, 1], boxes (x0, y0, x1, y1) in its pixels by region, conditions of its size.

    A prompt has no photo but a `size`, height and width in pixels.
    """

    caption: str
    seed: int
    picture_chw: Tensor | None
    boxes: Mapping[str, Sequence[tuple[float, ...]]]
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.size if self.picture_chw is None else (self.picture_chw.shape[1], self.picture_chw.shape[2])


@dataclass(frozen=True, slots=True)
class PreviewSet:
    """Fixed rows, sampled in two ways: from the caption alone and, if there is a photo, from the noised photo.

    The second way keeps the composition, so faces and hands stay in place and can be compared between steps: the latent
    is noised to `strength` of the schedule with the row's own noise, and denoised by the model.

    Args:
        reading: a block in which the text encoders work. Texts are then read once, and kept in main memory. None: the
            text encoders are always there, and may change.
        room: calls what needs the VAE alone, so that other networks can leave the device.
    """

    rows: Sequence[PreviewRow]
    steps: int = 20
    guidance: float = 3.0
    strength: float = 0.55
    batch_size: int = 4
    guides: Sequence[ActiveControl] = ()
    reading: Callable[[], AbstractContextManager[None]] | None = None
    room: Callable[[Callable[[], Tensor]], Tensor] = lambda work: work()
    # by the first row of a batch, and whether it is of photos
    _read: dict[tuple[int, bool], list[Any]] = field(default_factory=dict, init=False, repr=False)

    def read(self, pipeline: Any) -> None:
        """Encode the texts that aren't known yet, so that drawing needs no text encoders."""
        if self.reading is None:
            return
        batches = {numbers[0]: [self.rows[number] for number in numbers] for numbers in self._batches()}
        ways = [(first, False) for first in batches]
        ways += [(first, True) for first, rows in batches.items() if rows[0].picture_chw is not None]
        missing = [way for way in ways if way not in self._read]
        with self.reading() if missing else nullcontext():
            for first, photos in missing:
                captions, settings = [row.caption for row in batches[first]], self._settings(batches[first][0])
                self._read[first, photos] = send_to_device(read_prompts(pipeline, captions, settings, photos), "cpu")

    def render(
        self, pipeline: Any, step: int, folder: Path, on_step: Callable[[int, int], object] = lambda _done, _all: None
    ) -> None:
        """Write `previews/step-<step>/row-<row>-{caption,photo}.png` in `folder` and add them to the index.

        The model's modes, precision and device and all global generators are left unchanged. `on_step` is called
        before and after each denoising step with the number of steps done and their total; an exception of its ends
        the drawing, and the step isn't in the index then.
        """
        self.read(pipeline)
        entries = self._read_index(folder)
        place = INDEX.parent / f"step-{step:06d}"
        batches, total, done = list(self._batches()), self._denoising_steps(), 0
        on_step(0, total)

        def count() -> None:
            nonlocal done
            done += 1
            on_step(min(done, total), total)

        for numbers in batches:
            drawn = {"caption": self._from_captions(pipeline, numbers, count)}
            if self.rows[numbers[0]].picture_chw is not None:
                drawn["photo"] = self._from_photos(pipeline, numbers, count)
            for i, number in enumerate(numbers):
                names = {way: place / f"row-{number:02d}-{way}.png" for way in drawn}
                for way, name in names.items():
                    metadata = {"caption": self.rows[number].caption, "step": str(step), "from": way}
                    save_png(to_image(drawn[way][i]), folder / name, metadata)
                entries[number]["steps"][str(step)] = {way: name.as_posix() for way, name in names.items()}
        write_json(folder / INDEX, {"rows": entries})

    def drawn(self, step: int, folder: Path) -> bool:
        """Whether the index has all rows of a step."""
        return all(str(step) in entry["steps"] for entry in _rows_of(folder)) and bool(_rows_of(folder))

    def _batches(self) -> Iterator[list[int]]:
        """Numbers of rows that can be drawn together: of one size, with the same parts."""

        def kind(number: int) -> tuple[object, ...]:
            row = self.rows[number]
            return row.shape, row.picture_chw is None, tuple(row.conditions)

        for _, group in groupby(range(len(self.rows)), kind):
            numbers = list(group)
            for start in range(0, len(numbers), self.batch_size):
                yield numbers[start : start + self.batch_size]

    def _denoising_steps(self) -> int:
        """All denoising steps of all batches, as far as the schedule of photos tells."""
        from_photo = min(int(self.steps * self.strength), self.steps)
        photos = sum(self.rows[numbers[0]].picture_chw is not None for numbers in self._batches())
        return len(list(self._batches())) * self.steps + photos * from_photo

    def _settings(self, row: PreviewRow) -> SampleSettings:
        height, width = row.shape
        return SampleSettings(steps=self.steps, guidance=self.guidance, height=height, width=width)

    def _from_captions(self, pipeline: Any, numbers: Sequence[int], on_step: Callable[[], object]) -> Tensor:
        rows = [self.rows[number] for number in numbers]
        generators = [picture_generator(row.seed, 0, 0) for row in rows]
        captions, conditions = [row.caption for row in rows], _conditions(rows)
        return draw(
            pipeline,
            captions,
            generators,
            self._settings(rows[0]),
            guides=self.guides,
            conditions=conditions,
            on_step=on_step,
            read=self._known(pipeline, numbers, photos=False),
            room=self.room,
        )

    def _from_photos(self, pipeline: Any, numbers: Sequence[int], on_step: Callable[[], object]) -> Tensor:
        rows = [self.rows[number] for number in numbers]
        photos = [row.picture_chw for row in rows if row.picture_chw is not None]
        base = base_of(pipeline)
        pictures_bchw = torch.stack(photos).to(base.device)
        start_bchw = self.room(lambda: base.moments(pictures_bchw)[0])
        return draw(
            pipeline,
            [row.caption for row in rows],
            [seeded_generator(row.seed, Stream.PHOTO) for row in rows],
            self._settings(rows[0]),
            start_latents_bchw=start_bchw,
            strength=self.strength,
            guides=self.guides,
            conditions=_conditions(rows),
            on_step=on_step,
            read=self._known(pipeline, numbers, photos=True),
            room=self.room,
        )

    def _known(self, pipeline: Any, numbers: Sequence[int], photos: bool) -> list[Any] | None:
        """What is kept of a batch's texts, on the network's device."""
        found: list[Any] | None = send_to_device(self._read.get((numbers[0], photos)), base_of(pipeline).device)
        return found

    def _read_index(self, folder: Path) -> list[dict[str, Any]]:
        """Write photos and conditions; return the index's rows, including the steps written before a resume."""
        entries: list[dict[str, Any]] = []
        for number, row in enumerate(self.rows):
            photo = INDEX.parent / f"photo-{number:02d}.png"
            if row.picture_chw is not None:
                save_png(to_image(row.picture_chw), folder / photo, {"caption": row.caption})
            shown = {name: INDEX.parent / f"{name}-{number:02d}.png" for name in row.conditions}
            for name, path in shown.items():
                condition_3hw = row.conditions[name].expand(3, -1, -1)
                save_png(to_image(2 * condition_3hw - 1), folder / path, {"caption": row.caption})
            entries.append(
                {
                    "caption": row.caption,
                    "seed": row.seed,
                    "photo": photo.as_posix() if row.picture_chw is not None else None,
                    "conditions": {name: path.as_posix() for name, path in shown.items()},
                    "boxes": {name: [list(box) for box in boxes] for name, boxes in row.boxes.items()},
                    "steps": {},
                }
            )
        for entry, old in zip(entries, _rows_of(folder), strict=False):
            if {**old, "steps": {}} == entry:
                entry["steps"] = old["steps"]
        return entries


def forget_previews(folder: Path, after: int) -> None:
    """Drop the steps after `after` from a run's index: a run that goes on from there draws them again."""
    rows = _rows_of(folder)
    kept = [{**row, "steps": {n: files for n, files in row["steps"].items() if int(n) <= after}} for row in rows]
    if kept != rows:
        write_json(folder / INDEX, {"rows": kept})


def _rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's index; none if it isn't there yet.

    Raises:
        DataError: it can't be read.
    """
    index = folder / INDEX
    if not index.is_file():
        return []
    with reading_own(index, "delete it: the report then lacks the previews so far"):
        rows = parse_json(index.read_text(encoding="utf-8"))["rows"]
        return [{**row, "steps": {str(int(n)): dict(files) for n, files in row["steps"].items()}} for row in rows]


def _conditions(rows: Sequence[PreviewRow]) -> dict[str, Tensor]:
    return {name: torch.stack([row.conditions[name] for row in rows]) for name in rows[0].conditions}

"""Records to training samples, each a pure function of (seed, position)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as T

from fairhuman.data.batch import Sample
from fairhuman.data.condition_view import CONDITIONS, can_be_mirrored, conditions_in_view, read_conditions
from fairhuman.data.decode import DEFAULT_LIMITS, PictureLimits, decode, decode_mask
from fairhuman.data.report import Note, note
from fairhuman.data.sampler import BucketOrder, Order, SampleOrder
from fairhuman.data.stored import PictureError, picture_name
from fairhuman.errors import DataError
from fairhuman.randomness import Stream, seeded_generator
from fairhuman.record import Box, HumanRecord
from fairhuman.regions.masks import MaskSettings, boxes_to_mask
from fairhuman.regions.transforms import JointTransform, as_bounding_boxes

_SAME_PLACE = 2.0  # pixels between the boxes of a region and the frame of its painted mask


class PeopleDataset(Dataset[Sample]):
    """`dataset[position]` is the sample of a position (see `sampler`); positions go on without end.

    Which record, and all that is random about it (crop, flip, dropped caption), follows from the seed and
    the position, so that any number of workers or processes, and a run that goes on after a stop, see the
    same samples. A picture that can't be decoded is noted in the sample, and the next record in order takes
    its place.

    Args:
        records: at least one.
        regions: names, in the order of r in masks_rhw.
        transform: joint resize, crop and flip.
        masks: how boxes become masks.
        caption_dropout: probability of an empty caption, 0..1.
        seed: of order and draws, ≥ 0.
        limits: as the records were read with.
        order: of the records; None: epoch after epoch, each record once. With a `BucketOrder` it gives each sample's
            resolution in the place of the transform's.
        conditions: of `pose` and `depth`, those that samples shall have.
        condition_dropout: probability, 0..1, that a sample's condition is zeros though its record has it; each
            condition of each sample by itself, and whatever is drawn else stays the same.

    """

    def __init__(
        self,
        records: Sequence[HumanRecord],
        regions: Sequence[str],
        transform: JointTransform,
        masks: MaskSettings | None = None,
        caption_dropout: float = 0.0,
        seed: int = 0,
        limits: PictureLimits = DEFAULT_LIMITS,
        order: Order | None = None,
        conditions: Sequence[str] = (),
        condition_dropout: float = 0.0,
    ) -> None:
        if not records:
            raise DataError("records must hold at least one record, there is none")
        if not 0.0 <= caption_dropout <= 1.0:
            raise ValueError(f"caption_dropout must be in 0..1, not {caption_dropout}")
        if not 0.0 <= condition_dropout <= 1.0:
            raise ValueError(f"condition_dropout must be in 0..1, not {condition_dropout}")
        if not set(conditions) <= CONDITIONS.keys():
            raise ValueError(f"conditions must be of {', '.join(CONDITIONS)}, not {', '.join(conditions)}")
        self.records = records
        self.regions = tuple(regions)
        self.transform = transform
        self.masks = masks or MaskSettings()
        self.caption_dropout = caption_dropout
        self.condition_dropout = condition_dropout
        self.seed = seed
        self.limits = limits
        self.order = order or SampleOrder(seed, range(len(records)))
        self.conditions = tuple(conditions)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def __getitem__(self, position: int) -> Sample:
        """The sample of a position ≥ 0.

        Raises:
            DataError: if not one picture of the data set can be decoded.

        """
        passed: list[Note] = []
        for index in self.order.successors(position):
            record = self.records[index]
            try:
                picture, painted = self._load(record)
            except PictureError as error:
                passed.append(note(record.location or record.key, "train", error.finding))
                continue
            return self._sample(record, picture, painted, position, tuple(passed))
        raise DataError(f"not one of {len(self.records)} pictures can be decoded; the first: {passed[0]}")

    def _load(self, record: HumanRecord) -> tuple[Image.Image, dict[str, Image.Image]]:
        """Picture and painted masks, all of the size that the record's boxes are in."""
        expected = (record.width, record.height)
        picture = decode(record.image, self.limits).picture
        painted = {name: decode_mask(record.masks[name], self.limits) for name in self.regions if name in record.masks}
        for name, image in {"picture": picture, **painted}.items():
            if image.size != expected:
                shown = f"{name} of {picture_name(record.image)} is {image.size}, the record says {expected}"
                raise PictureError("size is not that of the record", shown)
        return picture, painted

    def _sample(
        self,
        record: HumanRecord,
        picture: Image.Image,
        painted: dict[str, Image.Image],
        position: int,
        notes: tuple[Note, ...],
    ) -> Sample:
        generator = seeded_generator(self.seed, Stream.SAMPLE, position)
        size = (record.height, record.width)
        transform = self.transform
        if isinstance(self.order, BucketOrder):
            transform = replace(transform, resolution=self.order.resolution(position))
        places = {name: self._places(record, painted, name) for name in self.regions}
        conditions, findings = read_conditions(record, self.conditions, self.limits)
        draw = transform.draw(generator, size, [box for boxes in places.values() for box in boxes])
        draw = replace(draw, flip=draw.flip and can_be_mirrored(conditions))
        dropped = float(torch.rand(1, generator=generator)) < self.caption_dropout
        items: dict[str, Tensor] = {"picture": tv_tensors.Image(T.pil_to_tensor(picture))}
        for name, boxes in places.items():
            items[f"boxes {name}"] = as_bounding_boxes(boxes, size)
        for name, mask in painted.items():
            items[f"mask {name}"] = tv_tensors.Mask(T.pil_to_tensor(mask)[0].float() / 255.0)
        items |= {name: item for name, item in conditions.items() if not isinstance(item, list)}
        moved = {name: item.as_subclass(Tensor) for name, item in transform.apply(draw, items).items()}
        view = transform.resolution
        hidden = self._hidden_conditions(position)
        shown = {name: item for name, item in conditions.items() if name not in hidden}
        return Sample(
            picture_chw=moved["picture"].float() / 127.5 - 1.0,
            masks_rhw=self._masks(moved, view),
            known_r=torch.tensor([record.annotated(name) for name in self.regions], dtype=torch.bool),
            boxes={name: _in_view(moved[f"boxes {name}"], view) for name in self.regions},
            caption="" if dropped else record.caption,
            time_ids_6=torch.tensor(transform.time_ids(draw, size), dtype=torch.float32),
            key=record.key,
            draw=draw,
            position=position,
            conditions=conditions_in_view(shown, moved, self.conditions, draw, size, view),
            known_conditions={name: name in conditions for name in self.conditions},
            shown_conditions={name: name in shown for name in self.conditions},
            notes=(*notes, *(note(record.location or record.key, "train", finding) for finding in findings)),
        )

    def _hidden_conditions(self, position: int) -> set[str]:
        generator = seeded_generator(self.seed, Stream.CONDITION, position)
        drawn = torch.rand(len(self.conditions), generator=generator) < self.condition_dropout
        return {name for name, dropped in zip(self.conditions, drawn.tolist(), strict=True) if dropped}

    @staticmethod
    def _places(record: HumanRecord, painted: dict[str, Image.Image], region: str) -> tuple[Box, ...]:
        """Where a region is: its boxes, where a painted mask doesn't contradict them; otherwise the mask's frame."""
        boxes = record.boxes.get(region) or ()
        if region not in painted:
            return boxes
        frame = painted[region].getbbox()
        if frame is None:
            return ()
        around = (
            min((box.x0 for box in boxes), default=math.inf),
            min((box.y0 for box in boxes), default=math.inf),
            max((box.x1 for box in boxes), default=-math.inf),
            max((box.y1 for box in boxes), default=-math.inf),
        )
        if all(abs(side - edge) <= _SAME_PLACE for side, edge in zip(around, frame, strict=True)):
            return boxes
        return (Box(*map(float, frame)),)

    def _masks(self, moved: Mapping[str, Tensor], view: tuple[int, int]) -> Tensor:
        """Masks [r, H, W] of the view: the painted one, or one drawn from the boxes."""
        masks_rhw = torch.zeros(len(self.regions), *view)
        for r, name in enumerate(self.regions):
            painted = moved.get(f"mask {name}")
            if painted is None:
                masks_rhw[r] = boxes_to_mask(moved[f"boxes {name}"], view, self.masks)
            else:  # interpolation may leave 0..1 by rounding
                masks_rhw[r] = painted.clamp(0, 1)
        return masks_rhw


def _in_view(boxes_n4: Tensor, view: tuple[int, int]) -> list[tuple[float, ...]]:
    """Boxes clipped to the view; those outside of it are left out."""
    height, width = view
    clipped_n4 = boxes_n4.clamp(min=0.0).minimum(boxes_n4.new_tensor([width, height, width, height]))
    seen = (clipped_n4[:, 2] > clipped_n4[:, 0]) & (clipped_n4[:, 3] > clipped_n4[:, 1])
    return [tuple(box) for box in clipped_n4[seen].tolist()]


def region_coverage(records: Sequence[HumanRecord], regions: Sequence[str]) -> dict[str, float]:
    """Share of records, 0..1, that are known to have each region."""
    return {name: sum(record.has(name) for record in records) / max(len(records), 1) for name in regions}


def region_area(records: Sequence[HumanRecord], regions: Sequence[str]) -> dict[str, float | None]:
    """Mean share of the picture, 0..1, that the boxes of each region cover where there are some; None if nowhere."""
    areas: dict[str, float | None] = {}
    for name in regions:
        shares = [
            sum(box.area for box in boxes) / (record.width * record.height)
            for record in records
            if (boxes := record.boxes.get(name))
        ]
        areas[name] = sum(shares) / len(shares) if shares else None
    return areas

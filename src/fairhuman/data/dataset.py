"""Records to training samples, each a pure function of (seed, position)."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as T

from fairhuman.data.batch import Sample
from fairhuman.data.decode import (
    DEFAULT_LIMITS,
    PictureError,
    PictureLimits,
    decode,
    decode_mask,
    picture_name,
)
from fairhuman.data.report import Note, note
from fairhuman.data.sampler import SampleOrder
from fairhuman.errors import DataError
from fairhuman.randomness import Stream, seeded_generator
from fairhuman.record import Box, HumanRecord
from fairhuman.regions.masks import MaskSettings, boxes_to_mask
from fairhuman.regions.transforms import Draw, JointTransform, as_bounding_boxes


class PeopleDataset(Dataset[Sample]):
    """`dataset[position]` is the sample of a position (see `sampler`); positions go on past the last record.

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
    ) -> None:
        if not records:
            raise DataError("records must hold at least one record, there is none")
        if not 0.0 <= caption_dropout <= 1.0:
            raise ValueError(f"caption_dropout must be in 0..1, not {caption_dropout}")
        self.records = records
        self.regions = tuple(regions)
        self.transform = transform
        self.masks = masks or MaskSettings()
        self.caption_dropout = caption_dropout
        self.seed = seed
        self.limits = limits
        self.order = SampleOrder(seed, len(records))

    def __len__(self) -> int:
        """Number of records, which is the number of positions of an epoch."""
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

    def boxes(self, position: int) -> dict[str, list[tuple[float, float, float, float]]]:
        """The boxes (x0, y0, x1, y1) of a position by region, in pixels of its view and clipped to it.

        Those of the record that the order names, whether or not its picture can be decoded; painted masks have none.
        """
        record = self.records[self.order.index(position)]
        generator = seeded_generator(self.seed, Stream.SAMPLE, position)
        every = [box for name in self.regions for box in record.boxes.get(name) or ()]
        draw = self.transform.draw(generator, (record.height, record.width), every)
        height, width = self.transform.resolution
        moved: dict[str, list[tuple[float, float, float, float]]] = {}
        for name in self.regions:
            corners = as_bounding_boxes(record.boxes.get(name) or (), (record.height, record.width))
            viewed_n4 = self.transform.apply(draw, {name: corners})[name].as_subclass(Tensor)
            viewed_n4 = viewed_n4.clamp(min=0.0).minimum(viewed_n4.new_tensor([width, height, width, height]))
            seen_n4 = viewed_n4[(viewed_n4[:, 2] > viewed_n4[:, 0]) & (viewed_n4[:, 3] > viewed_n4[:, 1])]
            moved[name] = [(x0, y0, x1, y1) for x0, y0, x1, y1 in seen_n4.tolist()]
        return moved

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
        boxes = [box for name in self.regions for box in self._places(record, painted, name)]
        size = (record.height, record.width)
        draw = self.transform.draw(generator, size, boxes)
        dropped = float(torch.rand(1, generator=generator)) < self.caption_dropout
        picture_chw, masks_rhw = self._view(record, picture, painted, draw)
        return Sample(
            picture_chw=picture_chw,
            masks_rhw=masks_rhw,
            known_r=torch.tensor([record.annotated(name) for name in self.regions], dtype=torch.bool),
            caption="" if dropped else record.caption,
            time_ids_6=torch.tensor(self.transform.time_ids(draw, size), dtype=torch.float32),
            key=record.key,
            position=position,
            notes=notes,
        )

    @staticmethod
    def _places(record: HumanRecord, painted: dict[str, Image.Image], region: str) -> tuple[Box, ...]:
        """Where a region is: the frame of its painted mask, or its boxes."""
        if region not in painted:
            return record.boxes.get(region) or ()
        frame = painted[region].getbbox()
        return (Box(*map(float, frame)),) if frame else ()

    def _view(
        self, record: HumanRecord, picture: Image.Image, painted: dict[str, Image.Image], draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Picture in -1..1 and masks, moved by one draw."""
        size = (record.height, record.width)
        items: dict[str, Tensor] = {"": tv_tensors.Image(T.pil_to_tensor(picture))}
        for name in self.regions:
            if name in painted:
                items[name] = tv_tensors.Mask(T.pil_to_tensor(painted[name])[0].float() / 255.0)
            else:
                items[name] = as_bounding_boxes(record.boxes.get(name) or (), size)
        moved = self.transform.apply(draw, items)
        picture_chw = moved[""].as_subclass(Tensor).float() / 127.5 - 1.0
        masks_rhw = torch.zeros(len(self.regions), *self.transform.resolution)
        for r, name in enumerate(self.regions):
            region = moved[name].as_subclass(Tensor)
            drawn = name not in painted
            # Interpolation may leave 0..1 by rounding.
            masks_rhw[r] = boxes_to_mask(region, self.transform.resolution, self.masks) if drawn else region.clamp(0, 1)
        return picture_chw, masks_rhw


def region_coverage(records: Sequence[HumanRecord], regions: Sequence[str]) -> dict[str, float]:
    """Share of records, 0..1, that are known to have each region."""
    return {name: sum(record.has(name) for record in records) / max(len(records), 1) for name in regions}

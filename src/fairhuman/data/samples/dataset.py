"""Training samples from records, each a pure function of (seed, position)."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as T

from fairhuman.data.pictures.decode import DEFAULT_LIMITS, PictureLimits, decode, decode_mask
from fairhuman.data.pictures.notes import Note, note
from fairhuman.data.pictures.stored import PictureError, found_damaged, picture_name
from fairhuman.data.samples.batch import Sample
from fairhuman.data.samples.close_ups import CloseUp, CloseUps
from fairhuman.data.samples.conditions import Condition, can_be_mirrored, conditions_in_view, read_conditions
from fairhuman.data.samples.encodings import Encodings
from fairhuman.data.samples.regions_in_view import RegionsInView, regions_in_view
from fairhuman.data.samples.sampler import BucketOrder, Order, SampleOrder, SizedOrder
from fairhuman.data.samples.views import View, view_of
from fairhuman.errors import DataError
from fairhuman.record import CONDITIONS, IGNORE, Box, Finding, HumanRecord, stored_pictures
from fairhuman.regions.masks import boxes_to_mask, union, without
from fairhuman.regions.settings import MaskSettings
from fairhuman.regions.transforms import JointTransform, ViewDraw, as_bounding_boxes
from fairhuman.utils.files import digest
from fairhuman.utils.randomness import Stream, seeded_generator

DAMAGED_COPY = Finding("warned", "copy of a picture is damaged, so the original is read")
_ALMOST = 0.98  # share of a pixel above which it is ignored
_BOX_TOLERANCE = 2.0  # pixels by which a region's boxes may differ from the bounding box of its painted mask


@dataclass(frozen=True)
class _Annotations:
    """All of a record except its picture: painted masks, boxes by region, conditions, findings.

    `ignored` holds what counts for no objective: painted masks, and boxes.
    """

    painted: Mapping[str, Image.Image]
    region_boxes: Mapping[str, tuple[Box, ...]]
    ignored: tuple[Sequence[Image.Image], Sequence[Box]]
    conditions: Mapping[str, Condition]
    findings: Sequence[Finding]

    @property
    def boxes(self) -> list[Box]:
        """Boxes of all regions, which `keep_region` chooses from."""
        return [box for boxes in self.region_boxes.values() for box in boxes]


class PeopleDataset(Dataset[Sample]):
    """`dataset[position]` is the sample of a position (see `sampler`); positions are unbounded.

    The record of a position and its random draws (crop, flip, dropped caption) depend only on the seed and the
    position, so the samples are the same for any number of workers and processes, and in a resumed run. A picture
    that can't be decoded is noted in the sample and replaced by the next record in order.

    Args:
        records: at least one.
        regions: names of the regions, in the order of r in masks_rhw.
        transform: joint resize, crop and flip.
        masks: how boxes are drawn as masks.
        caption_dropout: probability of an empty caption, 0..1.
        seed: seed of order and draws, ≥ 0.
        limits: the limits with which the records were read.
        order: order of the records; None: each record once per epoch. A `BucketOrder` or `SizedOrder` also sets the
            resolution of each sample, instead of the transform's.
        conditions: the conditions of samples, of `pose` and `depth`.
        condition_dropout: probability, 0..1, that a known condition is replaced by zeros; independent for each
            condition and sample, and without effect on other draws.
        variants: number of crops per record, each a function of (seed, key, number) alone, from which a position
            chooses one; 0: each position has its own crop. Flips are drawn in either case.
        ignored: regions that count for no objective. Their painted masks and their boxes (plain rectangles) count both.
        min_in_view: share of a region, 0..1, that must be in view; with less, the region counts as not annotated in
            the sample.
        close_ups: samples that show one region alone; None: none.
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
        variants: int = 0,
        ignored: Sequence[str] = (IGNORE,),
        min_in_view: float = 0.0,
        close_ups: CloseUps | None = None,
    ) -> None:
        if not records:
            raise DataError("records must not be empty")
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
        self.variants = variants
        self.ignored = tuple(ignored)
        self.ignores = any(record.has(name) for record in records for name in self.ignored)
        self.min_in_view = min_in_view
        self.close_ups = close_ups
        self.latents: Encodings | None = None
        self.place = ""

    def reading(self, latents: Encodings | None, place: str = "") -> "PeopleDataset":
        """The same data set without the pictures of views with cached latents; None: with all pictures.

        `place` identifies the data set, as for `view_of`.
        """
        dataset = copy.copy(self)
        dataset.latents, dataset.place = latents, place
        return dataset

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def resolution(self, position: int) -> tuple[int, int]:
        """Height and width of a position's sample."""
        if isinstance(self.order, BucketOrder | SizedOrder):
            return self.order.resolution(position)
        return self.transform.resolution

    def resolutions_of_records(self) -> list[tuple[int, int]]:
        """Height and width of the samples of each record."""
        if isinstance(self.order, BucketOrder | SizedOrder):
            shown = self.order.resolutions_of_records()
            return [shown.get(number, self.transform.resolution) for number in range(len(self.records))]
        return [self.transform.resolution] * len(self.records)

    def __getitem__(self, position: int) -> Sample:
        """The sample of a position ≥ 0.

        Raises:
            DataError: no picture of the data set can be decoded.
        """
        passed_over: list[Note] = []
        for index in self.order.successors(position):
            record = self.records[index]
            try:
                return self._sample(record, position, tuple(passed_over))
            except PictureError as error:
                passed_over.append(note(record.location or record.key, "train", error.finding))
        raise DataError(f"none of {len(self.records)} pictures can be decoded; the first: {passed_over[0]}")

    def views(self, index: int, resolution: tuple[int, int]) -> list[tuple[View, Tensor | None]]:
        """All views of a record that a position may have, with the pictures of those without cached latents.

        Raises:
            PictureError: as for a sample.
        """
        record = self.records[index]
        found: list[tuple[View, Tensor | None]] = []
        annotations = self._annotations(record)
        transform = replace(self.transform, resolution=resolution)
        flip_probability = transform.flip_probability if can_be_mirrored(annotations.conditions) else 0.0
        flips = [
            flip for flip, possible in ((False, flip_probability < 1.0), (True, flip_probability > 0.0)) if possible
        ]
        picture: Image.Image | None = None
        for number in range(max(1, self.variants)):
            crop = self._variant(record, annotations, transform, number)
            for draw in (replace(crop, flip=flip) for flip in flips):
                view = view_of(record, draw, resolution, self.place)
                if self.latents is not None and self.latents.get(view.key) is not None:
                    found.append((view, None))
                    continue
                picture = picture or self._picture(record)
                found.append((view, _to_input(transform.apply(draw, {"picture": _to_tensor(picture)})["picture"])))
        return found

    def _sample(self, record: HumanRecord, position: int, notes: tuple[Note, ...]) -> Sample:
        size = (record.height, record.width)
        transform = replace(self.transform, resolution=self.resolution(position))
        annotations = self._annotations(record)
        draw, dropped = self._draw(record, annotations, transform, position)
        whole, close = draw, self._close_up(record, annotations, transform, draw, position)
        draw = draw if close is None else close.draw
        frame, conditions = transform.resolution, annotations.conditions
        view = view_of(record, draw, frame, self.place) if self.latents is not None else None
        moments = self.latents.get(view.key) if self.latents is not None and view is not None else None
        items: dict[str, Tensor] = {} if moments is not None else {"picture": _to_tensor(self._picture(record))}
        for name, boxes in annotations.region_boxes.items():
            items[f"boxes {name}"] = as_bounding_boxes(boxes, size)
        for name, mask in annotations.painted.items():
            items[f"mask {name}"] = _to_mask(mask)
        if self.ignores:
            painted, ignored_boxes = annotations.ignored
            items |= {f"ignored mask {number}": _to_mask(mask) for number, mask in enumerate(painted)}
            items["ignored boxes"] = as_bounding_boxes(ignored_boxes, size)
        items |= {name: item for name, item in conditions.items() if not isinstance(item, list)}
        moved = {name: item.as_subclass(Tensor) for name, item in transform.apply(draw, items).items()}
        regions = self._regions_in_view(record, annotations, moved, draw, frame, close)
        regions = regions.mirrored(self.regions) if draw.flip else regions
        ignored_hw = self._ignored(moved, frame) if self.ignores else None
        masks_rhw = regions.masks_rhw if ignored_hw is None else without(regions.masks_rhw, ignored_hw)
        ignored_r = regions.masks_rhw.flatten(1).any(1) & ~masks_rhw.flatten(1).any(1)  # nothing of the region is left
        hidden = self._hidden_conditions(position)
        shown = {name: item for name, item in conditions.items() if name not in hidden}
        return Sample(
            picture_chw=_to_input(moved["picture"]) if "picture" in moved else None,
            masks_rhw=masks_rhw,
            known_r=regions.known_r,
            boxes=regions.boxes,
            caption="" if dropped else record.caption,
            time_ids_6=torch.tensor(transform.time_ids(draw, size), dtype=torch.float32),
            key=record.key,
            draw=draw,
            position=position,
            conditions=conditions_in_view(shown, moved, self.conditions, draw, size, frame),
            known_conditions={name: name in conditions for name in self.conditions},
            shown_conditions={name: name in shown for name in self.conditions},
            notes=(
                *notes,
                *(note(record.location or record.key, "train", finding) for finding in annotations.findings),
                *(
                    note(record.location or record.key, "train", DAMAGED_COPY)
                    for stored in stored_pictures(record, self.conditions)
                    if found_damaged(stored)
                ),
            ),
            view=view,
            moments_2chw=moments,
            ignored_hw=ignored_hw,
            whole_r2=regions.whole_r2 * ~ignored_r[:, None],
            caption_dropped=dropped and record.caption != "",
            area_scale=math.prod(whole.resized_hw) / math.prod(draw.resized_hw) if close is not None else 1.0,
        )

    def _close_up(
        self, record: HumanRecord, annotations: _Annotations, transform: JointTransform, whole: ViewDraw, position: int
    ) -> CloseUp | None:
        if self.close_ups is None:
            return None
        generator = seeded_generator(self.seed, Stream.CLOSE_UP, position)
        return self.close_ups.draw(generator, transform, whole, (record.height, record.width), annotations.region_boxes)

    def _hidden_conditions(self, position: int) -> set[str]:
        generator = seeded_generator(self.seed, Stream.CONDITION, position)
        drawn = torch.rand(len(self.conditions), generator=generator) < self.condition_dropout
        return {name for name, dropped in zip(self.conditions, drawn.tolist(), strict=True) if dropped}

    def _annotations(self, record: HumanRecord) -> _Annotations:
        painted = {
            name: self._painted(record, name)
            for name in self.regions
            if name in record.masks and (self.masks.painted or not record.boxes.get(name))
        }
        ignored_masks = [self._painted(record, name) for name in self.ignored if name in record.masks]
        ignored_boxes = [box for name in self.ignored for box in record.boxes.get(name) or ()]
        for mask, box in product(painted.values(), ignored_boxes):  # so that they don't count for its bounding box
            mask.paste(0, (round(box.x0), round(box.y0), round(box.x1), round(box.y1)))
        boxes = {name: self._region_boxes(record, painted, name) for name in self.regions}
        conditions, findings = read_conditions(record, self.conditions, self.limits)
        return _Annotations(painted, boxes, (ignored_masks, ignored_boxes), conditions, findings)

    def _painted(self, record: HumanRecord, region: str) -> Image.Image:
        return _check_size(record, region, decode_mask(record.masks[region], self.limits))

    def _picture(self, record: HumanRecord) -> Image.Image:
        return _check_size(record, "picture", decode(record.image, self.limits).picture)

    def _draw(
        self, record: HumanRecord, annotations: _Annotations, transform: JointTransform, position: int
    ) -> tuple[ViewDraw, bool]:
        """The draw of a position, and whether its caption is dropped."""
        generator = seeded_generator(self.seed, Stream.SAMPLE, position)
        draw = transform.draw(generator, (record.height, record.width), annotations.boxes)
        dropped = float(torch.rand(1, generator=generator)) < self.caption_dropout
        if self.variants:
            number = int(torch.randint(self.variants, (), generator=generator))
            draw = replace(self._variant(record, annotations, transform, number), flip=draw.flip)
        return replace(draw, flip=draw.flip and can_be_mirrored(annotations.conditions)), dropped

    def _variant(
        self, record: HumanRecord, annotations: _Annotations, transform: JointTransform, number: int
    ) -> ViewDraw:
        """The draw of a variant; its flip isn't used."""
        generator = seeded_generator(self.seed, Stream.VARIANT, int(digest(record.key), 16), number)
        return transform.draw(generator, (record.height, record.width), annotations.boxes)

    @staticmethod
    def _region_boxes(record: HumanRecord, painted: Mapping[str, Image.Image], region: str) -> tuple[Box, ...]:
        """The boxes of a region; the bounding box of its painted mask if the mask contradicts them."""
        boxes = record.boxes.get(region) or ()
        if region not in painted:
            return boxes
        frame = painted[region].getbbox()
        if frame is None:
            return ()
        surrounding = (
            min((box.x0 for box in boxes), default=math.inf),
            min((box.y0 for box in boxes), default=math.inf),
            max((box.x1 for box in boxes), default=-math.inf),
            max((box.y1 for box in boxes), default=-math.inf),
        )
        if all(abs(side - edge) <= _BOX_TOLERANCE for side, edge in zip(surrounding, frame, strict=True)):
            return boxes
        return (Box(*map(float, frame)),)

    def _regions_in_view(
        self,
        record: HumanRecord,
        annotations: _Annotations,
        moved: Mapping[str, Tensor],
        draw: ViewDraw,
        frame: tuple[int, int],
        close: CloseUp | None,
    ) -> RegionsInView:
        """What is in view; in a close-up its box alone, as if nothing else were annotated."""
        if close is not None:
            box_14 = moved[f"boxes {close.region}"][close.number, None]
            painted_hw = moved.get(f"mask {close.region}")
            cut = {} if painted_hw is None else {close.region: (painted_hw * boxes_to_mask(box_14, frame), 0.0)}
            boxes = {name: box_14 if name == close.region else box_14[:0] for name in self.regions}
            known = {name: name == close.region for name in self.regions}
            return regions_in_view(self.regions, known, boxes, cut, frame, self.masks)
        scale = math.prod(draw.resized_hw) / (record.width * record.height)
        return regions_in_view(
            self.regions,
            {name: record.annotated(name) for name in self.regions},
            {name: moved[f"boxes {name}"] for name in self.regions},
            {name: (moved[f"mask {name}"], scale * _covered(mask)) for name, mask in annotations.painted.items()},
            frame,
            self.masks,
            self.min_in_view,
        )

    @staticmethod
    def _ignored(moved: Mapping[str, Tensor], view: tuple[int, int]) -> Tensor:
        """What counts for no objective in the view, [H, W]: painted masks and boxes, each where it covers more.

        A pixel that is almost ignored is ignored: interpolation and JPEG leave remainders, which would be all the loss
        where nothing else counts.
        """
        painted = [item.clamp(0, 1) for name, item in moved.items() if name.startswith("ignored mask ")]
        ignored_hw = union([boxes_to_mask(moved["ignored boxes"], view), *painted])
        return torch.where(ignored_hw > _ALMOST, 1.0, ignored_hw)


def _to_mask(painted: Image.Image) -> tv_tensors.Mask:
    return tv_tensors.Mask(T.pil_to_tensor(painted)[0].float() / 255.0)


def _to_tensor(picture: Image.Image) -> tv_tensors.Image:
    return tv_tensors.Image(T.pil_to_tensor(picture))


def _to_input(moved_chw: Tensor) -> Tensor:
    """Scale uint8 to the range -1..1 of the VAE's input."""
    return moved_chw.as_subclass(Tensor).float() / 127.5 - 1.0


def _check_size(record: HumanRecord, name: str, image: Image.Image) -> Image.Image:
    """The image, which must have the record's size, to which the boxes refer."""
    expected = (record.width, record.height)
    if image.size != expected:
        shown = f"{name} of {picture_name(record.image)} is {image.size}, the record says {expected}"
        raise PictureError("size is not that of the record", shown)
    return image


def _covered(mask: Image.Image) -> float:
    """Pixels that a painted mask covers."""
    return sum(level * count for level, count in enumerate(mask.histogram())) / 255.0

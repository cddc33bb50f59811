"""The input of a training step: samples and batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fairhuman.data.pictures.notes import Note
from fairhuman.data.samples.views import View
from fairhuman.regions.transforms import ViewDraw

Text = Mapping[str, Tensor]  # of one caption, by name, as the base's `encode` returns it


@dataclass(frozen=True)
class Sample:
    """One transformed picture; r is the index of a region, in the data set's order."""

    picture_chw: Tensor | None  # float32 in -1..1; None if its latents are cached
    masks_rhw: Tensor  # float32 in 0..1, at image resolution; zero if not annotated, or where ignored
    known_r: Tensor  # bool: annotated, also if annotated as absent
    boxes: Mapping[str, Sequence[tuple[float, ...]]]  # by region, (x0, y0, x1, y1) in pixels of the sample
    caption: str  # '' if it was dropped
    time_ids_6: Tensor  # float32: original_h, original_w, crop_top, crop_left, target_h, target_w
    key: str
    draw: ViewDraw
    position: int
    conditions: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # by name, float32 [C, H, W] in 0..1; zeros if unknown or dropped
    known_conditions: Mapping[str, bool] = field(default_factory=dict)  # whether the record has the condition
    shown_conditions: Mapping[str, bool] = field(default_factory=dict)  # known and not dropped; otherwise zeros
    notes: tuple[Note, ...] = ()  # records that were passed over
    view: View | None = None  # None: latents aren't cached
    moments_2chw: Tensor | None = None  # float16: mean and standard deviation of the cached latents
    ignored_hw: Tensor | None = None  # float32 in 0..1: what counts for no objective; None: nothing in the data set
    whole_r2: Tensor = field(
        default_factory=lambda: torch.zeros(0, 2, dtype=torch.int64)
    )  # the picture's boxes by region, and those that are whole in view
    caption_dropped: bool = False  # the record has a caption, and the sample hasn't
    area_scale: float = 1.0  # area of the region in the whole view, relative to this one: below 1 in a close-up


@dataclass(frozen=True)
class Batch:
    """Stacked samples; see `Sample` for ranges. Training adds the `notes` of all processes to its report."""

    pictures_bchw: Tensor  # of the samples without cached `moments`, so perhaps none
    masks_brhw: Tensor
    known_br: Tensor
    captions: list[str]
    time_ids_b6: Tensor
    keys: list[str]
    draws: list[ViewDraw]
    positions_b: Tensor  # int64
    conditions: Mapping[str, Tensor] = field(default_factory=dict)  # [B, C, H, W]
    known_conditions: Mapping[str, Tensor] = field(default_factory=dict)  # bool [B]
    shown_conditions: Mapping[str, Tensor] = field(default_factory=dict)  # bool [B]
    notes: tuple[Note, ...] = ()
    views: Sequence[View | None] = ()
    moments: Sequence[Tensor | None] = ()  # one per sample, [2, C, h, w]
    ignored_bhw: Tensor | None = None
    whole_br2: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 2, dtype=torch.int64))  # see Sample.whole_r2
    area_scale_b: Tensor | None = None  # see Sample.area_scale; None: no sample is a close-up
    texts: Sequence[Text] | None = None  # what the network reads of each caption; None: not computed yet

    @property
    def present_br(self) -> Tensor:
        """Bool [B, R]: whether part of the region is in view."""
        return self.masks_brhw.flatten(2).sum(dim=2) > 0

    def to(self, device: torch.device | str) -> "Batch":
        """Move the batch to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy the tensors to pinned memory; called by a DataLoader with `pin_memory=True`."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            pictures_bchw=change(self.pictures_bchw),
            masks_brhw=change(self.masks_brhw),
            known_br=change(self.known_br),
            ignored_bhw=None if self.ignored_bhw is None else change(self.ignored_bhw),
            area_scale_b=None if self.area_scale_b is None else change(self.area_scale_b),
            time_ids_b6=change(self.time_ids_b6),
            positions_b=change(self.positions_b),
            whole_br2=change(self.whole_br2),
            conditions={name: change(tensor) for name, tensor in self.conditions.items()},
            known_conditions={name: change(tensor) for name, tensor in self.known_conditions.items()},
            shown_conditions={name: change(tensor) for name, tensor in self.shown_conditions.items()},
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of the same resolution, regions and conditions; the `collate_fn` of a DataLoader."""
    pictures = [sample.picture_chw for sample in samples if sample.picture_chw is not None]
    ignored = [sample.ignored_hw for sample in samples if sample.ignored_hw is not None]
    scales = [sample.area_scale for sample in samples]
    no_pictures = torch.empty(0, 3, *samples[0].masks_rhw.shape[1:])
    return Batch(
        pictures_bchw=torch.stack(pictures) if pictures else no_pictures,
        masks_brhw=torch.stack([sample.masks_rhw for sample in samples]),
        known_br=torch.stack([sample.known_r for sample in samples]),
        captions=[sample.caption for sample in samples],
        time_ids_b6=torch.stack([sample.time_ids_6 for sample in samples]),
        keys=[sample.key for sample in samples],
        draws=[sample.draw for sample in samples],
        positions_b=torch.tensor([sample.position for sample in samples], dtype=torch.int64),
        conditions={name: torch.stack([s.conditions[name] for s in samples]) for name in samples[0].conditions},
        known_conditions={
            name: torch.tensor([s.known_conditions[name] for s in samples]) for name in samples[0].known_conditions
        },
        shown_conditions={
            name: torch.tensor([s.shown_conditions[name] for s in samples]) for name in samples[0].shown_conditions
        },
        notes=tuple(entry for sample in samples for entry in sample.notes),
        views=[sample.view for sample in samples],
        moments=[sample.moments_2chw for sample in samples],
        ignored_bhw=torch.stack(ignored) if ignored else None,
        area_scale_b=torch.tensor(scales) if min(scales) < 1.0 else None,
        whole_br2=torch.stack([sample.whole_r2 for sample in samples]),
    )

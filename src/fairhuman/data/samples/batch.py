"""One sample and one batch, as a training step sees them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fairhuman.data.pictures.notes import Note
from fairhuman.data.samples.views import View
from fairhuman.regions.transforms import ViewDraw


@dataclass(frozen=True)
class Sample:
    """One picture after its draw; r runs over the regions of the data set, in their order."""

    picture_chw: Tensor | None  # float32 in -1..1; None where its latents are known
    masks_rhw: Tensor  # float32 in 0..1, at picture resolution; zero where not annotated
    known_r: Tensor  # bool: annotated, also if it is annotated that there is none
    boxes: Mapping[str, Sequence[tuple[float, ...]]]  # by region, (x0, y0, x1, y1) in pixels of the picture
    caption: str  # '' where it was dropped
    time_ids_6: Tensor  # float32: original_h, original_w, crop_top, crop_left, target_h, target_w
    key: str
    draw: ViewDraw
    position: int
    conditions: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # by name, float32 [C, H, W] in 0..1; zeros if unknown or dropped
    known_conditions: Mapping[str, bool] = field(default_factory=dict)  # whether the record has it
    shown_conditions: Mapping[str, bool] = field(default_factory=dict)  # has it, and it wasn't dropped: else zeros
    notes: tuple[Note, ...] = ()  # records that had to be passed over
    view: View | None = None  # None: latents aren't kept
    moments_2chw: Tensor | None = None  # float16: mean and standard deviation of the latents, where they are known


@dataclass(frozen=True)
class Batch:
    """Samples stacked; see `Sample` for ranges. `notes` are for the main process to add to its report."""

    pictures_bchw: Tensor  # without those samples whose `moments` are known, so perhaps none
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
    moments: Sequence[Tensor | None] = ()  # a sample each, [2, C, h, w]
    text: tuple[Tensor, Tensor] | None = None  # embeddings of the captions [B, 77, D] and [B, P]; None: not made yet

    @property
    def present_br(self) -> Tensor:
        """Bool: some of the region is in view."""
        return self.masks_brhw.flatten(2).sum(dim=2) > 0

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Called by a DataLoader with `pin_memory=True`."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            pictures_bchw=change(self.pictures_bchw),
            masks_brhw=change(self.masks_brhw),
            known_br=change(self.known_br),
            time_ids_b6=change(self.time_ids_b6),
            positions_b=change(self.positions_b),
            conditions={name: change(tensor) for name, tensor in self.conditions.items()},
            known_conditions={name: change(tensor) for name, tensor in self.known_conditions.items()},
            shown_conditions={name: change(tensor) for name, tensor in self.shown_conditions.items()},
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one resolution, one list of regions and one of conditions; the `collate_fn` of a DataLoader."""
    pictures = [sample.picture_chw for sample in samples if sample.picture_chw is not None]
    nothing = torch.empty(0, 3, *samples[0].masks_rhw.shape[1:])
    return Batch(
        pictures_bchw=torch.stack(pictures) if pictures else nothing,
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
    )

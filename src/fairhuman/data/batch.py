"""One sample and one batch, as a training step sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairhuman.data.report import Note
from fairhuman.regions.transforms import Draw


@dataclass(frozen=True)
class Sample:
    """One picture after its draw; r runs over the regions of the data set, in their order."""

    picture_chw: Tensor  # float32 in -1..1
    masks_rhw: Tensor  # float32 in 0..1, at picture resolution; zero where not annotated
    known_r: Tensor  # bool: annotated, also if it is annotated that there is none
    boxes: Mapping[str, Sequence[tuple[float, ...]]]  # by region, (x0, y0, x1, y1) in pixels of the picture
    caption: str  # '' where it was dropped
    time_ids_6: Tensor  # float32: original_h, original_w, crop_top, crop_left, target_h, target_w
    key: str
    draw: Draw
    position: int
    notes: tuple[Note, ...] = ()  # records that had to be passed over


@dataclass(frozen=True)
class Batch:
    """Samples stacked; see `Sample` for ranges. `notes` are for the main process to add to its report."""

    pictures_bchw: Tensor
    masks_brhw: Tensor
    known_br: Tensor
    captions: list[str]
    time_ids_b6: Tensor
    keys: list[str]
    draws: list[Draw]
    positions_b: Tensor  # int64
    notes: tuple[Note, ...] = ()

    @property
    def present_br(self) -> Tensor:
        """Bool: some of the region is in view."""
        return self.masks_brhw.flatten(2).sum(dim=2) > 0

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on a device."""
        return replace(
            self,
            pictures_bchw=self.pictures_bchw.to(device, non_blocking=True),
            masks_brhw=self.masks_brhw.to(device, non_blocking=True),
            known_br=self.known_br.to(device, non_blocking=True),
            time_ids_b6=self.time_ids_b6.to(device, non_blocking=True),
            positions_b=self.positions_b.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """Called by a DataLoader with `pin_memory=True`."""
        return replace(
            self,
            pictures_bchw=self.pictures_bchw.pin_memory(),
            masks_brhw=self.masks_brhw.pin_memory(),
            known_br=self.known_br.pin_memory(),
            time_ids_b6=self.time_ids_b6.pin_memory(),
            positions_b=self.positions_b.pin_memory(),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one resolution and one list of regions; the `collate_fn` of a DataLoader."""
    return Batch(
        pictures_bchw=torch.stack([sample.picture_chw for sample in samples]),
        masks_brhw=torch.stack([sample.masks_rhw for sample in samples]),
        known_br=torch.stack([sample.known_r for sample in samples]),
        captions=[sample.caption for sample in samples],
        time_ids_b6=torch.stack([sample.time_ids_6 for sample in samples]),
        keys=[sample.key for sample in samples],
        draws=[sample.draw for sample in samples],
        positions_b=torch.tensor([sample.position for sample in samples], dtype=torch.int64),
        notes=tuple(entry for sample in samples for entry in sample.notes),
    )

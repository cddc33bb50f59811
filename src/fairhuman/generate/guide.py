"""Use ControlNets and T2I-adapters in any pipeline that samples with the U-Net.

    down, mid, inside = Σ strength · residuals, over all guides that are active in this step

The residuals are added by a hook on the U-Net, so text-to-image, image-to-image and previews work alike, also with
several guides. With a single guide, results equal those of diffusers' own ControlNet and adapter pipelines.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.errors import RecipeError
from fairhuman.generate.control_spec import step_in_range
from fairhuman.models.control import Control
from fairhuman.record import CONDITIONS

_ADDED = ("down_block_additional_residuals", "down_intrablock_additional_residuals")  # lists; the third is a tensor
_MID = "mid_block_additional_residual"


@dataclass(frozen=True)
class ActiveControl:
    """A loaded control and its settings.

    Attributes:
        control: the network.
        strength: factor of its residuals.
        start, end: the range of steps in which it is active, as shares 0..1.
        place: folder or hub id.
    """

    control: Control
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    place: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise RecipeError(f"control strength: expected a finite number, found {self.strength}")
        if not 0.0 <= self.start < self.end <= 1.0:
            raise RecipeError(f"control start and end: expected 0 <= start < end <= 1, found {self.start}, {self.end}")

    def active(self, step: int, steps: int) -> bool:
        """Whether the control is active in a step, counted from 0; the same rule as in diffusers' pipelines."""
        return step_in_range(step, steps, self.start, self.end)

    def metadata(self) -> dict[str, Any]:
        """Return the entry for the metadata of an image."""
        return {
            "kind": self.control.KIND,
            "place": self.place,
            "conditions": list(self.control.conditions),
            "strength": self.strength,
            "start": self.start,
            "end": self.end,
        }


def check_conditions_match(guides: Sequence[ActiveControl], names: Sequence[str]) -> None:
    """Check that the guides' conditions and the given conditions `names` are the same.

    Raises:
        RecipeError: names the condition and the option to give.
    """
    followed = {name: guide for guide in guides for name in guide.control.conditions}
    for name, guide in followed.items():
        if name not in names:
            raise RecipeError(
                f"{guide.control.KIND} {guide.place!r} follows {name}: give --control {name}=PLACE, or {name}=none"
            )
    for name in names:
        if name not in followed:
            raise RecipeError(f"--control {name}: no ControlNet or T2I-adapter follows it; give one that does")


@contextmanager
def apply_controls(
    unet: nn.Module, scheduler: Any, guides: Sequence[ActiveControl], conditions: Mapping[str, Tensor]
) -> Iterator[None]:
    """Add the guides' residuals to every call of the U-Net inside the block.

    Args:
        unet: called with latents, timestep, encoder_hidden_states and added_cond_kwargs.
        scheduler: its `timesteps` determine the step of a call.
        guides: may be empty.
        conditions: [B, C, H, W] in 0..1 by name; repeated if the U-Net's batch is a multiple of B, as with guidance.
    """
    pictures = [guide.control.picture(conditions) for guide in guides]
    read: dict[tuple[int, int], Any] = {}  # by guide and batch size: the same in all steps

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        latents, timestep = args
        step = int((scheduler.timesteps == timestep).nonzero()[0])
        for number, (guide, picture) in enumerate(zip(guides, pictures, strict=True)):
            if not guide.active(step, len(scheduler.timesteps)):
                continue
            key = number, len(latents)
            if key not in read:
                repeated = picture.repeat(len(latents) // len(picture), 1, 1, 1)
                read[key] = guide.control.read(repeated, latents.device)
            found = guide.control.residuals(latents, timestep, kwargs, read[key], guide.strength)
            kwargs = {**kwargs, **_sum(kwargs, found)}
        return args, kwargs

    handle = unet.register_forward_pre_hook(add, with_kwargs=True) if guides else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _sum(kwargs: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a guide's residuals `found` plus those of earlier guides in `kwargs`."""
    total = dict(found)
    for name in found.keys() & kwargs.keys():
        before = kwargs[name]
        if name in _ADDED:
            total[name] = [a + b for a, b in zip(before, found[name], strict=True)]
        elif name == _MID:
            total[name] = before + found[name]
    return total


def null_conditions(guides: Sequence[ActiveControl], count: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return zeros [count, C, H, W] of `size` (height, width) for each condition of the guides."""
    names = {name for guide in guides for name in guide.control.conditions}
    return {name: torch.zeros(count, CONDITIONS[name], *size) for name in names}

"""Use ControlNets and T2I-adapters in any pipeline that samples with the U-Net.

    down, mid, inside = Σ strength · residuals, over all guides that are active in this step

The residuals are added by a hook on the U-Net, so text-to-image, image-to-image and previews work alike, also with
several guides. With a single guide, results equal those of diffusers' own ControlNet and adapter pipelines.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from fairhuman.data.samples.conditions import CONDITIONS
from fairhuman.errors import ModelError, RecipeError
from fairhuman.models.architecture import cast
from fairhuman.models.control import Control, load_control_config, stated_conditions
from fairhuman.models.locations import is_hub_id

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


def step_in_range(step: int, steps: int, start: float, end: float) -> bool:
    """Whether a step, counted from 0, lies entirely between the shares `start` and `end` of all steps."""
    return step / steps >= start and (step + 1) / steps <= end


@dataclass(frozen=True)
class ControlSpec:
    """A control as given on the command line: `[CONDITIONS=]PLACE[@STRENGTH]`."""

    place: str
    conditions: tuple[str, ...] | None
    strength: float

    @classmethod
    def parse(cls, text: str) -> "ControlSpec":
        """Parse `[CONDITION[+CONDITION]=]PLACE[@STRENGTH]`, without loading it.

        Raises:
            RecipeError: no place, an unknown condition, or a strength that isn't a finite number.
            ModelError: the place is neither a folder nor a hub id.
        """
        names, sign, rest = text.partition("=")
        known = sign and set(names.split("+")) <= CONDITIONS.keys()
        conditions, rest = (tuple(names.split("+")), rest) if known else (None, text)
        number = re.fullmatch(r"(.+)@([-+.\deE]+)", rest)
        place, strength = (number[1], float(number[2])) if number and _is_finite(number[2]) else (rest, 1.0)
        found = Path(place).is_dir() or is_hub_id(place)
        if not place or (not found and re.search("[=@]", place)):
            raise RecipeError(
                f"control: expected [CONDITIONS=]FOLDER[@STRENGTH], where CONDITIONS are {' or '.join(CONDITIONS)}, or "
                f"both joined by +, and STRENGTH is a finite number; found {text!r}, no folder {place!r}"
            )
        if not found:
            raise ModelError(f"control {place!r}: expected a folder or a hub id, found no such folder")
        return cls(place, conditions, strength)

    def follows(self, kind: type[Control]) -> tuple[str, ...] | None:
        """Return its conditions if known without loading it, otherwise None; raises as `stated_conditions` does."""
        return self.conditions or stated_conditions(kind.KIND, self.place)

    def check(self, kind: type[Control]) -> None:
        """Check a folder's configuration; hub ids aren't checked. Raises as `load_control_config` does."""
        if Path(self.place).is_dir():
            load_control_config(kind, self.place)

    def open(self, kind: type[Control], pipeline: StableDiffusionXLPipeline, start: float, end: float) -> ActiveControl:
        """Load it to the device and dtype of the pipeline's U-Net."""
        control = kind.load(self.place, pipeline, self.conditions)
        cast(control.network, pipeline.unet.dtype)
        control.network.to(pipeline.unet.device).requires_grad_(False).eval()
        return ActiveControl(control, self.strength, start, end, self.place)


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

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        latents, timestep = args
        step = int((scheduler.timesteps == timestep).nonzero()[0])
        for guide, picture in zip(guides, pictures, strict=True):
            if not guide.active(step, len(scheduler.timesteps)):
                continue
            repeated = picture.repeat(len(latents) // len(picture), 1, 1, 1)
            found = guide.control.residuals(latents, timestep, kwargs, repeated, guide.strength)
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


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def null_conditions(guides: Sequence[ActiveControl], count: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return zeros [count, C, H, W] of `size` (height, width) for each condition of the guides."""
    names = {name for guide in guides for name in guide.control.conditions}
    return {name: torch.zeros(count, CONDITIONS[name], *size) for name in names}

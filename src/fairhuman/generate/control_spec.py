"""A ControlNet or T2I-adapter and a place of conditions as they are typed; importing this takes no torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairhuman.errors import DataError, ModelError, RecipeError
from fairhuman.models.locations import is_hub_id
from fairhuman.record import CONDITIONS

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from fairhuman.generate.guide import ActiveControl
    from fairhuman.models.control import Control

NULL = "none"  # PLACE for the null condition, all zeros


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

    def follows(self, kind: "type[Control]") -> tuple[str, ...] | None:
        """Return its conditions if known without loading it, otherwise None; raises as `stated_conditions` does."""
        from fairhuman.models.control import stated_conditions

        return self.conditions or stated_conditions(kind.KIND, self.place)

    def check(self, kind: "type[Control]") -> None:
        """Check a folder's configuration; hub ids aren't checked. Raises as `load_control_config` does."""
        from fairhuman.models.control import load_control_config

        if Path(self.place).is_dir():
            load_control_config(kind, self.place)

    def open(
        self, kind: "type[Control]", pipeline: "StableDiffusionXLPipeline", start: float, end: float
    ) -> "ActiveControl":
        """Load it to the device and dtype of the pipeline's U-Net."""
        from fairhuman.bases.latents import cast
        from fairhuman.generate.guide import ActiveControl

        control = kind.load(self.place, pipeline, self.conditions)
        cast(control.network, pipeline.unet.dtype)
        control.network.to(pipeline.unet.device).requires_grad_(False).eval()
        return ActiveControl(control, self.strength, start, end, self.place)


def parse_controls(controlnets: Sequence[str], adapters: Sequence[str]) -> list[tuple[str, ControlSpec]]:
    """Kinds and specifications of control networks, ControlNets first; errors as of `ControlSpec.parse`."""
    given = (("controlnet", controlnets), ("t2i_adapter", adapters))
    return [(kind, ControlSpec.parse(text)) for kind, texts in given for text in texts]


def parse_conditions(given: Sequence[str]) -> dict[str, str]:
    """Places by condition, of `NAME=PLACE` each; PLACE is `none` or exists.

    Raises:
        RecipeError: an unknown condition, or one given twice.
        DataError: nothing is at a place.
    """
    places: dict[str, str] = {}
    for text in given:
        name, _, place = text.partition("=")
        if name not in CONDITIONS or not place:
            known = " or ".join(f"{known}=PLACE" for known in CONDITIONS)
            raise RecipeError(f"--control: expected {known}, found {text!r}")
        if name in places:
            raise RecipeError(f"--control: {name} is given twice")
        if place != NULL and not Path(place).exists():
            raise DataError(f"--control {text}: there is no such file or folder")
        places[name] = place
    return places


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

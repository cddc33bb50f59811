"""The control options of `fairhuman sample`: ControlNets, T2I-adapters and the conditions that they follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairhuman.errors import RecipeError
from fairhuman.generate.control_spec import ControlSpec, parse_conditions, parse_controls, step_in_range
from fairhuman.generate.settings import SampleSettings

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from fairhuman.generate.control_inputs import ControlInputs
    from fairhuman.generate.guide import ActiveControl

_FOLLOWER = "give --controlnet FOLDER or --t2i-adapter FOLDER, which follows it"


@dataclass(frozen=True)
class ControlOptions:
    """The options as they were typed; `start` and `end` are shares of the steps, 0..1."""

    controlnets: Sequence[str] = ()
    adapters: Sequence[str] = ()
    conditions: Sequence[str] = ()
    start: float = 0.0
    end: float = 1.0

    def specs(self) -> list[tuple[str, ControlSpec]]:
        """Kinds and places of the networks; errors as of `ControlSpec.parse`."""
        return parse_controls(self.controlnets, self.adapters)

    def contents(self) -> list[dict[str, Any]]:
        """What the networks do to a picture: a hash of the weights of each, or its hub id, and how it is used."""
        from fairhuman.models.fingerprint import weights_fingerprint

        window = {"start": self.start, "end": self.end}
        return [
            {
                "kind": kind,
                "weights": weights_fingerprint(Path(spec.place)) or spec.place,
                "conditions": spec.conditions and list(spec.conditions),
                "strength": spec.strength,
                **window,
            }
            for kind, spec in self.specs()
        ]

    def check(self, steps: int) -> None:
        """Check what can be checked without torch, for pictures drawn in `steps`.

        Raises:
            RecipeError: conditions or a window without a network, a window without a step, or a wrong option.
            ModelError, DataError: no such folder, no such file.
        """
        window, found = "--control-start and --control-end", f"{self.start}, {self.end}"
        if not self.controlnets and not self.adapters:
            if self.conditions:
                raise RecipeError(f"--control: {_FOLLOWER}")
            if (self.start, self.end) != (0.0, 1.0):
                raise RecipeError(f"{window}: {_FOLLOWER}; found {found} and neither")
        if not 0.0 <= self.start < self.end <= 1.0:
            raise RecipeError(f"{window}: expected 0 <= start < end <= 1, found {found}")
        if not any(step_in_range(step, steps, self.start, self.end) for step in range(steps)):
            raise RecipeError(f"{window}: expected a whole step between them, found {found} and --steps {steps}")
        self.specs()
        parse_conditions(self.conditions)

    def read(self, count: int, steps: int) -> "ControlInputs":
        """Check what can be checked without the model, and read the conditions of `count` prompts, drawn in `steps`.

        Raises:
            RecipeError, ModelError: as of `check`, or a folder that holds no such network.
            DataError: conditions that can't be used; see `read_control_inputs`.
        """
        from fairhuman.generate.control_inputs import read_control_inputs
        from fairhuman.models.registry import CONTROLS

        self.check(steps)
        for kind, spec in self.specs():
            spec.check(CONTROLS[kind])
        return read_control_inputs(self.conditions, count)

    def open(
        self,
        pipeline: "StableDiffusionXLPipeline",
        asked: "ControlInputs",
        settings: SampleSettings,
        say: Callable[[str], None],
    ) -> "list[ActiveControl]":
        """Load the networks beside the pipeline, check that they and the conditions fit, and say what is missing.

        Raises:
            ModelError: a checkpoint for another model.
            RecipeError: a condition that nothing follows, or one that isn't given.
            DataError: a condition of another aspect ratio.
        """
        from fairhuman.generate.guide import check_conditions_match
        from fairhuman.generate.sample import picture_size
        from fairhuman.models.registry import CONTROLS

        guides = [spec.open(CONTROLS[kind], pipeline, self.start, self.end) for kind, spec in self.specs()]
        check_conditions_match(guides, list(asked.records))
        asked.check(picture_size(pipeline, settings))
        for name, count in asked.missing().items():
            say(f"{name}: {count} of {len(asked.records[name])} prompts have none and get the null condition")
        return guides
